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

// outOfLine says why a call got no instance whose context has ended: if its time was up, which clock
// has fired and what it was waiting for then. The caller holds mu.
func (p *pool) outOfLine(ctx context.Context, inv *faas.Invocation) error {
	if !timedOut(ctx) {
		return faas.Errorf(faas.Canceled, "wait for instance", "the caller went away while the call waited for an instance")
	}
	own, clock := clockOf(p.rev, inv)
	if p.starting > 0 && len(p.instances) == 0 {
		e := faas.Errorf(faas.Timeout, "load function", "%s was over while an instance was still being made", clock)
		if !own {
			return e.WithFix("give the call more time; see where it goes: brasa trace ID")
		}
		return e.WithLimit("timeout_ms").WithFix("see where the time goes: brasa trace ID; raise it with: brasa deploy PATH --timeout 1m")
	}
	limit, fix := p.bottleneck()
	if own && limit == "" {
		limit = "timeout_ms"
	}
	return faas.Errorf(faas.Overloaded, "wait for instance", "%s was over while the call was in line: no instance was free", clock).
		WithLimit(limit).WithFix("%s", fix).WithAfter(p.soon())
}

// clockOf names the clock that ends a call: the function's own, or a shorter one of its caller.
func clockOf(rev *faas.Revision, inv *faas.Invocation) (own bool, clock string) {
	if inv != nil && !inv.Deadline.IsZero() && inv.Deadline.Before(inv.Timing.Begin.Add(rev.Limits.Timeout.D())) {
		return false, fmt.Sprintf("the time that the caller gave it, %s of the function's timeout of %s,",
			inv.Deadline.Sub(inv.Timing.Begin).Round(time.Millisecond), rev.Limits.Timeout)
	}
	return true, fmt.Sprintf("the function's timeout of %s", rev.Limits.Timeout)
}

// bottleneck names the limit that keeps a pool's calls in line, and what to do about it. The caller
// holds Worker.mu.
func (p *pool) bottleneck() (limit, fix string) {
	most := p.rev.Limits.MaxInstances
	// One may just have been ended, by the same clock as the call.
	justNow := time.Since(p.capped) < p.rev.Limits.Timeout.D()
	switch {
	case most > 0 && (len(p.instances)+p.starting >= most || justNow):
		return "max_instances", "send the call again later, or let the function have more instances: brasa deploy PATH --max-instances N"
	case p.short:
		return "memory_bytes", "send the call again later, or let instances be smaller: brasa deploy PATH --memory SIZE"
	}
	return "", "send the call again later, or let an instance serve more calls at once: brasa deploy PATH --concurrency N"
}

// soon guesses when those that are in line now will be served. The caller holds Worker.mu.
func (p *pool) soon() time.Duration {
	slots := max(1, len(p.instances)) * max(1, p.rev.Limits.Concurrency)
	return min(time.Duration(p.line.len()/slots+1)*p.pace.known().Least, mostAfter)
}

// mostAfter is the longest time that a caller is told to wait before another attempt.
const mostAfter = time.Minute

// tooLate refuses a call that can't be met in time any more; waited is how long it has been in line,
// after how long those before it take. The caller holds Worker.mu.
func (p *pool) tooLate(waited, after time.Duration) error {
	limit, fix := p.bottleneck()
	e := faas.Errorf(faas.Overloaded, "wait for instance", "the call could not be answered before its deadline: there are %d calls in line for %d instances", p.line.len(), len(p.instances))
	if waited > 0 {
		e = faas.Errorf(faas.Overloaded, "wait for instance", "the call has waited in line for %s, and what is left until its deadline is too little to run it", waited.Round(time.Millisecond))
	}
	if limit == "" {
		limit = "timeout_ms"
	}
	return e.WithLimit(limit).WithFix("%s", fix).WithAfter(max(min(after, mostAfter), p.soon()))
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
	if w.cutOff(in) {
		return faas.Errorf(faas.Unavailable, "run function", "the server was stopped before the call had ended").
			WithFix("send the call again if it may be made twice; the server waits for calls as long as its key drain says")
	}
	e := faas.AsError(err)
	if e.Code == faas.Crashed || e.Code == faas.Internal {
		return w.explainDeath(ctx, in, e)
	}
	return advise(in.pool.rev, e)
}

// cutOff says whether an instance was ended because the server stops: how its process took that is not
// its function's doing.
func (w *Worker) cutOff(in *instance) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining && in.ending
}

// pastDeadline says which clock has fired: the function's own, or a shorter one that the caller set.
func pastDeadline(rev *faas.Revision, inv *faas.Invocation) *faas.Error {
	if own, _ := clockOf(rev, inv); !own {
		return faas.Errorf(faas.Timeout, "run function", "the call ran past the deadline that its caller set, %s after it began; the function's own timeout is %s",
			inv.Deadline.Sub(inv.Timing.Begin).Round(time.Millisecond), rev.Limits.Timeout).WithFix("give the call more time")
	}
	return faas.Errorf(faas.Timeout, "run function", "the function ran past its timeout of %s and was ended", rev.Limits.Timeout).
		WithLimit("timeout_ms").WithFix("raise it where it is deployed or run: --timeout 1m")
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

// cannot is what the sandbox can't do here, in words about functions.
type cannot struct{ u *sandbox.UnsupportedError }

func (c *cannot) Error() string {
	return "this server can't run such a function: " + c.u.Feature + ": " + c.u.Why
}

func (c *cannot) Unwrap() error { return c.u }

// unsupported turns what the sandbox says it can't do into an error for the operator.
func unsupported(err error) error {
	var u *sandbox.UnsupportedError
	if errors.As(err, &u) {
		return &faas.Error{Code: faas.Unavailable, Op: "make sandbox", Err: &cannot{u}, Fix: u.Fix}
	}
	return &faas.Error{Code: faas.CodeOf(err), Op: "make sandbox", Err: err}
}
