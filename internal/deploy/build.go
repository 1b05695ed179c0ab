package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/golang"
)

// buildGo compiles the Go function in src and returns the directory that holds the program alone.
//
// The compiler runs confined like a function, without a network: it sees the source, the toolchain,
// the modules that were got for it and its own namespace's build cache, which is what a poisoned
// entry could reach.
func (d *Deployer) buildGo(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	cache, err := d.buildDirs("gocache", req.Name.Namespace, work, out)
	if err != nil {
		return "", err
	}
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Go)
	if err != nil {
		return "", err
	}
	binary := runtimes.GoBinary
	if plan.Runtime == runtimes.Wasm {
		binary = runtimes.WasmEntry
	}
	o := golang.Options{Handler: plan.Handler, Entry: plan.Entry, Go: rt.Program, Version: rt.Version, Output: "/out/" + binary}
	if deps != nil && deps.Dir != "" {
		o.Modules = deps.Target
		if err := deps.resolved(map[string]*[]byte{"go.mod": &o.Mod, "go.sum": &o.Sum}); err != nil {
			return "", err
		}
	}
	b, err := golang.Generate(src, work, o)
	if err != nil {
		return "", err
	}
	if b.Modules && o.Modules == "" {
		return "", faas.Errorf(faas.Invalid, "build function", "the module requires others, which are not got here, and has no vendor directory").
			WithFix("add them to the code: go mod vendor")
	}
	if plan.Runtime == runtimes.Wasm {
		if b.Form != golang.FormProgram {
			return "", faas.Errorf(faas.Invalid, "build function", "the source has the handler %s, and no main", b.Handler).
				WithFix("deploy it as Go, or write a program: func main reads the request from stdin and writes the answer to stdout")
		}
		b.Env = append(b.Env, "GOOS=wasip1", "GOARCH=wasm")
	}
	log := &install.Tail{Most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: b.Args,
		Env:  append(b.Env, "GOCACHE=/cache", "GOPATH=/tmp/go", "HOME=/tmp", "PATH=/usr/bin:/bin"),
		Dir:  "/src",
		Mounts: []sandbox.Mount{
			{Source: work, Target: "/src", Writable: o.Mod != nil}, // go.mod, to which it adds what is required indirectly
			{Source: out, Target: "/out", Writable: true},
			{Source: cache, Target: "/cache", Writable: true},
		},
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	spec.Mounts = append(spec.Mounts, deps.mounts()...)
	if err := d.runBuild(ctx, spec, log); err != nil {
		return "", explainGo(err, log.String())
	}
	plan.Entry, plan.Handler = binary, b.Handler
	if b.Form == golang.FormProgram && plan.Runtime == runtimes.Go { // with a main of its own it is an executable like any other
		plan.Runtime = runtimes.Executable
	}
	return out, nil
}

// absentModule is how the go command says that no module that is required has a package.
var absentModule = regexp.MustCompile(`no required module provides package ([^\s;]+)|cannot find module providing package ([^\s:]+)|missing go\.sum entry for module providing package ([^\s;(]+)|package ([\w.-]+\.[\w-]+/\S+) is not in std`)

// explainGo says what mends a build that misses a module.
func explainGo(err error, output string) error {
	if m := absentModule.FindStringSubmatch(output); m != nil && faas.CodeOf(err) == faas.Failed {
		return faas.AsError(err).WithFix("have go.mod and go.sum name it: go get %s && go mod tidy, where the code lies", cmp.Or(m[1], m[2], m[3], m[4]))
	}
	return err
}

// buildDirs makes the directories of a build and the namespace's cache for it, which it returns.
func (d *Deployer) buildDirs(cache, namespace string, dirs ...string) (string, error) {
	// By the namespace's UID, for what was built in an older one of its name is not to be trusted.
	ns, err := d.cfg.Catalog.Namespace(namespace)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(d.cfg.Dir, cache, ns.UID)
	for _, p := range append(dirs, dir) {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// copySource copies the code to where it may be written to. Nothing is read through a link that leads out of it.
func copySource(src, work string) error {
	in, err := os.OpenRoot(src)
	if err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	defer in.Close()
	if err := os.CopyFS(work, in.FS()); err != nil {
		return fmt.Errorf("copy source: %w", err)
	}
	return nil
}

// resolved reads the files of a layer that pin what the code's own do not: those that are there.
func (d *deps) resolved(files map[string]*[]byte) error {
	root, err := os.OpenRoot(d.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, to := range files {
		b, err := root.ReadFile(filepath.Join(install.ResolvedDir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		*to = b
	}
	return nil
}

// buildName names the sandbox of what is built in a work directory.
func buildName(dir string) string {
	return "build-" + strings.ToLower(filepath.Base(dir)[len("deploy-"):])
}

// readable are the mounts of a runtime, which it may read and no more.
func readable(mounts []runtimes.Mount) []sandbox.Mount {
	var all []sandbox.Mount
	for _, m := range mounts {
		all = append(all, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	return all
}

// runBuild runs a compiler to its end.
func (d *Deployer) runBuild(ctx context.Context, spec sandbox.Spec, log *install.Tail) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Build.Timeout)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	spec.Stdout, spec.Stderr = w, w
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(io.MultiWriter(log, buildLog(ctx)), r) })
	defer copying.Wait()
	defer r.Close()
	box, err := d.cfg.Sandbox.Start(ctx, spec)
	_ = w.Close()
	if err != nil {
		return &faas.Error{Code: faas.Unavailable, Op: "build function", Err: err}
	}
	defer box.Close()
	guard := d.guardOf(spec)
	full := guard.Watch(box, func(faas.Bytes) {})
	defer guard.Stop()
	select {
	case <-box.Done():
	case err := <-full:
		box.Kill()
		<-box.Done()
		d.giveUpCaches(spec)
		return err
	case <-ctx.Done():
		if context.Cause(ctx) == context.DeadlineExceeded {
			return faas.Errorf(faas.Failed, "build function", "the build took longer than %s", d.cfg.Build.Timeout).WithLimit("build_timeout")
		}
		return context.Cause(ctx)
	}
	copying.Wait()
	guard.Stop()
	if err := guard.Check(); err != nil { // what was written last
		d.giveUpCaches(spec)
		return err
	}
	x := box.Exit()
	switch {
	case x.OOM:
		return faas.Errorf(faas.Failed, "build function", "the build went over its memory of %s", d.cfg.Build.Memory).WithLimit("build_memory")
	case x.Signal != 0 || x.Code != 0:
		e := faas.Errorf(faas.Failed, "build function", "the compiler refused the code:\n%s", log.Lines(20))
		e.Trace = log.String()
		return e
	}
	return nil
}

const (
	// maxBuildBytes is what a build may take in its directories and in its namespace's cache together:
	// build scripts and annotation processors are programs, and write there.
	maxBuildBytes   = maxBuildCache + 2*faas.GiB
	maxBuildEntries = 1_000_000
)

// guardOf looks after what a build writes to the disk.
func (d *Deployer) guardOf(spec sandbox.Spec) *install.DiskGuard {
	g := &install.DiskGuard{
		Bytes: cmp.Or(d.cfg.Build.Bytes, maxBuildBytes), Entries: maxBuildEntries, Op: "build function", Key: "build", What: "the build takes",
		Fix: "see what its build scripts write; what was kept of earlier builds is thrown away, so it may be enough to deploy again",
	}
	for _, m := range spec.Mounts {
		if m.Writable {
			g.Dirs = append(g.Dirs, m.Source)
		}
	}
	return g
}

// giveUpCaches throws the caches away that a build wrote to which took too much.
func (d *Deployer) giveUpCaches(spec sandbox.Spec) {
	for _, m := range spec.Mounts {
		if !m.Writable || m.Target != "/cache" {
			continue
		}
		if err := artifact.RemoveTree(m.Source); err != nil {
			d.cfg.Logger.Warn("build cache not removed", "dir", m.Source, "error", err)
		}
	}
}
