package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// errCanceled ends the attempt of a call that was cancelled.
var errCanceled = faas.Errorf(faas.Canceled, "run call", "the call was cancelled")

// underway are the calls of the queue that this process has in hand.
type underway struct {
	mu    sync.Mutex
	calls map[faas.ID]*attempt // guarded by mu
}

func (u *underway) add(a *attempt) {
	u.mu.Lock()
	u.calls[a.inv.ID] = a
	u.mu.Unlock()
}

func (u *underway) remove(a *attempt) {
	u.mu.Lock()
	if u.calls[a.inv.ID] == a {
		delete(u.calls, a.inv.ID)
	}
	u.mu.Unlock()
}

func (u *underway) get(namespace string, id faas.ID) *attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a := u.calls[id]; a != nil && a.inv.Function.Name.Namespace == namespace {
		return a
	}
	return nil
}

// over counts those of an owner that have an outcome, and which the queue has yet to forget.
func (u *underway) over(owner string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, a := range u.calls {
		if a.inv.Owner == owner && a.over.Load() {
			n++
		}
	}
	return n
}

func (u *underway) all() (out []*attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.calls {
		out = append(out, a)
	}
	return out
}

// Between the queue and those under way a call is in nobody's hand for a moment.
const (
	cancelTries = 100
	cancelPause = 10 * time.Millisecond
)

// Cancel ends a call whose caller does not wait. One that waits leaves the queue; of one that runs the
// function is told as when a caller goes away. It is not tried again, and its destinations are
// not told. When Cancel returns the call has ended for good. NotFound if there is no such
// call; Conflict if it has ended otherwise.
func (d *Dispatcher) Cancel(ctx context.Context, namespace string, id faas.ID) error {
	const op = "cancel call"
	if d.cfg.Queue == nil {
		return errNoQueue
	}
	for range cancelTries {
		inv, err := d.cfg.Queue.Cancel(ctx, namespace, id)
		switch faas.CodeOf(err) {
		case faas.OK:
			d.recordCanceled(inv)
			return d.cfg.Journal.Flush(ctx)
		case faas.NotFound:
			w, err := d.Standing(ctx, namespace, id)
			if err != nil {
				return err
			}
			if w.Stage == faas.StageCanceled {
				return nil
			}
			return faas.Errorf(faas.Conflict, op, "the call has ended: it is %s", w.Stage)
		case faas.Conflict:
		default:
			return err
		}
		if a := d.underway.get(namespace, id); a != nil {
			a.cancel(errCanceled)
			select {
			case <-a.settled:
				if a.code == faas.Canceled && a.err == nil {
					return nil
				}
				continue // it ended in that moment, or comes back to the queue
			case <-ctx.Done():
				return faas.AsError(context.Cause(ctx))
			}
		}
		select {
		case <-time.After(cancelPause):
		case <-ctx.Done():
			return faas.AsError(context.Cause(ctx))
		}
	}
	return faas.Errorf(faas.Conflict, op, "the call is in the hands of another server, or is just being settled").WithFix("try again in a few seconds")
}

// recordCanceled leaves the activation of a call that was cancelled while it waited.
func (d *Dispatcher) recordCanceled(inv *faas.Invocation) {
	d.cfg.Recorder.Record(d.unrun(inv, errCanceled))
}

// unrun makes the activation of what no function ran for; err may be nil.
func (d *Dispatcher) unrun(inv *faas.Invocation, err error) *faas.Activation {
	rev := &faas.Revision{Name: inv.Function.Name}
	if _, active, e := d.cfg.Catalog.Resolve(inv.Function); e == nil {
		rev = active
	}
	act := newActivation(rev, inv)
	act.Attempt = inv.Attempt
	act.Timing.Begin = time.Now()
	if err != nil {
		_ = outcome(act, err) // as it is recorded
	}
	return act
}
