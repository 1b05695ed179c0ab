package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "embed"
)

//go:embed python/bootstrap.py
var pythonBootstrap []byte

//go:embed python/zygote.py
var pythonZygote []byte

// Config says where Discover looks and unpacks.
type Config struct {
	Dir    string       // directory of its own, made if it is absent, where the bootstraps are unpacked
	Python string       // interpreter to use; empty: the best that is found
	Node   string       // the same
	Go     string       // go command to use; empty: the same
	Java   string       // java command to use; empty: the same
	Ruby   string       // interpreter to use; empty: the same
	PHP    string       // the same
	Wasm   string       // program that serves modules of WebAssembly; empty: the one that OfferWasm has named
	Logger *slog.Logger // nil: silent
}

// probeTimeout is how long an interpreter may take to say its version; a broken one hangs.
const probeTimeout = 10 * time.Second

// Discover finds the languages that this host can run in a sandbox and unpacks their
// bootstraps. A language that is not there is no error: the registry says why. Each interpreter
// is run, because a file of the right name may be a shim that needs its user's home.
func Discover(ctx context.Context, cfg Config) (*Registry, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// Every sandbox's uid must be able to read it, whatever the umask is.
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for bootstraps: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	r := &Registry{found: make(map[string]*Runtime), missing: make(map[string]string), programs: make(map[string]string)}
	for name, find := range map[string]func(context.Context, Config, string) (*Runtime, error){
		Python: findPython, Node: findNode, Go: findGo, Java: findJava, Ruby: findRuby, PHP: findPHP, Rust: findRust, DotNet: findDotNet, Swift: findSwift, Wasm: findWasm,
	} {
		rt, err := find(ctx, cfg, filepath.Join(dir, name))
		if err == nil {
			err = checkRoot(rt)
		}
		if err != nil {
			r.missing[name] = err.Error()
			cfg.Logger.Debug("runtime not found", "runtime", name, "why", err)
			continue
		}
		rt.Name = name
		r.found[name] = rt
		cfg.Logger.Info("runtime found", "runtime", name, "version", rt.Version, "program", rt.Program)
		if rt.RootDir != "" {
			r.rootDirs = append(r.rootDirs, rt.RootDir)
		}
	}
	slices.Sort(r.rootDirs)
	if rt := r.found[Python]; rt != nil {
		r.programs["python3"], r.programs["python"] = rt.Program, rt.Program
	}
	if rt := r.found[Node]; rt != nil {
		r.programs["node"], r.programs["nodejs"] = rt.Program, rt.Program
	}
	if rt := r.found[Java]; rt != nil {
		r.programs["java"] = rt.Program
	}
	if rt := r.found[Ruby]; rt != nil {
		r.programs["ruby"] = rt.Program
	}
	if rt := r.found[PHP]; rt != nil {
		r.programs["php"] = rt.Program
	}
	for _, name := range []string{"sh", "bash", "perl", "ruby", "php", "lua", "awk"} {
		if p := inUsr(name); p != "" && r.programs[name] == "" {
			r.programs[name] = p
		}
	}
	for _, name := range []string{Executable, JSONLines, HTTPServer, OpenWhisk, OpenFaaS, Lambda, ActionLoop} {
		r.found[name] = &Runtime{Name: name, Style: styleOf(name), others: r.programs}
	}
	return r, nil
}

// inUsr returns the path of a program in the directories that every sandbox has.
func inUsr(name string) string {
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o001 != 0 {
			if real, err := filepath.EvalSymlinks(p); err == nil && strings.HasPrefix(real, "/usr/") {
				return p
			}
		}
	}
	return ""
}

// candidates lists where a program may be: what the configuration says alone, else the
// directories of every sandbox before those of the PATH.
func candidates(configured string, names ...string) []string {
	if configured != "" {
		return []string{configured}
	}
	var out []string
	for _, dir := range append([]string{"/usr/bin", "/usr/local/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		for _, name := range names {
			p := filepath.Join(dir, name)
			if info, err := os.Stat(p); filepath.IsAbs(p) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// probe runs a program and returns what it writes to its stdout.
func probe(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8", "GOTOOLCHAIN=local"}
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", program, err, clip(strings.TrimSpace(errs.String())))
	}
	return out.Bytes(), nil
}

// rootOf returns the directory that a sandbox must see for a program under prefix to run; empty
// if every sandbox has it.
func rootOf(prefix string) string {
	if prefix == "/usr" || strings.HasPrefix(prefix, "/usr/") {
		return ""
	}
	return prefix
}

// ownDirs are those that every sandbox has for itself, so that it sees nothing of the host's there.
var ownDirs = []string{"/tmp", "/dev", "/proc", "/sys", "/run", CodeDir, BootDir}

// checkRoot says whether sandboxes can see what a runtime needs of the host.
func checkRoot(rt *Runtime) error {
	for _, dir := range ownDirs {
		if rt.RootDir == dir || strings.HasPrefix(rt.RootDir, dir+"/") {
			return fmt.Errorf("%s lies in %s, of which a sandbox has its own", rt.RootDir, dir)
		}
	}
	return nil
}

// unpack writes a bootstrap where sandboxes can read it. The file is replaced in one step,
// because a predecessor's sandboxes may still have the old one mounted.
func unpack(dir, name string, content []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o644); err != nil { // whatever the umask is
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// pythonProbe asks the interpreter what it really is; a shim answers for the one behind it.
const pythonProbe = `
import sys, os, json, importlib.util as u
wanted = ["ssl", "sqlite3", "ctypes", "zlib", "asyncio", "_bz2", "_lzma"]
print(json.dumps({"version": list(sys.version_info[:3]), "program": os.path.realpath(sys.executable),
  "prefix": os.path.realpath(sys.base_prefix), "lacks": [m for m in wanted if u.find_spec("_" + m if m in ("ssl", "sqlite3", "ctypes") else m) is None]}))
`

// pythonCompile makes the bootstrap's bytecode: compiling it anew would cost every cold start
// more than all else that it does. The check of the source is left out because both lie in a
// read-only directory of ours.
const pythonCompile = `
import sys, py_compile
py_compile.compile(sys.argv[1], cfile=sys.argv[2], dfile=sys.argv[3], doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`

func findPython(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	type answer struct {
		Version [3]int   `json:"version"`
		Program string   `json:"program"`
		Prefix  string   `json:"prefix"`
		Lacks   []string `json:"lacks"`
	}
	var best *answer
	why := fmt.Errorf("no python3 in /usr/bin, /usr/local/bin or PATH")
	for _, p := range candidates(cfg.Python, "python3", "python") {
		out, err := probe(ctx, p, "-I", "-S", "-c", pythonProbe)
		if err != nil {
			why = err
			continue
		}
		var a answer
		if err := json.Unmarshal(out, &a); err != nil {
			why = fmt.Errorf("ask %s for its version: %w", p, err)
			continue
		}
		if a.Version[0] != 3 || a.Version[1] < 8 {
			why = fmt.Errorf("%s is Python %d.%d; 3.8 or newer is needed", p, a.Version[0], a.Version[1])
			continue
		}
		if best == nil || len(a.Lacks) < len(best.Lacks) {
			best = &a
		}
		if len(best.Lacks) == 0 {
			break // the first whole one: those in /usr come first and cost no mount
		}
	}
	if best == nil {
		return nil, why
	}
	if len(best.Lacks) > 0 {
		cfg.Logger.Warn("python lacks parts of its standard library", "program", best.Program, "modules", best.Lacks)
	}
	if err := unpack(dir, "bootstrap.py", pythonBootstrap); err != nil {
		return nil, fmt.Errorf("unpack bootstrap: %w", err)
	}
	rt := &Runtime{
		Version: fmt.Sprintf("%d.%d.%d", best.Version[0], best.Version[1], best.Version[2]),
		Program: best.Program, RootDir: rootOf(best.Prefix), Style: StyleFrames,
		bootDir: dir, boot: "bootstrap.pyc", args: []string{"-I", "-S", "-B"},
	}
	if err := unpack(dir, "zygote.py", pythonZygote); err != nil {
		return nil, fmt.Errorf("unpack zygote: %w", err)
	}
	rt.zygote = "zygote.py"
	source, bytecode := filepath.Join(dir, "bootstrap.py"), filepath.Join(dir, "bootstrap.pyc")
	if _, err := probe(ctx, rt.Program, "-I", "-S", "-c", pythonCompile, source, bytecode, BootDir+"/bootstrap.py"); err != nil {
		cfg.Logger.Warn("bootstrap is not compiled; cold starts of python take longer", "err", err)
		rt.boot = "bootstrap.py"
	} else if err := os.Chmod(bytecode, 0o644); err != nil {
		return nil, err
	}
	return rt, nil
}

// findGo finds the toolchain. Functions in Go are built with it at deploy and need none to run.
func findGo(ctx context.Context, cfg Config, _ string) (*Runtime, error) {
	why := fmt.Errorf("no go command in PATH or /usr/local/go/bin")
	for _, p := range append(candidates(cfg.Go, "go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go") {
		if cfg.Go != "" && p != cfg.Go {
			break
		}
		out, err := probe(ctx, p, "env", "-json", "GOROOT", "GOVERSION")
		if err != nil {
			if _, gone := os.Stat(p); gone == nil {
				why = err
			}
			continue
		}
		var a struct{ GOROOT, GOVERSION string }
		if err := json.Unmarshal(out, &a); err != nil || a.GOROOT == "" {
			why = fmt.Errorf("ask %s for its root: %w", p, err)
			continue
		}
		root, err := filepath.EvalSymlinks(a.GOROOT)
		if err != nil {
			why = err
			continue
		}
		return &Runtime{
			Version: strings.TrimPrefix(a.GOVERSION, "go"), Program: filepath.Join(root, "bin", "go"),
			RootDir: rootOf(root), Style: StyleFrames,
		}, nil
	}
	return nil, why
}
