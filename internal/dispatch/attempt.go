package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/queue"
)

// errStopping is what a call is told that meets a server which shuts down.
var errStopping = faas.Errorf(faas.Unavailable, "run call", "the server is shutting down").WithFix("send the call again in a few seconds")

// errInterrupted ends an attempt whose grace is over when the server stops.
var errInterrupted = faas.Errorf(faas.Canceled, "run call", "the server was stopped; the call comes again")

const (
	// attemptHeader tells functions that see headers and no context which attempt it is.
	attemptHeader = "Brasa-Attempt"
	idHeader      = "Brasa-Invocation-Id"
	// settleTimeout bounds the calls of the queue that end a lease.
	settleTimeout = 30 * time.Second
)

// attempt is one call of the queue in this process's hands.
type attempt struct {
	lease  queue.Lease
	inv    *faas.Invocation
	cancel context.CancelCauseFunc

	over    atomic.Bool                     // it has an outcome, which is being kept
	final   atomic.Pointer[faas.Activation] // its outcome, once that is kept for good; nil before
	settled chan struct{}                   // closed when the lease is
	code    faas.Code                       // how the call ended; good after settled
	err     error                           // that the lease was not settled; good after settled
}

// outcomeOf is what an attempt came to.
type outcomeOf struct {
	rev  *faas.Revision // nil: there is none
	act  *faas.Activation
	body []byte // of the answer: all of it if next needs it, else what is kept
	err  *faas.Error
	next handOn
}

// try makes one attempt and settles the lease.
func (d *Dispatcher) try(ctx context.Context, a *attempt) {
	d.cfg.Step("async: pulled")
	o := d.execute(ctx, a.inv)
	d.cfg.Step("async: ran")
	a.code = o.act.Outcome
	// Whatever ends now is not to end half settled.
	a.err = d.settle(context.WithoutCancel(ctx), a, o, context.Cause(ctx))
	if a.err != nil {
		d.cfg.Logger.Error("call not settled; it may come again", "invocation", a.inv.ID, "function", a.inv.Function.Name, "cause", a.err)
	}
}

// execute runs the call on the revision of now and reads its answer.
func (d *Dispatcher) execute(ctx context.Context, inv *faas.Invocation) *outcomeOf {
	o := &outcomeOf{}
	inv.Timing, inv.Report = faas.Timing{Begin: time.Now()}, faas.Report{}
	inv.Deadline, inv.Chain = time.Time{}, inv.Wait.Chain
	if inv.Wait.Timeout > 0 {
		inv.Deadline = inv.Timing.Begin.Add(inv.Wait.Timeout.D())
	}
	setHeader(inv, attemptHeader, strconv.Itoa(inv.Attempt))
	fail := func(err error) *outcomeOf {
		if o.act == nil {
			o.act = d.unrun(inv, err)
		}
		o.err = outcome(o.act, err)
		return o
	}
	_, rev, err := d.cfg.Catalog.Resolve(inv.Function)
	if err != nil {
		return fail(err)
	}
	o.rev = rev
	inv.Timing.Add(faas.PhaseResolve, time.Since(inv.Timing.Begin))
	if err := d.chains.over(inv); err != nil {
		return fail(err)
	}
	o.next = afterSuccess(inv.Wait, rev.Async)
	d.warmNext(ctx, inv, o.next)
	res, err := d.run(ctx, rev, inv, d.enter, func(act *faas.Activation) { o.act = act })
	if err != nil {
		return fail(err)
	}
	most := int64(max(faas.MaxAnswer, inv.Keep))
	keep := most
	if o.next.isFunction() {
		keep = int64(queue.MaxBody)
	}
	body, total, err := readAnswer(res.Body, keep)
	_ = res.Body.Close() // completes the activation
	if err != nil {
		return fail(err)
	}
	if o.act.Outcome != faas.OK {
		return fail(&faas.Error{Code: o.act.Outcome, Err: errors.New(o.act.Error), Trace: o.act.Trace})
	}
	o.body = body
	o.act.Answer = &faas.Answer{Status: res.Status, Header: res.Header, Body: body[:min(int64(len(body)), most)], Bytes: faas.Bytes(total), Cut: total > most}
	switch {
	case res.Status >= http.StatusInternalServerError, res.Status == http.StatusTooManyRequests:
		return fail(faas.Errorf(faas.Failed, "", "the function answered with status %d", res.Status))
	case res.Status == http.StatusSwitchingProtocols:
		return fail(faas.Errorf(faas.Failed, "", "the function wants to go on with another protocol, and there is no caller"))
	case total > keep && o.next.isFunction():
		return fail(faas.Errorf(faas.TooLarge, "hand on answer", "the answer has more than %s, so it can't be handed on to %q", queue.MaxBody, o.next.to).WithLimit("queue_body_bytes"))
	}
	return o
}

// setHeader sets one of the platform's headers, in a copy: the lease keeps what was accepted.
func setHeader(inv *faas.Invocation, name, value string) {
	h := make(map[string][]string, len(inv.Header)+1)
	for k, v := range inv.Header {
		h[k] = v
	}
	h[name] = []string{value}
	inv.Header = h
}

// readAnswer reads an answer to its end and returns its first bytes, and how many there are.
func readAnswer(r io.Reader, keep int64) (body []byte, total int64, err error) {
	var b bytes.Buffer
	total, err = io.Copy(&b, io.LimitReader(r, keep))
	if err != nil {
		return nil, total, err
	}
	more, err := io.Copy(io.Discard, r)
	return b.Bytes(), total + more, err
}

// settle ends the lease as the outcome and the function's policy ask. cause is why the attempt's
// context ended, if it did.
func (d *Dispatcher) settle(ctx context.Context, a *attempt, o *outcomeOf, cause error) error {
	inv, act := a.inv, o.act
	act.Attempt = inv.Attempt
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	switch {
	case act.Outcome == faas.OK:
		d.record(ctx, a, act)
		d.cfg.Step("async: recorded")
		if err := d.handOn(ctx, inv, o, o.next); err != nil {
			return d.putBack(ctx, a, err)
		}
		d.cfg.Step("async: handed on")
		err := a.lease.Done(ctx)
		d.cfg.Step("async: done")
		return err
	// However the function took it that it was told to end, that is why it did.
	case errors.Is(cause, errCanceled):
		a.code = outcome(act, errCanceled).Code
		d.record(ctx, a, act)
		return a.lease.Done(ctx)
	case errors.Is(cause, errInterrupted):
		_ = outcome(act, errInterrupted)
		d.recordAttempt(inv, act)
		return a.lease.Retry(ctx, 0, nil)
	}
	if inv.Wait.Once && act.Outcome.Fault() == "function" {
		d.record(ctx, a, act)
		d.cfg.Step("async: recorded")
		if d.chains.over(inv) == nil {
			if err := d.handOn(ctx, inv, o, afterFailure(inv.Wait, asyncOf(o.rev))); err != nil {
				return d.putBack(ctx, a, err)
			}
		}
		d.cfg.Step("async: handed on")
		return a.lease.Done(ctx)
	}
	next := policy.Retry(policy.RetryOf(asyncOf(o.rev)), policy.Tried{
		Code: act.Outcome, Message: act.Error, Attempt: inv.Attempt, Age: age(inv),
	}, rand.Float64())
	if next.Again {
		d.recordAttempt(inv, act)
		d.cfg.Step("async: before retry")
		if !next.Counted {
			return a.lease.Retry(ctx, next.After, nil)
		}
		return a.lease.Retry(ctx, next.After, errors.New(next.Why))
	}
	d.record(ctx, a, act)
	d.cfg.Step("async: recorded")
	// A chain that was refused ends here: to tell others of it would make it longer.
	if d.chains.over(inv) == nil {
		if err := d.handOn(ctx, inv, o, afterFailure(inv.Wait, asyncOf(o.rev))); err != nil {
			return d.putBack(ctx, a, err)
		}
	}
	d.cfg.Step("async: handed on")
	return a.lease.Bury(ctx, errors.New(next.Why))
}

// putBack has a call come again whose outcome could not be handed on: that runs it once more, which
// is better than that nobody hears of it.
func (d *Dispatcher) putBack(ctx context.Context, a *attempt, err error) error {
	return errors.Join(fmt.Errorf("hand on outcome: %w", err), d.putOff(context.WithoutCancel(ctx), a))
}

// putOff has a call come again that was not tried; the longer it has waited, the later.
func (d *Dispatcher) putOff(ctx context.Context, a *attempt) error {
	after := policy.Retry(policy.RetryConfig{MaxAge: 1 << 62}, policy.Tried{Code: faas.Unavailable, Age: age(a.inv)}, rand.Float64()).After
	return a.lease.Retry(ctx, after, nil)
}

// record keeps the final activation of a call, for good before the queue forgets the call.
func (d *Dispatcher) record(ctx context.Context, a *attempt, act *faas.Activation) {
	a.over.Store(true)
	d.cfg.Recorder.Record(act)
	if err := d.cfg.Journal.Flush(ctx); err != nil {
		d.cfg.Logger.Warn("outcome of call not yet on disk", "invocation", act.ID, "cause", err)
		return
	}
	a.final.Store(act)
}

// recordAttempt keeps an attempt that is not the last one, under an ID of its own.
func (d *Dispatcher) recordAttempt(inv *faas.Invocation, act *faas.Activation) {
	act.ID, act.Cause, act.Interim = faas.NewID(act.Timing.Begin), inv.ID, true
	d.cfg.Recorder.Record(act)
}

func asyncOf(rev *faas.Revision) *faas.Async {
	if rev == nil {
		return nil
	}
	return rev.Async
}

// age is how long a call has been due.
func age(inv *faas.Invocation) time.Duration {
	since := inv.Wait.Since
	if since.IsZero() {
		since = inv.ID.Time()
	}
	if inv.Wait.NotBefore.After(since) {
		since = inv.Wait.NotBefore
	}
	return max(time.Since(since), 0)
}
