package worker

import (
	"runtime"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// scale notes the load of the last second and returns how many instances the pool shall have, and
// why that is the least. The caller holds mu.
func (w *Worker) scale(p *pool, working int, now time.Time) (want int, why kept) {
	if p.key.name.Function == faas.AdHoc {
		return 0, why // most of it is never called again
	}
	calls := float64(p.line.len())
	for _, in := range p.instances {
		if in.active > 0 {
			calls += float64(in.active)
		}
	}
	// Calls that are shorter than a second are seldom seen under way: their time tells of them.
	underWay, perSecond := p.pace.served(now)
	calls = max(calls, underWay)
	if p.queues() {
		calls = policy.Demand(calls, perSecond, runtime.NumCPU(), p.pace.known())
	}
	p.load60.Note(now.Unix(), calls)

	open, until := p.windows.Open(now, readyBefore)
	least := p.rev.Limits.MinInstances
	if p.key.caller != "" {
		least = 0 // the function's own has them
	}
	why = kept{why: keptMin}
	if open > least {
		least, why = open, kept{keptWindow, until}
	}
	p.wanted = policy.Scale(policy.ScaleConfig{
		Min: least, Max: p.rev.Limits.MaxInstances, Target: policy.Target(p.rev.Limits.Target, p.rev.Limits.Concurrency),
	}, &p.load60, len(p.instances)+p.starting, now.Unix())
	want = p.wanted.Instances
	if want > least {
		why = kept{why: keptLoad}
		// Where more of them would only take the processors from each other, those that stand do. Calls
		// that wait in spite of that have theirs made by lookAfter.
		if !p.oneCall() && (w.busy || w.shouldWait(p)) {
			want = max(least, min(want, len(p.instances)))
		}
		// Those that serve one call and go are replaced by park, as many as the busiest second asked for.
		if p.oneCall() && !p.rewinds() {
			want = max(least, min(want, len(p.instances)))
		}
	}
	return want, why
}

// busyNow looks whether the processors had hardly any time left since it was asked the last time.
func (w *Worker) busyNow() bool {
	up, idle, ok := readUptime()
	passed, spare := up-w.upSeen, idle-w.idleSeen
	w.upSeen, w.idleSeen = up, idle
	return ok && passed > 0 && float64(spare) < busyShare*float64(passed)*float64(runtime.NumCPU())
}
