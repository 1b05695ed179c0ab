package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// build is one installation under way.
type build struct {
	i          *Installer
	scope, key string
	eco        Ecosystem
	m          *Manifest
	job        *Job
	opt        Options
	out        *fanOut

	dir, src, access, target, scratch string
	guard                             *DiskGuard
}

// run makes the layer and keeps it.
func (b *build) run(ctx context.Context) (*keptLayer, error) {
	// Whoever came just before may have made it.
	if k, err := b.i.kept(b.scope, b.key); k != nil || err != nil {
		return k, err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, b.i.cfg.Limits.Timeout)
	defer cancel()
	if err := b.prepare(); err != nil {
		return nil, faas.AsError(err)
	}
	defer func() {
		if err := artifact.RemoveTree(b.dir); err != nil {
			b.i.cfg.Logger.Warn("remove work directory", "dir", b.dir, "error", err)
		}
	}()
	b.i.cfg.Fault("begun")
	for n, step := range b.job.Steps {
		if err := b.step(ctx, n, step); err != nil {
			return nil, err
		}
		b.i.cfg.Fault(cmp.Or(step.Name, "step"))
	}
	b.out.begin(Progress{Tool: b.job.Tool, Step: "store"})
	k, err := b.store(ctx)
	if err != nil {
		return nil, err
	}
	b.i.cfg.Fault("stored")
	if err := b.i.keep(b.scope, b.key, k); err != nil {
		return nil, faas.AsError(err)
	}
	b.i.cfg.Fault("kept")
	b.i.cfg.Logger.Info("dependencies installed", "ecosystem", b.m.Ecosystem, "tool", b.job.Tool, "packages", len(k.Packages),
		"bytes", int64(k.Bytes), "digest", k.Digest, "shared", b.scope == sharedScope, "took", time.Since(began))
	return k, nil
}

// prepare makes the directories that the steps see.
func (b *build) prepare() (err error) {
	if b.dir, err = os.MkdirTemp(b.i.workDir(), "install-"); err != nil {
		return err
	}
	for name, at := range map[string]*string{"src": &b.src, "access": &b.access, "layer": &b.target, "scratch": &b.scratch} {
		*at = filepath.Join(b.dir, name)
		if err := os.Mkdir(*at, 0o755); err != nil {
			return err
		}
	}
	for _, files := range []map[string][]byte{b.m.Files, b.job.Files} {
		if err := writeFiles(b.src, files, 0o644); err != nil {
			return err
		}
	}
	if err := writeFiles(b.access, b.job.Access.Files, 0o644); err != nil {
		return err
	}
	l := b.i.cfg.Limits
	b.guard = &DiskGuard{
		Dirs: []string{b.target, b.scratch}, Bytes: l.Bytes, Entries: entriesOnTheWay * l.Entries, Op: op, Key: "install", What: "the packages take",
		Fix: "name fewer or smaller packages, or have the operator raise install.bytes or install.entries",
	}
	return nil
}

// entriesOnTheWay is how many times what a layer may hold tools may write on the way to it: they unpack
// and cache what they then copy.
const entriesOnTheWay = 4

// writeFiles writes files by their slash-separated paths below dir. The paths come from the code.
func writeFiles(dir string, files map[string][]byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, content := range files {
		if parent := filepath.Dir(filepath.FromSlash(name)); parent != "." {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		if err := root.WriteFile(name, content, mode); err != nil {
			return err
		}
		if err := root.Chmod(name, mode); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// step runs one program to its end.
func (b *build) step(ctx context.Context, n int, step JobStep) error {
	b.out.begin(Progress{Tool: b.job.Tool, Step: cmp.Or(step.Name, "install")})
	if err := b.clear(step.Takes); err != nil {
		return withOp(err)
	}
	log := &Tail{Most: 64 << 10}
	r, w, err := os.Pipe()
	if err != nil {
		return faas.AsError(err)
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		h := &hider{to: io.MultiWriter(log, b.out), secrets: b.i.cfg.Registries.secrets()}
		_, _ = io.Copy(h, r)
		h.flush()
	})
	defer copying.Wait()
	defer r.Close()
	l := b.i.cfg.Limits
	spec := sandbox.Spec{
		Name: fmt.Sprintf("install-%s-%d", strings.ToLower(filepath.Base(b.dir)[len("install-"):]), n), Hostname: "build",
		Args: step.Args, Env: b.environment(step), Dir: cmp.Or(step.Dir, SourceDir),
		Mounts: slices.Concat([]sandbox.Mount{
			{Source: b.src, Target: SourceDir},
			{Source: b.target, Target: b.job.Target, Writable: true},
			{Source: b.scratch, Target: WorkDir, Writable: true},
		}, b.job.Mounts),
		Tmp: int64(l.Memory / 2), Memory: int64(l.Memory), CPU: l.CPU, PIDs: l.PIDs, Files: 4096,
		Network: step.Network || step.Open, Stdout: w, Stderr: w,
	}
	if step.Network {
		if len(b.job.Access.Files) > 0 {
			spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: b.access, Target: AccessDir})
		}
		spec.Mounts = append(spec.Mounts, b.job.Access.Mounts...)
	}
	box, err := b.i.cfg.Sandbox.Start(ctx, spec)
	_ = w.Close()
	if err != nil {
		return b.noSandbox(step, err)
	}
	defer box.Close()
	full := b.guard.Watch(box, b.out.grown)
	defer b.guard.Stop()
	var over error
	select {
	case <-box.Done():
	case over = <-full:
	case <-ctx.Done():
		over = context.Cause(ctx)
		if errors.Is(over, context.DeadlineExceeded) {
			over = b.failed(log, faas.Errorf(faas.Failed, op, "it took longer than %s", l.Timeout).WithLimit("build_timeout"))
		}
	}
	if over != nil {
		box.Kill()
		<-box.Done()
	}
	b.guard.Stop()
	_ = box.Close() // whoever holds the pipe is gone then
	copying.Wait()
	if over != nil {
		if e, ok := errors.AsType[*faas.Error](over); ok {
			return b.failed(log, e)
		}
		return over
	}
	if err := b.guard.Check(); err != nil { // what was written last
		return b.failed(log, faas.AsError(err))
	}
	x := box.Exit()
	switch {
	case x.OOM:
		return b.failed(log, faas.Errorf(faas.Failed, op, "%s went over its memory of %s", b.job.Tool, l.Memory).WithLimit("build_memory"))
	case x.Signal != 0 || x.Code != 0:
		return b.explain(log, step, x)
	}
	if r, ok := b.eco.(Reviewer); ok {
		if e := r.Review(b.m, log.String()); e != nil {
			return b.failed(log, e)
		}
	}
	return nil
}

// maxTaken bounds a file that goes from a step to one that takes no other.
const maxTaken = 16 << 20

// clear removes what the steps before have written, but for the files named; nil keeps all.
func (b *build) clear(takes []string) error {
	if takes == nil {
		return nil
	}
	kept := map[string][]byte{}
	scratch, err := os.OpenRoot(b.scratch)
	if err != nil {
		return err
	}
	defer scratch.Close()
	for _, name := range takes {
		info, err := scratch.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxTaken {
			return faas.Errorf(faas.Invalid, op, "%s did not leave the file %s behind", b.job.Tool, name).WithFix("see what it wrote: it may have ended too early")
		}
		if kept[name], err = scratch.ReadFile(name); err != nil {
			return err
		}
	}
	for _, dir := range []string{b.scratch, b.target} {
		if err := artifact.RemoveTree(dir); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return writeFiles(b.scratch, kept, 0o644)
}

func (b *build) environment(step JobStep) []string {
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + WorkDir, "TMPDIR=" + WorkDir, "LANG=C.UTF-8", "LC_ALL=C.UTF-8"}
	env = append(env, step.Env...)
	if step.Network {
		env = append(env, b.job.Access.Env...)
	}
	return env
}

// noSandbox says why a step could not begin.
func (b *build) noSandbox(step JobStep, err error) error {
	e := &faas.Error{Code: faas.Unavailable, Op: op, Err: err}
	if u, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		e.Fix = u.Fix
		if step.Network {
			e.Err = fmt.Errorf("packages are installed with a network, and %s", u.Why)
			e.Fix = "bring the packages with the code, or have the operator " + strings.TrimSuffix(u.Fix, ", or do without network")
		}
	}
	return e
}

// store puts the finished layer into the depot.
func (b *build) store(ctx context.Context) (*keptLayer, error) {
	k := &keptLayer{Ecosystem: b.m.Ecosystem, Tool: b.job.Tool, Made: time.Now().UTC()}
	// Not os.DirFS, which follows links out of the tree: what ran has written here.
	root, err := os.OpenRoot(b.target)
	if err != nil {
		return nil, faas.AsError(err)
	}
	defer root.Close()
	if entries, err := fs.ReadDir(root.FS(), "."); err != nil || len(entries) == 0 {
		return k, err
	}
	l := b.i.cfg.Limits
	k.Digest, k.Bytes, err = b.i.cfg.Depot.PutTree(ctx, root.FS(), artifact.Limits{Bytes: l.Bytes, Entries: l.Entries})
	if err != nil {
		return nil, b.refused(err)
	}
	if b.job.Packages != nil {
		if k.Packages, err = b.job.Packages(b.target); err != nil {
			return nil, withOp(err)
		}
		slices.SortStableFunc(k.Packages, func(x, y Package) int {
			return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.Name, y.Name))
		})
	}
	return k, nil
}
