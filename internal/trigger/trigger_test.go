package trigger_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

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
