// Package triggertest is a house for tests of sources: a catalog, a dispatcher and a manager that
// run, and a machine on which a test decides what functions do.
package triggertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// Node is the machine of the tests: what functions there do is decided by each test.
type Node struct {
	mu    sync.Mutex
	calls []Call                       // guarded by mu
	do    func(Call) error             // guarded by mu
	acts  map[faas.ID]*faas.Activation // guarded by mu
}

// Call is what a function was called with.
type Call struct {
	Function string // its path
	ID       faas.ID
	Header   map[string][]string
	Body     string
	Attempt  int
}

// Execute implements dispatch.Node.
func (n *Node) Execute(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	c := Call{Function: rev.Name.Path(), ID: inv.ID, Header: inv.Header, Attempt: inv.Attempt}
	if inv.Body != nil {
		b, err := io.ReadAll(inv.Body)
		if err != nil {
			return nil, err
		}
		c.Body = string(b)
	}
	n.mu.Lock()
	n.calls = append(n.calls, c)
	do := n.do
	n.mu.Unlock()
	if do != nil {
		if err := do(c); err != nil {
			return nil, err
		}
	}
	return &faas.Result{Status: 200, Body: faas.NewBytesBody([]byte("{}"))}, nil
}

// Status implements dispatch.Node.
func (n *Node) Status() faas.NodeStatus { return faas.NodeStatus{} }

// Record implements dispatch.Recorder; it and what follows make of the node a journal.
func (n *Node) Record(a *faas.Activation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Cause == "" || n.acts[a.ID] == nil {
		n.acts[a.ID] = a
	}
}

// Get finds the record of a call that has ended.
func (n *Node) Get(_ context.Context, _ string, id faas.ID) (*faas.Activation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.acts[id]; a != nil {
		return a, nil
	}
	return nil, faas.Errorf(faas.NotFound, "find", "no such call")
}

// Flush has nothing to do.
func (n *Node) Flush(context.Context) error { return nil }

// Do has functions do something; without, they succeed.
func (n *Node) Do(do func(Call) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.do = do
}

// Calls are those that there were.
func (n *Node) Calls() []Call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Call(nil), n.calls...)
}

// Until waits until what is looked for is there.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("it did not come to be: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// House is a catalog, a dispatcher and a manager that run.
type House struct {
	Node    *Node
	Catalog *catalog.Catalog
	Queue   queue.Queue
	State   store.Store
	Manager *trigger.Manager
	Clock   *Clock

	t testing.TB
}

// Clock is the wall clock as sources see it; it can be set.
type Clock struct {
	mu  sync.Mutex
	off time.Duration
}

// Now is the time on the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

// Step sets the clock forward, or back.
func (c *Clock) Step(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += by
}

// Open builds one, with a function f. Sources are of the kinds that every manager has, and of those
// that are given.
func Open(t testing.TB, kinds ...trigger.Kind) *House {
	t.Helper()
	return OpenWith(t, nil, kinds...)
}

// OpenWith is Open with directories of the disk that sources may watch.
func OpenWith(t testing.TB, files []trigger.Opened, kinds ...trigger.Kind) *House {
	t.Helper()
	h := &House{t: t, Node: &Node{acts: map[faas.ID]*faas.Activation{}}, Queue: queue.Memory(), State: store.Memory(), Clock: &Clock{}}
	var err error
	h.Catalog, err = catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	h.Function("f")
	d := dispatch.New(dispatch.Config{Catalog: h.Catalog, Node: h.Node, Recorder: h.Node, Queue: h.Queue, Journal: h.Node})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := d.Run(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	h.Manager = trigger.New(trigger.Config{
		Catalog: h.Catalog, Dispatcher: d, State: h.State, Now: h.Clock.Now, Kinds: kinds, Files: files, Dial: (&net.Dialer{}).DialContext,
		RetryLeast: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond,
	})
	return h
}

// Run runs the sources until the test or the returned function ends them.
func (h *House) Run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Manager.Run(ctx); err != nil {
			h.t.Error(err)
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-done
		})
	}
	h.t.Cleanup(stop)
	return stop
}

// Function publishes one.
func (h *House) Function(name string) {
	h.t.Helper()
	rev := &faas.Revision{
		Name: faas.Name{Namespace: catalog.DefaultNamespace, Function: name}, Runtime: "exec", Entry: "f",
		Code: faas.Digest(fmt.Sprintf("sha256:%064x", 1)), Limits: faas.DefaultLimits(), Network: faas.NetworkNone,
	}
	if _, err := h.Catalog.Publish(h.t.Context(), rev, catalog.PublishOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// Secret keeps one.
func (h *House) Secret(name, value string) {
	h.t.Helper()
	if _, err := h.Catalog.PutSecret(h.t.Context(), catalog.DefaultNamespace, name, []byte(value)); err != nil {
		h.t.Fatal(err)
	}
}

// Trigger makes one with a rule to f.
func (h *House) Trigger(name, kind string, config any, secrets ...string) *faas.Trigger {
	h.t.Helper()
	t := &faas.Trigger{Namespace: catalog.DefaultNamespace, Name: name}
	if kind != "" {
		b, err := json.Marshal(config)
		if err != nil {
			h.t.Fatal(err)
		}
		t.Source = &faas.Source{Kind: kind, Config: b, Secrets: secrets}
	}
	if err := h.Manager.Check(t); err != nil {
		h.t.Fatal(err)
	}
	if err := h.Catalog.PutTrigger(h.t.Context(), t, false); err != nil {
		h.t.Fatal(err)
	}
	h.Rule(name+"-f", name, "f")
	return t
}

// Rule links a trigger to a function.
func (h *House) Rule(name, of, function string) {
	h.t.Helper()
	r := &faas.Rule{Namespace: catalog.DefaultNamespace, Name: name, Trigger: of, Function: function}
	if err := h.Catalog.PutRule(h.t.Context(), r, false); err != nil {
		h.t.Fatal(err)
	}
}
