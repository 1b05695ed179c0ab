package worker

import (
	"context"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// makeStem makes one stem, by a fork if it can be. expected is what it was expected to hold;
// unhurried ones wait a moment.
func (w *Worker) makeStem(s *stems, expected faas.Bytes, fork, unhurried bool) {
	defer w.work.Done()
	if unhurried {
		select {
		case <-time.After(stemWait):
		case <-w.life.Done():
		}
	}
	ctx, cancel := context.WithTimeout(w.life, stemTime)
	defer cancel()
	in, err := w.newStem(ctx, s, fork)
	if err != nil {
		in.close()
	}
	if in.forked {
		w.noteFork(s.how.Class, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.making--
	if !fork {
		s.boots--
	}
	w.stemming -= expected
	if err != nil {
		if w.draining {
			return
		}
		s.fails++
		pause := min(time.Second<<min(s.fails-1, 10), maxRetry)
		s.retry = time.Now().Add(pause)
		w.cfg.Logger.Log(ctx, surprise(err), "stem not made; calls start cold meanwhile", "class", s.class.name, "again_in", pause, "err", err)
		return
	}
	s.fails = 0
	s.size = max(in.held, minStemSize)
	w.reserved += in.held
	if in.home != (stemClass{}) {
		w.countCopies()
	}
	if w.draining || w.stems[s.class] != s {
		w.dropStem(in)
		return
	}
	s.ready = append(s.ready, in)
	w.refill(s)
}

// newStem starts or forks a process and waits until it has booted. What it returns must be closed
// even if it failed.
func (w *Worker) newStem(ctx context.Context, s *stems, fork bool) (*instance, error) {
	began := time.Now()
	in := &instance{id: newInstanceID(), stray: &strayLog{limit: faas.DefaultLimits().Log}}
	l := faas.DefaultLimits()
	spec := sandbox.Spec{
		Name: in.id, Hostname: "function", Args: s.how.Args, Env: s.how.Env, Dir: "/tmp",
		Tmp: int64(l.Tmp), Memory: int64(l.Memory), CPU: l.CPU, PIDs: l.PIDs,
		Network: s.class.network == faas.NetworkEgress, Door: s.class.network == faas.NetworkEgress, Conn: true,
	}
	for _, m := range s.how.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	if s.how.Bare {
		if err := w.startBare(ctx, in, spec); err != nil {
			return in, err
		}
	} else {
		if err := w.startFrames(ctx, in, s.rt, &s.how, spec, fork); err != nil {
			return in, err
		}
		if _, err := in.frames.Hello(ctx); err != nil {
			return in, err
		}
	}
	u, err := in.box.Usage()
	if err != nil {
		return in, err
	}
	in.held = faas.Bytes(u.Memory)
	in.idleSince = time.Now()
	if in.tree, err = in.box.Processes(); err != nil {
		return in, err
	}
	slices.Sort(in.tree)
	if s.class.owner != "" {
		if err := in.box.Arm(ctx); err != nil {
			// It can serve one call all the same.
			w.cfg.Logger.Warn("stem not armed; it serves one function only", "class", s.class.name, "err", err)
		} else {
			in.home = s.class
		}
	}
	w.cfg.Logger.Debug("stem made", "class", s.class.name, "instance", in.id, "forked", in.forked, "took", time.Since(began))
	return in, nil
}

// startFrames starts the sandbox of a process that speaks frames, by a fork of the runtime's
// zygote if it is to be one and there is such.
func (w *Worker) startFrames(ctx context.Context, in *instance, rt *runtimes.Runtime, how *runtimes.Stem, spec sandbox.Spec, fork bool) (err error) {
	std := &stdio{}
	defer std.closeTheirs()
	if err = std.open(in, runtimes.StyleFrames, &spec); err != nil {
		return &faas.Error{Code: faas.Unavailable, Op: "make pipes", Err: err}
	}
	var z *sandbox.Zygote
	if fork {
		z = w.zygote(ctx, rt, how)
	}
	if z != nil {
		spec.Zygote = z
		if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err == nil {
			in.forked = true
		} else {
			in.box = nil
			w.cfg.Logger.Debug("not forked; started instead", "runtime", rt.Name, "err", err)
			spec.Zygote = nil
		}
	}
	if in.box == nil {
		if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err != nil {
			in.box = nil
			return unsupported(err)
		}
	}
	std.closeTheirs()
	in.frames = runtimes.NewConn(in.box.Conn(), runtimes.Options{Log: in.stray})
	in.conn = in.frames
	return nil
}
