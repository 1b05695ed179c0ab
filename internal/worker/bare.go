package worker

import (
	"context"
	"errors"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// A bare stem is a sandbox that waits for its program: of executables, whose process is the code,
// nothing else can be made before it is known which. It saves a call all of the sandbox's making
// but the mount of the code and the execution itself.

// startBare starts the sandbox of a bare stem.
func (w *Worker) startBare(ctx context.Context, in *instance, spec sandbox.Spec) (err error) {
	spec.Wait = true
	if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err != nil {
		in.box = nil
		return unsupported(err)
	}
	in.bare = true
	return nil
}

// makeBare makes an instance of a bare stem: its code is mounted, its limits are set, and its
// program is executed, for the call of, where a process serves one.
func (w *Worker) makeBare(ctx context.Context, p *pool, in *instance, of *waiter, began time.Time) (err error) {
	t := &in.births.timing
	spec, err := w.spec(ctx, p.rev, p.rt, in, t)
	if err != nil {
		return err
	}
	if of != nil {
		if err = forCall(ctx, &spec, p.rev, of.call.inv); err != nil {
			return err
		}
	}
	std := &stdio{}
	defer func() {
		std.closeTheirs()
		if err != nil {
			std.close()
		}
	}()
	if err = std.open(in, p.rt.Style, &spec); err != nil {
		return &faas.Error{Code: faas.Unavailable, Op: "make pipes", Err: err}
	}
	mark := time.Now()
	err = in.box.Adopt(ctx, sandbox.Claim{Hostname: spec.Hostname, Mounts: spec.Mounts, Tmp: spec.Tmp, Memory: spec.Memory, CPU: spec.CPU, PIDs: spec.PIDs})
	if err != nil {
		return &staleStem{err}
	}
	err = in.box.Exec(ctx, sandbox.Command{Args: spec.Args, Env: spec.Env, Dir: spec.Dir, Conn: spec.Conn, Stdin: spec.Stdin, Stdout: spec.Stdout, Stderr: spec.Stderr})
	if _, said := errors.AsType[*sandbox.StepError](err); said {
		return unsupported(err)
	}
	if err != nil {
		return &staleStem{err}
	}
	std.closeTheirs()
	t.Add(faas.PhaseSpawn, time.Since(mark))
	t.Add(faas.PhaseProvisioning, time.Since(began))
	if p.rt.Style == runtimes.StyleFrames {
		in.frames = runtimes.NewConn(in.box.Conn(), runtimes.Options{Log: in.stray})
		in.conn = in.frames
		return w.loadCode(ctx, in, true)
	}
	if err = w.load(ctx, in, std); err != nil {
		return w.explainDeath(ctx, in, err)
	}
	return nil
}
