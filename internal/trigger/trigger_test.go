package trigger_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func TestFireCallsEachRuleOnceWithTheEvent(t *testing.T) {
	h := triggertest.Open(t)
	h.Function("g")
	tr := h.Trigger("orders", "", nil)
	h.Rule("to-g", "orders", "g")
	tr.Params = map[string]json.RawMessage{"region": []byte(`"eu"`), "size": []byte(`1`)}
	if err := h.Catalog.PutTrigger(t.Context(), tr, true); err != nil {
		t.Fatal(err)
	}
	e := faas.Event{ID: "o-1", Type: "order.placed", Subject: "naïve 1", Data: []byte(`{"size":3}`)}
	for range 3 { // told again and again
		fired, err := h.Manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", e)
		if err != nil || len(fired.Calls) != 2 {
			t.Fatalf("fired %+v, %v", fired, err)
		}
		if failed, err := fired.Settled(t.Context()); failed != 0 || err != nil {
			t.Errorf("settled: %d failed, %v", failed, err)
		}
	}
	calls := h.Node.Calls()
	if len(calls) != 2 || calls[0].Function == calls[1].Function {
		t.Fatalf("calls %+v, want one of f and one of g", calls)
	}
	for _, c := range calls {
		var got map[string]any
		if err := json.Unmarshal([]byte(c.Body), &got); err != nil || got["region"] != "eu" || got["size"] != 3.0 {
			t.Errorf("body %s, want the event's fields upon the trigger's", c.Body)
		}
		for k, want := range map[string]string{"Ce-Id": "o-1", "Ce-Type": "order.placed", "Ce-Subject": "na%C3%AFve%201", "Ce-Specversion": "1.0", "Ce-Source": "/namespaces/default/triggers/orders"} {
			if v := c.Header[k]; len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q, want %q", k, v, want)
			}
		}
	}
}

func TestARuleThatCannotBeCalledHoldsUpNoOther(t *testing.T) {
	h := triggertest.Open(t)
	h.Function("gone")
	h.Trigger("orders", "", nil)
	h.Rule("a-gone", "orders", "gone")
	if err := h.Catalog.Delete(t.Context(), faas.Name{Namespace: catalog.DefaultNamespace, Function: "gone"}); err != nil {
		t.Fatal(err)
	}
	fired, err := h.Manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", faas.Event{Data: []byte(`1`)})
	if err != nil || len(fired.Calls) != 2 || faas.CodeOf(fired.Calls[0].Err) != faas.NotFound || fired.Calls[1].Err != nil {
		t.Fatalf("fired %+v, %v", fired.Calls, err)
	}
	if failed, err := fired.Settled(t.Context()); failed != 1 || err != nil {
		t.Errorf("settled: %d failed, %v; want 1", failed, err)
	}
	if _, err := h.Manager.Fire(t.Context(), catalog.DefaultNamespace, "nothing", faas.Event{}); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("a trigger that does not exist: %v", err)
	}
}

// puppet is a source that does what it is told.
type puppet struct {
	o    trigger.Outside
	what chan func(o trigger.Outside, fire trigger.Fire)
}

// Run implements trigger.Source.
func (s puppet) Run(ctx context.Context, fire trigger.Fire) error {
	for {
		select {
		case do := <-s.what:
			do(s.o, fire)
		case <-ctx.Done():
			return nil
		}
	}
}

// What a source gives up is counted with its trigger, and so is what no function can be called with.
func TestEventsThatArePassedOverAreCounted(t *testing.T) {
	what := make(chan func(trigger.Outside, trigger.Fire))
	h := triggertest.Open(t, trigger.Kind{Name: "told", New: func(o trigger.Outside, _ json.RawMessage) (trigger.Source, error) {
		return puppet{o, what}, nil
	}})
	h.Run()
	h.Trigger("t", "told", map[string]any{})
	want := func(after string, events int64, why string) {
		t.Helper()
		if p := h.Manager.Status(catalog.DefaultNamespace, "t").Passed; p.Events != events || !strings.HasPrefix(p.Why, why) || p.Last.IsZero() == (events > 0) {
			t.Errorf("after %s: passed over %+v; want %d, %s", after, p, events, why)
		}
	}
	// do returns when the source has done it.
	do := func(step func(trigger.Outside, trigger.Fire)) {
		done := make(chan struct{})
		what <- func(o trigger.Outside, fire trigger.Fire) {
			defer close(done)
			step(o, fire)
		}
		<-done
	}
	tell := func(id string) {
		do(func(_ trigger.Outside, fire trigger.Fire) {
			if _, err := fire(t.Context(), faas.Event{ID: id}); err != nil {
				t.Error(err)
			}
		})
	}
	tell("one")
	want("an event that f hears of", 0, "")
	do(func(o trigger.Outside, _ trigger.Fire) { o.PassOver(3, "too large", "bytes", 9, "name", "x") })
	want("three that are too large", 3, "too large (bytes 9, name x)")
	if err := h.Catalog.Delete(t.Context(), faas.Name{Namespace: catalog.DefaultNamespace, Function: "f"}); err != nil {
		t.Fatal(err)
	}
	tell("two")
	want("an event without a function", 4, `no function could be called with event "two": `)
	do(func(o trigger.Outside, _ trigger.Fire) { o.PassOver(0, strings.Repeat("ä", 2000)) })
	want("nobody knows how many", 4, "ää")
	if why := h.Manager.Status(catalog.DefaultNamespace, "t").Passed.Why; len(why) > 1100 || !utf8.ValidString(why) {
		t.Errorf("a reason of %d bytes is told", len(why))
	}
}

func TestARuleOfAnotherPlatformLeadsNowhereElse(t *testing.T) {
	h := triggertest.Open(t)
	h.Trigger("orders", "", nil)
	r := &faas.Rule{Namespace: catalog.DefaultNamespace, Name: "away", Trigger: "orders", Function: "/other/f", Origin: &faas.Origin{Dialect: "elsewhere"}}
	if err := h.Catalog.PutRule(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	fired, err := h.Manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", faas.Event{Data: []byte(`1`)})
	if err != nil || len(fired.Calls) == 0 || faas.CodeOf(fired.Calls[0].Err) != faas.Denied {
		t.Fatalf("fired %+v, %v", fired.Calls, err)
	}
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	h := triggertest.Open(t)
	for _, c := range []struct{ kind, config, want string }{
		{"carrier-pigeon", `{}`, "cron, file, webhook"},
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
	} {
		err := h.Manager.Check(&faas.Trigger{Name: "t", Source: &faas.Source{Kind: c.kind, Config: []byte(c.config), Secrets: []string{"S"}}})
		e := faas.AsError(err)
		if err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error()+" "+e.Fix, c.want) {
			t.Errorf("%s %s: got %v; want an error that says %q", c.kind, c.config, err, c.want)
		}
	}
}

func TestATriggerOfADialectIsFiredByIt(t *testing.T) {
	h := triggertest.Open(t)
	tr := h.Trigger("orders", "", nil)
	tr.Origin = &faas.Origin{Dialect: "other"}
	if err := h.Catalog.PutTrigger(t.Context(), tr, true); err != nil {
		t.Fatal(err)
	}
	var got faas.Event
	h.Manager.Register("other", func(_ context.Context, of *faas.Trigger, e faas.Event) ([]trigger.Call, error) {
		got = e
		return []trigger.Call{{Rule: "r of " + of.Name, Err: errors.New("not there")}}, nil
	})
	fired, err := h.Manager.Fire(t.Context(), catalog.DefaultNamespace, "orders", faas.Event{Data: []byte(`1`)})
	if err != nil || len(fired.Calls) != 1 || fired.Calls[0].Rule != "r of orders" || string(got.Data) != "1" || got.ID == "" {
		t.Errorf("fired %+v, %v with event %+v", fired.Calls, err, got)
	}
	if failed, err := fired.Settled(t.Context()); failed != 1 || err != nil {
		t.Errorf("settled: %d failed, %v", failed, err)
	}
	if len(h.Node.Calls()) != 0 {
		t.Error("its rules were called natively too")
	}
}
