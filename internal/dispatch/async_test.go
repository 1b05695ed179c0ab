package dispatch_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
)

// memo is a journal that forgets nothing.
type memo struct {
	mu   sync.Mutex
	list []*faas.Activation
}

func (m *memo) Record(a *faas.Activation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, a)
}

func (m *memo) Flush(context.Context) error { return nil }

func (m *memo) Get(_ context.Context, namespace string, id faas.ID) (*faas.Activation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range slices.Backward(m.list) {
		if a.ID == id && a.Namespace == namespace {
			return a, nil
		}
	}
	return nil, faas.Errorf(faas.NotFound, "look up activation", "there is none")
}

func (m *memo) all() []*faas.Activation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

// deployed has functions by their full names, each with a policy.
func deployed(t testing.TB, functions map[string]*faas.Async) *catalog.Catalog {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	c, err := catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for name, async := range functions {
		n, err := faas.ParseName("/"+name, "")
		if err != nil {
			t.Fatal(err)
		}
		if n.Namespace != "default" {
			if _, err := c.CreateNamespace(t.Context(), n.Namespace); err != nil && faas.CodeOf(err) != faas.Conflict {
				t.Fatal(err)
			}
		}
		rev := &faas.Revision{
			Name: n, Runtime: "python", Code: "sha256:" + faas.Digest(strings.Repeat("0", 64)),
			Limits: faas.DefaultLimits(), Network: faas.NetworkNone, Async: async,
		}
		rev.ID = rev.Digest()
		if _, err := c.Publish(t.Context(), rev, catalog.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func deployedFor(b *testing.B) *catalog.Catalog {
	return deployed(b, map[string]*faas.Async{"default/f": {}})
}

// bench is a dispatcher with all that is around it, to be made inside of a bubble.
type bench struct {
	*dispatch.Dispatcher
	queue   queue.Queue
	journal *memo
	stop    context.CancelFunc
	ended   chan struct{}
}

func start(t *testing.T, cfg dispatch.Config) *bench {
	t.Helper()
	b := &bench{queue: cfg.Queue, journal: &memo{}, ended: make(chan struct{})}
	if b.queue == nil {
		b.queue = queue.Memory()
	}
	cfg.Queue, cfg.Recorder, cfg.Journal = b.queue, b.journal, b.journal
	b.Dispatcher = dispatch.New(cfg)
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	go func() {
		defer close(b.ended)
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		b.stop()
		<-b.ended
	})
	return b
}

func call(function string, wait faas.Wait) *faas.Invocation {
	n, _ := faas.ParseName("/"+function, "")
	return &faas.Invocation{Function: faas.Ref{Name: n}, Kind: faas.KindInvoke, Method: "POST", Body: strings.NewReader("in"), Length: 2, Wait: &wait}
}

func (b *bench) enqueue(t *testing.T, inv *faas.Invocation) faas.ID {
	t.Helper()
	id, err := b.Enqueue(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) stage(t *testing.T, id faas.ID) faas.Stage {
	t.Helper()
	w, err := b.Standing(t.Context(), "default", id)
	if err != nil {
		t.Fatal(err)
	}
	return w.Stage
}

func text(s string) *faas.Result {
	return &faas.Result{Status: 200, Header: map[string][]string{"Content-Type": {"text/plain"}}, Body: faas.NewBytesBody([]byte(s))}
}

type execute func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error)

var failed = faas.Errorf(faas.Failed, "", "boom")

func TestFailuresAreTriedAgainLaterAndLater(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			at = append(at, time.Now())
			if got := inv.Header["Brasa-Attempt"]; len(got) != 1 || got[0] != fmt.Sprint(len(at)) || inv.Attempt != len(at) {
				t.Errorf("attempt %d, header %q; want %d", inv.Attempt, got, len(at))
			}
			if body, err := io.ReadAll(inv.Body); err != nil || string(body) != "in" {
				t.Errorf("attempt %d gets %q, %v", inv.Attempt, body, err)
			}
			if len(at) < 3 {
				return nil, failed
			}
			return text("out"), nil
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{}))
		synctest.Wait()
		if s := b.stage(t, id); s != faas.StageRetrying {
			t.Errorf("after the first failure it is %s", s)
		}
		time.Sleep(time.Minute)
		if len(at) != 3 {
			t.Fatalf("%d attempts, want 3", len(at))
		}
		for i, want := range []time.Duration{time.Second, 2 * time.Second} {
			if got := at[i+1].Sub(at[i]); got < want*8/10 || got > want*12/10 {
				t.Errorf("retry %d after %v, want %v give or take a fifth", i+1, got, want)
			}
		}
		if s := b.stage(t, id); s != faas.StageSucceeded {
			t.Errorf("in the end it is %s", s)
		}
		acts := b.journal.all()
		if len(acts) != 3 {
			t.Fatalf("%d activations, want one for each attempt", len(acts))
		}
		for i, a := range acts[:2] {
			if a.ID == id || a.Cause != id || a.Outcome != faas.Failed || a.Attempt != i+1 || !a.Interim {
				t.Errorf("activation of attempt %d: %+v", i+1, a)
			}
		}
		if a := acts[2]; a.ID != id || a.Interim || a.Outcome != faas.OK || a.Attempt != 3 || a.Answer == nil || string(a.Answer.Body) != "out" || a.Answer.Status != 200 || a.Answer.Cut {
			t.Errorf("last activation: %+v with answer %+v", a, a.Answer)
		}
	})
}

func TestWhatFailsTooOftenIsADeadLetterWithItsReason(t *testing.T) {
	one := 1
	c := deployed(t, map[string]*faas.Async{"default/f": {Retries: &one}})
	for name, answer := range map[string]execute{
		"boom": func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) { return nil, failed },
		"the function answered with status": func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			r := text("no")
			r.Status = 503
			return r, nil
		},
		"half": func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			return &faas.Result{Status: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{faas.Errorf(faas.Crashed, "", "half")}))}, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, dispatch.Config{Catalog: c, Node: &node{answer}})
			id := b.enqueue(t, call("default/f", faas.Wait{}))
			time.Sleep(time.Minute)
			w, err := b.Standing(t.Context(), "default", id)
			if err != nil || w.Stage != faas.StageDead || w.Attempt != 2 || !strings.Contains(w.Error, name) || !strings.Contains(w.Error, "attempt 2 of 2") {
				t.Errorf("%s: standing %+v, %v", name, w, err)
			}
			if n, err := b.queue.Purge(t.Context(), queue.Filter{Namespace: "default"}); n != 1 || err != nil {
				t.Errorf("purged %d, %v", n, err)
			}
			if s := b.stage(t, id); s != faas.StageFailed {
				t.Errorf("%s: without its dead letter it is %s", name, s)
			}
		})
	}
}

func TestADeadLetterThatIsRedrivenBeginsAnew(t *testing.T) {
	none := 0
	c := deployed(t, map[string]*faas.Async{"default/f": {Retries: &none}})
	synctest.Test(t, func(t *testing.T) {
		broken := true
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			if inv.Attempt != 1 {
				t.Errorf("attempt %d", inv.Attempt)
			}
			if broken {
				return nil, failed
			}
			return text("mended"), nil
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(48 * time.Hour) // older than any call may become, were it not redriven
		broken = false
		if n, err := b.queue.Redrive(t.Context(), queue.Filter{Namespace: "default", ID: id}); n != 1 || err != nil {
			t.Fatalf("redrove %d, %v", n, err)
		}
		time.Sleep(time.Second)
		if s := b.stage(t, id); s != faas.StageSucceeded {
			t.Errorf("it is %s", s)
		}
	})
}

func TestWhatThePlatformCouldNotDoDoesNotCount(t *testing.T) {
	none := 0
	c := deployed(t, map[string]*faas.Async{"default/f": {Retries: &none, MaxAge: faas.Duration(time.Hour)}})
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			if inv.Attempt != 1 {
				t.Errorf("attempt %d", inv.Attempt)
			}
			if calls++; calls < 20 {
				return nil, faas.Errorf(faas.Overloaded, "", "no memory")
			}
			return text(""), nil
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(10 * time.Minute)
		if s := b.stage(t, id); s != faas.StageSucceeded || calls != 20 {
			t.Errorf("after %d tries it is %s", calls, s)
		}
		calls = -1 << 30
		id = b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(time.Hour + time.Minute)
		if w, err := b.Standing(t.Context(), "default", id); err != nil || w.Stage != faas.StageDead || !strings.Contains(w.Error, "no memory") || !strings.Contains(w.Error, "1h0m0s") {
			t.Errorf("after its time it is %+v, %v", w, err)
		}
	})
}

func TestACallOfAFunctionThatIsGoneIsGivenUpAtOnce(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	var b *bench
	synctest.Test(t, func(t *testing.T) {
		b = start(t, dispatch.Config{Catalog: c, Node: &node{}})
		inv := call("default/gone", faas.Wait{})
		inv.ID = faas.NewID(time.Now())
		if _, err := b.queue.Push(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if w, err := b.Standing(t.Context(), "default", inv.ID); err != nil || w.Stage != faas.StageDead || w.Attempt != 1 || !strings.Contains(w.Error, "does not exist") {
			t.Errorf("standing %+v, %v", w, err)
		}
	})
}

func TestWhatCouldNeverRunIsNotAccepted(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	d := dispatch.New(dispatch.Config{Catalog: c, Queue: queue.Memory(), Recorder: &memo{}, Journal: &memo{}, Node: broken{}})
	good := func(change func(*faas.Invocation)) *faas.Invocation {
		inv := call("default/f", faas.Wait{})
		change(inv)
		return inv
	}
	for want, c := range map[string]struct {
		inv  *faas.Invocation
		code faas.Code
	}{
		"does not exist":       {call("default/nobody", faas.Wait{}), faas.NotFound},
		"no such language":     {good(func(inv *faas.Invocation) { inv.Header = map[string][]string{"Broken": {"1"}} }), faas.Unavailable},
		"limit of 8MiB":        {good(func(inv *faas.Invocation) { inv.Length = 8<<20 + 1 }), faas.TooLarge},
		"over the":             {good(func(inv *faas.Invocation) { inv.Body, inv.Length = io.LimitReader(zeros{}, 8<<20+1), -1 }), faas.TooLarge},
		"on_success":           {call("default/f", faas.Wait{OnSuccess: "nobody"}), faas.Invalid},
		"check on_failure":     {call("default/f", faas.Wait{OnFailure: "http://169.254.169.254/latest"}), faas.Invalid},
		"\"127.0.0.1\"":        {call("default/f", faas.Wait{OnSuccess: "https://127.0.0.1:8080/"}), faas.Invalid},
		"\"10.1.2.3\"":         {call("default/f", faas.Wait{OnSuccess: "http://10.1.2.3/"}), faas.Invalid},
		"\"::1\"":              {call("default/f", faas.Wait{OnSuccess: "http://[::1]/"}), faas.Invalid},
		"\"::ffff:10.0.0.1\"":  {call("default/f", faas.Wait{OnSuccess: "http://[::ffff:10.0.0.1]/"}), faas.Invalid},
		"\"localhost\"":        {call("default/f", faas.Wait{OnSuccess: "http://localhost/"}), faas.Invalid},
		"a step is a function": {call("default/f", faas.Wait{Then: []faas.Destination{"f", "https://example.com/"}}), faas.Invalid},
		"then":                 {call("default/f", faas.Wait{Then: []faas.Destination{"f", "nobody"}}), faas.Invalid},
		"priority":             {call("default/f", faas.Wait{Priority: "soon"}), faas.Invalid},
	} {
		if _, isBroken := c.inv.Header["Broken"]; isBroken {
			d := dispatch.New(dispatch.Config{Catalog: deployed(t, map[string]*faas.Async{"default/f": {}}), Queue: queue.Memory(), Node: broken{true}})
			_, err := d.Enqueue(t.Context(), c.inv)
			if faas.CodeOf(err) != c.code || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", want, err)
			}
			continue
		}
		_, err := d.Enqueue(t.Context(), c.inv)
		if e := faas.AsError(err); err == nil || e.Code != c.code || !strings.Contains(err.Error(), want) || c.code == faas.TooLarge && e.Limit == "" {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := d.Enqueue(t.Context(), call("default/f", faas.Wait{OnSuccess: "https://example.com/", OnFailure: "f"})); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// broken is a node that knows what it can't run.
type broken struct{ all bool }

func (broken) Execute(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
	return nil, errors.New("not to be run")
}
func (broken) Status() faas.NodeStatus { return faas.NodeStatus{} }
func (b broken) Check(*faas.Revision) error {
	if b.all {
		return faas.Errorf(faas.Unavailable, "run function", "no such language here")
	}
	return nil
}

// lateQueue has a function deleted when a call of it is accepted, and nothing of it left.
type lateQueue struct {
	queue.Queue
	before func()
}

func (q *lateQueue) Push(ctx context.Context, inv *faas.Invocation) (faas.ID, error) {
	q.before()
	return q.Queue.Push(ctx, inv)
}

func TestACallIsNotLeftForANewFunctionOfTheName(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	name := faas.Name{Namespace: "default", Function: "f"}
	_, rev, err := c.Resolve(faas.Ref{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		q := &lateQueue{Queue: queue.Memory()}
		q.before = func() {
			if err := c.Delete(t.Context(), name); err != nil {
				t.Error(err)
			}
			if err := q.Drop(t.Context(), name); err != nil {
				t.Error(err)
			}
			if again {
				next := *rev
				next.ID = ""
				if _, err := c.Publish(t.Context(), &next, catalog.PublishOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
		d := dispatch.New(dispatch.Config{Catalog: c, Queue: q, Recorder: &memo{}, Journal: &memo{}, Node: &node{}})
		if _, err := d.Enqueue(t.Context(), call("default/f", faas.Wait{})); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("made again: %v: %v", again, err)
		}
		if depths, err := q.Depths(t.Context(), "default"); err != nil || len(depths) != 0 {
			t.Errorf("made again: %v: left in the queue: %+v, %v", again, depths, err)
		}
		if !again {
			next := *rev
			next.ID = ""
			if _, err := c.Publish(t.Context(), &next, catalog.PublishOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
