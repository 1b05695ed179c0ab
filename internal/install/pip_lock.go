package install

import (
	"encoding/json"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Locks of uv, Poetry and Pipenv are put into the form of requirements with hashes. They hold
// versions for all machines; what this one needs is found by the markers of the dependencies, from
// the project on.

// pypiLocked is one of a lock.
type pypiLocked struct {
	name, version string
	line          string // of requirements, without hashes; empty: name==version
	hashes        []string
	needs         []pypiNeed
	extras        map[string][]pypiNeed
	odd           bool   // it does not come from the public registry
	refused       string // why it cannot be installed; empty: it can
}

type pypiNeed struct {
	name, version string // version may be empty: there is one
	marker        string
	extras        []string
}

// resolve returns the lines for all that needs lead to, in order.
func resolve(lock string, all []*pypiLocked, needs []pypiNeed, env map[string]string) (*pythonNeeds, error) {
	byName := map[string][]*pypiLocked{}
	for _, p := range all {
		byName[p.name] = append(byName[p.name], p)
	}
	lines := map[string]bool{}
	odd := false
	done := map[string]bool{} // packages and extras
	var walk func(needs []pypiNeed, from string, extra string) error
	walk = func(needs []pypiNeed, from, extra string) error {
		for _, n := range needs {
			env["extra"] = extra
			ok, err := marked(n.marker, env)
			if err != nil {
				return faas.Errorf(faas.Invalid, op, "%s: %s needs %s: %v", lock, from, n.name, err)
			}
			if !ok {
				continue
			}
			var p *pypiLocked
			for _, c := range byName[n.name] {
				if n.version == "" || c.version == n.version {
					p = c
				}
			}
			if p == nil {
				return faas.Errorf(faas.Invalid, op, "%s: %s needs %s, which is not in the lock", lock, from, n.name).WithFix("lock again")
			}
			if p.refused != "" {
				return faas.Errorf(faas.Invalid, op, "%s: %s %s", lock, p.name, p.refused)
			}
			if !done[p.name] {
				done[p.name] = true
				line := orElse(p.line, p.name+"=="+p.version)
				p.hashes = slices.DeleteFunc(p.hashes, func(h string) bool { return !strong(h) })
				slices.Sort(p.hashes)
				for _, h := range slices.Compact(p.hashes) {
					line += " --hash=" + h
				}
				lines[line] = true
				odd = odd || p.odd
				if err := walk(p.needs, p.name, ""); err != nil {
					return err
				}
			}
			for _, e := range n.extras {
				if id := p.name + "[" + e; !done[id] {
					done[id] = true
					if err := walk(p.extras[e], p.name, e); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	if err := walk(needs, "the project", ""); err != nil {
		return nil, err
	}
	found, err := lined(sortedKeys(lines), true, lock)
	if found != nil {
		found.odd = found.odd || odd
	}
	return found, err
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

var separators = regexp.MustCompile(`[-_.]+`)

// normal is a package's name as indexes write it.
func normal(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }

const publicIndex = "https://pypi.org/simple"

// readUVLock reads uv.lock: the packages that the project at its root depends on.
func readUVLock(code fs.FS, name string, plan *runtimes.Plan) (*pythonNeeds, error) {
	type need struct {
		Name    string   `toml:"name"`
		Version string   `toml:"version"`
		Marker  string   `toml:"marker"`
		Extra   []string `toml:"extra"`
	}
	type file struct {
		URL  string `toml:"url"`
		Hash string `toml:"hash"`
	}
	var doc struct {
		Version  int    `toml:"version"`
		Requires string `toml:"requires-python"`
		Package  []struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			Source  struct {
				Registry  string `toml:"registry"`
				Virtual   string `toml:"virtual"`
				Editable  string `toml:"editable"`
				Directory string `toml:"directory"`
				Path      string `toml:"path"`
				URL       string `toml:"url"`
				Git       string `toml:"git"`
			} `toml:"source"`
			Dependencies []need            `toml:"dependencies"`
			Optional     map[string][]need `toml:"optional-dependencies"`
			Sdist        file              `toml:"sdist"`
			Wheels       []file            `toml:"wheels"`
		} `toml:"package"`
	}
	b, err := readSmall(code, name)
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(b, &doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	if !pythonFits(plan.Version, doc.Requires) {
		return nil, wrongPython(name, doc.Requires, plan.Version)
	}
	convert := func(all []need) (out []pypiNeed) {
		for _, n := range all {
			out = append(out, pypiNeed{name: normal(n.Name), version: n.Version, marker: n.Marker, extras: n.Extra})
		}
		return out
	}
	var all []*pypiLocked
	var roots []pypiNeed
	found := false
	for _, d := range doc.Package {
		p := &pypiLocked{name: normal(d.Name), version: d.Version, needs: convert(d.Dependencies), extras: map[string][]pypiNeed{}}
		for e, needs := range d.Optional {
			p.extras[e] = convert(needs)
		}
		for _, f := range append(d.Wheels, d.Sdist) {
			if f.Hash != "" {
				p.hashes = append(p.hashes, f.Hash)
			}
		}
		src := d.Source
		local := src.Virtual + src.Editable + src.Directory
		switch {
		case src.Virtual == "." || src.Editable == "." || src.Directory == ".":
			roots, found = append(roots, p.needs...), true
			continue
		case src.Registry != "":
			p.odd = strings.TrimRight(src.Registry, "/") != publicIndex
		case src.URL != "":
			p.line, p.odd = p.name+" @ "+src.URL, true
		case src.Git != "":
			p.refused = "comes from git, which has no hash; build a wheel of it and bring that"
		case local != "":
			p.refused = "lies in the directory " + local + ", which is not installed; build a wheel of it and bring that"
		default:
			p.refused = "is a file beside the code; name it in requirements.txt instead"
		}
		all = append(all, p)
	}
	if !found {
		return nil, faas.Errorf(faas.Invalid, op, "%s belongs to a project in another directory", name).
			WithFix("send the whole project, or turn it into requirements: uv export --no-dev -o requirements.txt")
	}
	return resolve(name, all, roots, markerEnv(plan.Version))
}

func wrongPython(file, wants, has string) error {
	return faas.Errorf(faas.Invalid, op, "%s asks for Python %s; this server has %s", file, wants, has).
		WithFix("change requires-python and lock again, or have the operator install another Python")
}

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
	const name = "pyproject.toml"
	b, err := readSmall(code, name)
	if err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "poetry.lock is there and pyproject.toml, which says what the project needs, is not").
			WithFix("send pyproject.toml too")
	}
	var doc struct {
		Project struct {
			Dependencies []string `toml:"dependencies"`
		} `toml:"project"`
		Tool struct {
			Poetry struct {
				Dependencies map[string]any `toml:"dependencies"`
			} `toml:"poetry"`
		} `toml:"tool"`
	}
	if err := toml.Unmarshal(b, &doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
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

// readPipfileLock reads Pipfile.lock, which names everything there is for all machines at once.
func readPipfileLock(code fs.FS, name string, plan *runtimes.Plan) (*pythonNeeds, error) {
	var doc struct {
		Meta struct {
			Sources []struct {
				URL string `json:"url"`
			} `json:"sources"`
		} `json:"_meta"`
		Default map[string]struct {
			Version string   `json:"version"`
			Hashes  []string `json:"hashes"`
			Markers string   `json:"markers"`
			File    string   `json:"file"`
			Git     string   `json:"git"`
			Path    string   `json:"path"`
		} `json:"default"`
	}
	b, err := readSmall(code, name)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	var all []*pypiLocked
	var roots []pypiNeed
	for dep, d := range doc.Default {
		p := &pypiLocked{name: normal(dep), version: strings.TrimPrefix(d.Version, "=="), hashes: d.Hashes}
		switch {
		case d.Version != "":
		case d.File != "" && isURL(d.File):
			p.line, p.odd = p.name+" @ "+d.File, true
		default:
			p.refused = "comes from " + path.Clean(d.Git+d.Path+d.File) + ", which is not installed; build a wheel of it and bring that"
		}
		all = append(all, p)
		roots = append(roots, pypiNeed{name: p.name, marker: d.Markers})
	}
	found, err := resolve(name, all, roots, markerEnv(plan.Version))
	if found != nil {
		for _, s := range doc.Meta.Sources {
			found.odd = found.odd || strings.TrimRight(s.URL, "/") != publicIndex
		}
	}
	return found, err
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http")
}
