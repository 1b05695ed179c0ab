// Package importer copies what a namespace of an installation of OpenWhisk has to another one: packages,
// bindings, actions, sequences, triggers with their alarms, and rules with their status.
//
// It speaks OpenWhisk's own API at both ends, so it can do what a user with a key can do, and no more. It goes
// in the order in which things need each other, and begins anew as often as one likes: what is there already
// and the same is left alone, what is there and differs is updated, and nothing is ever deleted. What cannot
// be as it was is written in the report.
//
// Records of calls, keys and limits of namespaces are left to others.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Config says what is copied to where.
type Config struct {
	From Endpoint
	// To is where it is copied to. Of a dry run its Auth may be empty: the kinds and limits are asked for alone.
	To     Endpoint
	DryRun bool
	// Begin is told of each entity before it is copied, which may take minutes where an action's packages have
	// to be installed. May be nil.
	Begin func(kind, name string)
}

// importing is an import on its way.
type importing struct {
	Config
	report Report
	kinds  map[string]kind // at the target
	limits map[string]bounds
}

type kind struct {
	Kind       string `json:"kind"`
	Deprecated bool   `json:"deprecated"`
	Default    bool   `json:"default"`
}

// bounds of a limit at the target; a max of 0: not known.
type bounds struct{ min, max int }

// Run copies. The error tells what keeps it from beginning or going on at all; what went wrong with an entity
// is in the report, which is never nil.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	im := &importing{Config: cfg, report: Report{From: cfg.From.URL, DryRun: cfg.DryRun, Entities: []Entity{}}}
	err := im.run(ctx)
	return &im.report, err
}

func (im *importing) run(ctx context.Context) error {
	name, err := Namespace(ctx, &im.From)
	if err != nil {
		return err
	}
	im.report.Source = name
	if im.To.Auth != "" {
		if im.report.Namespace, err = Namespace(ctx, &im.To); err != nil {
			return err
		}
	}
	if err := im.learn(ctx); err != nil {
		return err
	}
	packages, err := im.From.list(ctx, "packages")
	if err != nil {
		return err
	}
	actions, err := im.From.list(ctx, "actions")
	if err != nil {
		return err
	}
	triggers, err := im.From.list(ctx, "triggers")
	if err != nil {
		return err
	}
	rules, err := im.From.list(ctx, "rules")
	if err != nil {
		return err
	}
	bound := func(p listed) bool { _, ok := boundTo(p.Binding); return ok }
	for _, p := range packages {
		if !bound(p) {
			im.pkg(ctx, p.Name)
		}
	}
	for _, p := range packages {
		if bound(p) {
			im.pkg(ctx, p.Name)
		}
	}
	if err := im.actions(ctx, actions); err != nil {
		return err
	}
	for _, t := range triggers {
		im.trigger(ctx, t.Name)
	}
	for _, r := range rules {
		im.rule(ctx, r.Name)
	}
	return ctx.Err()
}

// Namespace returns the name of the namespace that an endpoint's key opens. An error says that the key
// is not good, or that there is nothing like OpenWhisk.
func Namespace(ctx context.Context, e *Endpoint) (string, error) {
	var all []string
	if err := e.do(ctx, http.MethodGet, api+"/namespaces", nil, &all); err != nil {
		if statusOf(err) == http.StatusUnauthorized {
			return "", fmt.Errorf("%s does not take the key: %w", e.URL, err)
		}
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("the key opens no namespace at %s", e.URL)
	}
	return all[0], nil
}

// learn asks the target what it runs and allows.
func (im *importing) learn(ctx context.Context) error {
	var info struct {
		Limits   map[string]json.Number `json:"limits"`
		Runtimes map[string][]kind      `json:"runtimes"`
	}
	if err := im.To.do(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return err
	}
	im.kinds = map[string]kind{}
	for family, all := range info.Runtimes {
		for _, k := range all {
			im.kinds[k.Kind] = k
			if k.Default {
				im.kinds[family+":default"] = k
			}
		}
	}
	number := func(m map[string]json.Number, key string, unit int) int {
		n, err := m[key].Int64()
		if err != nil {
			return 0
		}
		return int(n) / unit
	}
	im.limits = map[string]bounds{}
	for limit, of := range map[string]struct {
		key  string
		unit int
	}{"timeout": {"duration", 1}, "memory": {"memory", 1 << 20}, "logs": {"logs", 1 << 20}} {
		im.limits[limit] = bounds{number(info.Limits, "min_action_"+of.key, of.unit), number(info.Limits, "max_action_"+of.key, of.unit)}
	}
	if im.To.Auth == "" {
		return nil
	}
	var limits map[string]json.RawMessage
	if err := im.To.do(ctx, http.MethodGet, own+"limits", nil, &limits); err != nil {
		return err
	}
	numbers := map[string]json.Number{}
	for k, v := range limits {
		numbers[k] = json.Number(strings.TrimSpace(string(v)))
	}
	im.limits["concurrency"] = bounds{number(numbers, "minActionConcurrency", 1), number(numbers, "maxActionConcurrency", 1)}
	im.limits["instances"] = bounds{1, number(numbers, "concurrentInvocations", 1)}
	return nil
}

// entity copies one thing: read it, make of it what the target takes, and put it there if it is not.
func (im *importing) entity(ctx context.Context, collection, name, label string, adapt func(*document, func(string, ...any)) error) (doc *document, copied bool) {
	e := Entity{Kind: label, Name: name}
	if im.Begin != nil {
		im.Begin(label, name)
	}
	note := func(format string, args ...any) { e.Notes = append(e.Notes, fmt.Sprintf(format, args...)) }
	defer func() { im.done(e) }()
	doc = new(document)
	for _, part := range strings.Split(name, "/") {
		if part == "" || part == "." || part == ".." { // they would name something else in a path
			e.Outcome = Skipped
			note("it is no name of an entity")
			return nil, false
		}
	}
	if err := im.From.do(ctx, http.MethodGet, at(collection, name), nil, doc); err != nil {
		e.Outcome = Failed
		note("read it at the source: %v", err)
		return nil, false
	}
	if err := inherited(ctx, &im.From, collection, name, doc); err != nil {
		note("parameters of its package are kept as its own: %v", err)
	}
	doc.withoutEncrypted(note)
	doc.Annotations, doc.Parameters = slices.Concat([]keyValue{}, doc.Annotations), slices.Concat([]keyValue{}, doc.Parameters) // a list, never null
	if err := adapt(doc, note); err != nil {
		e.Outcome = Skipped
		note("%v", err)
		return nil, false
	}
	doc.Namespace, doc.Name = "", ""
	outcome, err := im.put(ctx, collection, name, doc)
	if e.Outcome = outcome; err != nil {
		note("%v", err)
	}
	return doc, err == nil
}

// put writes a document to the target unless it is there and the same.
func (im *importing) put(ctx context.Context, collection, name string, doc *document) (Outcome, error) {
	if im.DryRun {
		return Planned, nil
	}
	outcome := Created
	var there document
	switch err := im.To.do(ctx, http.MethodGet, at(collection, name), nil, &there); {
	case err == nil:
		if err := inherited(ctx, &im.To, collection, name, &there); err != nil {
			return Failed, err
		}
		if !doc.differsFrom(&there, im.report.Namespace) {
			return Unchanged, nil
		}
		outcome = Updated
		for _, a := range there.Annotations {
			if _, wanted := doc.annotation(a.Key); !wanted && a.Key != "exec" && a.Key != "provide-api-key" {
				doc.Removed = append(doc.Removed, a.Key)
			}
		}
	case statusOf(err) != http.StatusNotFound:
		return Failed, fmt.Errorf("look whether it is there: %w", err)
	}
	var body any = doc
	if collection == "rules" { // they have no parameters
		body = map[string]any{"publish": doc.Publish, "annotations": doc.Annotations, "trigger": doc.Trigger, "action": doc.Action}
	}
	path := at(collection, name) + "?overwrite=" + fmt.Sprint(outcome == Updated)
	if err := im.To.do(ctx, http.MethodPut, path, body, nil); err != nil {
		return Failed, err
	}
	return outcome, nil
}

// differsFrom compares with what is at the target, where names are of another namespace.
func (d *document) differsFrom(there *document, namespace string) bool {
	if there.Exec != nil {
		if there.Exec.Kind != "blackbox" {
			there.Exec.Image = ""
		}
		for i, c := range there.Exec.Components {
			there.Exec.Components[i] = rename(c, namespace)
		}
	}
	if want, ok := boundTo(d.Binding); ok {
		got, _ := boundTo(there.Binding)
		if got.Namespace == namespace {
			got.Namespace = "_"
		}
		// The parameters that are read of a binding are merged with those of what it is bound to.
		return want != got || d.Publish != there.Publish
	}
	for _, pair := range [][2]*reference{{d.Trigger, there.Trigger}, {d.Action, there.Action}} {
		if pair[0] != nil && (pair[1] == nil || pair[0].qualified() != rename(pair[1].qualified(), namespace)) {
			return true
		}
	}
	return d.differs(there)
}

func (im *importing) done(e Entity) {
	im.report.Entities = append(im.report.Entities, e)
}

// pkg copies a package or a binding.
func (im *importing) pkg(ctx context.Context, name string) {
	im.entity(ctx, "packages", name, "package", func(d *document, note func(string, ...any)) error {
		b, bound := boundTo(d.Binding)
		if !bound {
			d.Binding = nil
			return nil
		}
		switch b.Namespace {
		case im.report.Source:
			b.Namespace = "_"
		case "whisk.system":
		default:
			note("it is bound to a package of namespace %q, which must be at the target and shared", b.Namespace)
		}
		var err error
		if d.Parameters, err = ownParameters(ctx, &im.From, api+"/namespaces/"+url.PathEscape(b.Namespace)+"/packages/"+url.PathEscape(b.Name), d.Parameters); err != nil {
			note("parameters of what it is bound to are kept as its own: %v", err)
		}
		d.Binding, err = json.Marshal(b)
		return err
	})
}

// inherited leaves out of an action's parameters those that it shows of its package: as its own they would
// be in the way of a binding's.
func inherited(ctx context.Context, e *Endpoint, collection, name string, d *document) (err error) {
	if pkg, _, packaged := strings.Cut(name, "/"); packaged && collection == "actions" {
		d.Parameters, err = ownParameters(ctx, e, at("packages", pkg), d.Parameters)
	}
	return err
}

// ownParameters leaves out of an entity's parameters those that it shows of a package, which lies at path.
func ownParameters(ctx context.Context, e *Endpoint, path string, shown []keyValue) ([]keyValue, error) {
	var provider document
	if err := e.do(ctx, http.MethodGet, path, nil, &provider); err != nil {
		return shown, err
	}
	return slices.DeleteFunc(shown, func(p keyValue) bool {
		return slices.ContainsFunc(provider.Parameters, func(q keyValue) bool { return q.Key == p.Key && canonical(q.Value) == canonical(p.Value) })
	}), nil
}

var errNoKind = errors.New("the kind is not known")
