package worker

import (
	"context"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// broken is what a call of a revision gets that was published although it can't be run.
func broken(rev *faas.Revision) error {
	return inContract(rev, nil, true, faas.Errorf(faas.Failed, "load function", "%s", rev.Broken))
}

// inContract words an error as callers of the function's contract expect it. loading says that its code
// was not loaded yet; inv may be nil.
func inContract(rev *faas.Revision, inv *faas.Invocation, loading bool, err error) error {
	if err == nil || rev.Contract != faas.ContractOpenWhisk {
		return err
	}
	l := rev.Limits.Fill(faas.DefaultLimits())
	timeout := l.Timeout.D()
	if inv != nil && !inv.Deadline.IsZero() { // its caller's clock, if that is the shorter one
		timeout = min(timeout, inv.Deadline.Sub(inv.Timing.Begin))
	}
	return runtimes.ActionError(err, loading, timeout, l.Memory)
}

// environ is the environment of a process that is made for the pool's revision. One that is made for a
// call finds in it what its contract tells of calls already while it loads.
func (w *Worker) environ(in *instance, rev *faas.Revision, secrets map[string]string) map[string]string {
	env := w.lasting(rev, secrets)
	if rev.Contract == faas.ContractNative || in.pool == nil || in.pool.rt.Style == runtimes.StyleExec { // which is told of its one call
		return env
	}
	w.mu.Lock()
	first := in.pool.line.first()
	w.mu.Unlock()
	if first != nil {
		addMissing(env, runtimes.LoadEnv(rev, first.call.inv))
	}
	return env
}

// lasting is the part of the environment that no call changes.
func (w *Worker) lasting(rev *faas.Revision, secrets map[string]string) map[string]string {
	env := runtimes.Environ(rev, secrets)
	if rev.Network == faas.NetworkEgress && w.cfg.Server != nil {
		if at := w.cfg.Server(); at != "" {
			env["BRASA_SERVER"] = at
		}
	}
	return env
}

func addMissing(env, more map[string]string) {
	for k, v := range more {
		if _, set := env[k]; !set {
			env[k] = v
		}
	}
}

// forCall adds to the command of a process that serves one call what it is told of it.
func forCall(ctx context.Context, spec *sandbox.Spec, rev *faas.Revision, inv *faas.Invocation) error {
	args, env, err := runtimes.ExecCommand(ctx, rev, inv, spec.Args)
	if err != nil {
		return err
	}
	spec.Args, spec.Env = args, append(spec.Env, env...)
	return nil
}
