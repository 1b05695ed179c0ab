package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// goModules gets what a go.mod requires. The compiler, which has no network, reads it as its module
// cache; a call sees nothing of it.
//
// Where go.sum has a hash of each module, these decide, and no checksum database is asked. Else what
// is missing is resolved and compared with the database, and the layer says in ResolvedDir what came
// of it.
type goModules struct{ tools Tools }

func newGoModules(t Tools) Ecosystem { return &goModules{t} }

// Name returns "go".
func (g *goModules) Name() string { return "go" }

const (
	// goTarget is where a build sees the modules.
	goTarget = "/gomod"
	// ResolvedDir is the directory of a layer with the files that pin what was resolved, such as
	// go.mod and go.sum, where the code has none or named more beside it.
	ResolvedDir = "resolved"
	// goPruned is the first version of a go.mod that lists all that is needed for a build.
	goPruned = "v1.17"
)

// Find takes a go.mod that requires others, unless vendor holds them.
func (g *goModules) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	if _, err := fs.Stat(code, "vendor/modules.txt"); err == nil {
		if len(opt.With) > 0 {
			return nil, faas.Errorf(faas.Invalid, op, "the code brings its modules in vendor, to which no others are added").
				WithFix("leave --with out, or take vendor away")
		}
		return nil, nil
	}
	if err := g.check(opt.With); err != nil {
		return nil, err
	}
	rt, err := g.tools.Runtimes.Lookup(runtimes.Go)
	if err != nil {
		return nil, err
	}
	text, err := readSmall(code, "go.mod")
	if errors.Is(err, fs.ErrNotExist) {
		if len(opt.With) == 0 {
			return nil, nil
		}
		text, err = fmt.Appendf(nil, "module function\n\ngo %s\n", minor(rt.Version)), nil
	}
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return nil, &faas.Error{Code: faas.Invalid, Op: op, Err: err, Fix: "mend go.mod: go mod edit -fmt says whether it is read"}
	}
	m := &Manifest{Files: map[string][]byte{}, Runtime: rt.Version}
	local, err := m.goReplaced(code, mod)
	if err != nil {
		return nil, err
	}
	sum, err := readSmall(code, "go.sum")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	needs, missing := goNeeds(mod, local, string(sum))
	if needs == 0 && len(opt.With) == 0 {
		return nil, nil
	}
	if len(local) == 0 && mod.Module != nil {
		// Functions that require the same share a layer, whatever they are called.
		if err := mod.AddModuleStmt("function"); err != nil {
			return nil, err
		}
		if text, err = mod.Format(); err != nil {
			return nil, err
		}
	}
	m.Files["go.mod"] = text
	if len(sum) > 0 {
		m.Files["go.sum"], m.Lock = sum, "go.sum"
	}
	m.Verified = missing == "" && len(opt.With) == 0
	switch {
	case m.Verified:
	case opt.Strict:
		what := missing
		if what == "" {
			what = opt.With[0]
		}
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and go.sum has none for %s", what).
			WithFix("add it where the code lies: go get %s, then go mod tidy; and send go.sum along", what)
	case missing != "" && len(sum) == 0:
		m.Note = "there is no go.sum, so versions and hashes are those of today: keep what go mod tidy writes"
	case missing != "":
		m.Note = "go.sum has no hash for " + missing + ", so it is today's: keep what go mod tidy writes"
	}
	return m, nil
}

var goWith = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~/-]*(@[A-Za-z0-9][A-Za-z0-9._+-]*)?$`)

func (g *goModules) check(with []string) error {
	for _, w := range with {
		if !goWith.MatchString(w) {
			return faas.Errorf(faas.Invalid, op, "%q names no module", clip(w, 80)).WithFix("write it as for go get: --with github.com/google/uuid@v1.6.0")
		}
	}
	return nil
}

// goReplaced adds the go.mod of each module that is replaced by a directory of the code, and
// returns which are.
func (m *Manifest) goReplaced(code fs.FS, mod *modfile.File) (map[string]bool, error) {
	local := map[string]bool{}
	for _, r := range mod.Replace {
		if !modfile.IsDirectoryPath(r.New.Path) {
			continue
		}
		local[r.Old.Path] = true
		dir := path.Clean(r.New.Path)
		if !fs.ValidPath(dir) {
			return nil, faas.Errorf(faas.Invalid, op, "go.mod replaces %s by %s, which is not below the code", r.Old.Path, clip(r.New.Path, 80)).
				WithFix("deploy the directory that holds both and name the function's with --entry; or: go mod vendor")
		}
		name := path.Join(dir, "go.mod")
		text, err := readSmall(code, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, faas.Errorf(faas.Invalid, op, "go.mod replaces %s by %s, in which there is no go.mod", r.Old.Path, dir).
				WithFix("send it along; see .brasaignore")
		}
		if err != nil {
			return nil, err
		}
		if name != "go.mod" {
			m.Files[name] = text
		}
	}
	return local, nil
}

// goNeeds counts the modules that must be got, and names one that go.sum has no hash of; "" if it
// has them all.
func goNeeds(mod *modfile.File, local map[string]bool, sum string) (n int, missing string) {
	have := map[string]bool{}
	for line := range strings.Lines(sum) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[2], "h1:") {
			have[f[0]+" "+f[1]] = true
		}
	}
	instead := map[module.Version]module.Version{}
	for _, r := range mod.Replace {
		instead[r.Old] = r.New
	}
	for _, r := range mod.Require {
		if local[r.Mod.Path] {
			continue
		}
		n++
		v := r.Mod
		if with, ok := instead[v]; ok {
			v = with
		} else if with, ok := instead[module.Version{Path: v.Path}]; ok {
			v = with
		}
		if missing == "" && !(have[v.Path+" "+v.Version] && have[v.Path+" "+v.Version+"/go.mod"]) {
			missing = v.Path + "@" + v.Version
		}
	}
	// Older ones name only what is imported at first hand, and what else there is nobody knows yet.
	if old := mod.Go == nil || semver.Compare("v"+mod.Go.Version, goPruned) < 0; old && missing == "" && n > 0 {
		missing = "all that is required indirectly"
	}
	return n, missing
}

// Plan downloads the modules, resolving first where that is needed.
func (g *goModules) Plan(_ context.Context, m *Manifest, opt Options) (*Job, error) {
	rt, err := g.tools.Runtimes.Lookup(runtimes.Go)
	if err != nil {
		return nil, err
	}
	job := &Job{Tool: "go " + rt.Version, Target: goTarget, BuildOnly: true, Packages: goPackages}
	env := []string{
		"GOMODCACHE=" + goTarget, "GOPATH=" + WorkDir + "/go", "GOCACHE=" + WorkDir + "/cache", "GOTOOLCHAIN=local", "GOWORK=off",
		"GOENV=off", "GOFLAGS=-modcacherw", "CGO_ENABLED=0",
	}
	get := JobStep{Name: "download", Args: []string{rt.Program, "mod", "download"}, Env: env, Network: true}
	if !m.Verified {
		get.Name = "resolve and download"
		get.Dir, get.Args = WorkDir, append([]string{"/bin/sh", "-ec", goResolve, "sh", rt.Program}, opt.With...)
		get.Env = append(env[:len(env):len(env)], "GOFLAGS=-mod=mod -modcacherw")
	}
	// What was only needed to get them would take a third of the layer.
	tidy := JobStep{Name: "tidy up", Args: []string{"/bin/sh", "-ec", goTidy}, Dir: goTarget}
	job.Steps = []JobStep{get, tidy}
	r := g.tools.Registries.Go
	for name, value := range map[string]string{"GOPROXY": r.Proxy, "GOSUMDB": r.Sum, "GOPRIVATE": r.Private} {
		if value != "" {
			job.Access.Env = append(job.Access.Env, name+"="+value)
		}
	}
	if r.Proxy != "" && r.Private != "" {
		// A proxy of one's own has private modules too; without one they are got from where they lie.
		job.Access.Env = append(job.Access.Env, "GONOPROXY=none")
	}
	job.Origin = goOrigin(r.Proxy)
	if ca := g.tools.Registries.CABundle(); ca != nil {
		job.Access.Files = map[string][]byte{path.Base(CAFile): ca}
		job.Access.Env = append(job.Access.Env, "SSL_CERT_FILE="+CAFile)
	}
	return job, nil
}

const (
	goResolve = `go=$1; shift
cp -r ` + SourceDir + ` m; cd m; chmod -R u+w .
[ $# = 0 ] || "$go" get "$@"
"$go" mod download all
mkdir -p ` + goTarget + `/` + ResolvedDir + `
cp go.mod ` + goTarget + `/` + ResolvedDir + `
[ ! -f go.sum ] || cp go.sum ` + goTarget + `/` + ResolvedDir

	goTidy = `cd cache 2>/dev/null || exit 0
rm -rf vcs lock download/sumdb
find download \( -name '*.zip' -o -name '*.lock' \) -exec rm -f {} +`
)

// goOrigin is a list of proxies without what is secret of them.
func goOrigin(proxies string) string {
	if proxies == "" {
		return ""
	}
	var out []string
	for _, p := range strings.FieldsFunc(proxies, func(r rune) bool { return r == ',' || r == '|' }) {
		out = append(out, redact(strings.TrimSpace(p)))
	}
	return strings.Join(out, ",")
}

// goPackages lists the modules in a cache.
func goPackages(dir string) ([]Package, error) {
	var all []Package
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if rel == "cache" || rel == ResolvedDir {
			return filepath.SkipDir
		}
		escaped, version, found := strings.Cut(filepath.ToSlash(rel), "@")
		if !found {
			return nil
		}
		name, err := module.UnescapePath(escaped)
		if err != nil {
			name = escaped
		}
		if v, err := module.UnescapeVersion(version); err == nil {
			version = v
		}
		all = append(all, Package{Name: name, Version: version, Bytes: bytesBelow(p)})
		return filepath.SkipDir
	})
	return all, err
}

// bytesBelow returns the size of the files below a directory that a tool has written.
func bytesBelow(dir string) (sum faas.Bytes) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it counts for nothing
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += faas.Bytes(info.Size())
		}
		return nil
	})
	return sum
}
