package install

import (
	"encoding/json"
	"io/fs"
	"path"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

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
