package worker

import (
	"runtime"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// What namespaces have of the node is counted when it matters, which is when there is not enough
// for all: package policy says who gets what, here is seen what they have.

const (
	// censusFresh is how old the count of what namespaces have may be. It takes some microseconds for
	// each hundred instances, and each call that ends may ask for it.
	censusFresh = 5 * time.Millisecond
	// weighEvery is how often instances are given their weights while several namespaces are at work.
	weighEvery = 250 * time.Millisecond
)

// tenants is what was last counted. It is guarded by Worker.mu.
type tenants struct {
	at     time.Time
	all    map[string]policy.Tenant
	atWork int // namespaces that have calls, or had some of late
}

// owed is what a namespace waits for that has less than is fair. It is guarded by Worker.mu.
type owed struct {
	namespace string // empty: nothing is owed
	need      faas.Bytes
	given     faas.Bytes // that others have given up for it
}

// census counts what each namespace has. The caller holds mu.
func (w *Worker) census(now time.Time) *tenants {
	t := &w.tenants
	if now.Sub(t.at) < censusFresh && t.all != nil {
		return t
	}
	t.at, t.all, t.atWork = now, map[string]policy.Tenant{}, 0
	recent := map[string]bool{}
	for _, p := range w.pools {
		ns := p.key.tenant()
		has := t.all[ns]
		has.Starting += p.starting
		has.Held += faas.Bytes(p.starting) * p.rev.Limits.Memory
		for _, in := range p.instances {
			has.Held += in.held
		}
		t.all[ns] = has
		if !recent[ns] && (now.Sub(p.called) < policy.Recent || p.line.len() > 0 || p.working() > 0) {
			recent[ns] = true
		}
	}
	t.atWork = len(recent)
	return t
}

// startingOf returns how many starts of the namespace go on. The caller holds mu.
func (w *Worker) tenantStarting(namespace string) policy.Tenant {
	return policy.Tenant{Starting: w.startingBy[namespace]}
}

// mayStart says whether the pool may have another instance made now. The caller holds mu.
func (w *Worker) mayStart(p *pool) bool {
	return policy.MayStart(w.cfg.Starts, w.starting, w.tenantStarting(p.key.tenant()))
}

// begins counts a start. The caller holds mu and has reserved its memory.
func (w *Worker) begins(p *pool) {
	p.starting++
	w.starting++
	w.startingBy[p.key.tenant()]++
	w.work.Add(1)
}

// begun is the end of it. The caller holds mu.
func (w *Worker) begun(p *pool) {
	p.starting--
	w.starting--
	ns := p.key.tenant()
	if w.startingBy[ns]--; w.startingBy[ns] <= 0 {
		delete(w.startingBy, ns)
	}
}

// nextHungry returns the place of the pool that is to be fed next, and whether its namespace has no
// more than is fair. The caller holds mu and has seen that there is one.
func (w *Worker) nextHungry(now time.Time) (place int, poor bool) {
	if len(w.hungry) == 1 && w.owed.namespace == "" && len(w.startingBy) < 2 {
		return 0, true
	}
	t := w.census(now)
	fair := policy.Fair(w.memory(), t.atWork)
	all := make([]policy.Hungry, len(w.hungry))
	for i, p := range w.hungry {
		ns := p.key.tenant()
		all[i] = policy.Hungry{Tenant: t.all[ns], Need: p.rev.Limits.Memory}
		all[i].Starting = w.startingBy[ns]
	}
	place = policy.NextFed(all, fair)
	return place, all[place].Held+all[place].Need <= fair
}

// givesWay says whether an idle instance is to be ended for a namespace that has less than is fair,
// though its own function may have calls in line. The caller holds mu.
func (w *Worker) givesWay(in *instance) bool {
	o := &w.owed
	ns := in.pool.key.tenant()
	if o.namespace == "" || o.namespace == ns || o.given >= o.need {
		return false
	}
	t := w.census(time.Now())
	if !policy.GivesWay(t.all[ns], t.all[o.namespace], o.need, policy.Fair(w.memory(), t.atWork)) {
		return false
	}
	o.given += in.held
	return true
}

// weigh has instances of namespaces that work with many at once count for less where processors are
// scarce, so that one which works with a few gets as much.
func (w *Worker) weigh() {
	type change struct {
		in     *instance
		weight int
	}
	var changes []change
	w.mu.Lock()
	working := map[string]int{}
	for _, p := range w.pools {
		if n := p.working(); n > 0 {
			working[p.key.tenant()] += n
		}
	}
	now := time.Now()
	crowd := false
	for _, n := range working {
		crowd = crowd || n > runtime.NumCPU()
	}
	if crowd || w.weighed {
		atWork := w.census(now).atWork
		w.weighed = false
		for _, p := range w.pools {
			for _, in := range p.instances {
				if in.active == 0 || in.box == nil {
					w.weighed = w.weighed || in.weight != 0
					continue
				}
				own := p.rev.Limits.CPU
				if own == 0 {
					own = wholeCore
				}
				weight := policy.Weight(own, working[p.key.tenant()], runtime.NumCPU(), atWork)
				if weight == own {
					weight = 0
				}
				if weight != in.weight {
					in.weight = weight
					changes = append(changes, change{in, max(weight, 0)})
					if weight == 0 {
						changes[len(changes)-1].weight = own
					}
				}
				w.weighed = w.weighed || weight != 0
			}
		}
	}
	w.mu.Unlock()
	for _, c := range changes {
		if err := c.in.box.Weigh(c.weight); err != nil {
			w.cfg.Logger.Debug("instance not weighed", "instance", c.in.id, "err", err)
			return
		}
	}
}

// wholeCore is what an instance counts with that asks for no share of a processor, in thousandths.
const wholeCore = 1000
