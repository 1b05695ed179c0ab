package worker

import (
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

// pace is how long a pool's calls take.
type pace struct {
	took       atomic.Int64 // ns that calls took together since asked; of each at most what tendEvery is
	ended      atomic.Int64 // calls that have, since asked
	asked      time.Time    // guarded by Worker.mu
	least, cpu atomic.Int64 // ns; 0: nothing known. A change that is lost to another call's does not matter
	timed      bool         // a timer will look after those in line; guarded by Worker.mu
	run        float64      // share of instances at work that have or want a processor, of late; guarded by Worker.mu
	starved    bool         // they do, and processors are busy; guarded by Worker.mu
	judged     time.Time    // when that was seen; guarded by Worker.mu
}

// note takes a call that has ended into account. The least that a call takes is about what a tenth
// of them stay below: where processes wait for a processor a mean would tell of that, so a longer call
// counts for little, and for no more the longer it is.
func (p *pace) note(took, cpu time.Duration) {
	longest := took
	if least := time.Duration(p.least.Load()); least > 0 {
		longest = 2 * least
	}
	towards(&p.least, min(took, longest), 4, 64)
	towards(&p.cpu, cpu, 16, 16)
	p.took.Add(int64(min(took, tendEvery)))
	p.ended.Add(1)
}

// served returns how many calls were under way on average since it was asked the last time, and how
// many have ended each second. The caller holds Worker.mu.
func (p *pace) served(now time.Time) (underWay, perSecond float64) {
	took, ended, since := p.took.Swap(0), p.ended.Swap(0), now.Sub(p.asked)
	p.asked = now
	if since < tendEvery/2 || since > 10*tendEvery {
		return 0, 0
	}
	return float64(took) / float64(since), float64(ended) / since.Seconds()
}

func towards(v *atomic.Int64, to time.Duration, down, up int64) {
	old := v.Load()
	change := int64(to) - old
	switch {
	case old == 0:
	case change < 0:
		change /= down
	default:
		change /= up
	}
	v.Store(old + change)
}

func (p *pace) known() policy.Pace {
	return policy.Pace{Least: time.Duration(p.least.Load()), CPU: time.Duration(p.cpu.Load())}
}

// lookAgain is how often a pool with calls in line is looked after.
const lookAgain = 10 * time.Millisecond

// queues says whether calls of the pool may wait for instances that stand. Where each needs one of
// its own they wait for nothing.
func (p *pool) queues() bool {
	return p.rt.Style != runtimes.StyleExec && !p.oneCall()
}

// waits says whether those in line should wait for an instance that stands, and sees to it that
// they don't for long. The caller holds mu.
func (w *Worker) waits(p *pool) bool {
	if !p.queues() {
		return false
	}
	w.lookAfter(p, policy.WaitMost)
	return w.shouldWait(p)
}

// shouldWait says whether a call of the pool should wait for an instance that stands. The caller
// holds mu.
func (w *Worker) shouldWait(p *pool) bool {
	return policy.Wait(len(p.instances), runtime.NumCPU(), p.hasStarved(time.Now()), p.pace.known())
}

// hasStarved says what was last seen, if it is still of use. The caller holds mu.
func (p *pool) hasStarved(now time.Time) bool {
	return p.pace.starved && now.Sub(p.pace.judged) <= busyFresh
}

// crowded says whether as many of the pool's instances work as have use for it, besides save which
// may be nil. The caller holds mu.
func (w *Worker) crowded(p *pool, save *instance) bool {
	if !p.pace.starved || !p.queues() {
		return false
	}
	working := len(p.instances) - len(p.free)
	if save != nil && !slices.Contains(p.free, save) {
		working--
	}
	return working >= policy.Crowd(runtime.NumCPU()) && w.shouldWait(p)
}

// lookAfter makes more instances if the first in line has waited for too long. The caller holds mu.
func (w *Worker) lookAfter(p *pool, in time.Duration) {
	if p.pace.timed {
		return
	}
	p.pace.timed = true
	w.processors.look(time.Now())
	time.AfterFunc(in, func() { // if the worker has closed meanwhile, nobody is in line
		known := w.judge(p)
		w.mu.Lock()
		defer w.mu.Unlock()
		p.pace.timed = false
		first := p.line.first()
		if first == nil || w.draining {
			return
		}
		if policy.GrowAfterAll(time.Since(first.since), p.pace.starved, known) {
			p.pace.starved = false // until the next look
			// One at a time: to start several takes the processors from those that stand, so that even
			// more seem to be needed.
			w.growBy(p, max(1-p.starting, 0))
		}
		w.lookAfter(p, lookAgain)
	})
}

// judge looks whether the pool's instances are starved, unless that was done a moment ago, and
// returns whether that is known.
func (w *Worker) judge(p *pool) (known bool) {
	now := time.Now()
	w.mu.Lock()
	recent := now.Sub(p.pace.judged) < judgeEvery
	w.mu.Unlock()
	if recent {
		return true
	}
	busy, known := w.processors.look(now)
	if !known {
		return false
	}
	run := 0.0
	if busy {
		run = runShare(w.atWork(p))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	pc := &p.pace
	if now.Sub(pc.judged) > busyFresh {
		pc.run = run
	} else { // one look finds some of them between two calls
		pc.run += (run - pc.run) / 4
	}
	pc.starved, pc.judged = busy && (pc.run >= starvedShare || pc.known().Computes()), now
	return true
}

const (
	// judgeEvery is how often it is looked whether instances are starved, which takes a fifth of a
	// millisecond for some processes of many threads.
	judgeEvery = 25 * time.Millisecond
	// starvedShare is the share of instances at work that have or want a processor, from which on
	// that is what they wait for. It is not all of them: those that have answered are seen too, until
	// the server has had a processor to take note of it.
	starvedShare = 0.25
)

// atWork returns the processes of some of the pool's instances that work.
func (w *Worker) atWork(p *pool) (pids []int) {
	const some = 4
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, in := range p.instances {
		if in.active > 0 && len(pids) < some {
			pids = append(pids, in.tree...)
		}
	}
	return pids
}
