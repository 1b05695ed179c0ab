package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// linked are the triggers, rules and packages of all namespaces, by namespace and name. They are few
// beside functions, and lie unpacked.
type linked struct {
	packages map[string]map[string]*faas.Package
	triggers map[string]map[string]*faas.Trigger
	rules    map[string]map[string]*faas.Rule
	of       map[string]map[string]*faas.Rule // by "NAMESPACE/TRIGGER", then by the rule's name
}

func newLinked() linked {
	return linked{map[string]map[string]*faas.Package{}, map[string]map[string]*faas.Trigger{}, map[string]map[string]*faas.Rule{}, map[string]map[string]*faas.Rule{}}
}

// relink has a trigger's rules found: was is the rule as it was, is as it now is; nil: there was, or is, none.
func (l *linked) relink(was, is *faas.Rule) {
	if was != nil {
		key := was.Namespace + "/" + was.Trigger
		delete(l.of[key], was.Name)
		if len(l.of[key]) == 0 {
			delete(l.of, key)
		}
	}
	if is != nil {
		key := is.Namespace + "/" + is.Trigger
		if l.of[key] == nil {
			l.of[key] = map[string]*faas.Rule{}
		}
		l.of[key][is.Name] = is
	}
}

func triggerKey(namespace, name string) string { return kindTrigger + namespace + "/" + name }
func ruleKey(namespace, name string) string    { return kindRule + namespace + "/" + name }

// takeLinked changes the copy of triggers and rules. The caller holds mu.
func (c *Catalog) takeLinked(r store.Record) (Event, error) {
	if key, ok := strings.CutPrefix(r.Key, kindTrigger); ok {
		return take(c.linked.triggers, key, r, func(t *faas.Trigger) Event {
			return Event{Kind: TriggerChanged, Namespace: t.Namespace, Trigger: t}
		}, func(t *faas.Trigger) Event {
			return Event{Kind: TriggerDeleted, Namespace: t.Namespace, Trigger: t}
		})
	}
	key := strings.TrimPrefix(r.Key, kindRule)
	namespace, name, _ := strings.Cut(key, "/")
	was := c.linked.rules[namespace][name]
	return take(c.linked.rules, key, r, func(t *faas.Rule) Event {
		c.linked.relink(was, t)
		return Event{Kind: RuleChanged, Namespace: t.Namespace, Rule: t}
	}, func(t *faas.Rule) Event {
		c.linked.relink(was, nil)
		return Event{Kind: RuleDeleted, Namespace: t.Namespace, Rule: t}
	})
}

func take[T any](all map[string]map[string]*T, key string, r store.Record, changed, deleted func(*T) Event) (Event, error) {
	namespace, name, _ := strings.Cut(key, "/")
	if r.Deleted {
		was := all[namespace][name]
		if was == nil {
			return Event{}, nil
		}
		delete(all[namespace], name)
		if len(all[namespace]) == 0 {
			delete(all, namespace)
		}
		return deleted(was), nil
	}
	v := new(T)
	if err := json.Unmarshal(r.Value, v); err != nil {
		return Event{}, err
	}
	if all[namespace] == nil {
		all[namespace] = map[string]*T{}
	}
	all[namespace][name] = v
	return changed(v), nil
}

// Triggers returns the triggers of a namespace, or with "" of all, in the order of their names.
func (c *Catalog) Triggers(namespace string) []*faas.Trigger {
	return listLinked(c, c.linked.triggers, namespace, func(t *faas.Trigger) (string, string) { return t.Namespace, t.Name })
}

// Rules returns the rules of a namespace, or with "" of all, in the order of their names.
func (c *Catalog) Rules(namespace string) []*faas.Rule {
	return listLinked(c, c.linked.rules, namespace, func(r *faas.Rule) (string, string) { return r.Namespace, r.Name })
}

func listLinked[T any](c *Catalog, all map[string]map[string]*T, namespace string, of func(*T) (string, string)) []*T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*T
	for ns, list := range all {
		if namespace != "" && ns != namespace {
			continue
		}
		for _, v := range list {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b *T) int {
		an, a1 := of(a)
		bn, b1 := of(b)
		if n := strings.Compare(an, bn); n != 0 {
			return n
		}
		return strings.Compare(a1, b1)
	})
	return out
}

// Trigger returns the trigger of that name, or a NotFound.
func (c *Catalog) Trigger(namespace, name string) (*faas.Trigger, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.linked.triggers[namespace][name]; t != nil {
		return t, nil
	}
	return nil, faas.Errorf(faas.NotFound, "look up trigger", "trigger %.80q does not exist in namespace %.80q", name, namespace).
		WithFix("list what there is with: brasa trigger ls")
}

// Rule returns the rule of that name, or a NotFound.
func (c *Catalog) Rule(namespace, name string) (*faas.Rule, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if r := c.linked.rules[namespace][name]; r != nil {
		return r, nil
	}
	return nil, faas.Errorf(faas.NotFound, "look up rule", "rule %.80q does not exist in namespace %.80q", name, namespace).
		WithFix("list what there is with: brasa trigger ls")
}

// RulesOf returns the rules that link the trigger to functions, those that are disabled too, in the
// order of their names.
func (c *Catalog) RulesOf(namespace, trigger string) []*faas.Rule {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.SortedFunc(maps.Values(c.linked.of[namespace+"/"+trigger]), func(a, b *faas.Rule) int { return strings.Compare(a.Name, b.Name) })
}

// PutTrigger makes a trigger, or with replace changes one in place, which keeps its UID. One that
// exists is a Conflict without replace. It fills in what is empty of UID, Created and Updated, and
// keeps t. What the source's configuration means is checked by package trigger, before.
func (c *Catalog) PutTrigger(ctx context.Context, t *faas.Trigger, replace bool) error {
	const op = "put trigger"
	if err := faas.ValidateName("trigger", t.Name); err != nil {
		return err
	}
	defer c.lock(t.Namespace)()
	if err := c.needNamespace(op, t.Namespace); err != nil {
		return err
	}
	c.mu.RLock()
	was, count := c.linked.triggers[t.Namespace][t.Name], len(c.linked.triggers[t.Namespace])
	version := c.seen[triggerKey(t.Namespace, t.Name)]
	c.mu.RUnlock()
	switch {
	case was != nil && !replace:
		return faas.Errorf(faas.Conflict, op, "trigger %q exists already", t.Name).WithFix("change it with: brasa trigger update %s", t.Name)
	case was == nil && count >= c.config.MaxTriggers:
		return faas.Errorf(faas.Overloaded, op, "namespace %q has %d triggers and may have no more than %d", t.Namespace, count, c.config.MaxTriggers).
			WithLimit("triggers_per_namespace").WithFix("delete one with: brasa trigger rm NAME; the operator can raise quota.triggers")
	}
	t.UID, t.Created, t.Updated = newUID(), time.Now().UTC(), time.Now().UTC()
	expect := store.Absent
	if was != nil {
		t.UID, t.Created, expect = was.UID, was.Created, version
	}
	return storeError(op, c.write(ctx, triggerKey(t.Namespace, t.Name), t, expect))
}

// PutRule is PutTrigger for rules. The trigger and the function must exist and be of the rule's namespace,
// unless the rule has an origin, whose dialect then knows what it links and who may call it.
func (c *Catalog) PutRule(ctx context.Context, r *faas.Rule, replace bool) error {
	const op = "put rule"
	if err := faas.ValidateName("rule", r.Name); err != nil {
		return err
	}
	name, err := faas.ParseName(r.Function, r.Namespace)
	if err != nil {
		return err
	}
	if r.Function = name.Path(); name.Namespace != r.Namespace {
		if r.Function = "/" + name.String(); r.Origin == nil {
			return faas.Errorf(faas.Invalid, op, "a rule calls a function of its own namespace, and %q is of another", r.Function)
		}
	}
	defer c.lock(r.Namespace)()
	if err := c.needNamespace(op, r.Namespace); err != nil {
		return err
	}
	if r.Origin == nil {
		if _, err := c.Trigger(r.Namespace, r.Trigger); err != nil {
			return err
		}
		if _, err := c.Function(name); err != nil {
			return err
		}
	}
	c.mu.RLock()
	was, count := c.linked.rules[r.Namespace][r.Name], len(c.linked.rules[r.Namespace])
	version := c.seen[ruleKey(r.Namespace, r.Name)]
	c.mu.RUnlock()
	switch {
	case was != nil && !replace:
		return faas.Errorf(faas.Conflict, op, "rule %q exists already", r.Name).WithFix("delete it with: brasa trigger unlink %s", r.Name)
	case was == nil && count >= c.config.MaxRules:
		return faas.Errorf(faas.Overloaded, op, "namespace %q has %d rules and may have no more than %d", r.Namespace, count, c.config.MaxRules).
			WithLimit("rules_per_namespace").WithFix("delete one with: brasa trigger unlink NAME; the operator can raise quota.rules")
	}
	r.UID, r.Created, r.Updated = newUID(), time.Now().UTC(), time.Now().UTC()
	expect := store.Absent
	if was != nil {
		r.UID, r.Created, expect = was.UID, was.Created, version
	}
	return storeError(op, c.write(ctx, ruleKey(r.Namespace, r.Name), r, expect))
}

// DeleteTrigger removes a trigger with the rules that it is linked by, save those that have an origin: these
// are disabled, so that they don't lead from another trigger of the name that is made later.
func (c *Catalog) DeleteTrigger(ctx context.Context, namespace, name string) error {
	const op = "delete trigger"
	defer c.lock(namespace)()
	if _, err := c.Trigger(namespace, name); err != nil {
		return err
	}
	// The rules go first: a crash leaves a trigger with fewer rules, which can be deleted again.
	for _, r := range c.RulesOf(namespace, name) {
		var err error
		switch {
		case r.Origin == nil:
			err = c.deleteDocument(ctx, ruleKey(namespace, r.Name))
		case !r.Disabled:
			left := *r
			left.Disabled = true
			c.mu.RLock()
			version := c.seen[ruleKey(namespace, r.Name)]
			c.mu.RUnlock()
			err = c.write(ctx, ruleKey(namespace, r.Name), &left, version)
		}
		if err != nil {
			return storeError(op, err)
		}
	}
	fault("delete trigger: rules deleted")
	return storeError(op, c.deleteDocument(ctx, triggerKey(namespace, name)))
}

// DeleteRule removes a rule.
func (c *Catalog) DeleteRule(ctx context.Context, namespace, name string) error {
	defer c.lock(namespace)()
	if _, err := c.Rule(namespace, name); err != nil {
		return err
	}
	return storeError("delete rule", c.deleteDocument(ctx, ruleKey(namespace, name)))
}

// deleteLinked removes all triggers, rules and packages of a namespace. The caller holds its lock.
func (c *Catalog) deleteLinked(ctx context.Context, namespace string) error {
	for _, r := range c.Rules(namespace) {
		if err := c.deleteDocument(ctx, ruleKey(namespace, r.Name)); err != nil {
			return err
		}
	}
	for _, t := range c.Triggers(namespace) {
		if err := c.deleteDocument(ctx, triggerKey(namespace, t.Name)); err != nil {
			return err
		}
	}
	for _, p := range c.Packages(namespace) {
		if err := c.deleteDocument(ctx, packageKey(namespace, p.Name)); err != nil {
			return err
		}
	}
	return nil
}

// deleteDocument removes a document as it was last seen, from the store and from the copy.
func (c *Catalog) deleteDocument(ctx context.Context, key string) error {
	c.mu.RLock()
	version := c.seen[key]
	c.mu.RUnlock()
	if err := c.config.Store.Delete(ctx, key, version); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c.forget(key, version)
	return nil
}
