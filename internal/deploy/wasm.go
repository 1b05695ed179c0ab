package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// maxRefusal is how much the compiler may say of why it refuses a module.
const maxRefusal = 64 << 10

// buildWasm compiles the module of a plan and returns a directory with it and what was made of it.
// Source in Go or Rust is built to a module first.
//
// The compiler runs confined like a function, without a network, and sees nothing but the module:
// what a module that misleads it could make it write is read by processes of this function alone,
// which are confined as much and run the module anyway. Here no byte of the module is looked at.
func (d *Deployer) buildWasm(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	if plan.Build {
		build := d.buildGo
		if plan.Source == runtimes.Rust {
			build = d.buildRust
		}
		built, err := build(ctx, req, plan, deps, dir, src)
		if err != nil {
			return "", err
		}
		src = built
	}
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Wasm)
	if err != nil {
		return "", err
	}
	code := filepath.Join(dir, "code")
	made := filepath.Join(code, runtimes.WasmMade)
	if err := os.MkdirAll(made, 0o755); err != nil {
		return "", err
	}
	// What else lies beside the module no module could read; nor can it bring compiled code along.
	entry := path.Base(plan.Entry)
	if err := copyEntry(src, plan.Entry, filepath.Join(code, entry)); err != nil {
		return "", err
	}
	args, mounts := rt.WasmCompiler("/src/"+entry, "/out")
	spec := sandbox.Spec{
		Name: buildName(dir) + "-wasm", Hostname: "build", Args: args, Dir: "/tmp",
		Env: []string{"HOME=/tmp", "PATH=/usr/bin:/bin"},
		Mounts: []sandbox.Mount{
			{Source: filepath.Join(code, entry), Target: "/src/" + entry},
			{Source: made, Target: "/out", Writable: true},
		},
		Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs,
	}
	spec.Mounts = append(spec.Mounts, readable(mounts)...)
	if err := d.runBuild(ctx, spec, &install.Tail{Most: 64 << 10}); err != nil {
		return "", err
	}
	if err := refusal(made); err != nil {
		return "", err
	}
	plan.Entry, plan.Handler = entry, ""
	return code, nil
}

// copyEntry copies a file out of the code, following no link out of it.
func copyEntry(src, name, to string) error {
	root, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer root.Close()
	in, err := root.Open(name)
	if err != nil {
		return faas.Errorf(faas.Invalid, "compile module", "the code has no file %q", name)
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return faas.Errorf(faas.Invalid, "compile module", "%s is not a file", name)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// refusal reads why the compiler has refused the module; nil if it has not. The file was written
// in a sandbox.
func refusal(made string) error {
	root, err := os.OpenRoot(made)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Lstat(runtimes.WasmRefused)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("compile module: the compiler left no file that can be read: %w", err)
	}
	f, err := root.Open(runtimes.WasmRefused)
	if err != nil {
		return err
	}
	defer f.Close()
	var why struct{ Message, Fix string }
	if err := json.NewDecoder(io.LimitReader(f, maxRefusal)).Decode(&why); err != nil {
		return fmt.Errorf("compile module: read why it was refused: %w", err)
	}
	e := faas.Errorf(faas.Invalid, "compile module", "%s", why.Message)
	if why.Fix != "" {
		e = e.WithFix("%s", why.Fix)
	}
	return e
}
