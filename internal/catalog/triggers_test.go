package catalog

import (
	"sync"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func trigger(name string) *faas.Trigger {
	return &faas.Trigger{Namespace: DefaultNamespace, Name: name, Source: &faas.Source{Kind: "cron", Config: []byte(`{"schedule":"@hourly"}`)}}
}

func TestTriggersAndRules(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs, func(c *Config) { c.MaxTriggers, c.MaxRules = 2, 2 })
	run(t, c)
	var mu sync.Mutex
	var told []EventKind
	c.OnChange(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e.Kind)
	})
	ctx := t.Context()
	publish(t, c, "f", 1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := trigger("each-hour")
	must(c.PutTrigger(ctx, first, false))
	wantCode(t, c.PutTrigger(ctx, trigger("each-hour"), false), faas.Conflict, "exists already", "trigger update")
	changed := trigger("each-hour")
	changed.Paused = true
	must(c.PutTrigger(ctx, changed, true))
	if got, err := c.Trigger(DefaultNamespace, "each-hour"); err != nil || !got.Paused || got.UID != first.UID || !got.Created.Equal(first.Created) {
		t.Errorf("got %+v, %v; want the same one, paused", got, err)
	}
	must(c.PutTrigger(ctx, trigger("b"), false))
	wantCode(t, c.PutTrigger(ctx, trigger("c"), false), faas.Overloaded, "no more than 2")
	wantCode(t, c.PutTrigger(ctx, trigger("no good"), false), faas.Invalid)
	missing := trigger("x")
	missing.Namespace = "nowhere"
	wantCode(t, c.PutTrigger(ctx, missing, false), faas.NotFound)

	rule := func(name, trigger, function string) *faas.Rule {
		return &faas.Rule{Namespace: DefaultNamespace, Name: name, Trigger: trigger, Function: function}
	}
	must(c.PutRule(ctx, rule("r", "each-hour", "f"), false))
	wantCode(t, c.PutRule(ctx, rule("r", "each-hour", "f"), false), faas.Conflict)
	wantCode(t, c.PutRule(ctx, rule("s", "nothing", "f"), false), faas.NotFound, "trigger")
	wantCode(t, c.PutRule(ctx, rule("s", "b", "nothing"), false), faas.NotFound, "function")
	wantCode(t, c.PutRule(ctx, rule("s", "b", "/other/f"), false), faas.Invalid, "own namespace")
	must(c.PutRule(ctx, rule("s", "b", "f"), false))
	wantCode(t, c.PutRule(ctx, rule("u", "b", "f"), false), faas.Overloaded, "no more than 2")

	// What another start finds is the same.
	again := openCatalog(t, docs, secs)
	if ts, rs := again.Triggers(""), again.RulesOf(DefaultNamespace, "each-hour"); len(ts) != 2 || ts[0].Name != "b" || len(rs) != 1 || rs[0].Function != "f" {
		t.Errorf("after a start: %d triggers, rules %+v", len(ts), rs)
	}
	must(c.DeleteTrigger(ctx, DefaultNamespace, "each-hour"))
	wantCode(t, c.DeleteTrigger(ctx, DefaultNamespace, "each-hour"), faas.NotFound)
	if _, err := c.Rule(DefaultNamespace, "r"); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("the rule of a deleted trigger: %v", err)
	}
	must(c.DeleteRule(ctx, DefaultNamespace, "s"))
	wantCode(t, c.DeleteRule(ctx, DefaultNamespace, "s"), faas.NotFound)
	mu.Lock()
	defer mu.Unlock()
	want := []EventKind{FunctionChanged, TriggerChanged, TriggerChanged, TriggerChanged, RuleChanged, RuleChanged, RuleDeleted, TriggerDeleted, RuleDeleted}
	if len(told) != len(want) {
		t.Fatalf("told %v, want %v", told, want)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Errorf("told %v, want %v", told, want)
			break
		}
	}
}

func TestNamespaceTakesItsTriggersAlong(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs)
	if _, err := c.CreateNamespace(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	tr := trigger("t")
	tr.Namespace = "team"
	if err := c.PutTrigger(t.Context(), tr, false); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteNamespace(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	if again := openCatalog(t, docs, secs); len(again.Triggers("")) != 0 || len(c.Triggers("")) != 0 {
		t.Error("a trigger is left of a namespace that is gone")
	}
}

func TestARuleOfAnotherPlatformMayLeadElsewhere(t *testing.T) {
	c := openCatalog(t, store.Memory(), store.Memory())
	r := &faas.Rule{Namespace: DefaultNamespace, Name: "r", Trigger: "gone", Function: "/other/pkg/f", Origin: &faas.Origin{Dialect: "openwhisk"}}
	if err := c.PutRule(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Rule(DefaultNamespace, "r"); err != nil || got.Function != "/other/pkg/f" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A rule that outlives its trigger does not lead from another one of the name.
func TestARuleOfAnotherPlatformIsLeftDisabled(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs)
	tr := &faas.Trigger{Namespace: DefaultNamespace, Name: "t"}
	if err := c.PutTrigger(t.Context(), tr, false); err != nil {
		t.Fatal(err)
	}
	r := &faas.Rule{Namespace: DefaultNamespace, Name: "r", Trigger: "t", Function: "f", Origin: &faas.Origin{Dialect: "openwhisk"}}
	if err := c.PutRule(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTrigger(t.Context(), DefaultNamespace, "t"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Catalog{c, openCatalog(t, docs, secs)} {
		if got, err := c.Rule(DefaultNamespace, "r"); err != nil || !got.Disabled || got.UID != r.UID || got.Origin == nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if r.Disabled {
		t.Error("what the caller holds was changed")
	}
}
