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
	frames  *runtimes.Conn // conn, where the runtime speaks frames
	forked  bool           // from a zygote; fixed after start
	bare    bool           // its stem was a sandbox without a process of a runtime; fixed after start
	quick   bool           // its load has not been written up; its first call's to use
	broken  bool           // its code could not be loaded, though a call came with it; the same
	out     *logPipe       // what is written to descriptors 1 and 2
	stray   *strayLog
	code    string       // where its code lies on this machine; empty: it has none
	release func()       // gives back the places of the code and its layers in the cache
	layers  []faas.Layer // that are mounted, of the revision it serves or has served last
	births  births       // how it came to be; fixed after start
	slots   int          // calls at once; fixed after start
	tree    []int        // processes after load, sorted; nil: not known

	// Guarded by Worker.mu.
	active     int
	calls      int64
	idleSince  time.Time
	held       faas.Bytes // reserved for it
	home       stemClass  // where it goes back to after a call, as a stem; zero: nowhere
	armed      bool       // it can be rewound to its state after load
	rewound    bool       // since its last call
	rewinds    int64
	rewindTook time.Duration
	ending     bool
	leaving    bool // ends when its calls have ended
	weight     int  // of processors, in thousandths, where it is another than its revision's; 0: it is not
	kept       kept // why it stayed when last looked at

	used atomic.Bool // a call, or the proof, has taken the times of its birth

	books books
}

// births are the times that making an instance took.
type births struct {
	timing faas.Timing
	start  faas.Start
	total  time.Duration
	log    []faas.LogLine
	loaded time.Duration // what the code took to load, save for waiting for a processor; 0: not known
}

// load returns how long the function's own code took to load. On a busy machine a function that is
// quick to load may seem dear, and an instance kept ready for it, if it counts that others ran.
func (b *births) load() time.Duration {
	if b.loaded > 0 {
		return b.loaded
	}
	dep, _ := b.timing.Get(faas.PhaseDependencies)
	code, _ := b.timing.Get(faas.PhaseCodeLoad)
	return dep + code
}

func (in *instance) status(now time.Time) faas.InstanceStatus {
	s := faas.InstanceStatus{
		ID: in.id, Function: in.pool.key.name, Revision: in.pool.key.revision,
		Calls: in.calls, Active: in.active, Spare: in.active == 0 && in.spare(), Memory: in.held, Rewinds: in.rewinds, RewindUS: in.rewindTook.Microseconds(),
	}
	if in.active == 0 {
		s.Idle = faas.Duration(now.Sub(in.idleSince))
		s.Kept = in.kept.text(now)
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
		in.tellStray(p.rev, w.cfg.Stray)
		w.cfg.Logger.Debug("instance ended", "function", p.key.name.String(), "revision", p.key.revision.Short(),
			"instance", in.id, "why", why, "calls", in.calls)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= in.held
		if in.armed {
			w.countCopies()
		}
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

// strange returns where layers are mounted that a revision does not have: those of the function that
// the process served before. It notes that the revision's are mounted next.
func (in *instance) strange(rev *faas.Revision) (targets []string) {
	for _, l := range in.layers {
		if !slices.ContainsFunc(rev.Layers, func(own faas.Layer) bool { return own.Target == l.Target }) {
			targets = append(targets, l.Target)
		}
	}
	in.layers = rev.Layers
	return targets
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
	in.books.close()
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
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served(c)
	p := in.pool
	clean := c.inv.Kind == faas.KindProof // nothing of the function ran but its load
	if !clean {
		in.calls++
		in.rewound = false
	}
	again := w.mayServe(in, clean)
	if next == keep && again && !clean && p.oneCall() && !in.ending && !in.leaving && !w.draining {
		if in.home != (stemClass{}) {
			w.sendHome(in)
		} else {
			w.cleanse(in)
		}
		return
	}
	in.active--
	if in.ending {
		return
	}
	if next == leave && !in.leaving {
		w.drainInstance(in) // takes it out of the free ones
	}
	over := in.leaving || !again || w.draining
	if next == end || over && in.active == 0 {
		w.retire(in, "done")
		if p.book != nil {
			p.book.Rested(p.working(), time.Now())
		}
		if p.oneCall() {
			w.park(p)
		}
		return
	}
	if over {
		return
	}
	w.offer(in, held)
}

// mayServe says whether the instance may serve another call after one; clean says that there was
// none. The caller holds mu.
func (w *Worker) mayServe(in *instance, clean bool) bool {
	switch {
	case in.pool.rt.Style == runtimes.StyleExec:
		return false
	case clean || !in.pool.oneCall():
		return true
	}
	return in.armed || in.home != (stemClass{})
}

// offer gives the instance's free slots to the calls in line, or to whoever comes. The caller
// holds mu.
func (w *Worker) offer(in *instance, held faas.Bytes) {
	p := in.pool
	if in.active == 0 && w.givesWay(in) {
		w.retire(in, "gave way")
		return
	}
	for in.active < in.slots && !w.crowded(p, in) {
		wt := w.next(p)
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
		in.idleSince = time.Now()
		if held > 0 {
			held = min(held, p.rev.Limits.Memory)
			w.reserved += held - in.held
			in.held = held
		}
		if p.book != nil {
			p.book.Rested(p.working(), in.idleSince)
			p.book.Costs(0, held)
		}
		w.feed()
	}
}
