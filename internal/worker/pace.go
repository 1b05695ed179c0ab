package worker

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

// pace is how long a pool's calls take when nothing holds them up.
type pace struct {
	takes atomic.Int64 // ns; 0: nothing known
	timed bool         // a timer will look after those in line; guarded by Worker.mu
}

// note takes a call that has ended into account. Shorter ones count for sixteen times as much as
// longer ones: where processes wait for a processor a mean would tell of that.
func (p *pace) note(took time.Duration) {
	old := p.takes.Load()
	change := int64(took) - old
	switch {
	case old == 0:
	case change < 0:
		change /= 4
	default:
		change /= 64
	}
	p.takes.Store(old + change) // one that is lost to another call's does not matter
}

// waits says whether those in line should wait for an instance that stands, and sees to it that
// they don't for long. The caller holds mu.
func (w *Worker) waits(p *pool) bool {
	if p.rt.Style == runtimes.StyleExec || p.oneCall() {
		return false
	}
	if !policy.Wait(len(p.instances), runtime.NumCPU(), p.line.len(), time.Duration(p.pace.takes.Load())) {
		return false
	}
	w.lookAfter(p, policy.WaitMost)
	return true
}

// lookAfter makes more instances if the first in line has waited for too long. The caller holds mu.
func (w *Worker) lookAfter(p *pool, in time.Duration) {
	if p.pace.timed {
		return
	}
	p.pace.timed = true
	time.AfterFunc(in, func() { // if the worker has closed meanwhile, nobody is in line
		w.mu.Lock()
		defer w.mu.Unlock()
		p.pace.timed = false
		first := p.line.first()
		if first == nil || w.draining {
			return
		}
		if left := policy.WaitMost - time.Since(first.since); left > 0 {
			w.lookAfter(p, left)
			return
		}
		w.grow(p)
		w.lookAfter(p, policy.WaitMost)
	})
}
