package worker

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// A call that waits for an instance that stands gets one of its own after all when none becomes
// free, because those before it take longer than calls did.
func TestACallThatWaitsIsLookedAfter(t *testing.T) {
	w := New(Config{Starts: 1})
	w.starting = 1 // nothing is really started: the pool stays hungry, which shows that it asked
	p := w.pool(&faas.Revision{Limits: faas.DefaultLimits()}, &runtimes.Runtime{Style: runtimes.StyleFrames})
	for i := range runtime.NumCPU() + 1 {
		p.instances[fmt.Sprint(i)] = &instance{active: 1, slots: 1}
	}
	for range 100 {
		p.pace.note(100*time.Microsecond, 50*time.Microsecond)
	}
	w.mu.Lock()
	p.line.push(&waiter{since: time.Now(), ready: make(chan grant, 1)})
	if !w.waits(p) {
		t.Error("a call does not wait for short ones")
	}
	hungry := p.inHungry
	w.mu.Unlock()
	if hungry {
		t.Error("another instance was asked for at once")
	}
	for !hungry { // until the test's own deadline
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		hungry = p.inHungry
		w.mu.Unlock()
	}
	w.mu.Lock()
	p.line.pop()
	w.mu.Unlock()
}

// Where processes wait for a processor, as many that take long among some that don't tell, calls
// are still known for short.
func TestPaceIsThatOfCallsThatNothingHoldsUp(t *testing.T) {
	var p pace
	for i := range 1000 {
		took := 3 * time.Millisecond
		if i%5 == 0 {
			took = 200 * time.Microsecond
		}
		p.note(took, took)
	}
	if got := time.Duration(p.least.Load()); got > time.Millisecond {
		t.Errorf("calls take %v, want about what the short ones do", got)
	}
	for range 1000 {
		p.note(50*time.Millisecond, 0)
	}
	if got := time.Duration(p.least.Load()); got < 10*time.Millisecond {
		t.Errorf("calls take %v when all of them take 50 ms", got)
	}
}
