package worker

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// A quick start is a call's own doing: it claims a stem on its own goroutine, and sends the
// function and itself in one breath. That saves three wake-ups against the way of all other
// starts, a third of the time of a cold call, and is done unless the code is known to take long to
// load: a caller who gives up must not have every later one begin anew (unquick).

const (
	// quickLoad is the longest load that is waited for as a part of the call.
	quickLoad = 10 * time.Millisecond
	// maxLoads is of how many revisions it is remembered how long they took to load.
	maxLoads = 20_000
	// quickMargin is the part of the memory, one in so many, that quick starts leave free.
	quickMargin = 8
)

// noteLoad remembers how long a revision took to load. The caller holds mu.
func (w *Worker) noteLoad(p *pool, took time.Duration) {
	p.load = took
	if len(w.loads) >= maxLoads {
		for id := range w.loads { // any half of them; each is learned again at its next start
			delete(w.loads, id)
			if len(w.loads) <= maxLoads/2 {
				break
			}
		}
	}
	w.loads[p.key.revision] = took
}

// quickStem takes a stem for a quick start of the pool, nil if there shall be none. It is an
// instance of the pool then, with its slot taken. The caller holds mu.
func (w *Worker) quickStem(p *pool) *instance {
	load, known := w.loads[p.key.revision]
	if known && load > quickLoad || p.line.len() > 0 || p.cleansing > 0 || p.rev.Limits.Concurrency > 1 || len(p.rev.Secrets) > 0 || len(w.hungry) > 0 {
		return nil
	}
	if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting >= n {
		return nil
	}
	if !p.oneCall() && w.shouldWait(p) {
		return nil
	}
	if p.rewinds() {
		if p.unarmed >= unarmedMost {
			return nil
		}
		p.unarmed++
	}
	if w.reserved+p.rev.Limits.Memory > w.memory()-w.memory()/quickMargin {
		return nil // memory is scarce: grow knows whose turn it is
	}
	s := w.stemsOf(p)
	if s == nil {
		return nil
	}
	in := w.popStem(s)
	if in == nil {
		return nil
	}
	s.claims.Add(time.Now().Unix())
	w.refill(s)
	w.reserved += p.rev.Limits.Memory
	if p.book != nil {
		p.book.Needed(p.working(), time.Now())
	}
	in.become(p)
	in.quick = true
	in.active = 1
	in.idleSince = time.Now()
	in.used.Store(true)
	p.load = load
	p.instances[in.id] = in
	return in
}

// quickStart gives the stem the pool's function, and does not wait for it to load.
func (w *Worker) quickStart(in *instance, c *call) error {
	ctx, cancel := context.WithTimeout(w.life, minLoadTime)
	defer cancel()
	t := &c.inv.Timing
	t.Add(faas.PhaseQueue, 0)
	if err := w.adopt(ctx, in, t); err != nil {
		return err
	}
	spec := runtimes.SpecOf(in.pool.rev, nil)
	spec.Env = w.lasting(in.pool.rev, nil)
	addMissing(spec.Env, runtimes.LoadEnv(in.pool.rev, c.inv))
	if in.seeded() {
		spec.Seed = newSeed()
	}
	if err := in.frames.Begin(spec); err != nil {
		return &staleStem{err}
	}
	c.inv.Report.Start = in.births.start
	c.inv.Report.Instance = in.id
	return nil
}

// abandon ends an instance that could not be started quickly.
func (w *Worker) abandon(in *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retire(in, "stale")
}

// settle writes up how the load went of an instance that was started quickly, when its first call
// has its answer. It returns when the call itself began.
func (w *Worker) settle(in *instance, c *call, began time.Time, failed error) time.Time {
	in.quick = false
	over, cancel := context.WithCancel(context.Background())
	cancel() // what is not known by now is not waited for
	loaded, err := in.frames.Loaded(over)
	for _, l := range in.stray.take() { // written while it loaded
		c.log.Log(l)
	}
	if err != nil {
		in.broken = true
		if failed != nil {
			w.unquick(in)
		}
		if c.foreign && failed != nil {
			c.inv.Timing.Add(faas.PhaseCodeLoad, time.Since(began)) // and nothing of the call has run
			return time.Now()
		}
		return began
	}
	all := time.Since(began)
	dep := min(time.Duration(loaded.DependencyUS)*time.Microsecond, all)
	code := min(time.Duration(loaded.CodeUS)*time.Microsecond, all-dep)
	w.mu.Lock()
	for _, t := range []*faas.Timing{&c.inv.Timing, &in.births.timing} {
		t.Add(faas.PhaseDependencies, dep)
		t.Add(faas.PhaseCodeLoad, code)
	}
	w.noteLoad(in.pool, dep+code)
	if b := in.pool.book; b != nil {
		made, _ := c.inv.Timing.Get(faas.PhaseProvisioning)
		b.Costs(made+dep+code, 0)
	}
	w.mu.Unlock()
	return began.Add(dep + code)
}

// unquick is for a function whose code did not load in the time of its call: it is started as all
// others are from now on, and once at once, for whoever comes next.
func (w *Worker) unquick(in *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// The pool may have been dropped already, with its last instance gone: what is begun in that one
	// nobody would ever find.
	p := w.poolFor(in.pool.key, in.pool.rev, in.pool.rt)
	defer w.dropIfEmpty(p)
	w.noteLoad(p, 2*quickLoad)
	if w.draining || in.leaving || p.starting > 0 || !w.mayStart(p) || w.reserved+p.rev.Limits.Memory > w.memory() {
		return
	}
	if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting > n {
		return
	}
	w.reserved += p.rev.Limits.Memory
	w.begins(p)
	go w.start(p, nil)
}

// runQuick runs a call with an instance that was started quickly. A stem that was dying when it was
// claimed has run nothing of the call's, which then gets an instance like all others.
func (w *Worker) runQuick(ctx context.Context, in *instance, rev *faas.Revision, rt *runtimes.Runtime, c *call) (res *faas.Result, loading bool, err error) {
	again := replay(c.inv)
	res, err = w.run(ctx, in, c)
	if err == nil || again == nil || !in.broken || faas.CodeOf(err) != faas.Crashed || ctx.Err() != nil {
		return res, in.broken, err
	}
	again()
	c.slow = true
	if in, err = w.acquire(ctx, rev, rt, c); err != nil {
		c.report()
		return nil, true, faas.AsError(err)
	}
	res, err = w.run(ctx, in, c)
	return res, false, err
}

// replay keeps a short body, so that it can be sent once more; it returns nil for a long one.
func replay(inv *faas.Invocation) (again func()) {
	if inv.Body == nil || inv.Length == 0 {
		return func() {}
	}
	if inv.Length < 0 || inv.Length > runtimes.MaxWhole {
		return nil
	}
	kept := make([]byte, inv.Length)
	n, err := io.ReadFull(inv.Body, kept)
	if err != nil {
		inv.Body = io.MultiReader(bytes.NewReader(kept[:n]), inv.Body) // whoever reads on meets the same
		return nil
	}
	body := bytes.NewReader(kept)
	inv.Body = body
	return func() { body.Reset(kept) }
}
