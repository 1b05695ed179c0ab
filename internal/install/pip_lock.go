package install

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
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

func wrongPython(file, wants, has string) error {
	return faas.Errorf(faas.Invalid, op, "%s asks for Python %s; this server has %s", file, wants, has).
		WithFix("change requires-python and lock again, or have the operator install another Python")
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http")
}
