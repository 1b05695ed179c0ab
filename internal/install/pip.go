package install

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// pip installs what Python code names, with uv where it is there and else with the pip of the
// interpreter that runs functions. What is named is always handed over as requirements: locks of
// other tools are put into that form, hashes included, so that those tools need not be there.
type pip struct {
	tools Tools
	tool  sought[*pipTool]
}

func newPip(t Tools) Ecosystem { return &pip{tools: t} }

// Name returns "pip".
func (p *pip) Name() string { return "pip" }

const (
	// pipTarget is where functions see their packages.
	pipTarget = "/deps"
	// pipMain is the file of requirements that is handed over, where the code has none itself.
	pipMain = ".brasa/requirements.txt"
	// pipWith holds what is named beside the code.
	pipWith = ".brasa/with.txt"
	// pipPins are the versions of a lock without their hashes: constraints for what is named beside
	// it.
	pipPins = ".brasa/pins.txt"
)

// Find takes the first of uv.lock, poetry.lock, requirements.txt, Pipfile.lock, pyproject.toml, and
// what the entry says of itself. Code that brings its packages along in vendor or site-packages
// needs none.
func (p *pip) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	program := plan.Runtime != runtimes.Python // one of its own, run by the same interpreter
	if program {
		rt, err := p.tools.Runtimes.Lookup(runtimes.Python)
		if err != nil {
			return nil, err
		}
		own := *plan
		own.Version, plan = rt.Version, &own
	}
	needs, err := findPython(code, plan)
	if err != nil {
		return nil, err
	}
	if needs == nil {
		if len(opt.With) == 0 {
			return nil, nil
		}
		needs = &pythonNeeds{from: "--with"}
	}
	built, err := checkWith(opt.With)
	if err != nil {
		return nil, err
	}
	if built = append(needs.built, built...); len(built) > 0 && !opt.Scripts {
		return nil, faas.Errorf(faas.Invalid, op, "%s has to be built, which runs its code", some(built)).
			WithFix("let that run: --install-scripts; or name a wheel")
	}
	m := &Manifest{Files: needs.files, From: needs.from, Lock: needs.lock, Runtime: minor(plan.Version), Program: program, Note: needs.note}
	r := p.tools.Registries.Python
	m.Verified = needs.hashed() && !needs.odd && r.Index == "" && len(r.Extra) == 0 && len(r.Links) == 0
	if bare := append(needs.bare, opt.With...); opt.Strict && len(bare) > 0 {
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and there is none for %s", some(bare)).
			WithFix("make a lock with hashes: uv lock; or: uv pip compile --generate-hashes requirements.in -o requirements.txt")
	}
	return m, nil
}

// checkWith refuses what would be an option and not a package, and returns what has to be built.
func checkWith(with []string) (built []string, err error) {
	for _, w := range with {
		if !looksLikeRequirement.MatchString(w) || strings.ContainsAny(w, "\n\r\x00") {
			return nil, faas.Errorf(faas.Invalid, op, "%q names no package", clip(w, 80)).WithFix(`write it as in requirements.txt: --with 'requests>=2.31'`)
		}
		is, err := checkPackage("--with", w)
		if err != nil {
			return nil, err
		}
		if is {
			built = append(built, requirementName(w))
		}
	}
	return built, nil
}

var looksLikeRequirement = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*([<>=!~;@ ].*)?$`)

// minor cuts "3.11.7" to "3.11".
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// Plan says how the packages are got, and compiled.
func (p *pip) Plan(ctx context.Context, m *Manifest, opt Options) (*Job, error) {
	rt, err := p.tools.Runtimes.Lookup(runtimes.Python)
	if err != nil {
		return nil, err
	}
	tool, err := p.find(ctx, rt)
	if err != nil {
		return nil, err
	}
	job := &Job{Tool: tool.String(), Target: pipTarget, Mounts: tool.program.Mounts, Files: map[string][]byte{}, Packages: pythonPackages}
	if m.Program {
		job.Env = map[string]string{"PYTHONPATH": pipTarget}
	}
	job.Access, job.Origin = p.access(tool)
	install := func(name string, how pipRun) {
		job.Steps = append(job.Steps, JobStep{Name: name, Args: tool.install(rt.Program, how, opt), Network: true})
	}
	var files []string // of requirements, as the code has them or as they were put into that form
	for _, f := range []string{"requirements.txt", pipMain} {
		if m.Files[f] != nil {
			files = append(files, f)
		}
	}
	first := pipRun{files: files, hashed: m.Lock != "", whole: m.Lock != "" && m.Lock != "requirements.txt"}
	switch {
	case len(opt.With) == 0:
		install("install", first)
	case !first.hashed:
		job.Files[pipWith] = []byte(strings.Join(opt.With, "\n") + "\n")
		install("install", pipRun{files: append(files, pipWith)})
	default: // what is named besides has no hashes, and so comes after what has
		job.Files[pipWith] = []byte(strings.Join(opt.With, "\n") + "\n")
		job.Files[pipPins] = []byte(strings.Join(pins(m.Files), "\n") + "\n")
		install("install", first)
		install("install what is named besides", pipRun{files: []string{pipWith}, constraints: []string{pipPins}})
	}
	job.Steps = append(job.Steps, JobStep{
		Name: "compile", Args: []string{rt.Program, "-S", "-s", "-B", "-W", "ignore", "-c", pipCompile, pipTarget},
		// The order of constant sets goes by their hashes, which must not differ from run to run.
		Env: []string{"PYTHONHASHSEED=0"}, Dir: WorkDir,
	})
	return job, nil
}

// pipCompile puts bytecode beside each module, which is loaded without a look at its source: both
// lie in a read-only tree. What does not compile fails where it is imported, if it is.
const pipCompile = `
import sys
del sys.path[0]  # what has been written where we start is nobody's module
import compileall, py_compile
compileall.compile_dir(sys.argv[1], quiet=2, maxlevels=64, force=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`

// access says where packages come from.
func (p *pip) access(tool *pipTool) (a Access, origin string) {
	r := p.tools.Registries.Python
	a.Files = map[string][]byte{}
	mount := func(address string) string {
		dir, ok := strings.CutPrefix(address, "file://")
		if !ok && strings.HasPrefix(address, "/") {
			dir, ok = address, true
		}
		if !ok {
			return address
		}
		at := fmt.Sprintf("%s-%d", "/index", len(a.Mounts))
		a.Mounts = append(a.Mounts, sandbox.Mount{Source: dir, Target: at})
		if strings.HasPrefix(address, "/") {
			return at
		}
		return "file://" + at
	}
	index := mount(r.Index)
	var extra, links []string
	for _, e := range r.Extra {
		extra = append(extra, mount(e))
	}
	for _, l := range r.Links {
		links = append(links, mount(l))
	}
	var from []string
	for _, address := range slices.Concat([]string{r.Index}, r.Extra, r.Links) {
		if address != "" {
			from = append(from, redact(address))
		}
	}
	ca := p.tools.Registries.CABundle()
	if ca != nil {
		a.Files["ca.pem"] = ca
	}
	if tool.uv {
		set := func(k string, v string) {
			if v != "" {
				a.Env = append(a.Env, k+"="+v)
			}
		}
		set("UV_DEFAULT_INDEX", index)
		set("UV_INDEX", strings.Join(extra, " "))
		set("UV_FIND_LINKS", strings.Join(links, ","))
		if ca != nil {
			set("SSL_CERT_FILE", CAFile)
		}
		return a, strings.Join(from, " ")
	}
	conf := "[global]\n"
	line := func(k string, all []string) {
		if len(all) > 0 && all[0] != "" {
			conf += k + " = " + strings.Join(all, "\n    ") + "\n"
		}
	}
	line("index-url", []string{index})
	line("extra-index-url", extra)
	line("find-links", links)
	line("trusted-host", plain(append([]string{r.Index}, r.Extra...)))
	if ca != nil {
		line("cert", []string{CAFile})
	}
	a.Files["pip.conf"] = []byte(conf)
	a.Env = append(a.Env, "PIP_CONFIG_FILE="+AccessDir+"/pip.conf")
	return a, strings.Join(from, " ")
}

// plain returns the hosts of addresses without TLS, which pip ignores unless it is told that they are
// meant: the operator has named them.
func plain(addresses []string) (hosts []string) {
	for _, a := range addresses {
		if u, err := url.Parse(a); err == nil && u.Scheme == "http" {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}

// pipTool is uv, or the pip of an interpreter.
type pipTool struct {
	uv      bool
	version string
	program Program // uv
}

func (t *pipTool) String() string {
	if t.uv {
		return "uv " + t.version
	}
	return "pip " + t.version
}

// pipRun is one run of the tool.
type pipRun struct {
	files, constraints []string
	hashed             bool // all of files have hashes
	whole              bool // files name all there is to be installed
}

// install returns the command that installs files of requirements.
func (t *pipTool) install(python string, how pipRun, opt Options) []string {
	args := []string{python, "-I", "-m", "pip", "install", "--target", pipTarget, "--no-compile", "--no-cache-dir", "--no-input",
		"--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off", "--retries", "3", "--timeout", "15"}
	if t.uv {
		args = []string{t.program.Path, "pip", "install", "--python", python, "--target", pipTarget, "--no-config", "--no-progress",
			"--link-mode", "copy", "--cache-dir", WorkDir + "/uv", "--no-python-downloads"}
	}
	if !opt.Scripts {
		args = append(args, "--only-binary", ":all:")
	}
	if how.hashed {
		args = append(args, "--require-hashes")
	}
	if how.whole {
		args = append(args, "--no-deps")
	}
	for _, c := range how.constraints {
		args = append(args, "-c", SourceDir+"/"+c)
	}
	for _, f := range how.files {
		args = append(args, "-r", SourceDir+"/"+f)
	}
	return args
}

// find looks for uv, then for pip.
func (p *pip) find(ctx context.Context, rt *runtimes.Runtime) (*pipTool, error) {
	return p.tool.get(ctx, func() (*pipTool, error) {
		if uv, ok := p.tools.Program("uv"); ok {
			if out, err := ask(ctx, uv.Host, "--version"); err == nil {
				if f := strings.Fields(out); len(f) > 1 && f[0] == "uv" {
					return &pipTool{uv: true, version: f[1], program: uv}, nil
				}
			}
		}
		out, err := ask(ctx, rt.Program, "-I", "-m", "pip", "--version")
		if f := strings.Fields(out); err == nil && len(f) > 1 && f[0] == "pip" {
			return &pipTool{version: f[1]}, nil
		}
		return nil, faas.Errorf(faas.Unavailable, op, "this host has neither uv nor pip for its Python %s", rt.Version).
			WithFix("install one on the host: apt-get install python3-pip; or bring the packages with the code: pip install --target vendor -r requirements.txt")
	})
}
