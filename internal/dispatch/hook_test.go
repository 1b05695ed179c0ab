package dispatch_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// hookServer is a web hook that answers as told.
type hookServer struct {
	*httptest.Server
	mu   sync.Mutex
	got  []hookCall
	code func(n int) int
}

type hookCall struct {
	body   string
	header http.Header
}

func newHookServer(t *testing.T, code func(n int) int) *hookServer {
	h := &hookServer{code: code}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.got = append(h.got, hookCall{string(body), r.Header})
		n := len(h.got)
		h.mu.Unlock()
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(h.code(n))
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hookServer) calls() []hookCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

var quick = faas.Duration(10 * time.Millisecond)

func TestAWebHookIsToldAndToldAgain(t *testing.T) {
	h := newHookServer(t, func(n int) int { return []int{503, 302, 204}[min(n-1, 2)] })
	c := deployed(t, map[string]*faas.Async{"default/f": {Backoff: quick, OnSuccess: "nobody"}})
	b := start(t, dispatch.Config{
		Catalog: c, Async: dispatch.AsyncConfig{Hooks: dispatch.HookConfig{Outside: func(netip.Addr) bool { return true }}},
		Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			return &faas.Result{Status: 201, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody([]byte(`{"paid":true}`))}, nil
		}},
	})
	id := b.enqueue(t, call("default/f", faas.Wait{OnSuccess: faas.Destination(h.URL + "/hook?x=1")}))
	eventually(t, "three calls of the hook, and nothing waits", func() bool {
		depths, err := b.queue.Depths(t.Context(), "")
		return err == nil && len(h.calls()) == 3 && len(depths) == 0
	})
	var doc struct {
		ID, Function, Outcome, Namespace string
		Attempt                          int
		Queued, Begun, Ended             time.Time
		Answer                           struct {
			Status int
			Body   struct{ Paid bool }
		}
	}
	keys := map[string]bool{}
	for _, got := range h.calls() {
		keys[got.header.Get("Idempotency-Key")] = true
		if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.ID != string(id) || doc.Function != "f" || doc.Namespace != "default" || doc.Outcome != "ok" || doc.Attempt != 1 || doc.Answer.Status != 201 || !doc.Answer.Body.Paid ||
			doc.Queued.After(doc.Begun) || doc.Begun.After(doc.Ended) || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("told: %s", got.body)
		}
	}
	if len(keys) != 1 || keys[""] {
		t.Errorf("keys %v, want the same each time", keys)
	}
}

func TestAWebHookThatLeadsInsideIsNotCalled(t *testing.T) {
	h := newHookServer(t, func(int) int { return 200 })
	_, port, err := net.SplitHostPort(h.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := deployed(t, map[string]*faas.Async{"default/f": {Backoff: quick}})
	b := start(t, dispatch.Config{Catalog: c, Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) { return text(""), nil }}})
	// Past the check of what is written, as a name would be that another answer is given for later.
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"} {
		inv := &faas.Invocation{
			ID: faas.NewID(time.Now()), Kind: faas.KindDeliver, Path: "http://" + host + ":" + port + "/", Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: "f"}},
			Wait: &faas.Wait{}, Cause: faas.NewID(time.Now()),
		}
		if _, err := b.queue.Push(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		eventually(t, host+" is a dead letter", func() bool {
			dead, err := b.queue.Buried(t.Context(), queue.Filter{Namespace: "default", ID: inv.ID})
			if err != nil || len(dead) == 0 {
				return false
			}
			if why := dead[0].Why; !strings.Contains(why, "does not call this machine") && !strings.Contains(why, "there is no host") && !strings.Contains(why, "could not be looked up") || strings.Contains(why, "127.0.0.1:") {
				t.Errorf("%s: %s", host, why)
			}
			return true
		})
	}
	if n := len(h.calls()); n != 0 {
		t.Errorf("it was called %d times", n)
	}
}

// More deliveries than there are places do not take those of the function either, and all come.
func TestManyDeliveriesHoldUpNobodysCalls(t *testing.T) {
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	h := newHookServer(t, func(int) int { <-release; return 200 })
	defer free()
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	b := start(t, dispatch.Config{
		Catalog: c, Async: dispatch.AsyncConfig{Function: 2, Deliveries: 4, Hooks: dispatch.HookConfig{Outside: func(netip.Addr) bool { return true }}},
		Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) { return text(""), nil }},
	})
	for range 20 {
		b.enqueue(t, call("default/f", faas.Wait{OnSuccess: faas.Destination(h.URL)}))
	}
	eventually(t, "a delivery is under way", func() bool { return len(h.calls()) == 1 })
	id := b.enqueue(t, call("default/f", faas.Wait{Priority: faas.PriorityLow}))
	eventually(t, "the last call beside them has ended", func() bool { return b.stage(t, id) == faas.StageSucceeded })
	free()
	eventually(t, "all deliveries have come", func() bool { return len(h.calls()) == 20 })
}

func TestASlowWebHookHoldsUpNobodysCalls(t *testing.T) {
	release := make(chan struct{})
	h := newHookServer(t, func(int) int { <-release; return 200 })
	defer close(release)
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	b := start(t, dispatch.Config{
		Catalog: c, Async: dispatch.AsyncConfig{Function: 2, Deliveries: 16, Hooks: dispatch.HookConfig{Outside: func(netip.Addr) bool { return true }}},
		Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) { return text(""), nil }},
	})
	for range 4 {
		b.enqueue(t, call("default/f", faas.Wait{OnSuccess: faas.Destination(h.URL)}))
	}
	eventually(t, "four deliveries are under way", func() bool { return len(h.calls()) == 4 })
	id := b.enqueue(t, call("default/f", faas.Wait{}))
	eventually(t, "a call beside them has ended", func() bool { return b.stage(t, id) == faas.StageSucceeded })
}
