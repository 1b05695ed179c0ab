package dispatch

import (
	"cmp"
	"context"
	"io"
	"runtime"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// AsyncConfig says how calls are run whose caller does not wait. Zero means the default.
type AsyncConfig struct {
	// Function, Namespace and All bound how many such calls of one function, one namespace and
	// together are under way at once. Defaults: sixteen for each processor, and two and eight times that.
	Function, Namespace, All int

	Deliveries int           // calls of web hooks under way at once; default 64, a quarter of them of one namespace
	Grace      time.Duration // calls under way may go on for so long when Run is to end. Default 10 s
	Hooks      HookConfig
}

func (c *AsyncConfig) applyDefaults() {
	c.Function = cmp.Or(c.Function, 16*runtime.GOMAXPROCS(0))
	c.Namespace = cmp.Or(c.Namespace, 2*c.Function)
	c.All = cmp.Or(c.All, 4*c.Namespace)
	c.Deliveries = cmp.Or(c.Deliveries, 64)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
}

// Journal finds what became of calls. Package journal has it.
type Journal interface {
	// Get returns the activation of a call, or a NotFound. It finds what was recorded before.
	Get(ctx context.Context, namespace string, id faas.ID) (*faas.Activation, error)
	// Flush returns when what was recorded before the call outlives this process.
	Flush(ctx context.Context) error
}

// checker is a Node that knows beforehand what it cannot run.
type checker interface {
	// Check says why the node can never run the revision; nil if it can.
	Check(rev *faas.Revision) error
}

const opEnqueue = "accept call"

var errNoQueue = faas.Errorf(faas.Unavailable, opEnqueue, "this node has no queue")

// Enqueue accepts a call whose caller does not wait; it is durable when Enqueue returns. The ID is
// that of the call, or of an earlier one of the same function and inv.Wait.Key. What could never
// run is refused: a function that does not exist (NotFound) or that this node can't run
// (Unavailable), a body that is over the function's limit or the queue's (TooLarge), a destination
// that does not exist or that may not be called (Invalid), a chain of calls that goes too far
// (Invalid). A queue that is full is Overloaded. inv.Deadline bounds each attempt, as time from now.
func (d *Dispatcher) Enqueue(ctx context.Context, inv *faas.Invocation) (faas.ID, error) {
	if d.cfg.Queue == nil {
		return "", errNoQueue
	}
	begin(inv)
	fn, rev, err := d.cfg.Catalog.Resolve(inv.Function)
	if err != nil {
		return "", err
	}
	first, err := d.canRun(rev)
	if err != nil && rev.Sequence != nil && inv.Wait != nil && inv.Wait.Once {
		first, err = rev, nil // what it lacks is its outcome
	}
	if err != nil {
		return "", err
	}
	if err := d.bodyMayWait(inv, first); err != nil {
		return "", err
	}
	now := time.Now()
	wait := faas.Wait{}
	if inv.Wait != nil {
		wait = *inv.Wait
	}
	if err := wait.Validate(now); err != nil {
		return "", err
	}
	if err := d.checkDestinations(inv.Function.Name.Namespace, &wait); err != nil {
		return "", err
	}
	if !inv.Deadline.IsZero() {
		wait.Timeout = faas.Duration(max(inv.Deadline.Sub(now), time.Millisecond))
		inv.Deadline = time.Time{}
	}
	if err := d.chains.link(inv); err != nil {
		return "", err
	}
	wait.Since, wait.Chain = now, inv.Chain
	inv.Wait, inv.Attempt = &wait, 0
	id, err := d.cfg.Queue.Push(ctx, inv)
	if err != nil || id != inv.ID {
		return id, err
	}
	return id, d.stillThere(ctx, fn, inv)
}

// stillThere takes back a call whose function was deleted while it was accepted. Those that waited went
// with the function, so one that came after them would be left for a new function of the name.
func (d *Dispatcher) stillThere(ctx context.Context, fn *faas.Function, inv *faas.Invocation) error {
	now, _, err := d.cfg.Catalog.Resolve(faas.Ref{Name: inv.Function.Name})
	if err == nil && now.UID == fn.UID || err != nil && faas.CodeOf(err) != faas.NotFound {
		return nil
	}
	// One that runs already, or is gone with the others, is not there to be taken back.
	if _, err := d.cfg.Queue.Cancel(context.WithoutCancel(ctx), inv.Function.Name.Namespace, inv.ID); err != nil && faas.CodeOf(err) != faas.NotFound && faas.CodeOf(err) != faas.Conflict {
		d.cfg.Logger.Warn("call of a deleted function is left in the queue", "invocation", inv.ID, "function", inv.Function.Name, "cause", err)
	}
	return faas.Errorf(faas.NotFound, opEnqueue, "function %q was deleted in this moment", inv.Function.Name.Path())
}

// bodyMayWait refuses a body that is known to be too large, and sees to it that one of unknown
// length is refused too.
func (d *Dispatcher) bodyMayWait(inv *faas.Invocation, rev *faas.Revision) error {
	if inv.Length > int64(queue.MaxBody) && rev.Limits.Request > queue.MaxBody {
		return faas.Errorf(faas.TooLarge, opEnqueue, "the body of a call that waits may have %s", queue.MaxBody).WithLimit("queue_body_bytes").
			WithFix("call the function and wait for its answer, or pass a reference to the data")
	}
	if err := bound(inv, rev); err != nil {
		return err
	}
	if inv.Body != nil {
		inv.Body = readFaults{inv.Body}
	}
	return nil
}

// readFaults tells a body that did not arrive from a queue that did not take it.
type readFaults struct{ io.Reader }

func (r readFaults) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF && faas.CodeOf(err) == faas.Internal {
		err = faas.Errorf(faas.Canceled, "read request", "the request's body did not arrive: %w", err)
	}
	return n, err
}

// InFlight counts the calls of an owner (Invocation.Owner) whose callers do not wait and that have no
// outcome yet, also those that were accepted before this process began. While one ends another may be
// left out for a moment.
func (d *Dispatcher) InFlight(owner string) int {
	if d.cfg.Queue == nil {
		return 0
	}
	over := d.underway.over(owner) // first: whoever has seen an outcome is not to find the call counted
	return max(d.cfg.Queue.Owned(owner)-over, 0)
}

// Standing says where a call is whose caller does not wait: in the queue, among the dead letters, or,
// by its activation, at its end. NotFound if nothing is known of it.
func (d *Dispatcher) Standing(ctx context.Context, namespace string, id faas.ID) (faas.Waiting, error) {
	if d.cfg.Queue == nil {
		return faas.Waiting{}, errNoQueue
	}
	// What is left to be done after the outcome is known and kept is none of the caller's.
	if a := d.underway.get(namespace, id); a != nil {
		if act := a.final.Load(); act != nil && (act.Outcome == faas.OK || act.Outcome == faas.Canceled) {
			return ended(act), nil
		}
	}
	w, err := d.cfg.Queue.Find(ctx, namespace, id)
	if err == nil || faas.CodeOf(err) != faas.NotFound {
		return w, err
	}
	act, err := d.cfg.Journal.Get(ctx, namespace, id)
	switch {
	case err == nil && (act.Outcome == faas.OK || act.Outcome == faas.Canceled):
		return ended(act), nil
	case err != nil && faas.CodeOf(err) != faas.NotFound:
		return faas.Waiting{}, err
	}
	dead, deadErr := d.cfg.Queue.Buried(ctx, queue.Filter{Namespace: namespace, ID: id, Limit: 1})
	switch {
	case deadErr != nil:
		return faas.Waiting{}, deadErr
	case len(dead) == 1:
		return buried(&dead[0]), nil
	case err != nil:
		return faas.Waiting{}, err // it says that there is none
	}
	return ended(act), nil
}

// ended tells of a call what its last activation does.
func ended(a *faas.Activation) faas.Waiting {
	w := faas.Waiting{
		ID: a.ID, Stage: faas.StageFailed, Subject: a.Subject, Cause: a.Cause, Queued: a.ID.Time(), Attempt: a.Attempt, Error: a.Error,
	}
	w.Function, _ = faas.ParseName("/"+a.Namespace+"/"+a.Function, "") // none for code without a name
	switch a.Outcome {
	case faas.OK:
		w.Stage = faas.StageSucceeded
	case faas.Canceled:
		w.Stage = faas.StageCanceled
	}
	return w
}

func buried(dead *queue.Dead) faas.Waiting {
	inv := dead.Invocation
	w := faas.Waiting{
		ID: inv.ID, Function: inv.Function.Name, Stage: faas.StageDead, Subject: inv.Subject, Cause: inv.Cause, Queued: inv.ID.Time(), Attempt: inv.Attempt, Error: dead.Why,
	}
	if inv.Wait != nil {
		w.Priority, w.Key, w.Order = inv.Wait.Priority, inv.Wait.Key, inv.Wait.Order
	}
	return w
}
