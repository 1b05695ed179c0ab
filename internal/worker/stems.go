package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// stemClass tells stems apart that cannot serve the same functions: a namespace of the network
// and what the runtime itself tells apart are given to a process for life.
//
// Stems with an owner are armed, so that they can be put back after a call and serve another
// function of that owner. Those without have never served anybody.
type stemClass struct {
	name    string // of runtimes.Stem
	network faas.Network
	owner   string // a namespace, whose calls they serve, anyone, or empty
}

// anyone owns the stems of functions that may share a process with those of other namespaces.
const anyone = "*"

// stems are the processes of one class that are booted and confined and wait for a function. All
// fields save the first three are guarded by Worker.mu.
type stems struct {
	class stemClass
	rt    *runtimes.Runtime
	how   runtimes.Stem

	ready  []*instance // the newest last; it is taken first, since the machine's caches know it best
	making int
	boots  int // of those that are being made, not forked
	claims policy.Claims
	size   faas.Bytes // what the last one made held
	fails  int        // in a row
	retry  time.Time  // not before this, after failures
	used   time.Time  // when a function last asked for the class
}

const (
	// stemsMade is how many of a class are made at once. More would only take the processor from
	// the calls that wait for it.
	stemsMade = 2
	// stemWait lets the call that took a stem go first: to make the next one takes some
	// milliseconds of a processor.
	stemWait = 4 * time.Millisecond
	// stemSize is what a stem is expected to hold before one was measured.
	stemSize = 16 * faas.MiB
	// minStemSize is the least that a stem is expected to hold.
	minStemSize = 256 * faas.KiB
	// stemTime bounds the boot of a stem.
	stemTime = 30 * time.Second
	// classKeep is how long stems of a class are kept that no function has asked for.
	classKeep = time.Hour
	// maxRetry is the longest pause between attempts to make a stem where they fail.
	maxRetry = time.Minute
)

// base is how many stems wait of a class that nobody has asked for lately. Forked ones share
// most of their memory, and a burst empties them first.
func (s *stems) base() int {
	switch {
	case s.class.owner != "":
		return 1
	case s.how.Zygote != nil && !s.how.Spare || s.how.Bare:
		return 4
	}
	return 2
}

// maxStems is how many stems of a class there ever are.
const maxStems = 256

// stemsOf returns the stems with a process that can load a pool's revision, nil if there are none. The
// caller holds mu.
func (w *Worker) stemsOf(p *pool) *stems {
	if s := w.anyStems(p.rev, p.rt, p.key.tenant()); s != nil && !s.how.Bare {
		return s
	}
	return nil
}

// anyStems returns the stems that can serve a revision to a namespace, bare ones too, nil if none can. The caller
// holds mu.
func (w *Worker) anyStems(rev *faas.Revision, rt *runtimes.Runtime, tenant string) *stems {
	if w.cfg.NoStems {
		return nil
	}
	how, ok := rt.Stem(rev)
	if !ok || how.Bare && !w.cfg.Sandbox.Waits() {
		return nil
	}
	class := stemClass{how.Class, rev.Network, ""}
	switch {
	case !rewindable(rev, rt):
	case rev.Reuse == faas.ReuseAny && w.cfg.ReuseAny:
		class.owner = anyone
	case rev.Reuse == faas.ReuseTenant || rev.Reuse == faas.ReuseAny:
		class.owner = tenant
	}
	s := w.stems[class]
	if s == nil {
		s = &stems{class: class, rt: rt, how: how, size: stemSize}
		w.stems[class] = s
	}
	s.used = time.Now()
	return s
}

// Expect has stems made ahead for a revision that may be called.
func (w *Worker) Expect(rev *faas.Revision) {
	rt, err := w.cfg.Runtimes.Lookup(rev.Runtime)
	if err != nil {
		return // a call will say why
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.anyStems(rev, rt, rev.Name.Namespace); s != nil && !w.draining {
		w.refill(s)
		if s.how.Spare {
			w.trial(rt, &s.how) // so that it is known when there is need
		}
	}
}

// claim takes a stem for the pool, nil if none is ready. What it held is no longer counted: the
// caller has reserved what the instance may come to hold.
func (w *Worker) claim(p *pool) *instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.anyStems(p.rev, p.rt, p.key.tenant())
	if s == nil || w.draining {
		return nil
	}
	s.claims.Add(time.Now().Unix())
	in := w.popStem(s)
	w.refill(s)
	return in
}

// popStem takes a live stem out. The caller holds mu.
func (w *Worker) popStem(s *stems) *instance {
	for len(s.ready) > 0 {
		in := s.ready[len(s.ready)-1]
		s.ready = s.ready[:len(s.ready)-1]
		if in.died() {
			w.dropStem(in)
			continue
		}
		w.reserved -= in.held
		return in
	}
	return nil
}

// refill begins to make as many stems as the class lacks. The caller holds mu.
func (w *Worker) refill(s *stems) {
	now := time.Now()
	if w.draining || now.Before(s.retry) {
		return
	}
	c, busiest := policy.StemConfig{Base: s.base(), Max: maxStems}, s.claims.Busiest(now.Unix())
	want := policy.Stems(c, busiest)
	g := w.zygotes[s.how.Class]
	for len(s.ready)+s.making < want && w.stemRoom(s.size) {
		fork, made := s.how.Zygote != nil, s.making
		if s.how.Spare {
			fork = policy.Fork(c, len(s.ready), s.booted(), busiest)
			switch {
			case g == nil || !g.up.Load():
			case fork: // who is in need does not wait for what boots
				made -= s.boots
			default:
				made = s.boots
			}
		}
		if made >= stemsMade {
			break
		}
		s.making++
		if !fork {
			s.boots++
		}
		w.stemming += s.size
		w.work.Add(1)
		go w.makeStem(s, s.size, fork, len(s.ready)+s.making > want/2)
	}
}

// booted counts the stems that were not forked, with those that are being made. The caller holds mu.
func (s *stems) booted() int {
	n := s.boots
	for _, in := range s.ready {
		if !in.forked {
			n++
		}
	}
	return n
}

// stemRoom says whether there is memory for one more stem that nobody else has a use for. The
// caller holds mu.
func (w *Worker) stemRoom(size faas.Bytes) bool {
	return w.stemMemory()+w.stemming+size <= w.cfg.StemMemory && w.reserved+w.stemming+size <= w.memory() && len(w.hungry) == 0
}

// adopt makes a claimed stem an instance of the pool: its code is mounted, its limits are set.
func (w *Worker) adopt(ctx context.Context, in *instance, t *faas.Timing) error {
	began := time.Now()
	rev := in.pool.rev
	trees, release, err := w.trees(ctx, rev, t)
	if err != nil {
		return err
	}
	t.Add(faas.PhaseFetch, time.Since(began))
	mark := time.Now()
	err = in.box.Adopt(ctx, sandbox.Claim{
		Hostname: hostname(rev.Name.Function), Mounts: trees, Drop: in.strange(rev),
		Tmp: int64(rev.Limits.Tmp), Memory: int64(rev.Limits.Memory), CPU: rev.Limits.CPU, PIDs: rev.Limits.PIDs,
	})
	if in.release != nil {
		in.release() // of the function it served before, whose code was mounted till now
	}
	in.release = release
	if err != nil {
		return &staleStem{err}
	}
	t.Add(faas.PhaseSpawn, time.Since(mark))
	t.Add(faas.PhaseProvisioning, time.Since(began))
	return nil
}

// staleStem is what is wrong with a stem rather than with the function that was to get it.
type staleStem struct{ err error }

func (e *staleStem) Error() string { return "claim a stem: " + e.err.Error() }
func (e *staleStem) Unwrap() error { return e.err }

// status says what waits. The caller holds Worker.mu.
func (s *stems) status() faas.StemStatus {
	out := faas.StemStatus{Class: s.class.name, Network: s.class.network, Ready: len(s.ready), Making: s.making}
	for _, in := range s.ready {
		out.Memory += in.held
		if in.forked {
			out.Forked++
		}
	}
	return out
}

// dropStem ends a stem that was taken out of its class. The caller holds mu.
func (w *Worker) dropStem(in *instance) {
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		in.close()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= in.held
		w.feed()
	}()
}

// dropStems ends stems that hold at least need together, the largest classes first, or all of
// them; it returns what is still needed. The caller holds mu.
func (w *Worker) dropStems(need faas.Bytes) faas.Bytes {
	for need > 0 {
		var most *stems
		for _, s := range w.stems {
			if len(s.ready) > 0 && (most == nil || len(s.ready) > len(most.ready)) {
				most = s
			}
		}
		if most == nil {
			break
		}
		in := most.ready[0]
		most.ready = most.ready[1:]
		// Not at once again: who takes the memory now needs it.
		most.retry = time.Now().Add(time.Second)
		need -= in.held
		w.dropStem(in)
	}
	return need
}

// stemMemory is what all waiting stems hold. The caller holds mu.
func (w *Worker) stemMemory() (sum faas.Bytes) {
	for _, s := range w.stems {
		for _, in := range s.ready {
			sum += in.held
		}
	}
	return sum
}

// tendStems replaces stems that died, lets classes shrink and go that nobody asks for, and has
// those made that are missing. The caller holds mu.
func (w *Worker) tendStems(now time.Time) {
	w.tendZygotes(now)
	for class, s := range w.stems {
		s.ready = slices.DeleteFunc(s.ready, func(in *instance) bool {
			dead := in.died()
			if dead {
				w.dropStem(in)
			}
			return dead
		})
		if now.Sub(s.used) > classKeep {
			w.emptyStems(s, 0)
			if s.making == 0 {
				delete(w.stems, class)
			}
			continue
		}
		w.emptyStems(s, policy.Stems(policy.StemConfig{Base: s.base(), Max: maxStems}, s.claims.Busiest(now.Unix())))
		w.refill(s)
	}
}

// ForgetNamespace ends the stems of a namespace that is no more.
func (w *Worker) ForgetNamespace(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for class, s := range w.stems {
		if class.owner == namespace {
			w.emptyStems(s, 0)
			delete(w.stems, class) // those that are being made find this out
		}
	}
}

// emptyStems ends the oldest stems of a class until n are left, those first that were made for need
// only. The caller holds mu.
func (w *Worker) emptyStems(s *stems, n int) {
	for len(s.ready) > n {
		at := 0
		if s.how.Spare {
			at = max(0, slices.IndexFunc(s.ready, func(in *instance) bool { return in.forked }))
		}
		w.dropStem(s.ready[at])
		s.ready = slices.Delete(s.ready, at, at+1)
	}
}

// isStale says whether a start may have failed for the stem's sake, so that another way may do. A
// process that died while it loaded may have been dying when it was claimed; if it was the code's
// doing, a process of its own will show that.
func isStale(err error) bool {
	_, stale := errors.AsType[*staleStem](err)
	return stale || err != nil && faas.CodeOf(err) == faas.Crashed
}
