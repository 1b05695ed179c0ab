package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/rust"
)

// rustBinary is what a program is called that was built from Rust.
const rustBinary = runtimes.GoBinary

// buildRust compiles the crate in src and returns the directory that holds the program alone, or
// the module of WebAssembly.
//
// Cargo runs confined like a function, without a network, and so do build.rs and procedural macros:
// they see the source, the toolchain, the crates that were got for it and their own namespace's
// cache of compiled crates, which is what a poisoned entry could reach.
func (d *Deployer) buildRust(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Rust)
	if err != nil {
		return "", err
	}
	target, err := rustTarget(rt, plan)
	if err != nil {
		return "", err
	}
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	cache, err := d.buildDirs("cargocache", req.Name.Namespace, work, out)
	if err != nil {
		return "", err
	}
	crate, names, locked, err := layCrate(src, work, plan, deps, slices.Concat(plan.Install.With, req.Install.With))
	if err != nil {
		return "", err
	}
	binary, name := rustBinary, crate.Bin
	if target == runtimes.RustWasm {
		binary, name = runtimes.WasmEntry, name+".wasm"
	}
	log := &install.Tail{Most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: []string{"/bin/sh", "-ec", rustBuild, "sh", rt.Program, crate.Bin, target, name, binary, locked},
		Env: []string{
			"CARGO_HOME=/tmp/cargo", "RUSTC=" + rt.Compiler, "CARGO_TERM_COLOR=never", "CARGO_TERM_PROGRESS_WHEN=never", "CARGO_INCREMENTAL=0", "HOME=/tmp",
			"PATH=" + path.Dir(rt.Program) + ":/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
		},
		Dir: path.Join("/src", crate.Dir),
		Mounts: []sandbox.Mount{
			{Source: work, Target: "/src", Writable: true}, // build.rs may write beside the source, and cargo its lock
			{Source: out, Target: "/out", Writable: true},
			{Source: cache, Target: "/cache", Writable: true},
		},
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	spec.Mounts = append(append(spec.Mounts, readable(rt.Tools)...), deps.mounts()...)
	// Programs of one name from two builds would lie at the same place of the cache.
	leave, err := d.turns.take(ctx, cache)
	if err != nil {
		return "", err
	}
	defer leave()
	if err := forgetCrates(cache, target, names); err != nil {
		return "", err
	}
	if err := d.runBuild(ctx, spec, log); err != nil {
		return "", explainRust(err, log.String())
	}
	plan.Entry, plan.Handler = binary, ""
	if plan.Runtime == runtimes.Rust {
		plan.Runtime = runtimes.Executable
	}
	return out, nil
}

const rustBuild = `cargo=$1 bin=$2 target=$3 name=$4 to=$5 locked=$6
mkdir -p "$CARGO_HOME"
for f in registry git config.toml; do [ ! -e /cargo/$f ] || ln -s /cargo/$f "$CARGO_HOME/$f"; done
"$cargo" build --release --offline $locked --bin "$bin" --target "$target" --target-dir /cache
cp "/cache/$target/release/$name" "/out/$to"`

// rustTarget says what a plan is built for.
func rustTarget(rt *runtimes.Runtime, plan *runtimes.Plan) (string, error) {
	const op = "build function"
	if plan.Runtime == runtimes.Wasm {
		if !slices.Contains(rt.Targets, runtimes.RustWasm) {
			return "", faas.Errorf(faas.Unavailable, op, "the server's Rust %s cannot build for WebAssembly: it has no %s", rt.Version, runtimes.RustWasm).
				WithFix("have the operator add it: rustup target add %s; or build the module elsewhere and deploy that", runtimes.RustWasm)
		}
		return runtimes.RustWasm, nil
	}
	// A rustc links by the C compiler of the system, in the sandbox too.
	for _, dir := range []string{"/usr/local/bin", "/usr/bin"} {
		if _, err := exec.LookPath(filepath.Join(dir, "cc")); err == nil {
			return rt.Targets[0], nil
		}
	}
	return "", faas.Errorf(faas.Unavailable, op, "this host has no linker, which Rust needs: there is no cc in /usr/bin").
		WithFix("install one on the host: apt-get install gcc libc6-dev; or build the program elsewhere and deploy that")
}

// layCrate copies the code into work, with what was resolved for it. It returns the names of all
// crates in it too, and whether cargo is to keep to the lock.
func layCrate(src, work string, plan *runtimes.Plan, deps *deps, with []string) (crate *rust.Crate, names []string, locked string, err error) {
	in, err := os.OpenRoot(src)
	if err != nil {
		return nil, nil, "", fmt.Errorf("read source: %w", err)
	}
	defer in.Close()
	if crate, err = rust.Find(in.FS(), plan.Entry); err != nil {
		return nil, nil, "", err
	}
	if err := copySource(src, work); err != nil {
		return nil, nil, "", err
	}
	out, err := os.OpenRoot(work)
	if err != nil {
		return nil, nil, "", err
	}
	defer out.Close()
	file := path.Join(crate.Dir, "Cargo.toml")
	if crate.Made != nil {
		if err := out.WriteFile(file, crate.Made, 0o644); err != nil {
			return nil, nil, "", err
		}
	}
	if len(with) > 0 {
		text, err := out.ReadFile(file)
		if err != nil {
			return nil, nil, "", err
		}
		if text, err = rust.Add(text, with); err != nil {
			return nil, nil, "", err
		}
		if err := out.WriteFile(file, text, 0o644); err != nil {
			return nil, nil, "", err
		}
	}
	lock := path.Join(crate.Root, "Cargo.lock")
	if deps != nil && deps.Dir != "" {
		var text []byte
		if err := deps.resolved(map[string]*[]byte{"Cargo.lock": &text}); err != nil {
			return nil, nil, "", err
		}
		if text != nil {
			if err := out.WriteFile(lock, text, 0o644); err != nil {
				return nil, nil, "", err
			}
		}
	}
	if _, err := out.Stat(lock); err == nil {
		locked = "--locked"
	}
	names, err = rust.Names(out.FS())
	return crate, names, locked, err
}

// forgetCrates makes cargo compile anew what lies in the code. It tells by a crate's name, its version
// and the times of its files whether it was compiled before, and two functions may have a crate of
// the same name and version.
func forgetCrates(cache, target string, names []string) error {
	root, err := os.OpenRoot(cache) // builds have written there
	if err != nil {
		return err
	}
	defer root.Close()
	for _, dir := range []string{path.Join(target, "release", ".fingerprint"), "release/.fingerprint"} {
		entries, err := fs.ReadDir(root.FS(), dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(e.Name(), name+"-") }) {
				continue
			}
			if err := root.RemoveAll(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	noLinker = regexp.MustCompile("linker `([^`]+)` not found")
	noCrate  = regexp.MustCompile("use of (?:undeclared|unresolved) (?:crate or module|module or unlinked crate) `([^`]+)`|unresolved import `(\\w+)`|can't find crate for `([^`]+)`")
	noSystem = regexp.MustCompile("(?i)could not find (?:system library|directory of) [`']?([\\w.+-]+)|The system library `([^`]+)` required by crate")
	staleFor = regexp.MustCompile(`because --locked was passed|needs to be updated but --locked|no matching package named ` + "`([^`]+)`" + ` found`)
)

// explainRust says what mends a build, where its output tells.
func explainRust(err error, output string) error {
	e := faas.AsError(err)
	if e.Code != faas.Failed || e.Limit != "" {
		return err
	}
	if m := noLinker.FindStringSubmatch(output); m != nil {
		u := faas.Errorf(faas.Unavailable, e.Op, "this host has no linker %s, which Rust needs", m[1]).WithFix("install one on the host: apt-get install gcc libc6-dev")
		u.Trace = e.Trace
		return u
	}
	if m := noSystem.FindStringSubmatch(output); m != nil {
		return e.WithFix("a crate wants %s of the host: have the operator install its development package, or choose the crate's feature that brings its own (often named vendored or rustls)", strings.TrimSpace(m[1]+m[2]))
	}
	if staleFor.MatchString(output) {
		return e.WithFix("Cargo.lock does not fit Cargo.toml: cargo update --workspace, and deploy again")
	}
	if m := noCrate.FindStringSubmatch(output); m != nil {
		return e.WithFix("if %s is a crate, name it in Cargo.toml: cargo add %[1]s", m[1]+m[2]+m[3])
	}
	return err
}

// turns lets what writes to one place wait for each other.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // guarded by mu; holds a token while it is somebody's turn
}

// take waits for the turn at a place; the caller calls leave once.
func (t *turns) take(ctx context.Context, place string) (leave func(), err error) {
	t.mu.Lock()
	if t.busy == nil {
		t.busy = map[string]chan struct{}{}
	}
	turn := t.busy[place]
	if turn == nil {
		turn = make(chan struct{}, 1)
		t.busy[place] = turn
	}
	t.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
