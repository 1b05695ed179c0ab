package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// npm is the ecosystem of Node.js: package.json, with a lock of npm, pnpm or Yarn, or with none. The
// layer is the directory node_modules, which stands at the root, where Node.js looks last for what a
// file below /code requires.
//
// The program that wrote the lock installs it, at a version pinned here where it is not npm, so that
// the same lock comes to the same layer on every machine. npm gets those programs as it gets
// packages, by their hashes.
//
// Nothing of a package is run while it is fetched, since that step has the registries' credentials.
// With Options.Scripts a second step runs the packages' install scripts; it has none. The project's
// own scripts are never run: they are about its code, which is not in the layer.
type npm struct{ tools Tools }

func newNPM(t Tools) Ecosystem { return npm{t} }

// Name returns "npm".
func (npm) Name() string { return "npm" }

// The programs by which a lock is installed.
const (
	byNPM   = "npm"
	byPNPM  = "pnpm"
	byYarn  = "yarn"       // 1, called classic
	byBerry = "yarn-berry" // 2 and newer
)

const (
	npmTarget  = "/node_modules"
	npmOp      = "read dependencies"
	publicNPM  = "https://registry.npmjs.org/"
	publicYarn = "https://registry.yarnpkg.com/"
	// maxManifestFile and maxManifestFiles bound what is read of the code: a lock of ten thousand
	// packages has 5 MB, and tarballs beside the code are packages.
	maxManifestFile  = 64 << 20
	maxManifestFiles = 128 << 20
)

// npmLocks are the locks that are known, the one that wins first.
var npmLocks = []struct{ file, tool string }{
	{"npm-shrinkwrap.json", byNPM}, {"package-lock.json", byNPM}, {"pnpm-lock.yaml", byPNPM}, {"yarn.lock", byYarn},
}

// packageFields are what of package.json decides what is installed. Scripts are not among them.
var packageFields = []string{
	"dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta", "dependenciesMeta",
	"bundleDependencies", "bundledDependencies", "overrides", "resolutions", "engines", "os", "cpu", "libc", "pnpm",
}

// packageManifest is what Find reads of package.json.
type packageManifest struct {
	Dependencies   map[string]string `json:"dependencies"`
	Optional       map[string]string `json:"optionalDependencies"`
	Peer           map[string]string `json:"peerDependencies"`
	Workspaces     json.RawMessage   `json:"workspaces"`
	PackageManager string            `json:"packageManager"`
	all            map[string]json.RawMessage
}

// Find reads package.json and the lock beside it.
func (n npm) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	major, _, _ := strings.Cut(plan.Version, ".")
	m := &Manifest{Ecosystem: n.Name(), Files: map[string][]byte{}, Runtime: major}
	if err := checkNames(opt.With); err != nil {
		return nil, err
	}
	p, err := readPackageJSON(code)
	if err != nil {
		return nil, err
	}
	if info, err := fs.Stat(code, "node_modules"); err == nil && info.IsDir() {
		p = nil // it is used as it is, and wins over a layer
	}
	if p == nil || len(p.Dependencies)+len(p.Optional)+len(p.Peer) == 0 {
		if len(opt.With) == 0 {
			return nil, nil
		}
		if opt.Strict {
			return nil, unlocked("packages that are named with --with")
		}
		m.From = "--with"
		m.Files["package.json"] = []byte(`{"name":"function","version":"0.0.0"}`)
		return m, nil
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := n.findLock(code, p, m); err != nil {
		return nil, err
	}
	if err := addTarballs(code, p, m); err != nil {
		return nil, err
	}
	m.Files["package.json"] = p.reduced(lockTool(m))
	if rc := readRC(code); len(rc) > 0 {
		m.Files[".npmrc"] = rc
	}
	switch {
	case opt.Strict && m.Lock == "":
		return nil, unlocked("package.json")
	case opt.Strict && len(opt.With) > 0:
		return nil, unlocked("packages that are named with --with")
	}
	if m.Lock == "" {
		return m, nil
	}
	locked, err := n.readLock(m)
	if err != nil {
		return nil, err
	}
	if err := checkLocked(locked, m, opt); err != nil {
		return nil, err
	}
	m.Verified = len(opt.With) == 0 && n.verified(locked)
	return m, nil
}

func unlocked(what string) error {
	return faas.Errorf(faas.Invalid, npmOp, "strict installs nothing without a hash, and there is no lock for %s", what).
		WithFix("make a lock and send it along: npm install --package-lock-only")
}

// readPackageJSON returns nil if the code has no package.json.
func readPackageJSON(code fs.FS) (*packageManifest, error) {
	b, err := readFile(code, "package.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &packageManifest{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, faas.Errorf(faas.Invalid, npmOp, "package.json: %v", err)
	}
	return p, json.Unmarshal(b, &p.all)
}

// readFile reads a file of the code that decides what is installed.
func readFile(code fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(code, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxManifestFile {
		return nil, faas.Errorf(faas.TooLarge, npmOp, "%s is larger than %s", name, faas.Bytes(maxManifestFile))
	}
	return fs.ReadFile(code, name)
}

var (
	packageName = regexp.MustCompile(`^(?:@[\w.~-]+/)?[A-Za-z0-9_.~][\w.~-]*(?:@[^\s/:]+)?$`)
	gitSpec     = regexp.MustCompile(`^(?:git[+:@]|github:|gitlab:|bitbucket:|gist:|ssh:|[\w.-]+/[\w.-]+(?:#.*)?$)|^https?://[^?]*\.git(?:#|$)`)
	directory   = regexp.MustCompile(`^(?:link:|portal:|workspace:|(?:file:)?(?:\.{0,2}/|~/))|^file:`)
	packageSpec = regexp.MustCompile(`^(?:https?://|file:|npm:|catalog:|[^:]*$)`)
	tarball     = regexp.MustCompile(`\.(?:tgz|tar\.gz|tar)$`)
)

// checkNames refuses names of packages that npm would take for an option, a path or an address.
func checkNames(names []string) error {
	for _, name := range names {
		if !packageName.MatchString(name) {
			return faas.Errorf(faas.Invalid, npmOp, "%q is no name of a package in the npm registry", name).WithFix("write name or name@version, such as lodash@4.17.21")
		}
	}
	return nil
}

// check refuses what names packages that no registry has.
func (p *packageManifest) check() error {
	if len(p.Workspaces) > 0 && string(p.Workspaces) != "[]" && string(p.Workspaces) != "null" {
		return faas.Errorf(faas.Invalid, npmOp, "package.json has workspaces, and these are not installed for a function").
			WithFix("deploy the directory of one workspace, with a lock of its own, or run npm install there and send node_modules along")
	}
	for _, set := range []map[string]string{p.Dependencies, p.Optional, p.Peer} {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			spec := set[name]
			switch {
			case !packageSpec.MatchString(spec) && !gitSpec.MatchString(spec) && !directory.MatchString(spec):
				return faas.Errorf(faas.Invalid, npmOp, "package.json wants %s from %q; packages come from registries and tarballs alone", name, clip(redact(spec), 80)).
					WithFix("name a version from the registry, or a tarball beside the code: \"%s\": \"file:%s.tgz\"", name, path.Base(name))
			case tarball.MatchString(spec) && !strings.HasPrefix(spec, "git"): // of the code or of an address
			case directory.MatchString(spec):
				return faas.Errorf(faas.Invalid, npmOp, "package.json wants %s from a directory (%s), and these are not installed for a function", name, spec).
					WithFix("pack it (npm pack) and name the tarball: \"%s\": \"file:%s.tgz\", or import its files by their path", name, path.Base(name))
			case gitSpec.MatchString(spec):
				return faas.Errorf(faas.Invalid, npmOp, "package.json wants %s from a git repository (%s); packages come from registries and tarballs alone", name, spec).
					WithFix("name a version from the registry, or a tarball beside the code: \"%s\": \"file:%s.tgz\"", name, path.Base(name))
			}
		}
	}
	return nil
}

// reduced is package.json without what does not decide what is installed, so that functions that
// differ in the rest share a layer. Yarn's newer locks name the project.
func (p *packageManifest) reduced(tool string) []byte {
	out := map[string]json.RawMessage{"name": json.RawMessage(`"function"`), "version": json.RawMessage(`"0.0.0"`)}
	for _, k := range packageFields {
		if v, ok := p.all[k]; ok {
			out[k] = v
		}
	}
	var settings map[string]json.RawMessage // pnpm's, which can also name programs
	if json.Unmarshal(out["pnpm"], &settings) == nil {
		maps.DeleteFunc(settings, func(k string, _ json.RawMessage) bool { return !slices.Contains(workspaceKeys, k) })
		out["pnpm"], _ = json.Marshal(settings) // what was JSON is JSON
	} else {
		delete(out, "pnpm")
	}
	if tool == byBerry {
		for _, k := range []string{"name", "version"} {
			if v, ok := p.all[k]; ok {
				out[k] = v
			} else {
				delete(out, k)
			}
		}
	}
	b, err := json.Marshal(out)
	if err != nil { // what was JSON is JSON
		panic(err)
	}
	return b
}

// findLock takes the lock that package.json's packageManager asks for, else the first.
func (n npm) findLock(code fs.FS, p *packageManifest, m *Manifest) error {
	wants, _, _ := strings.Cut(p.PackageManager, "@")
	var have []string
	tool := ""
	for _, l := range npmLocks {
		if _, err := fs.Stat(code, l.file); err != nil {
			continue
		}
		have = append(have, l.file)
		if m.Lock == "" || wants == l.tool && tool != wants {
			m.Lock, tool = l.file, l.tool
		}
	}
	if len(have) > 1 {
		m.Note = fmt.Sprintf("of %s the dependencies are those of %s", strings.Join(have, ", "), m.Lock)
	}
	if m.Lock == "" {
		for _, other := range []string{"bun.lock", "bun.lockb"} {
			if _, err := fs.Stat(code, other); err == nil {
				m.Note = other + " is not read; versions are resolved anew from package.json"
			}
		}
		if m.Note == "" {
			m.Note = "there is no lock; versions are resolved at deploy"
		}
		return nil
	}
	b, err := readFile(code, m.Lock)
	if err != nil {
		return err
	}
	switch tool {
	case byYarn:
		if r := n.tools.Registries.NPM.Registry; r != "" {
			b = []byte(strings.ReplaceAll(string(b), publicYarn, withSlash(redact(r)))) // its addresses are whole
		}
	case byNPM:
		b, err = reduceLock(m.Lock, b)
	case byPNPM:
		err = addPNPMWorkspace(code, m)
	}
	m.Files[m.Lock] = b
	return err
}

// lockTool says which program installs a manifest.
func lockTool(m *Manifest) string {
	for _, l := range npmLocks {
		switch {
		case l.file != m.Lock:
		case l.tool == byYarn && strings.Contains(string(m.Files[m.Lock]), "\n__metadata:"):
			return byBerry
		default:
			return l.tool
		}
	}
	return byNPM
}

// addTarballs adds the packages that lie beside the code.
func addTarballs(code fs.FS, p *packageManifest, m *Manifest) error {
	room := int64(maxManifestFiles)
	for _, set := range []map[string]string{p.Dependencies, p.Optional} {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			file, ok := strings.CutPrefix(set[name], "file:")
			if !ok && !strings.HasPrefix(file, ".") || !tarball.MatchString(file) {
				continue
			}
			file = path.Clean(strings.TrimPrefix(file, "//"))
			b, err := readFile(code, file)
			if err != nil {
				if e := faas.AsError(err); e.Code == faas.TooLarge {
					return err
				}
				return faas.Errorf(faas.Invalid, npmOp, "package.json wants %s from %s, which the code does not have", name, file)
			}
			if room -= int64(len(b)); room < 0 {
				return faas.Errorf(faas.TooLarge, npmOp, "the tarballs that package.json names are larger than %s together", faas.Bytes(maxManifestFiles))
			}
			m.Files[file] = b
		}
	}
	return nil
}

// rcKeys are the settings of a project's .npmrc that count. Registries and their credentials are the
// server's to configure, and no setting may bring a program in.
var rcKeys = []string{
	"legacy-peer-deps", "strict-peer-deps", "strict-peer-dependencies", "auto-install-peers", "engine-strict", "install-strategy",
	"hoist", "hoist-pattern", "public-hoist-pattern", "shamefully-hoist", "node-linker", "prefer-dedupe", "dedupe-peer-dependents",
}

// readRC returns what counts of the project's .npmrc.
func readRC(code fs.FS) []byte {
	b, err := readFile(code, ".npmrc")
	if err != nil {
		return nil
	}
	var keep strings.Builder
	// npm ends a line at each of these; what it took for another setting here would be part of a value.
	for line := range strings.FieldsFuncSeq(string(b), func(r rune) bool { return r == '\n' || r == '\r' }) {
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if ok && slices.Contains(rcKeys, strings.TrimSuffix(key, "[]")) && !strings.Contains(value, "${") {
			fmt.Fprintf(&keep, "%s=%s\n", key, strings.TrimSpace(value))
		}
	}
	return []byte(keep.String())
}

// Plan says how the lock is installed.
func (n npm) Plan(_ context.Context, m *Manifest, opt Options) (*Job, error) {
	node, cli, version, err := n.program()
	if err != nil {
		return nil, err
	}
	return n.job(m, opt, node, cli, version)
}
