package install

import (
	"io/fs"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

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
