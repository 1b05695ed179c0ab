package importer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// actions copies actions, and sequences when what they are made of is there.
func (im *importing) actions(ctx context.Context, all []listed) error {
	components := map[string][]string{} // of sequences, by name
	for _, a := range all {
		name := a.Name
		if _, pkg, ok := strings.Cut(a.Namespace, "/"); ok {
			name = pkg + "/" + name
		}
		var d document
		if err := im.From.do(ctx, http.MethodGet, at("actions", name)+"?code=false", nil, &d); err != nil {
			im.done(Entity{Kind: "action", Name: name, Outcome: Failed, Notes: []string{fmt.Sprintf("read it at the source: %v", err)}})
			continue
		}
		if d.Exec != nil && d.Exec.Kind == "sequence" {
			components[name] = d.Exec.Components
			continue
		}
		im.entity(ctx, "actions", name, "action", im.action)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, name := range im.ordered(components) {
		im.entity(ctx, "actions", name, "sequence", im.action)
	}
	return ctx.Err()
}

// ordered returns the sequences, each after those that it is made of.
func (im *importing) ordered(components map[string][]string) []string {
	var out []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, c := range components[name] {
			if rest, ok := strings.CutPrefix(rename(c, im.report.Source), "/_/"); ok && components[rest] != nil {
				visit(rest)
			}
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(components)) {
		visit(name)
	}
	return out
}

// action makes of an action what the target takes.
func (im *importing) action(d *document, note func(string, ...any)) error {
	if d.Exec == nil {
		return fmt.Errorf("the source does not say what it runs")
	}
	if err := im.kind(d.Exec, note); err != nil {
		return err
	}
	for i, c := range d.Exec.Components {
		d.Exec.Components[i] = rename(c, im.report.Source)
		if own := strings.HasPrefix(d.Exec.Components[i], "/_/"); !own && !strings.HasPrefix(strings.TrimPrefix(c, "/"), "whisk.system/") {
			note("step %q is of another namespace, which must be at the target", c)
		}
	}
	if d.Exec.Kind == "sequence" {
		d.Exec.Code, d.Exec.Binary, d.Limits = nil, false, nil // made by the server
		// OpenWhisk shows the components as a parameter too, and calls none of them with it.
		d.Parameters = slices.DeleteFunc(d.Parameters, func(p keyValue) bool { return p.Key == "_actions" })
	}
	im.cut(d.Limits, note)
	if _, said := d.annotation("provide-api-key"); !said {
		// Actions of a time before this annotation are given the key.
		d.Annotations = append(d.Annotations, keyValue{Key: "provide-api-key", Value: json.RawMessage("true")})
	}
	// It tells the kind, which may become another.
	d.Annotations = slices.DeleteFunc(d.Annotations, func(a keyValue) bool { return a.Key == "exec" })
	return nil
}

// kind finds what runs an action at the target: the same kind, or its family's default.
func (im *importing) kind(e *execution, note func(string, ...any)) error {
	switch e.Kind {
	case "sequence":
		return nil
	case "blackbox":
		// No server of ours fetches those whose part is to start the program that comes along.
		name, _, _ := strings.Cut(e.Image[strings.LastIndexByte(e.Image, '/')+1:], ":")
		if name != "dockerskeleton" && !strings.HasPrefix(name, "actionloop") {
			note("it runs in image %q, which the target must be able to fetch", e.Image)
		}
		return nil
	}
	e.Image = ""
	if k, ok := im.kinds[e.Kind]; ok && !k.Deprecated {
		return nil
	}
	family, _, _ := strings.Cut(e.Kind, ":")
	k, ok := im.kinds[family+":default"]
	if !ok {
		return fmt.Errorf("%w here: %s", errNoKind, e.Kind)
	}
	note("kind %s is not run here; it is %s now", e.Kind, k.Kind)
	e.Kind = k.Kind
	return nil
}

// cut brings limits into the target's ranges.
func (im *importing) cut(limits map[string]int, note func(string, ...any)) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		b, known := im.limits[name]
		if !known {
			continue
		}
		if was := limits[name]; b.max > 0 && was > b.max {
			limits[name] = b.max
			note("limit %s is cut from %d to %d", name, was, b.max)
		} else if was < b.min {
			limits[name] = b.min
			note("limit %s is raised from %d to %d", name, was, b.min)
		}
	}
}
