package worker

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// conn is the way to talk to a loaded instance; each style of runtime has one.
type conn interface {
	RoundTrip(ctx context.Context, inv *faas.Invocation, logs runtimes.LogSink) (*faas.Result, error)
	Close() error
}

// instance is a sandbox with one revision loaded.
type instance struct {
	id      string
	pool    *pool
	box     *sandbox.Sandbox
	conn    conn
	out     *logPipe // what is written to descriptors 1 and 2
	stray   *strayLog
	release func() // gives back the code's place in the cache
	births  births // how it came to be; fixed after start
	slots   int    // calls at once; fixed after start
	tree    []int  // processes after load, sorted; nil: not known

	// Guarded by Worker.mu.
	active    int
	calls     int64
	idleSince time.Time
	held      faas.Bytes // reserved for it
	ending    bool
	leaving   bool // ends when its calls have ended

	used atomic.Bool // a call, or the proof, has taken the times of its birth
}

// births are the times that making an instance took.
type births struct {
	timing faas.Timing
	start  faas.Start
	total  time.Duration
	log    []faas.LogLine
}

func (in *instance) status(now time.Time) faas.InstanceStatus {
	s := faas.InstanceStatus{
		ID: in.id, Function: in.pool.key.name, Revision: in.pool.key.revision,
		Calls: in.calls, Active: in.active, Memory: in.held,
	}
	if in.active == 0 {
		s.Idle = faas.Duration(now.Sub(in.idleSince))
	}
	return s
}

// retire takes the instance out of its pool and ends it. Calls that it still serves end with it.
// The caller holds mu.
func (w *Worker) retire(in *instance, why string) {
	if in.ending {
		return
	}
	in.ending = true
	p := in.pool
	p.free = slices.DeleteFunc(p.free, func(x *instance) bool { return x == in })
	delete(p.instances, in.id)
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		in.close()
		in.tellStray(w.cfg.Stray)
		w.cfg.Logger.Debug("instance ended", "function", p.key.name.String(), "revision", p.key.revision.Short(),
			"instance", in.id, "why", why, "calls", in.calls)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= in.held
		w.grow(p) // calls may wait for one of a bounded number
		w.feed()
		w.dropIfEmpty(p)
	}()
}

// died says whether the instance's process has ended by itself.
func (in *instance) died() bool {
	select {
	case <-in.box.Done():
		return true
	default:
		return false
	}
}

// drainInstance ends the instance as soon as it serves no call. The caller holds mu.
func (w *Worker) drainInstance(in *instance) {
	in.leaving = true
	if in.active == 0 {
		w.retire(in, "moved on")
		return
	}
	p := in.pool
	p.free = slices.DeleteFunc(p.free, func(x *instance) bool { return x == in })
}

func (in *instance) close() {
	if in.conn != nil {
		_ = in.conn.Close() // the sandbox goes anyway
	}
	if in.box != nil {
		_ = in.box.Close()
	}
	if in.out != nil {
		in.out.close()
	}
	if in.release != nil {
		in.release()
	}
}

// fate is what becomes of an instance after a call.
type fate uint8

const (
	keep  fate = iota // it may serve the next
	leave             // it serves no new call, and is ended when those it serves have ended
	end               // it is ended now
)

// release gives back a call's slot. held is what the instance holds now, 0 if that is not known:
// an idle one counts at that and not at what it may grow to.
func (w *Worker) release(in *instance, c *call, next fate, held faas.Bytes) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	p := in.pool
	in.active--
	if c.inv.Kind != faas.KindProof {
		in.calls++
	}
	if in.ending {
		return
	}
	if next == leave && !in.leaving {
		w.drainInstance(in) // takes it out of the free ones
	}
	over := in.leaving || p.rt.Style == runtimes.StyleExec || (p.rev.Reuse == faas.ReuseNever || p.rev.State == faas.StatePristine) && c.inv.Kind != faas.KindProof || w.draining
	if next == end || over && in.active == 0 {
		w.retire(in, "done")
		return
	}
	if over {
		return
	}
	for in.active < in.slots {
		wt := p.line.pop()
		if wt == nil {
			break
		}
		in.active++
		wt.answer(grant{in: in})
	}
	if in.active < in.slots && !slices.Contains(p.free, in) {
		p.free = append(p.free, in)
	}
	if in.active == 0 {
		in.idleSince = now
		if held > 0 {
			held = min(held, p.rev.Limits.Memory)
			w.reserved += held - in.held
			in.held = held
		}
		w.feed()
	}
}
