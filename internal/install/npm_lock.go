package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"go.yaml.in/yaml/v3"
)

// lockedPackage is one entry of a lock, in the words of npm's.
type lockedPackage struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Resolved  string `json:"resolved"`  // address; empty: the registry's
	Integrity string `json:"integrity"` // hash of the tarball
	Dev       bool   `json:"dev"`       // of no concern to what runs
	Link      bool   `json:"link"`      // to a directory of the project
	InBundle  bool   `json:"inBundle"`  // comes inside of another package
}

func (l lockedPackage) String() string { return l.Name + "@" + l.Version }

// readLock lists the packages of a lock that are installed, by their names.
func (n npm) readLock(m *Manifest) (all []lockedPackage, err error) {
	b := m.Files[m.Lock]
	switch lockTool(m) {
	case byNPM:
		all, err = readNPMLock(b)
	case byPNPM:
		all, err = readPNPMLock(b)
	case byYarn:
		all = readYarnLock(b)
	case byBerry:
		all, err = readBerryLock(b)
	}
	if err != nil {
		return nil, faas.Errorf(faas.Invalid, npmOp, "%s cannot be read: %v", m.Lock, err).WithFix("make it anew with the program that wrote it")
	}
	slices.SortFunc(all, func(a, b lockedPackage) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

// reduceLock takes the project's name and version out of npm's lock, so that functions that differ
// in these alone share a layer.
func reduceLock(name string, b []byte) ([]byte, error) {
	var lock map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&lock); err != nil {
		return nil, faas.Errorf(faas.Invalid, npmOp, "%s: %v", name, err).WithFix("make it anew: npm install --package-lock-only")
	}
	lock["name"], lock["version"] = "function", "0.0.0"
	if packages, ok := lock["packages"].(map[string]any); ok {
		if root, ok := packages[""].(map[string]any); ok {
			root["name"], root["version"] = "function", "0.0.0"
			for _, k := range []string{"license", "bin", "hasInstallScript"} {
				delete(root, k)
			}
		}
	}
	return json.Marshal(lock)
}

// readNPMLock reads a lock of npm 7 and newer, or of npm 5 and 6, whose packages nest.
func readNPMLock(b []byte) ([]lockedPackage, error) {
	type old struct {
		lockedPackage
		Bundled      bool                       `json:"bundled"`
		Dependencies map[string]json.RawMessage `json:"dependencies"`
	}
	var lock struct {
		Packages     map[string]lockedPackage   `json:"packages"`
		Dependencies map[string]json.RawMessage `json:"dependencies"`
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	var all []lockedPackage
	for _, at := range slices.Sorted(maps.Keys(lock.Packages)) {
		p := lock.Packages[at]
		if at == "" || p.Dev {
			continue
		}
		if i := strings.LastIndex(at, "node_modules/"); p.Name == "" && i >= 0 {
			p.Name = at[i+len("node_modules/"):]
		} else if p.Name == "" {
			p.Name = at // a directory of the project
			p.Link = true
		}
		all = append(all, p)
	}
	if lock.Packages != nil {
		return all, nil
	}
	var nested func(map[string]json.RawMessage) error
	nested = func(deps map[string]json.RawMessage) error {
		for _, name := range slices.Sorted(maps.Keys(deps)) {
			var p old
			if err := json.Unmarshal(deps[name], &p); err != nil {
				return err
			}
			p.Name, p.InBundle = name, p.Bundled
			if strings.Contains(p.Version, ":") { // an address stands where the version would
				p.Resolved = p.Version
			}
			if !p.Dev {
				all = append(all, p.lockedPackage)
			}
			if err := nested(p.Dependencies); err != nil {
				return err
			}
		}
		return nil
	}
	return all, nested(lock.Dependencies)
}

// splitID takes name@version apart, of which a scope's name begins with an @.
func splitID(id string) (name, version string) {
	if i := strings.LastIndex(id, "@"); i > 0 {
		return id[:i], id[i+1:]
	}
	return id, ""
}

// readPNPMLock reads a lock of pnpm 8 and newer. What is for development only is listed too: the
// lock does not say it of packages, and a hash does no harm.
func readPNPMLock(b []byte) ([]lockedPackage, error) {
	var lock struct {
		Version  string `yaml:"lockfileVersion"`
		Packages map[string]struct {
			Resolution struct {
				Integrity string `yaml:"integrity"`
				Tarball   string `yaml:"tarball"`
				Directory string `yaml:"directory"`
				Type      string `yaml:"type"`
				Repo      string `yaml:"repo"`
			} `yaml:"resolution"`
		} `yaml:"packages"`
	}
	if err := yaml.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(lock.Version, "9.") {
		return nil, fmt.Errorf("its version is %q; version 9, which pnpm 9 and newer write, is read", lock.Version)
	}
	var all []lockedPackage
	for id, p := range lock.Packages {
		l := lockedPackage{Integrity: p.Resolution.Integrity, Resolved: p.Resolution.Tarball, Link: p.Resolution.Directory != ""}
		l.Name, l.Version = splitID(id)
		if p.Resolution.Type == "git" {
			l.Resolved = "git+" + p.Resolution.Repo
		}
		all = append(all, l)
	}
	return all, nil
}

// readYarnLock reads a lock of Yarn 1.
func readYarnLock(b []byte) []lockedPackage {
	var all []lockedPackage
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#':
		case line[0] != ' ':
			first, _, _ := strings.Cut(strings.TrimSuffix(text, ":"), ",")
			name, _ := splitID(strings.Trim(first, `"`))
			if i := strings.Index(name[min(1, len(name)):], "@"); i >= 0 { // "a@npm:b@1"
				name = name[:i+1]
			}
			l := lockedPackage{Name: name}
			for pattern := range strings.SplitSeq(strings.TrimSuffix(text, ":"), ",") {
				_, from, _ := strings.Cut(strings.Trim(strings.TrimSpace(pattern), `"@`), "@")
				l.Link = l.Link || directory.MatchString(from) && !tarball.MatchString(from)
			}
			all = append(all, l)
		case len(all) > 0 && strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   "):
			key, value, _ := strings.Cut(text, " ")
			value = strings.Trim(value, `"`)
			switch l := &all[len(all)-1]; key {
			case "version":
				l.Version = value
			case "resolved":
				l.Resolved, _, _ = strings.Cut(value, "#")
			case "integrity":
				l.Integrity = value
			}
		}
	}
	return all
}

// readBerryLock reads a lock of Yarn 4. Its checksums are of the archives that Yarn makes of
// packages, which it checks as others check the registry's.
func readBerryLock(b []byte) ([]lockedPackage, error) {
	var lock map[string]struct {
		Version    string `yaml:"version"`
		Resolution string `yaml:"resolution"`
		Checksum   string `yaml:"checksum"`
		LinkType   string `yaml:"linkType"`
	}
	if err := yaml.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	if v := lock["__metadata"].Version; berryFor(v) == nil {
		return nil, fmt.Errorf("its version is %q; version 8 and newer, which Yarn 4 writes, are read", v)
	}
	var all []lockedPackage
	for _, p := range lock {
		name, from, _ := strings.Cut(p.Resolution[min(1, len(p.Resolution)):], "@")
		if len(p.Resolution) > 0 {
			name = p.Resolution[:1] + name
		}
		if p.Resolution == "" || strings.HasPrefix(from, "workspace:.") && p.Version == "0.0.0-use.local" {
			continue
		}
		l := lockedPackage{Name: name, Version: p.Version}
		if p.Checksum != "" {
			_, sum, _ := strings.Cut(p.Checksum, "/")
			l.Integrity = "sha512-" + sum
		}
		switch {
		case strings.HasPrefix(from, "npm:"), builtinPatch.MatchString(from):
		case strings.HasPrefix(from, "workspace:"), strings.HasPrefix(from, "link:"), strings.HasPrefix(from, "portal:"):
			l.Link = true
		case strings.HasPrefix(from, "file:"):
			path, _, _ := strings.Cut(from, "#")
			l.Resolved, l.Link = "file:", !tarball.MatchString(path) // of a directory it makes a package
		default:
			l.Resolved = from
		}
		all = append(all, l)
	}
	return all, nil
}

// builtinPatch is how Yarn marks packages that it adapts to its own ways by itself.
var builtinPatch = regexp.MustCompile(`^patch:[^#]*#(?:optional!|~)*builtin<[a-z/-]+>(?:::|$)`)

// packagePlace is how a place is written that packages come from. Others name programs, such as
// exec: of Yarn, or what is not here.
var packagePlace = regexp.MustCompile(`^(?:https?://|file:|npm:|[^:]*$)`)

// checkLocked refuses what a layer cannot hold, and in strict mode what has no hash.
func checkLocked(all []lockedPackage, m *Manifest, opt Options) error {
	for _, p := range all {
		switch {
		case p.Link:
			return faas.Errorf(faas.Invalid, npmOp, "%s wants %s from a directory of the project, and these are not installed for a function", m.Lock, p.Name).
				WithFix("pack it (npm pack) and name the tarball, or run npm install and send node_modules along")
		case strings.HasPrefix(p.Resolved, "git"), strings.HasPrefix(p.Resolved, "ssh:"):
			return faas.Errorf(faas.Invalid, npmOp, "%s wants %s from a git repository (%s); packages come from registries and tarballs alone", m.Lock, p.Name, redact(p.Resolved)).
				WithFix("name a version from the registry, or a tarball beside the code")
		case !packagePlace.MatchString(p.Resolved):
			return faas.Errorf(faas.Invalid, npmOp, "%s wants %s from %q; packages come from registries and tarballs alone", m.Lock, p.Name, clip(redact(p.Resolved), 80)).
				WithFix("name a version from the registry, or a tarball beside the code")
		case opt.Strict && !integrity.MatchString(p.Integrity) && !p.InBundle:
			return faas.Errorf(faas.Invalid, npmOp, "strict installs nothing without a hash, and %s has none for %s", m.Lock, p).
				WithFix("make the lock anew: delete it and node_modules, then install")
		}
	}
	return nil
}

// What is no hash to npm is taken as if there were none.
var (
	integrity       = regexp.MustCompile(`^sha(?:1|256|384|512)-[0-9A-Za-z+/=]+(?:\s|$)`)
	strongIntegrity = regexp.MustCompile(`^sha(?:256|384|512)-[0-9A-Za-z+/=]+$`)
)

// verified says whether each package has a strong hash and is a public registry's: whoever has the
// lock gets the same, and nothing that is not his to have.
func (n npm) verified(all []lockedPackage) bool {
	r := n.tools.Registries.NPM
	for _, p := range all {
		scope, _, scoped := strings.Cut(p.Name, "/")
		switch {
		case p.InBundle:
		case !strongIntegrity.MatchString(p.Integrity):
			return false
		case strings.HasPrefix(p.Resolved, publicNPM), strings.HasPrefix(p.Resolved, publicYarn):
		case p.Resolved != "" || r.Registry != "":
			return false
		case scoped && slices.ContainsFunc(r.Scopes, func(s string) bool { return strings.HasPrefix(s, scope+"=") }):
			return false
		}
	}
	return true
}

// workspaceKeys are the settings of pnpm-workspace.yaml that decide what is installed, and bring no
// program in.
var workspaceKeys = []string{
	"overrides", "packageExtensions", "catalog", "catalogs", "ignoredOptionalDependencies", "peerDependencyRules",
	"hoist", "hoistPattern", "publicHoistPattern", "shamefullyHoist", "nodeLinker", "autoInstallPeers", "strictPeerDependencies", "dedupePeerDependents",
}

// addPNPMWorkspace adds what counts of pnpm's settings, which the lock must agree with.
func addPNPMWorkspace(code fs.FS, m *Manifest) error {
	b, err := readFile(code, "pnpm-workspace.yaml")
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	var all, keep map[string]any = nil, map[string]any{}
	if err := yaml.Unmarshal(b, &all); err != nil {
		return faas.Errorf(faas.Invalid, npmOp, "pnpm-workspace.yaml: %v", err)
	}
	for _, k := range workspaceKeys {
		if v, ok := all[k]; ok {
			keep[k] = v
		}
	}
	if len(keep) == 0 {
		return nil
	}
	m.Files["pnpm-workspace.yaml"], err = yaml.Marshal(keep)
	return err
}
