// Package dispatch decides when and on which node an invocation runs, and sees to it that each
// leaves an activation.
//
// Invoke is the whole way on one page: resolve the name, wait for a place within the function's
// bounds, pick a node, let it execute, record. A Node is this machine's worker or a peer's; it is
// the one place on the way where there may be a network.
//
// How an instance comes to be is left to package worker, what an answer looks like on the wire to
// the dialects.
package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Node runs invocations. Its methods are safe for concurrent use.
type Node interface {
	// Execute runs inv on rev and fills inv.Timing and inv.Report. It returns when the answer's
	// head is there; the report is complete when the Result's body has ended or was closed, or
	// when an error was returned. Errors are *faas.Error.
	Execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error)
	// Status says what the node holds.
	Status() faas.NodeStatus
}

// Recorder takes finished activations. Record never waits.
type Recorder interface {
	Record(*faas.Activation)
}

// Config says what a Dispatcher is made of.
type Config struct {
	Catalog  *catalog.Catalog
	Node     Node
	Recorder Recorder
	// MaxWaiting bounds, for each function, the calls that are on their way at once: waiting or
	// running. What comes on top is refused as Overloaded. Default 2000.
	MaxWaiting int
	// MaxNamespace bounds the same for a whole namespace, so that one cannot take all of the
	// node's memory with bodies that wait. Default 5000.
	MaxNamespace int
	Logger       *slog.Logger
}

// Dispatcher is safe for concurrent use.
type Dispatcher struct {
	cfg      Config
	mu       sync.RWMutex
	onTheWay map[string]*atomic.Int64 // guarded by mu; by namespace and by function's full name
	calls    sync.WaitGroup
	draining atomic.Bool
}

// New returns a Dispatcher; nothing is started.
func New(cfg Config) *Dispatcher {
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 2000
	}
	if cfg.MaxNamespace == 0 {
		cfg.MaxNamespace = 5000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Dispatcher{cfg: cfg, onTheWay: map[string]*atomic.Int64{}}
}

// Invoke runs inv and returns the answer as soon as its head is there. inv.ID, Deadline and
// Timing.Begin are set where they are zero; the deadline is cut to the function's timeout. The
// caller reads Result.Body to its end or closes it early, and closes it in any case: that ends
// the invocation and records its activation. When an error is returned the activation is
// recorded already. Errors are *faas.Error.
func (d *Dispatcher) Invoke(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
	begin(inv)
	fn, rev, err := d.cfg.Catalog.Resolve(inv.Function)
	inv.Timing.Add(faas.PhaseResolve, time.Since(inv.Timing.Begin))
	if err != nil {
		// No activation: there is no function whose record it could be.
		return nil, err
	}
	inv.Function.Name = fn.Name
	return d.InvokeRevision(ctx, rev, inv)
}

// InvokeRevision is Invoke from the point where the revision is known: the way of ad-hoc code,
// which is in no catalog.
func (d *Dispatcher) InvokeRevision(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	begin(inv)
	if latest := inv.Timing.Begin.Add(rev.Limits.Timeout.D()); inv.Deadline.IsZero() || inv.Deadline.After(latest) {
		inv.Deadline = latest
	}
	act := newActivation(rev, inv)
	if err := bound(inv, rev); err != nil {
		d.finish(act, inv, 0, err)
		return nil, err
	}
	release, err := d.admit(rev)
	if err != nil {
		d.finish(act, inv, 0, err)
		return nil, err
	}
	if err := gather(inv); err != nil {
		release()
		return nil, d.finish(act, inv, 0, err)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, inv.Deadline, errDeadline)
	res, err := d.cfg.Node.Execute(ctx, rev, inv)
	if err != nil {
		cancel()
		release()
		err = d.finish(act, inv, 0, err)
		return nil, err
	}
	done := func(failure error) {
		cancel()
		release()
		d.finish(act, inv, res.Status, failure)
	}
	res.Body = track(res.Body, done)
	return res, nil
}

func begin(inv *faas.Invocation) {
	if inv.Timing.Begin.IsZero() {
		inv.Timing.Begin = time.Now()
	}
	if inv.ID == "" {
		inv.ID = faas.NewID(inv.Timing.Begin)
	}
	if inv.Attempt == 0 {
		inv.Attempt = 1
	}
}

// Drain refuses new invocations and waits until those on their way have ended, or ctx has.
func (d *Dispatcher) Drain(ctx context.Context) error {
	d.draining.Store(true)
	ended := make(chan struct{})
	go func() {
		d.calls.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
