package worker

import (
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// A call that comes from an instance may be waited for there. Such calls are followed, so that those
// which wait for each other in a ring are told so, rather than that all of them stand still until
// their time is over.

// stuckFor is how long a call has waited in line before it is asked whether it ever gets out. Most
// never come that far.
const stuckFor = 2 * time.Second

// nested is what is known of calls that came from instances.
type nested struct {
	waiting atomic.Int64                   // that have no instance yet
	served  map[string]map[*call]*instance // by the instance from which they came: those that serve them; guarded by Worker.mu
}

// serves notes that an instance has begun with a call.
func (w *Worker) serves(in *instance, c *call) {
	if c.from == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nested.served == nil {
		w.nested.served = map[string]map[*call]*instance{}
	}
	if w.nested.served[c.from] == nil {
		w.nested.served[c.from] = map[*call]*instance{}
	}
	w.nested.served[c.from][c] = in
}

// served notes that it has ended. The caller holds mu.
func (w *Worker) served(c *call) {
	if calls := w.nested.served[c.from]; calls != nil {
		delete(calls, c)
		if len(calls) == 0 {
			delete(w.nested.served, c.from)
		}
	}
}

// untangle refuses a call in line if it is one of those that wait for each other: the youngest, whose
// caller has lost least. That may be enough for all others; if not, there is the next second.
func (w *Worker) untangle(now time.Time) {
	if w.nested.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.mayBeTangled(now) {
		return
	}
	var holders []policy.Holder
	var lines []policy.Line
	at := map[string]int{} // holders by their ids
	lineOf := map[*pool]int{}
	for _, p := range w.pools {
		lineOf[p] = len(lines)
		most := p.rev.Limits.MaxInstances
		l := policy.Line{
			Namespace: p.key.tenant(), Need: p.rev.Limits.Memory, Full: most > 0 && len(p.instances)+p.starting >= most,
			Making: p.starting > 0 || p.cleansing > 0,
		}
		for id, in := range p.instances {
			if in.active == 0 && !in.leaving {
				l.Idle = true
				continue
			}
			at[id] = len(holders)
			holders = append(holders, policy.Holder{Namespace: l.Namespace, Line: len(lines), Held: in.held, Calls: in.active})
		}
		lines = append(lines, l)
	}
	asked := func(from string, a policy.Asked) {
		if i, there := at[from]; there {
			holders[i].Asked = append(holders[i].Asked, a)
		}
	}
	for from, calls := range w.nested.served {
		for c, in := range calls {
			if i, there := at[in.id]; there && c.awaited() {
				asked(from, policy.Asked{Holder: i})
			}
		}
	}
	for _, p := range w.pools {
		for wt := range p.line.all() {
			if wt.call.awaited() {
				asked(wt.call.from, policy.Asked{Holder: -1, Line: lineOf[p]})
			}
		}
	}
	stuck := policy.Stuck(holders, lines, w.memory(), w.census(now).atWork)
	var last *waiter
	var of *pool
	for _, p := range w.pools {
		for wt := range p.line.all() {
			i, there := at[wt.call.from]
			if there && stuck[i] && wt.mayBeStuck(now) && (last == nil || wt.since.After(last.since)) {
				last, of = wt, p
			}
		}
	}
	if last == nil || !of.line.leave(last) {
		return
	}
	last.answer(grant{err: of.wouldNeverEnd()})
	w.dropIfEmpty(of)
}

// mayBeTangled says whether there is a call in line that could be one of those. The caller holds mu.
func (w *Worker) mayBeTangled(now time.Time) bool {
	for _, p := range w.pools {
		for wt := range p.line.all() {
			if wt.mayBeStuck(now) {
				return true
			}
		}
	}
	return false
}

func (wt *waiter) mayBeStuck(now time.Time) bool {
	return now.Sub(wt.since) >= stuckFor && wt.call.awaited()
}

// awaited says whether the instance from which the call came may still wait for it.
func (c *call) awaited() bool {
	select {
	case <-c.gone:
		return false
	default:
		return c.from != ""
	}
}

// wouldNeverEnd refuses a call that is waited for by those that it waits for. The caller holds
// Worker.mu.
func (p *pool) wouldNeverEnd() error {
	limit, fix := "memory_bytes", "give the server more memory with the key memory, or the functions less: brasa deploy PATH --memory SIZE"
	if most := p.rev.Limits.MaxInstances; most > 0 && len(p.instances)+p.starting >= most {
		limit, fix = "max_instances", "let the function have more instances: brasa deploy PATH --max-instances N"
	}
	return faas.Errorf(faas.Overloaded, "wait for instance", "the call would wait forever: all instances that could make room for it are held by calls that wait for calls such as this one").
		WithLimit(limit).WithFix("do not wait for calls within calls, or %s", fix)
}
