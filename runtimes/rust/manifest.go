package rust

import (
	"regexp"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// The parts of a Cargo.toml that decide what a crate depends on. All else says how it is built.
var (
	topKept       = []string{"dependencies", "dev-dependencies", "build-dependencies", "target", "features", "patch", "replace"}
	packageKept   = []string{"name", "version", "edition", "rust-version", "resolver", "workspace"}
	workspaceKept = []string{"members", "default-members", "exclude", "resolver", "dependencies", "package"}
	dependent     = []string{"dependencies", "dev-dependencies", "build-dependencies"}
)

// Dependencies returns a Cargo.toml less all that is not of dependencies, and whether it names any
// that are not in the code. Of its programs and libraries nothing is left: it has a library in
// src/lib.rs.
func Dependencies(name string, text []byte) (less []byte, needs bool, err error) {
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		return nil, false, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	out := pick(all, topKept)
	if p, ok := all["package"].(map[string]any); ok {
		out["package"] = pick(p, packageKept)
	}
	if w, ok := all["workspace"].(map[string]any); ok {
		out["workspace"] = pick(w, workspaceKept)
		needs = needs || foreign(w["dependencies"])
	}
	if lib, ok := all["lib"].(map[string]any); ok && lib["proc-macro"] == true {
		out["lib"] = map[string]any{"proc-macro": true}
	}
	needs = needs || anyForeign(out)
	if targets, ok := all["target"].(map[string]any); ok {
		for _, t := range targets {
			if t, ok := t.(map[string]any); ok {
				needs = needs || anyForeign(t)
			}
		}
	}
	if less, err = toml.Marshal(out); err != nil {
		return nil, false, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	return less, needs, nil
}

func pick(from map[string]any, keys []string) map[string]any {
	out := map[string]any{}
	for _, k := range keys {
		if v, ok := from[k]; ok {
			out[k] = v
		}
	}
	return out
}

func anyForeign(m map[string]any) bool {
	for _, k := range dependent {
		if foreign(m[k]) {
			return true
		}
	}
	return false
}

// foreign says whether a table of dependencies names one that is not in the code. Of one that the
// workspace says more of, the workspace's table decides.
func foreign(table any) bool {
	t, _ := table.(map[string]any)
	for _, v := range t {
		d, ok := v.(map[string]any)
		if !ok || d["path"] == nil && d["workspace"] != true {
			return true
		}
	}
	return false
}

var packageSpec = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*)(?:@([0-9A-Za-z.^~=<>*, +-]+))?$`)

// Add adds crates to the dependencies of a Cargo.toml, each written as "name" or "name@version", as
// for cargo add. With no text it only says whether they are so written.
func Add(text []byte, with []string) ([]byte, error) {
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "Cargo.toml: %v", err)
	}
	if all == nil {
		all = map[string]any{}
	}
	deps, _ := all["dependencies"].(map[string]any)
	if deps == nil {
		deps = map[string]any{}
	}
	for _, w := range with {
		m := packageSpec.FindStringSubmatch(w)
		if m == nil {
			return nil, faas.Errorf(faas.Invalid, op, "%q names no crate", w).WithFix("write it as for cargo add: --with serde_json@1")
		}
		version := m[2]
		if version == "" {
			version = "*"
		}
		deps[m[1]] = version
	}
	all["dependencies"] = deps
	return toml.Marshal(all)
}
