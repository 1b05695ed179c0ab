package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// minLoadTime is the least that a start is given even if the function's timeout is shorter: the
// timeout bounds a call, and a call that gives up must not make every later one begin anew.
const minLoadTime = 10 * time.Second

// start makes an instance for the pool and gives its slots to the calls in line. If it can't be
// made, those whom that concerns get the reason.
//
// An instance that serves one call by being its process is made for one call, which is given.
func (w *Worker) start(p *pool, of *waiter) {
	defer w.work.Done()
	ctx, cancel := context.WithTimeout(w.life, max(p.rev.Limits.Timeout.D(), minLoadTime))
	defer cancel()
	began := time.Now() // before secrets are read
	in, wrote, err := w.make(ctx, p, of)
	held := faas.Bytes(0)
	if err == nil {
		if u, e := in.box.Usage(); e == nil {
			held = min(faas.Bytes(u.Memory), p.rev.Limits.Memory)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.noteLoad(p, in.births.load())
		if of == nil && p.rewinds() {
			if p.worthArming() {
				w.mu.Unlock()
				w.arm(in)
				w.mu.Lock()
			} else {
				p.unarmed++
			}
		}
	}
	old := !began.After(p.renewed)
	w.begun(p)
	if err != nil {
		w.reserved -= p.rev.Limits.Memory
		if of != nil {
			of.answer(grant{err: err, log: wrote})
		}
		for n := p.concerned(of); n > 0; n-- {
			p.line.pop().answer(grant{err: err, log: wrote})
		}
		w.aheadFailed(p, of)
		w.grow(p)
		w.feed()
		w.dropIfEmpty(p)
		return
	}
	p.ahead = 0
	if p.book != nil {
		p.book.Costs(in.births.total, held)
	}
	p.instances[in.id] = in
	in.idleSince = time.Now()
	in.leaving = old
	if old && of == nil {
		// It may hold what is no longer so, a secret's older value, and those in line may have come
		// since: they get another.
		w.retire(in, "moved on")
		return
	}
	if of != nil {
		in.active++
		of.answer(grant{in: in})
	}
	for in.active < in.slots && !w.crowded(p, in) {
		wt := w.next(p)
		if wt == nil {
			break
		}
		in.active++
		wt.answer(grant{in: in})
	}
	switch {
	case in.active == 0: // used after those that are warm
		p.free = slices.Insert(p.free, 0, in)
		if held > 0 { // take reserves the rest again
			w.reserved += held - in.held
			in.held = held
		}
	case in.active < in.slots:
		p.free = append(p.free, in)
	}
	if in.active == 0 && w.draining {
		w.retire(in, "moved on")
	}
	if p.oneCall() {
		w.park(p)
	}
	w.feed()
}

// concerned returns for how many of the calls in line the failure of a start is theirs too. Where
// no instance works they would meet the same one by one; where one does it was bad luck, which
// those have whom the new one would have served. The caller holds Worker.mu.
func (p *pool) concerned(of *waiter) int {
	switch {
	case of != nil:
		return 0
	case len(p.instances) == 0:
		return p.line.len()
	}
	return min(p.line.len(), max(1, p.rev.Limits.Concurrency))
}

// make makes an instance. What it wrote is returned even if it fails.
func (w *Worker) make(ctx context.Context, p *pool, of *waiter) (in *instance, wrote []faas.LogLine, err error) {
	began := time.Now()
	if in = w.claim(p); in != nil {
		err = w.makeOf(ctx, p, in, of, began)
		if !isStale(err) {
			return w.born(in, began, err)
		}
		level := slog.LevelWarn
		if errors.Is(err, sandbox.ErrTooLong) { // which any caller may bring about
			level = slog.LevelDebug
		}
		w.cfg.Logger.Log(ctx, level, "a stem was of no use; an instance is made without", "function", p.key.name.String(), "err", err)
		in.close()
	}
	in = &instance{id: newInstanceID(), pool: p, slots: max(1, p.rev.Limits.Concurrency), held: p.rev.Limits.Memory}
	in.births.start = faas.StartCold
	in.stray = &strayLog{limit: p.rev.Limits.Log}
	t := &in.births.timing
	defer func() {
		in, wrote, err = w.born(in, began, err)
	}()

	spec, err := w.spec(ctx, p.rev, p.rt, in, t)
	if err != nil {
		return in, nil, err
	}
	if p.rt.Style == runtimes.StyleFrames {
		how, _ := p.rt.Stem(p.rev)
		if w.cfg.NoStems {
			how.Zygote = nil
		}
		if err = w.startFrames(ctx, in, p.rt, &how, spec, true); err != nil {
			return in, nil, err
		}
		if in.forked {
			in.births.start = faas.StartForked
		}
		t.Add(faas.PhaseProvisioning, time.Since(began))
		addSteps(t, in.box.Steps())
		return in, nil, w.loadCode(ctx, in, true)
	}
	std := &stdio{}
	defer func() {
		std.closeTheirs()
		if err != nil {
			std.close()
		}
	}()
	if of != nil {
		if err = forCall(ctx, &spec, p.rev, of.call.inv); err != nil {
			return in, nil, err
		}
	}
	if err = std.open(in, p.rt.Style, &spec); err != nil {
		return in, nil, &faas.Error{Code: faas.Unavailable, Op: "make pipes", Err: err}
	}
	if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err != nil {
		return in, nil, unsupported(err)
	}
	std.closeTheirs()
	t.Add(faas.PhaseProvisioning, time.Since(began))
	addSteps(t, in.box.Steps())
	if err = w.load(ctx, in, std); err != nil {
		return in, nil, w.explainDeath(ctx, in, err)
	}
	return in, nil, nil
}

// makeOf makes an instance of a stem.
func (w *Worker) makeOf(ctx context.Context, p *pool, in *instance, of *waiter, began time.Time) error {
	in.become(p)
	if in.bare {
		return w.makeBare(ctx, p, in, of, began)
	}
	if err := w.adopt(ctx, in, &in.births.timing); err != nil {
		return err
	}
	return w.loadCode(ctx, in, false)
}

// become makes a stem the pool's.
func (in *instance) become(p *pool) {
	in.pool, in.slots, in.held = p, max(1, p.rev.Limits.Concurrency), p.rev.Limits.Memory
	in.births.start = faas.StartPrewarmed
	in.stray.take() // what the runtime had to say while it booted is nobody's
	in.stray.bound(p.rev.Limits.Log)
}

// born ends the making of an instance, also of one that failed.
func (w *Worker) born(in *instance, began time.Time, failed error) (*instance, []faas.LogLine, error) {
	if failed != nil {
		in.close()
	} else {
		if in.out != nil {
			in.out.aim(in.stray) // once more, which reads it empty
		}
		if tree, err := in.box.Processes(); err == nil {
			slices.Sort(tree)
			in.tree = tree
		}
		w.cfg.Logger.Debug("instance started", "function", in.pool.key.name.String(), "revision", in.pool.key.revision.Short(),
			"instance", in.id, "start", string(in.births.start), "took", time.Since(began))
	}
	wrote := in.stray.take() // what belongs to no call so far is what was written while loading
	in.births.log = wrote
	in.births.total = time.Since(began)
	return in, wrote, explainImage(in.pool.rev, lastWords(failed, wrote))
}

// loadCode gives a process its function and waits until it can take calls.
//
// One that is booting is told at once: it need not do for later what only a stem has the time for.
func (w *Worker) loadCode(ctx context.Context, in *instance, booting bool) error {
	t, rev := &in.births.timing, in.pool.rev
	cpu, mark := in.cpu(), time.Now()
	secrets, err := w.secrets(ctx, rev)
	if err != nil {
		return err
	}
	spec := runtimes.SpecOf(rev, secrets)
	spec.Env = w.environ(in, rev, secrets)
	if in.seeded() {
		spec.Seed = newSeed()
	}
	if err := in.frames.Begin(spec); err != nil {
		return w.explainDeath(ctx, in, err)
	}
	if booting {
		if _, err := in.frames.Hello(ctx); err != nil {
			return w.explainDeath(ctx, in, err)
		}
		now := in.cpu()
		t.Add(faas.PhaseRuntimeLoad, time.Since(mark))
		t.AddCPU(faas.PhaseRuntimeLoad, now-cpu)
		cpu, mark = now, time.Now()
	}
	delayed, _ := in.box.Delayed()
	loaded, err := in.frames.Loaded(ctx)
	if err != nil {
		return w.explainDeath(ctx, in, err)
	}
	all := time.Since(mark)
	dep := min(time.Duration(loaded.DependencyUS)*time.Microsecond, all)
	t.Add(faas.PhaseDependencies, dep)
	t.Add(faas.PhaseCodeLoad, all-dep)
	used := in.cpu() - cpu
	t.AddCPU(faas.PhaseCodeLoad, used)
	// What the code itself is worth: neither the moments in which others had the processors, nor
	// those in which nobody read that it was done.
	in.births.loaded = min(dep+time.Duration(loaded.CodeUS)*time.Microsecond, all)
	if later, err := in.box.Delayed(); err == nil {
		in.births.loaded = max(in.births.loaded-(later-delayed), min(used, in.births.loaded))
	}
	return nil
}

// seeded says whether the process needs randomness from us at its load, since its own may be that
// of others, or will be its own once more after a rewind.
func (in *instance) seeded() bool { return in.forked || in.pool.oneCall() }

// newSeed returns fresh randomness for a process whose own may be another's.
func newSeed() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// load waits until a process that is started with its code can take calls.
func (w *Worker) load(ctx context.Context, in *instance, std *stdio) error {
	t, rev := &in.births.timing, in.pool.rev
	cpu, mark := in.cpu(), time.Now()
	switch in.pool.rt.Style {
	case runtimes.StyleLines:
		in.conn = runtimes.NewLines(runtimes.LinesConfig{Stdin: std.in, Conn: in.box.Conn(), Log: in.stray, Response: rev.Limits.Response})
	case runtimes.StyleExec:
		in.conn = &execConn{in: in, std: std}
	case runtimes.StyleLoop:
		l := runtimes.NewLoop(runtimes.LoopConfig{Stdin: std.in, Conn: in.box.Conn(), Revision: rev})
		in.conn = l
		if err := l.Ready(ctx, in.box.Done()); err != nil {
			return err
		}
		t.Add(faas.PhaseCodeLoad, time.Since(mark))
		t.AddCPU(faas.PhaseCodeLoad, in.cpu()-cpu)
	default:
		if err := w.awaitServer(ctx, in); err != nil {
			return err
		}
		t.Add(faas.PhaseCodeLoad, time.Since(mark))
		t.AddCPU(faas.PhaseCodeLoad, in.cpu()-cpu)
	}
	return nil
}

// awaitServer waits until a server can take calls.
func (w *Worker) awaitServer(ctx context.Context, in *instance) error {
	rev := in.pool.rev
	switch in.pool.rt.Style {
	case runtimes.StyleAction:
		return w.initAction(ctx, in, in.code)
	case runtimes.StyleEvents:
		c := runtimes.NewEvents(runtimes.EventsConfig{Listener: in.box.Listener(), Revision: rev})
		in.conn = c
		return c.Ready(ctx, in.box.Done())
	}
	c := runtimes.NewHTTPConn(runtimes.HTTPConfigOf(rev, in.box.Dial))
	in.conn = c
	return c.Ready(ctx, in.box.Done())
}

// spec says what sandbox the revision needs; the code is laid out on this machine for it.
func (w *Worker) spec(ctx context.Context, rev *faas.Revision, rt *runtimes.Runtime, in *instance, t *faas.Timing) (sandbox.Spec, error) {
	mark := time.Now()
	trees, release, err := w.trees(ctx, rev, t)
	if err != nil {
		return sandbox.Spec{}, err
	}
	in.release, in.layers = release, rev.Layers
	t.Add(faas.PhaseFetch, time.Since(mark))
	args, env, mounts := rt.Command(rev)
	spec := sandbox.Spec{
		Name: in.id, Hostname: hostname(rev.Name.Function), Args: args, Env: env, Dir: "/code",
		Mounts: trees,
		Tmp:    int64(rev.Limits.Tmp), Memory: int64(rev.Limits.Memory), CPU: rev.Limits.CPU, PIDs: rev.Limits.PIDs,
		Network: rev.Network == faas.NetworkEgress, Door: rev.Network == faas.NetworkEgress,
		Conn: rt.Style == runtimes.StyleFrames || rt.Style == runtimes.StyleLines || rt.Style == runtimes.StyleLoop,
	}
	if rev.Code != "" {
		in.code = trees[0].Source
	}
	if rev.Image != nil {
		free, err := w.ofImage(ctx, rev, &spec, t)
		if err != nil {
			return spec, err
		}
		in.release = also(in.release, free)
	}
	if rt.Style == runtimes.StyleEvents {
		spec.Listen = runtimes.EventsAddress
	}
	for _, m := range mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	if rt.Style != runtimes.StyleFrames { // frames carry it in LOAD, so that it is nowhere in /proc
		secrets, err := w.secrets(ctx, rev)
		if err != nil {
			return spec, err
		}
		for k, v := range w.environ(in, rev, secrets) {
			spec.Env = append(spec.Env, k+"="+v)
		}
		slices.Sort(spec.Env)
	}
	return spec, nil
}

// trees lays a revision's code and layers out on this machine and returns how they are mounted, the
// code first; an image may have none. They stay until release. What they are and where they were is
// put into t.
func (w *Worker) trees(ctx context.Context, rev *faas.Revision, t *faas.Timing) (mounts []sandbox.Mount, release func(), err error) {
	all := make([]faas.Tree, 0, 1+len(rev.Layers))
	if rev.Code != "" {
		all = append(all, faas.Tree{Target: runtimes.CodeTarget(rev), Digest: rev.Code, Bytes: rev.CodeBytes})
	}
	for _, l := range rev.Layers {
		all = append(all, faas.Tree{Target: l.Target, Digest: l.Digest, Bytes: l.Bytes})
	}
	release = func() {}
	for i := range all {
		mark := time.Now()
		dir, from, free, err := w.cfg.Depot.TreeFrom(ctx, all[i].Digest)
		if err != nil {
			release()
			return nil, nil, faas.AsError(err)
		}
		all[i].From, all[i].US = from, time.Since(mark).Microseconds()
		if i == 0 {
			release = free
		} else {
			release = also(release, free)
		}
		mounts = append(mounts, sandbox.Mount{Source: dir, Target: all[i].Target})
	}
	t.SetTrees(all)
	return mounts, release, nil
}

// secrets opens the values that the revision names.
func (w *Worker) secrets(ctx context.Context, rev *faas.Revision) (map[string]string, error) {
	if len(rev.Secrets) == 0 {
		return nil, nil
	}
	values, _, err := w.cfg.Secrets(ctx, rev.Name.Namespace, rev.Secrets)
	return values, err
}

// cpu returns the processor time that the instance has used so far; 0 if it can't be known.
func (in *instance) cpu() time.Duration {
	d, err := in.box.CPU()
	if err != nil {
		return 0
	}
	return d
}

func addSteps(t *faas.Timing, steps []sandbox.Step) {
	for _, s := range steps {
		switch s.Name {
		case "cgroup":
			t.Add(faas.PhaseCgroup, s.Took)
		case "network":
			t.Add(faas.PhaseNetwork, s.Took)
		case "spawn":
			t.Add(faas.PhaseSpawn, s.Took)
		}
	}
}

// newInstanceID is short, and random so that it tells nothing of how many there are.
func newInstanceID() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return "i-" + hex.EncodeToString(b[:])
}

// hostname makes a DNS label of a function's name.
func hostname(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-' && i > 0 && i < len(b)-1:
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		default:
			b[i] = 'x'
		}
	}
	if len(b) == 0 {
		return "code"
	}
	return string(b)
}
