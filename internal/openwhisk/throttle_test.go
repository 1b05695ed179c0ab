package openwhisk_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// held has an action that goes on until release is closed.
func (w *world) held(name string) (release func()) {
	gate := make(chan struct{})
	w.do(name, func(map[string]any) (any, error) { <-gate; return map[string]any{}, nil })
	release = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(release)
	return release
}

// Calls that nobody waits for are in flight as much as others, until they have an outcome.
func TestCallsThatNobodyWaitsForAreConcurrent(t *testing.T) {
	var triggers *trigger.Manager
	w := open(t, func(c *openwhisk.Config) { c.Limits.Concurrent, triggers = 3, c.Triggers })
	release := w.held("guest/p/slow")
	w.play([]step{
		{item: 179, method: "PUT", path: "_/packages/p", body: `{"publish":true}`, status: 200},
		{item: 179, method: "PUT", path: "_/actions/p/slow", body: nodeCode, status: 200},
		{item: 179, method: "PUT", path: "_/actions/s", body: sequence("/_/p/slow", "/_/p/slow"), status: 200},
		{item: 179, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 179, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/_/p/slow"}`, status: 200},
		{item: 179, method: "PUT", path: "_/triggers/alarm", body: `{"annotations":[{"key":"feed","value":"/whisk.system/alarms/alarm"}]}`, status: 200},
		{item: 179, method: "PUT", path: "_/rules/of-alarm", body: `{"trigger":"/_/alarm","action":"/_/p/slow"}`, status: 200},
	})
	if a := w.feed("alarm", "CREATE", "/_/alarm", map[string]any{"cron": "0 0 1 1 *"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.play([]step{
		// One that others share is the caller's call.
		{item: 179, who: "other", method: "POST", path: "guest/actions/p/slow", body: `{}`, status: 202},
		{item: 179, method: "POST", path: "_/actions/p/slow", body: `{}`, status: 202},
		{item: 179, method: "POST", path: "_/actions/s", body: `{}`, status: 202}, // with all its actions
		{item: 179, method: "POST", path: "_/triggers/t", body: `{}`, status: 202},
		{item: 179, method: "POST", path: "_/actions/p/slow", body: `{}`, status: 429, want: `{"error":"~concurrent requests in flight (count: 4, allowed: 3)"}`},
		{item: 179, method: "POST", path: "_/actions/p/slow?blocking=true", body: `{}`, status: 429, want: `{"error":"~concurrent"}`},
	})
	// The rules of a trigger make calls like any others: what is refused is said in its record.
	fired := w.send("guest", "POST", "_/triggers/t", `{}`)
	if r := w.recordOf(fired.id()); fired.status != 202 || !strings.Contains(r.body, `\"success\":false`) || !strings.Contains(r.body, "concurrent requests in flight") {
		t.Errorf("item 179: a trigger of which all is in flight: %d, %s", fired.status, r.body)
	}
	// So is an alarm's.
	if fired, err := triggers.Fire(t.Context(), "guest", "alarm", faas.Event{ID: "now"}); err != nil || len(fired.Calls) != 1 || fired.Calls[0].Err == nil {
		t.Errorf("an alarm while all is in flight: %+v, %v", fired.Calls, err)
	}
	w.until("the alarm's record", func() bool {
		a := w.send("guest", "GET", "_/activations?name=alarm&docs=true", "")
		return strings.Contains(a.body, "concurrent requests in flight")
	})
	// What a source holds until it is taken is told again.
	event := faas.Event{ID: "one", Data: []byte(`{"of":"a source"}`)}
	if _, err := triggers.Fire(t.Context(), "guest", "t", event); faas.CodeOf(err) != faas.Overloaded {
		t.Errorf("an event of a source while all is in flight: %v, want Overloaded", err)
	}
	release()
	w.until("places", func() bool { return w.send("guest", "POST", "_/actions/p/slow", `{}`).status == 202 })
	w.until("the event taken", func() bool {
		_, err := triggers.Fire(t.Context(), "guest", "t", event)
		return err == nil
	})
	w.until("the event's call", func() bool {
		n := 0
		for _, r := range w.calls("guest/p/slow") {
			if r.args["of"] != nil {
				n++
			}
		}
		return n == 1
	})
}

// Whoever has seen the record of a call finds its place free.
func TestPlaceOfACallThatHasARecord(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) { c.Limits.Concurrent = 1 })
	w.play([]step{{item: 179, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200}})
	for range 50 {
		a := w.send("guest", "POST", "_/actions/a", `{}`)
		if a.status != 202 {
			t.Fatalf("item 179: %d %s", a.status, a.body)
		}
		w.recordOf(a.id())
	}
}

// Of a crowd as many are accepted as there are places, neither more nor fewer.
func TestCrowd(t *testing.T) {
	const places, crowd = 20, 60
	w := open(t, func(c *openwhisk.Config) { c.Limits.Concurrent = places })
	w.held("guest/slow")
	w.play([]step{{item: 179, method: "PUT", path: "_/actions/slow", body: nodeCode, status: 200}})
	var accepted, refused atomic.Int64
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() {
			path := "_/actions/slow"
			if i%3 == 0 {
				path += "?blocking=true&timeout=1"
			}
			switch a := w.send("guest", "POST", path, fmt.Sprintf(`{"i":%d}`, i)); a.status {
			case http.StatusAccepted:
				accepted.Add(1)
			case http.StatusTooManyRequests:
				refused.Add(1)
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if accepted.Load() != places || refused.Load() != crowd-places {
		t.Errorf("item 179: %d of %d accepted and %d refused; there are %d places", accepted.Load(), crowd, refused.Load(), places)
	}
}
