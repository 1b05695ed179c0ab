package install

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// readPoetryLock reads poetry.lock; the project's own dependencies stand in pyproject.toml.
func readPoetryLock(code fs.FS, name string, plan *runtimes.Plan) (*pythonNeeds, error) {
	var doc struct {
		Package []struct {
			Name         string              `toml:"name"`
			Version      string              `toml:"version"`
			Dependencies map[string]any      `toml:"dependencies"`
			Extras       map[string][]string `toml:"extras"`
			Files        []struct {
				Hash string `toml:"hash"`
			} `toml:"files"`
			Source struct {
				Type      string `toml:"type"`
				URL       string `toml:"url"`
				Reference string `toml:"reference"`
			} `toml:"source"`
		} `toml:"package"`
		Metadata struct {
			Python string `toml:"python-versions"`
			Files  map[string][]struct {
				Hash string `toml:"hash"`
			} `toml:"files"`
		} `toml:"metadata"`
	}
	b, err := readSmall(code, name)
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(b, &doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	if spec := doc.Metadata.Python; !strings.ContainsAny(spec, "^|") && !pythonFits(plan.Version, spec) {
		return nil, wrongPython(name, spec, plan.Version)
	}
	roots, err := poetryRoots(code)
	if err != nil {
		return nil, err
	}
	var all []*pypiLocked
	for _, d := range doc.Package {
		p := &pypiLocked{name: normal(d.Name), version: d.Version, extras: map[string][]pypiNeed{}}
		for _, f := range append(d.Files, doc.Metadata.Files[d.Name]...) {
			p.hashes = append(p.hashes, f.Hash)
		}
		switch d.Source.Type {
		case "":
		case "legacy":
			p.odd = true
		case "url":
			p.line, p.odd = p.name+" @ "+d.Source.URL, true
		default:
			p.refused = "comes from " + d.Source.Type + ", which is not installed; build a wheel of it and bring that"
		}
		optional := map[string]pypiNeed{}
		for dep, v := range d.Dependencies {
			for _, n := range poetryNeeds(dep, v) {
				if o, ok := v.(map[string]any); ok && o["optional"] == true {
					n.marker = withoutExtra(n.marker)
					optional[n.name] = n
					continue
				}
				p.needs = append(p.needs, n)
			}
		}
		for e, deps := range d.Extras {
			for _, dep := range deps {
				if n, ok := optional[normal(requirementName(dep))]; ok {
					p.extras[e] = append(p.extras[e], n)
				}
			}
		}
		all = append(all, p)
	}
	return resolve(name, all, roots, markerEnv(plan.Version))
}

// withoutExtra takes the condition on an extra out of a marker: whoever asks for the extra has met
// it.
func withoutExtra(marker string) string {
	return strings.TrimSpace(extraMarker.ReplaceAllString(marker, ""))
}

var extraMarker = regexp.MustCompile(`\s*(and\s+)?extra\s*==\s*("[^"]*"|'[^']*')(\s+or\s+extra\s*==\s*("[^"]*"|'[^']*'))*(\s+and\s+)?`)

// poetryNeeds reads what a table of dependencies says of one: a range of versions, a table, or
// several of these for different machines.
func poetryNeeds(name string, v any) (out []pypiNeed) {
	switch v := v.(type) {
	case map[string]any:
		n := pypiNeed{name: normal(name)}
		n.marker, _ = v["markers"].(string)
		if extras, ok := v["extras"].([]any); ok {
			for _, e := range extras {
				if s, ok := e.(string); ok {
					n.extras = append(n.extras, s)
				}
			}
		}
		out = append(out, n)
	case []any:
		for _, one := range v {
			out = append(out, poetryNeeds(name, one)...)
		}
	default:
		out = append(out, pypiNeed{name: normal(name)})
	}
	return out
}

// poetryRoots returns what the project itself depends on.
func poetryRoots(code fs.FS) ([]pypiNeed, error) {
	doc, err := projectOf(code, "pyproject.toml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, faas.Errorf(faas.Invalid, op, "poetry.lock is there and pyproject.toml, which says what the project needs, is not").
			WithFix("send pyproject.toml too")
	}
	if err != nil {
		return nil, err
	}
	var out []pypiNeed
	for _, line := range doc.Project.Dependencies {
		spec, marker, _ := strings.Cut(line, ";")
		n := pypiNeed{name: normal(requirementName(spec)), marker: strings.TrimSpace(marker)}
		if _, rest, ok := strings.Cut(spec, "["); ok {
			inside, _, _ := strings.Cut(rest, "]")
			for e := range strings.SplitSeq(inside, ",") {
				n.extras = append(n.extras, strings.TrimSpace(e))
			}
		}
		out = append(out, n)
	}
	for dep, v := range doc.Tool.Poetry.Dependencies {
		if dep == "python" {
			continue
		}
		if o, ok := v.(map[string]any); ok && o["optional"] == true {
			continue
		}
		out = append(out, poetryNeeds(dep, v)...)
	}
	return out, nil
}
