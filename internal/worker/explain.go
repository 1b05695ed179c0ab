package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// deathWait is how long we wait for a process to be reaped whose connection has ended, so that
// its exit can be told.
const deathWait = 2 * time.Second

// explainWait says why a call got no instance.
func (w *Worker) explainWait(ctx context.Context, rev *faas.Revision, err error) error {
	if ctx.Err() == nil {
		return faas.AsError(err)
	}
	if !timedOut(ctx) {
		return faas.Errorf(faas.Canceled, "wait for instance", "the caller went away while the call waited for an instance")
	}
	w.mu.Lock()
	p := w.pools[keyOf(rev)]
	starting := p != nil && p.starting > 0
	w.mu.Unlock()
	if starting {
		return faas.Errorf(faas.Timeout, "load function", "an instance was still being made after the call's timeout of %s", rev.Limits.Timeout).
			WithLimit("timeout_ms").WithFix("see where the time goes: brasa trace ID; raise it with: brasa deploy PATH --timeout 1m")
	}
	return faas.Errorf(faas.Overloaded, "wait for instance", "no instance was free within the call's timeout of %s", rev.Limits.Timeout).
		WithLimit("timeout_ms").WithFix("send the call again later, or let the function have more instances: brasa deploy PATH --max-instances N")
}

// timedOut tells a deadline from a caller that went away. The deadline's own cause is set by
// package dispatch; any context that ended by time has DeadlineExceeded as its error.
func timedOut(ctx context.Context) bool { return errors.Is(ctx.Err(), context.DeadlineExceeded) }

// explainCall says what a failed round trip means.
func (w *Worker) explainCall(ctx context.Context, in *instance, c *call, err error) error {
	if ctx.Err() != nil {
		if timedOut(ctx) {
			return pastDeadline(in.pool.rev, c.inv)
		}
		return faas.Errorf(faas.Canceled, "run function", "the caller went away")
	}
	e := faas.AsError(err)
	if e.Code == faas.Crashed || e.Code == faas.Internal {
		return w.explainDeath(ctx, in, e)
	}
	return e
}

// pastDeadline says which clock has fired: the function's own, or a shorter one that the caller set.
func pastDeadline(rev *faas.Revision, inv *faas.Invocation) *faas.Error {
	if own := inv.Timing.Begin.Add(rev.Limits.Timeout.D()); inv.Deadline.Before(own) {
		return faas.Errorf(faas.Timeout, "run function", "the call ran past the deadline that its caller set, %s after it began; the function's own timeout is %s",
			inv.Deadline.Sub(inv.Timing.Begin).Round(time.Millisecond), rev.Limits.Timeout).WithFix("give the call more time")
	}
	return faas.Errorf(faas.Timeout, "run function", "the function ran past its timeout of %s and was ended", rev.Limits.Timeout).
		WithLimit("timeout_ms").WithFix("raise it with: brasa deploy PATH --timeout 1m")
}

// explainDeath adds to a lost connection how the process ended.
func (w *Worker) explainDeath(ctx context.Context, in *instance, err error) error {
	e := faas.AsError(err)
	if e.Code != faas.Crashed && e.Code != faas.Internal {
		if ctx.Err() != nil && timedOut(ctx) {
			if in.pool.rt.Style != runtimes.StyleFrames { // which says what was waited for
				told := *e // whoever ended the wait may have others wait too
				return told.WithLimit("timeout_ms")
			}
			return faas.Errorf(faas.Timeout, "load function", "the function's code was not loaded within %s", max(in.pool.rev.Limits.Timeout.D(), minLoadTime)).
				WithLimit("timeout_ms")
		}
		return err
	}
	if in.box == nil || runtimes.BrokeProtocol(err) { // then how it ended is our doing
		return err
	}
	t := time.NewTimer(deathWait)
	defer t.Stop()
	select {
	case <-in.box.Done():
		return died(in.box.Exit(), in.pool.rev.Limits)
	case <-t.C:
		return err
	}
}

// died says how a process ended that should not have.
func died(x sandbox.Exit, l faas.Limits) *faas.Error {
	e := runtimes.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM}.Error("run function", l.Memory)
	switch {
	case x.OOM:
		e.Fix = fmt.Sprintf("give it more: brasa deploy PATH --memory %s", 2*l.Memory)
	case x.Signal == unix.SIGSYS:
		e.Fix = "the function made a system call that sandboxes do not allow; docs/sandbox.md lists them"
	}
	return e
}

// lastLines is how many lines tell what a process had to say before it died.
const lastLines = 20

// lastWords adds to the error of a process that died what it wrote to its standard error, which
// in most languages is the reason.
func lastWords(err error, wrote []faas.LogLine) error {
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Code != faas.Crashed || e.Trace != "" {
		return err
	}
	var text []string
	for i := len(wrote) - 1; i >= 0 && len(text) < lastLines; i-- {
		if wrote[i].Stream == runtimes.Stderr {
			text = append(text, wrote[i].Text)
		}
	}
	slices.Reverse(text)
	told := *e
	told.Trace = strings.Join(text, "\n")
	return &told
}

// unsupported turns what the sandbox says it can't do into an error for the operator.
func unsupported(err error) error {
	var u *sandbox.UnsupportedError
	if errors.As(err, &u) {
		e := faas.Errorf(faas.Unavailable, "make sandbox", "this server can't run such a function: %s: %s", u.Feature, u.Why)
		e.Fix = u.Fix
		return e
	}
	return &faas.Error{Code: faas.CodeOf(err), Op: "make sandbox", Err: err}
}
