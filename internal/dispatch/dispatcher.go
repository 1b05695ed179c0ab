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
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
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
	// Queue keeps calls whose callers do not wait, and Journal their outcomes. Without a Queue there are
	// no such calls.
	Queue   queue.Queue
	Journal Journal
	Async   AsyncConfig
	Chain   ChainConfig
	// Env says, by the contract of a revision, what its code finds in its environment during a call, besides
	// what the runtime tells of the call by itself. It is asked when a call begins, each attempt anew, so
	// what it gives may be secret: it is kept nowhere. It may be nil, and return nil.
	Env map[string]func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (map[string]string, error)
	// Next says, by the contract of a conductor, which function it names. It may be nil: names are native
	// ones of the conductor's namespace.
	Next map[string]func(ctx context.Context, inv *faas.Invocation, action string) (faas.Name, error)
	// Steps says, by its contract, how many functions a sequence may call, those of sequences within it
	// included, and how many may be called by all that a conductor leads to. Default faas.MaxSteps, which
	// bounds sequences in any case.
	Steps map[string]int
	// Note says, by the contract of a revision, what is kept with the record of a call that brings no
	// note of its own. It may be nil, and return nil.
	Note   map[string]func(rev *faas.Revision, inv *faas.Invocation) json.RawMessage
	Logger *slog.Logger

	Step func(string) // is told each step of a call that waited; tests stop the process in it. nil: nobody is told
}

// Dispatcher is safe for concurrent use.
type Dispatcher struct {
	cfg      Config
	mu       sync.RWMutex
	onTheWay map[string]*atomic.Int64 // guarded by mu; by namespace and by function's full name
	calls    sync.WaitGroup
	draining atomic.Bool
	stopping chan struct{} // closed when draining begins
	chains   *chains
	underway underway
	hooks    *hooks
	warmer   warmer
	builtins map[string]Builtin // by contract; not changed after the first call
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
	cfg.Async.applyDefaults()
	if cfg.Step == nil {
		cfg.Step = func(string) {}
	}
	return &Dispatcher{
		cfg: cfg, onTheWay: map[string]*atomic.Int64{}, stopping: make(chan struct{}), chains: newChains(cfg.Chain),
		underway: underway{calls: map[faas.ID]*attempt{}}, hooks: newHooks(cfg.Async.Hooks),
	}
}

// Invoke runs inv and returns the answer as soon as its head is there. inv.ID, Deadline and
// Timing.Begin are set where they are zero; the deadline is cut to the function's timeout. The
// caller reads Result.Body to its end or closes it early, and closes it in any case: that ends
// the invocation and records its activation. When an error is returned the activation is
// recorded already. Errors are *faas.Error.
func (d *Dispatcher) Invoke(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
	begin(inv)
	_, rev, err := d.cfg.Catalog.Resolve(inv.Function)
	inv.Timing.Add(faas.PhaseResolve, time.Since(inv.Timing.Begin))
	if err != nil {
		// No activation: there is no function whose record it could be.
		return nil, err
	}
	return d.InvokeRevision(ctx, rev, inv)
}

// InvokeRevision is Invoke from the point where the revision is known: the way of ad-hoc code,
// which is in no catalog.
func (d *Dispatcher) InvokeRevision(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	begin(inv)
	if err := d.chains.link(inv); err != nil {
		return nil, finish(newActivation(rev, inv), inv, 0, err, d.cfg.Recorder.Record)
	}
	return d.run(ctx, rev, inv, d.enter, d.cfg.Recorder.Record)
}

// run is the way of every call, whether its caller waits or not. enter takes its place; the finished
// activation goes to record.
func (d *Dispatcher) run(ctx context.Context, rev *faas.Revision, inv *faas.Invocation, enter func(*faas.Revision, *faas.Invocation) (func(), error), record func(*faas.Activation)) (*faas.Result, error) {
	timeout := rev.Limits.Timeout.D()
	if rev.Conductor {
		timeout = maxComposition
	}
	if latest := inv.Timing.Begin.Add(timeout); inv.Deadline.IsZero() || inv.Deadline.After(latest) {
		inv.Deadline = latest
	}
	if note := d.cfg.Note[rev.Contract]; note != nil && inv.Note == nil {
		inv.Note = note(rev, inv)
	}
	act := newActivation(rev, inv)
	if err := bound(inv, rev); err != nil {
		return nil, finish(act, inv, 0, err, record)
	}
	release, err := enter(rev, inv)
	if err != nil {
		return nil, finish(act, inv, 0, err, record)
	}
	if err := gather(inv); err != nil {
		release()
		return nil, finish(act, inv, 0, err, record)
	}
	if err := withParams(inv, d.cfg.Catalog.Params(inv.Function.Name, rev)); err != nil {
		release()
		return nil, finish(act, inv, 0, err, record)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, inv.Deadline, errDeadline)
	if env := d.cfg.Env[rev.Contract]; env != nil {
		var err error
		if inv.Env, err = env(ctx, rev, inv); err != nil {
			cancel()
			release()
			return nil, finish(act, inv, 0, err, record)
		}
	}
	d.chains.begin(inv)
	execute := d.cfg.Node.Execute
	switch {
	case rev.Sequence != nil:
		execute = d.runSequence
	case rev.Conductor:
		execute = d.runConductor
	case d.builtin(rev) != nil:
		execute = d.builtin(rev)
	}
	res, err := execute(ctx, rev, inv)
	if err != nil {
		d.chains.end(inv)
		cancel()
		release()
		return nil, finish(act, inv, 0, err, record)
	}
	if inv.Keep > 0 && inv.Wait == nil {
		var answer func() *faas.Answer
		res.Body, answer = keepAnswer(res, inv.Keep)
		inner := record
		record = func(act *faas.Activation) {
			act.Answer = answer()
			inner(act)
		}
	}
	done := func(failure error) {
		d.chains.end(inv)
		cancel()
		release()
		_ = finish(act, inv, res.Status, failure, record) // whoever reads the answer has met it
	}
	res.Body = track(res.Body, done)
	return res, nil
}

// enter takes a place for a call. One that waited in the queue has had its bounds there; those of
// callers who wait are not its own.
func (d *Dispatcher) enter(rev *faas.Revision, inv *faas.Invocation) (release func(), err error) {
	if inv.Wait == nil {
		return d.admit(rev)
	}
	d.calls.Add(1)
	if d.draining.Load() {
		d.calls.Done()
		return nil, errStopping
	}
	return d.calls.Done, nil
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
	if !d.draining.Swap(true) {
		close(d.stopping)
	}
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
