package trigger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
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

// node is the machine of the tests: what functions there do is decided by each test.
type node struct {
	mu    sync.Mutex
	calls []call                       // guarded by mu
	do    func(call) error             // what a function does; nil: it succeeds
	acts  map[faas.ID]*faas.Activation // guarded by mu
}

type call struct {
	function string
	id       faas.ID
	header   map[string][]string
	body     string
	attempt  int
}

func (n *node) Execute(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	c := call{function: rev.Name.Path(), id: inv.ID, header: inv.Header, attempt: inv.Attempt}
	if inv.Body != nil {
		b, err := io.ReadAll(inv.Body)
		if err != nil {
			return nil, err
		}
		c.body = string(b)
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

func (n *node) Status() faas.NodeStatus { return faas.NodeStatus{} }

// Record and what follows make of it the journal.
func (n *node) Record(a *faas.Activation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Cause == "" || n.acts[a.ID] == nil {
		n.acts[a.ID] = a
	}
}

func (n *node) Get(_ context.Context, _ string, id faas.ID) (*faas.Activation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.acts[id]; a != nil {
		return a, nil
	}
	return nil, faas.Errorf(faas.NotFound, "find", "no such call")
}

func (n *node) Flush(context.Context) error { return nil }

func (n *node) got() []call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]call(nil), n.calls...)
}

// until waits until what is looked for is there.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("it did not come to be: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// house is a catalog, a dispatcher and a manager that run.
type house struct {
	t       testing.TB
	node    *node
	catalog *catalog.Catalog
	queue   queue.Queue
	state   store.Store
	manager *trigger.Manager
	clock   *clock
	stop    func()
}

// clock is the wall clock as sources see it; it can be set.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) step(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += by
}

func open(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, node: &node{acts: map[faas.ID]*faas.Activation{}}, queue: queue.Memory(), state: store.Memory(), clock: &clock{}}
	var err error
	h.catalog, err = catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	h.function("f")
	d := dispatch.New(dispatch.Config{Catalog: h.catalog, Node: h.node, Recorder: h.node, Queue: h.queue, Journal: h.node})
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
	h.manager = trigger.New(trigger.Config{
		Catalog: h.catalog, Dispatcher: d, State: h.state, Now: h.clock.now, Dial: (&net.Dialer{}).DialContext,
		RetryLeast: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond,
	})
	return h
}

// run runs the sources until the test or the returned function ends them.
func (h *house) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.manager.Run(ctx); err != nil {
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

func (h *house) function(name string) {
	h.t.Helper()
	rev := &faas.Revision{
		Name: faas.Name{Namespace: catalog.DefaultNamespace, Function: name}, Runtime: "exec", Entry: "f",
		Code: faas.Digest(fmt.Sprintf("sha256:%064x", 1)), Limits: faas.DefaultLimits(), Network: faas.NetworkNone,
	}
	if _, err := h.catalog.Publish(h.t.Context(), rev, catalog.PublishOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) secret(name, value string) {
	h.t.Helper()
	if _, err := h.catalog.PutSecret(h.t.Context(), catalog.DefaultNamespace, name, []byte(value)); err != nil {
		h.t.Fatal(err)
	}
}

// trigger makes one with a rule to f.
func (h *house) trigger(name, kind string, config any, secrets ...string) *faas.Trigger {
	h.t.Helper()
	t := &faas.Trigger{Namespace: catalog.DefaultNamespace, Name: name}
	if kind != "" {
		b, err := json.Marshal(config)
		if err != nil {
			h.t.Fatal(err)
		}
		t.Source = &faas.Source{Kind: kind, Config: b, Secrets: secrets}
	}
	if err := trigger.Check(t); err != nil {
		h.t.Fatal(err)
	}
	if err := h.catalog.PutTrigger(h.t.Context(), t, false); err != nil {
		h.t.Fatal(err)
	}
	h.rule(name+"-f", name, "f")
	return t
}

func (h *house) rule(name, of, function string) {
	h.t.Helper()
	r := &faas.Rule{Namespace: catalog.DefaultNamespace, Name: name, Trigger: of, Function: function}
	if err := h.catalog.PutRule(h.t.Context(), r, false); err != nil {
		h.t.Fatal(err)
	}
}

func TestFireCallsEachRuleOnceWithTheEvent(t *testing.T) {
	h := open(t)
	h.function("g")
	tr := h.trigger("orders", "", nil)
	h.rule("to-g", "orders", "g")
	tr.Params = map[string]json.RawMessage{"region": []byte(`"eu"`), "size": []byte(`1`)}
	if err := h.catalog.PutTrigger(t.Context(), tr, true); err != nil {
		t.Fatal(err)
	}
	e := faas.Event{ID: "o-1", Type: "order.placed", Subject: "naïve 1", Data: []byte(`{"size":3}`)}
	for range 3 { // told again and again
		fired, err := h.manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", e)
		if err != nil || len(fired.Calls) != 2 {
			t.Fatalf("fired %+v, %v", fired, err)
		}
		if failed, err := fired.Settled(t.Context()); failed != 0 || err != nil {
			t.Errorf("settled: %d failed, %v", failed, err)
		}
	}
	calls := h.node.got()
	if len(calls) != 2 || calls[0].function == calls[1].function {
		t.Fatalf("calls %+v, want one of f and one of g", calls)
	}
	for _, c := range calls {
		var got map[string]any
		if err := json.Unmarshal([]byte(c.body), &got); err != nil || got["region"] != "eu" || got["size"] != 3.0 {
			t.Errorf("body %s, want the event's fields upon the trigger's", c.body)
		}
		for k, want := range map[string]string{"Ce-Id": "o-1", "Ce-Type": "order.placed", "Ce-Subject": "na%C3%AFve%201", "Ce-Specversion": "1.0", "Ce-Source": "/namespaces/default/triggers/orders"} {
			if v := c.header[k]; len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q, want %q", k, v, want)
			}
		}
	}
}

func TestARuleThatCannotBeCalledHoldsUpNoOther(t *testing.T) {
	h := open(t)
	h.function("gone")
	h.trigger("orders", "", nil)
	h.rule("a-gone", "orders", "gone")
	if err := h.catalog.Delete(t.Context(), faas.Name{Namespace: catalog.DefaultNamespace, Function: "gone"}); err != nil {
		t.Fatal(err)
	}
	fired, err := h.manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", faas.Event{Data: []byte(`1`)})
	if err != nil || len(fired.Calls) != 2 || faas.CodeOf(fired.Calls[0].Err) != faas.NotFound || fired.Calls[1].Err != nil {
		t.Fatalf("fired %+v, %v", fired.Calls, err)
	}
	if failed, err := fired.Settled(t.Context()); failed != 1 || err != nil {
		t.Errorf("settled: %d failed, %v; want 1", failed, err)
	}
	if _, err := h.manager.Fire(t.Context(), catalog.DefaultNamespace, "nothing", faas.Event{}); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("a trigger that does not exist: %v", err)
	}
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	for _, c := range []struct{ kind, config, want string }{
		{"carrier-pigeon", `{}`, "cron, jetstream, nats, webhook"},
		{"cron", `{}`, "schedule is missing"},
		{"cron", `{"schedule":"61 * * * *"}`, "61 * * * *"},
		{"cron", `{"schedule":"0 0 30 2 *"}`, "never comes"},
		{"cron", `{"schedule":"@every 10ms"}`, "second"},
		{"cron", `{"schedule":"@daily","zone":"Europe/Atlantis"}`, "Atlantis"},
		{"cron", `{"schedule":"TZ=UTC 0 0 * * *"}`, "no schedule"},
		{"cron", `{"schedule":"@daily","overlap":"sometimes"}`, "allow, queue or skip"},
		{"cron", `{"schedule":"@daily","catch_up":"sometimes"}`, "none, last or all"},
		{"cron", `{"schedule":"@daily","shedule":"x"}`, "shedule"},
		{"cron", `{"schedule":"@daily","data":[1]}`, "JSON object"},
		{"webhook", `{}`, "scheme is missing"},
		{"webhook", `{"scheme":"github"}`, "secret is missing"},
		{"webhook", `{"scheme":"github","secret":"OTHER"}`, "not among"},
		{"webhook", `{"scheme":"hmac","secret":"S"}`, "header is missing"},
		{"webhook", `{"scheme":"hmac","secret":"S","header":"X-Sign","digest":"md5"}`, "md5"},
		{"webhook", `{"scheme":"github","secret":"S","header":"X"}`, "scheme hmac"},
		{"nats", `{"url":"http://x:1","subject":"a"}`, "no address"},
		{"nats", `{"url":"nats://u:p@x:1","subject":"a"}`, "password"},
		{"nats", `{"url":"nats://x:1"}`, "subject is missing"},
		{"nats", `{"url":"nats://x:1","subject":"a..b"}`, "a..b"},
		{"jetstream", `{"url":"nats://x:1","stream":"A B"}`, "A B"},
		{"jetstream", `{"url":"nats://x:1","stream":"A","parallel":-1}`, "parallel"},
	} {
		err := trigger.Check(&faas.Trigger{Name: "t", Source: &faas.Source{Kind: c.kind, Config: []byte(c.config), Secrets: []string{"S"}}})
		e := faas.AsError(err)
		if err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error()+" "+e.Fix, c.want) {
			t.Errorf("%s %s: got %v; want an error that says %q", c.kind, c.config, err, c.want)
		}
		if err != nil && strings.Contains(e.Error()+e.Fix, "u:p@") {
			t.Errorf("%s: the error repeats a password", err)
		}
	}
}

func TestASourceIsRunAgain(t *testing.T) {
	h := open(t)
	h.run()
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody there speaks NATS
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	h.trigger("t", "nats", map[string]any{"url": "nats://" + address, "subject": "a"})
	until(t, "a status with an error", func() bool {
		s := h.manager.Status(catalog.DefaultNamespace, "t")
		return !s.Running && strings.Contains(s.Error, address)
	})
	startNATS(t, address)
	until(t, "the source runs", func() bool { return h.manager.Status(catalog.DefaultNamespace, "t").Running })
}
