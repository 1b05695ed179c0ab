package queue

import (
	"runtime"
	"sync"
)

// group has what many ask for at the same time done together: whoever comes first does it for all that have
// come by then, and those that come meanwhile are done together next, by the first of them. Nobody waits for
// others than those, and whoever is done goes on at once.
type group[T any] struct {
	mu      sync.Mutex
	busy    bool         // guarded by mu
	waiting []*member[T] // guarded by mu
}

type member[T any] struct {
	item T
	turn chan bool // told true: do it for all; false: it is done
}

// do returns when run was called with item, by this or another goroutine. One run at a time.
func (g *group[T]) do(item T, run func([]T)) {
	g.mu.Lock()
	m := &member[T]{item: item}
	first := !g.busy
	if g.busy = true; !first {
		m.turn = make(chan bool, 1)
	}
	g.waiting = append(g.waiting, m)
	g.mu.Unlock()
	if !first && !<-m.turn {
		return
	}
	runtime.Gosched() // who is about to ask comes along; where nobody is it takes no time
	g.mu.Lock()
	all := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	items := make([]T, len(all))
	for i, x := range all {
		items[i] = x.item
	}
	defer func() { // also when run panics
		for _, x := range all {
			if x != m {
				x.turn <- false
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.waiting) > 0 {
			g.waiting[0].turn <- true
		} else {
			g.busy = false
		}
	}()
	run(items)
}
