package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/typescript"
	"github.com/brasa-dev/brasa/runtimes"
)

// maxCompiled bounds what the compiler may leave: one file of JavaScript, and its map.
const maxCompiled = 64 << 20

// buildNode compiles TypeScript, and packs what a function in Node.js loads.
func (d *Deployer) buildNode(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	if typescript.Is(plan.Entry) {
		if err := d.compileTypeScript(ctx, req, plan, dir, src); err != nil {
			return "", err
		}
	}
	return d.packNode(ctx, req, plan, deps, dir, src)
}

// compileTypeScript puts beside the entry in src what is made of it and of what it imports from the
// code, and makes that the entry. The compiler runs confined and sees the code alone.
func (d *Deployer) compileTypeScript(ctx context.Context, req Request, plan *runtimes.Plan, dir, src string) error {
	const op = "compile TypeScript"
	// A handler may name its file: the one that is compiled.
	if file, name, ok := cutLast(plan.Handler, "."); ok {
		for _, ext := range []string{".ts", ".mts", ".cts", ".tsx"} {
			if info, err := os.Lstat(filepath.Join(src, filepath.FromSlash(file)+ext)); filepath.IsLocal(file) && err == nil && info.Mode().IsRegular() {
				plan.Entry, plan.Handler = file+ext, name
			}
		}
	}
	self, err := d.cfg.Runtimes.Lookup(runtimes.Wasm) // the program that serves modules is this one
	if err != nil {
		return err
	}
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Node)
	if err != nil {
		return err
	}
	out := filepath.Join(dir, "typescript")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	_, mounts := self.WasmCompiler("", "")
	spec := sandbox.Spec{
		Name: buildName(dir) + "-ts", Hostname: "build", Dir: "/tmp",
		Args: []string{runtimes.WasmProgram, typescript.Arg, runtimes.CodeDir, plan.Entry, rt.Version, "/out"},
		Env:  []string{"HOME=/tmp", "PATH=/usr/bin:/bin"},
		Mounts: append(readable(mounts),
			sandbox.Mount{Source: src, Target: runtimes.CodeDir}, sandbox.Mount{Source: out, Target: "/out", Writable: true}),
		Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs,
	}
	if err := d.runBuild(ctx, spec, &install.Tail{Most: 64 << 10}); err != nil {
		return err
	}
	root, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer root.Close()
	b, err := readBuilt(root, typescript.ResultFile)
	var res typescript.Result
	if err == nil {
		err = json.Unmarshal(b, &res)
	}
	if err != nil {
		return fmt.Errorf("%s: read what came of it: %w", op, err)
	}
	if len(res.Errors) > 0 {
		return refusedSource(op, res.Errors)
	}
	// The name comes out of a sandbox too.
	if was := strings.TrimSuffix(plan.Entry, filepath.Ext(plan.Entry)); !slices.Contains([]string{was + ".cjs", was + ".mjs", plan.Entry + ".cjs", plan.Entry + ".mjs"}, res.Entry) {
		return fmt.Errorf("%s: it names the file %q", op, res.Entry)
	}
	code, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer code.Close()
	for from, to := range map[string]string{typescript.CodeFile: res.Entry, typescript.MapFile: res.Entry + ".map"} {
		b, err := readBuilt(root, from)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		_ = code.Remove(to) // a link would be followed
		if err := code.WriteFile(to, b, 0o644); err != nil {
			return err
		}
		if err := code.Chmod(to, 0o644); err != nil { // whatever the umask is: the tree's digest counts it
			return err
		}
	}
	for _, w := range res.Warnings {
		d.cfg.Logger.Debug("typescript", "function", req.Name.String(), "warning", w.String())
	}
	plan.Entry = res.Entry
	return nil
}

// readBuilt reads a file that was written in a sandbox.
func readBuilt(root *os.Root, name string) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxCompiled {
		return nil, fmt.Errorf("%s is no file of at most %s", name, faas.Bytes(maxCompiled))
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxCompiled))
}

// refusedSource makes the error of source that cannot be compiled: the first complaint, and all of
// them as its trace.
func refusedSource(op string, all []typescript.Diagnostic) error {
	var trace strings.Builder
	for _, d := range all {
		fmt.Fprintf(&trace, "%s\n", d)
		if d.Source != "" {
			fmt.Fprintf(&trace, "    %s\n    %s^\n", d.Source, strings.Repeat(" ", max(d.Column-1, 0)))
		}
	}
	e := faas.Errorf(faas.Invalid, op, "%s", all[0])
	if n := len(all) - 1; n > 0 {
		e = faas.Errorf(faas.Invalid, op, "%s (and %d more)", all[0], n)
	}
	e.Trace = trace.String()
	return e
}

// cutLast cuts s around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
