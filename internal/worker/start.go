package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
	w.mu.Lock()
	defer w.mu.Unlock()
	old := !began.After(p.renewed)
	p.starting--
	w.starting--
	if err != nil {
		w.reserved -= p.rev.Limits.Memory
		if of != nil {
			of.answer(grant{err: err, log: wrote})
		}
		for n := p.concerned(of); n > 0; n-- {
			p.line.pop().answer(grant{err: err, log: wrote})
		}
		w.grow(p)
		w.feed()
		w.dropIfEmpty(p)
		return
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
	for in.active < in.slots {
		wt := p.line.pop()
		if wt == nil {
			break
		}
		in.active++
		wt.answer(grant{in: in})
	}
	if in.active < in.slots {
		p.free = append(p.free, in)
	}
	if in.active == 0 && w.draining {
		w.retire(in, "moved on")
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
	in = &instance{id: newInstanceID(), pool: p, slots: max(1, p.rev.Limits.Concurrency), held: p.rev.Limits.Memory}
	in.births.start = faas.StartCold
	in.stray = &strayLog{limit: p.rev.Limits.Log}
	t := &in.births.timing
	defer func() {
		if err != nil {
			in.close()
		}
		wrote = in.stray.take() // what belongs to no call so far is what was written while loading
		err = lastWords(err, wrote)
		in.births.log = wrote
		in.births.total = time.Since(began)
	}()

	spec, err := w.spec(ctx, p.rev, p.rt, in, t)
	if err != nil {
		return in, nil, err
	}
	std := &stdio{}
	defer func() {
		std.closeTheirs()
		if err != nil {
			std.close()
		}
	}()
	if of != nil {
		spec.Env = append(spec.Env, runtimes.ExecEnv(of.call.inv)...)
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
	if in.out != nil {
		in.out.aim(in.stray) // once more, which reads it empty
	}
	if tree, e := in.box.Processes(); e == nil {
		slices.Sort(tree)
		in.tree = tree
	}
	w.cfg.Logger.Debug("instance started", "function", p.key.name.String(), "revision", p.key.revision.Short(),
		"instance", in.id, "start", string(in.births.start), "took", time.Since(began))
	return in, nil, nil
}

// load waits until the process in the sandbox can take calls.
func (w *Worker) load(ctx context.Context, in *instance, std *stdio) error {
	t, rev := &in.births.timing, in.pool.rev
	cpu := in.cpu()
	mark := time.Now()
	phase := func(p faas.Phase, took time.Duration) {
		now := in.cpu()
		t.Add(p, took)
		t.AddCPU(p, now-cpu)
		cpu = now
	}
	switch in.pool.rt.Style {
	case runtimes.StyleFrames:
		c := runtimes.NewConn(in.box.Conn(), runtimes.Options{Log: in.stray})
		in.conn = c
		if _, err := c.Hello(ctx); err != nil {
			return err
		}
		phase(faas.PhaseRuntimeLoad, time.Since(mark))
		mark = time.Now()
		secrets, err := w.secrets(ctx, rev)
		if err != nil {
			return err
		}
		loaded, err := c.Load(ctx, runtimes.SpecOf(rev, secrets))
		if err != nil {
			return err
		}
		all := time.Since(mark)
		dep := min(time.Duration(loaded.DependencyUS)*time.Microsecond, all)
		t.Add(faas.PhaseDependencies, dep)
		phase(faas.PhaseCodeLoad, all-dep)
	case runtimes.StyleLines:
		in.conn = runtimes.NewLines(runtimes.LinesConfig{Stdin: std.in, Conn: in.box.Conn(), Log: in.stray, Response: rev.Limits.Response})
	case runtimes.StyleHTTP:
		c := runtimes.NewHTTPConn(runtimes.HTTPConfig{Dial: in.box.Dial, Response: rev.Limits.Response})
		in.conn = c
		if err := c.Ready(ctx, in.box.Done()); err != nil {
			return err
		}
		phase(faas.PhaseCodeLoad, time.Since(mark))
	case runtimes.StyleExec:
		in.conn = &execConn{in: in, std: std}
	}
	return nil
}

// spec says what sandbox the revision needs; the code is laid out on this machine for it.
func (w *Worker) spec(ctx context.Context, rev *faas.Revision, rt *runtimes.Runtime, in *instance, t *faas.Timing) (sandbox.Spec, error) {
	mark := time.Now()
	code, release, err := w.cfg.Depot.Tree(ctx, rev.Code)
	if err != nil {
		return sandbox.Spec{}, faas.AsError(err)
	}
	in.release = release
	t.Add(faas.PhaseFetch, time.Since(mark))
	args, env, mounts := rt.Command(rev)
	spec := sandbox.Spec{
		Name: in.id, Hostname: hostname(rev.Name.Function), Args: args, Env: env, Dir: "/code",
		Mounts: []sandbox.Mount{{Source: code, Target: "/code"}},
		Tmp:    int64(rev.Limits.Tmp), Memory: int64(rev.Limits.Memory), CPU: rev.Limits.CPU, PIDs: rev.Limits.PIDs,
		Network: rev.Network == faas.NetworkEgress,
		Conn:    rt.Style == runtimes.StyleFrames || rt.Style == runtimes.StyleLines,
	}
	for _, m := range mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	if rt.Style != runtimes.StyleFrames { // frames carry it in LOAD, so that it is nowhere in /proc
		secrets, err := w.secrets(ctx, rev)
		if err != nil {
			return spec, err
		}
		for k, v := range runtimes.Environ(rev, secrets) {
			spec.Env = append(spec.Env, k+"="+v)
		}
		slices.Sort(spec.Env)
	}
	return spec, nil
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
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-' && i > 0:
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
