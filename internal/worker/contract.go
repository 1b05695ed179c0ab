package worker

import (
	"context"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// broken is what a call of a revision gets that was published although it can't be run.
func broken(rev *faas.Revision) error {
	return inContract(rev, true, faas.Errorf(faas.Failed, "load function", "%s", rev.Broken))
}

// inContract words an error as callers of the function's contract expect it. loading says that its code
// was not loaded yet.
func inContract(rev *faas.Revision, loading bool, err error) error {
	if err == nil || rev.Contract != faas.ContractOpenWhisk {
		return err
	}
	return runtimes.ActionError(err, loading, rev.Limits.Fill(faas.DefaultLimits()))
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
