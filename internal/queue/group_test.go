package queue

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Everything that is asked for is done once, before whoever asked goes on, by one at a time and together with
// what came meanwhile.
func TestGroup(t *testing.T) {
	var g group[int]
	var running, runs atomic.Int32
	done := map[int]int{} // by one run at a time
	var mu sync.Mutex     // for who looks
	run := func(items []int) {
		if running.Add(1) != 1 {
			t.Error("two run at once")
		}
		defer running.Add(-1)
		runs.Add(1)
		mu.Lock()
		defer mu.Unlock()
		for _, i := range items {
			done[i]++
		}
	}
	const workers, each = 32, 200
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				item := w*each + i
				g.do(item, run)
				mu.Lock()
				if done[item] != 1 {
					t.Errorf("%d was done %d times", item, done[item])
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(done) != workers*each {
		t.Errorf("%d were done, want %d", len(done), workers*each)
	}

	// Those that come while one is under way are done together.
	first, begun := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		g.do(-1, func([]int) {
			close(begun)
			<-first
		})
	})
	<-begun
	before := runs.Load()
	for i := range workers {
		wg.Go(func() { g.do(-2-i, run) })
	}
	for waiting := 0; waiting < workers; {
		g.mu.Lock()
		waiting = len(g.waiting)
		g.mu.Unlock()
	}
	close(first)
	wg.Wait()
	if n := runs.Load() - before; n != 1 {
		t.Errorf("%d that came meanwhile took %d runs", workers, n)
	}
}

// What panics does not keep those who wait.
func TestGroupPanics(t *testing.T) {
	var g group[int]
	func() {
		defer func() { _ = recover() }()
		g.do(1, func([]int) { panic("on purpose") })
	}()
	ran := false
	g.do(2, func([]int) { ran = true })
	if !ran {
		t.Error("nothing runs after a panic")
	}
}
