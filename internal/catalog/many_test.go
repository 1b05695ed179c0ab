package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// A page of a list has the newest revisions first, and costs no more where there are many functions.
func TestNewest(t *testing.T) {
	c := open(t, func(c *Config) { c.MaxFunctions = 5000 })
	at := time.Now().UTC()
	put := func(fn string, n int) {
		rev := revision(fn, n)
		at = at.Add(time.Second)
		rev.Created = at
		if _, err := c.Publish(t.Context(), rev, PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	names := func(fns []*faas.Function, total int) string {
		var out []string
		for _, fn := range fns {
			out = append(out, fn.Name.Path())
		}
		return fmt.Sprint(out, total)
	}
	for _, fn := range []string{"a", "pkg/a", "b", "pkg/b", "c"} {
		put(fn, 1)
	}
	put("b", 2)
	put("gone", 1)
	if err := c.Delete(t.Context(), name("gone")); err != nil {
		t.Fatal(err)
	}
	for want, got := range map[string]string{
		"[b c pkg/b pkg/a a] 5": names(c.Newest(DefaultNamespace, 0, 10)),
		"[pkg/b pkg/a] 5":       names(c.Newest(DefaultNamespace, 2, 2)),
		"[] 5":                  names(c.Newest(DefaultNamespace, 9, 2)),
		"[pkg/b pkg/a] 2":       names(c.NewestIn(DefaultNamespace, "pkg", 0, 10)),
		"[b c a] 3":             names(c.NewestIn(DefaultNamespace, "", 0, 10)),
		"[] 0":                  names(c.NewestIn(DefaultNamespace, "none", 0, 10)),
		"[pkg/a pkg/b] 0":       names(c.FunctionsIn(DefaultNamespace, "pkg"), 0),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	few := testing.AllocsPerRun(5, func() { c.Newest(DefaultNamespace, 0, 2) })
	for i := range 3000 {
		put(fmt.Sprintf("many-%d", i), 1)
	}
	if got, want := names(c.Newest(DefaultNamespace, 1500, 2)), "[many-1499 many-1498] 3005"; got != want {
		t.Errorf("in the middle there are %s, want %s", got, want)
	}
	// The list of what is sorted grows by doubling, and nothing else grows.
	if many := testing.AllocsPerRun(5, func() { c.Newest(DefaultNamespace, 0, 2) }); many > few+100 {
		t.Errorf("a page allocates %v times among 3,000 functions and %v times among 5", many, few)
	}
}

// A trigger's rules are found without looking at those of others, whatever becomes of both.
func TestRulesOfATrigger(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(t, c, "f", 1)
	must(c.PutTrigger(ctx, trigger("a"), false))
	must(c.PutTrigger(ctx, trigger("b"), false))
	rule := func(name, trigger string) *faas.Rule {
		return &faas.Rule{Namespace: DefaultNamespace, Name: name, Trigger: trigger, Function: "f"}
	}
	want := func(c *Catalog, trigger string, rules ...string) {
		t.Helper()
		var got []string
		for _, r := range c.RulesOf(DefaultNamespace, trigger) {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, rules) {
			t.Errorf("the rules of trigger %q are %q, want %q", trigger, got, rules)
		}
	}
	for _, name := range []string{"3", "1", "2"} {
		must(c.PutRule(ctx, rule(name, "a"), false))
	}
	want(c, "a", "1", "2", "3")
	must(c.PutRule(ctx, rule("2", "b"), true))
	must(c.PutRule(ctx, rule("3", "a"), true))
	must(c.DeleteRule(ctx, DefaultNamespace, "1"))
	want(c, "a", "3")
	want(c, "b", "2")
	again := openCatalog(t, docs, secs)
	want(again, "a", "3")
	want(again, "b", "2")
	must(c.DeleteTrigger(ctx, DefaultNamespace, "a"))
	want(c, "a")
	want(c, "b", "2")
	if n := len(c.linked.of); n != 1 {
		t.Errorf("rules of %d triggers are known, want 1", n)
	}
}
