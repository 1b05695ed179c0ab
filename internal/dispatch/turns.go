package dispatch

import (
	"slices"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
)

// pullMost is how many calls of a function are taken at once: few, so that all have their turn.
const pullMost = 16

// turns says whose turn it is: one namespace after the other, and in each one function after the
// other, as far as they have calls that are due and places free.
type turns struct {
	cfg AsyncConfig

	mu    sync.Mutex
	all   int                 // guarded by mu; calls under way
	under map[string]int      // guarded by mu; by namespace
	of    map[faas.Name]int   // guarded by mu; by function
	due   map[string]*nsTurns // guarded by mu; namespaces with functions that are due
	ring  []string            // guarded by mu; these, the next first
	known map[faas.Name]bool  // guarded by mu; functions that are due
}

type nsTurns struct {
	ring []faas.Name // the next first
}

func newTurns(cfg AsyncConfig) *turns {
	return &turns{cfg: cfg, under: map[string]int{}, of: map[faas.Name]int{}, due: map[string]*nsTurns{}, known: map[faas.Name]bool{}}
}

// ready adds functions that have calls which are due.
func (t *turns) ready(names []faas.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		if t.known[n] {
			continue
		}
		t.known[n] = true
		ns := t.due[n.Namespace]
		if ns == nil {
			ns = &nsTurns{}
			t.due[n.Namespace] = ns
			t.ring = append(t.ring, n.Namespace)
		}
		ns.ring = append(ns.ring, n)
	}
}

// full says whether all places are taken.
func (t *turns) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all >= t.cfg.All
}

// next returns the function whose turn it is and how many of its calls may begin; their places are
// taken. Whoever had a turn comes last the next time.
func (t *turns) next() (name faas.Name, n int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	free := t.cfg.All - t.all
	if free <= 0 {
		return name, 0, false
	}
	for i, ns := range t.ring {
		mine := min(t.cfg.Namespace-t.under[ns], share(t.under[ns], free, t.cfg.Namespace, t.cfg.All))
		if mine <= 0 {
			continue
		}
		ring := t.due[ns].ring
		for k, f := range ring {
			own := min(t.cfg.Function-t.of[f], share(t.of[f], t.cfg.Namespace-t.under[ns], t.cfg.Function, t.cfg.Namespace))
			if own <= 0 {
				continue
			}
			// When there are few places left each takes its part of them only.
			n = min(own, max(mine/len(ring), 1), max(free/len(t.ring), 1), pullMost)
			t.due[ns].ring = append(slices.Delete(ring, k, k+1), f)
			t.ring = append(slices.Delete(t.ring, i, i+1), ns)
			t.all += n
			t.under[ns] += n
			t.of[f] += n
			return f, n, true
		}
	}
	return name, 0, false
}

// share says how many more of the free places one may take that has some: no more than leaves it with
// twice what is free then, or with what it may have alone. So several that take all they can, for hours
// perhaps, leave places for whoever comes after them.
func share(has, free, most, all int) int {
	times := 2
	if all > most {
		times = max(times, (most+all-most-1)/(all-most))
	} else {
		return free
	}
	return (times*(free+1) - has) / (times + 1)
}

// took says how many calls there were of those that next gave places to. A function that has fewer
// is not due until it is said to be again.
func (t *turns) took(name faas.Name, n, got int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.give(name, n-got)
	if got >= n || !t.known[name] {
		return
	}
	delete(t.known, name)
	ns := t.due[name.Namespace]
	ns.ring = slices.DeleteFunc(ns.ring, func(f faas.Name) bool { return f == name })
	if len(ns.ring) == 0 {
		delete(t.due, name.Namespace)
		t.ring = slices.DeleteFunc(t.ring, func(other string) bool { return other == name.Namespace })
	}
}

// release gives back the place of a call that has ended.
func (t *turns) release(name faas.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.give(name, 1)
}

// give is called with mu held.
func (t *turns) give(name faas.Name, n int) {
	t.all -= n
	if t.under[name.Namespace] -= n; t.under[name.Namespace] == 0 {
		delete(t.under, name.Namespace)
	}
	if t.of[name] -= n; t.of[name] == 0 {
		delete(t.of, name)
	}
}
