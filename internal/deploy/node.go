package deploy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// Code with fewer modules than this, and less source, loads no slower without a pack: to read
	// it costs as much as it saves.
	packModules = 8
	packSource  = 128 << 10
	// packTimeout is how long loading the function may take while it is packed. What needs longer
	// waits for something that is not there at deploy.
	packTimeout = 20 * time.Second
)

// packNode puts a pack of the function's CommonJS modules into its code: where each require leads,
// the sources in one file, and V8's code for them. Those that were installed for it are among them.
// The bootstrap tells how it is used.
//
// For that the function is loaded once, without secrets, as its proof does right after. Code that
// does not load then costs speed and nothing else: the deploy goes on without. V8's code for the
// same source differs from run to run, so a pack is kept by what it was made of; else the same
// code would be another revision each time it is deployed.
func (d *Deployer) packNode(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	if err := os.RemoveAll(filepath.Join(src, runtimes.NodePack)); err != nil { // made elsewhere, of whatever
		return "", err
	}
	modules, source, used, err := nodeModules(src)
	if err != nil {
		return "", err
	}
	small := modules < packModules && source < packSource
	if req.Name.Function == faas.AdHoc || small && !deps.manyModules() {
		return src, nil
	}
	room := cmp.Or(d.cfg.Unpack.Bytes, 512*faas.MiB) - used.bytes
	if used.entries+1 > cmp.Or(d.cfg.Unpack.Entries, 50_000) {
		err = errors.New("it has too many files")
	} else {
		err = d.addPack(ctx, req, plan, deps, dir, src, room, small)
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		d.cfg.Logger.Info("node code is not packed; its cold starts take longer", "function", req.Name.String(), "error", err)
	}
	return src, nil
}

// nodeModules counts the files of JavaScript and their bytes, and says what the whole tree takes.
func nodeModules(src string) (modules int, source faas.Bytes, used extent, err error) {
	used, err = eachFile(src, func(p string, size faas.Bytes) error {
		if ext := path.Ext(p); ext == ".js" || ext == ".cjs" {
			modules++
			source += size
		}
		return nil
	})
	return modules, source, used, err
}

// manyModules says whether so much JavaScript was installed that a pack may pay. What a load of the
// function takes of it is not known before.
func (d *deps) manyModules() bool {
	if d == nil || d.Layer == nil {
		return false
	}
	modules := 0
	err := filepath.WalkDir(d.Dir, func(p string, e fs.DirEntry, err error) error {
		if ext := path.Ext(p); err == nil && e.Type().IsRegular() && (ext == ".js" || ext == ".cjs") {
			if modules++; modules >= packModules {
				return fs.SkipAll
			}
		}
		return err
	})
	return err == nil && modules >= packModules
}

// addPack makes the pack, or finds the one that was made of the same before.
//
// The pack of code that is small itself holds what was installed alone, and serves all code that
// requires the same packages: another version of the function, or another function, does not wait for
// one to be made.
func (d *Deployer) addPack(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string, room faas.Bytes, small bool) error {
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Node)
	if err != nil {
		return err
	}
	// By the namespace's UID, for what was built in an older one of its name is not to be trusted.
	ns, err := d.cfg.Catalog.Namespace(req.Name.Namespace)
	if err != nil {
		return err
	}
	rev := &faas.Revision{Name: req.Name, Runtime: plan.Runtime, Entry: plan.Entry, Handler: plan.Handler, Env: plan.Env, Limits: plan.Limits, Contract: req.Contract}
	if deps != nil {
		rev.Layers, rev.Env = deps.layers(), deps.env(rev.Env)
	}
	// With the flags that the function will run with: V8 takes no code that was made with others.
	args, env, mounts := rt.Command(rev)
	spec, err := json.Marshal(runtimes.SpecOf(rev, nil))
	if err != nil {
		return err
	}
	args = append(args, "pack", "/out")
	shared, key := false, ""
	if small {
		if key, err = installedKey(src, rt.Version, args, rev); err != nil {
			return err
		}
		shared = key != ""
	}
	if shared {
		args = append(args, "installed")
	} else if key, err = packKey(src, rt.Version, args, spec, rev.Layers); err != nil {
		return err
	}
	kept := filepath.Join(d.cfg.Dir, "nodepacks", ns.UID)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	if err := placePack(filepath.Join(kept, key), src, room); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "spec"), spec, 0o644); err != nil {
		return err
	}
	box := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: args, Env: env, Dir: "/tmp",
		Mounts: append(deps.mounts(),
			sandbox.Mount{Source: src, Target: runtimes.CodeDir}, sandbox.Mount{Source: out, Target: "/out", Writable: true}),
		Tmp: int64(plan.Limits.Tmp), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 1024,
	}
	box.Mounts = append(box.Mounts, readable(mounts)...)
	ctx, cancel := context.WithTimeout(ctx, packTimeout)
	defer cancel()
	if err := d.runBuild(ctx, box, &install.Tail{Most: 4 << 10}); err != nil {
		return err
	}
	if err := keepPack(out, filepath.Join(kept, key), room); err != nil {
		return err
	}
	return placePack(filepath.Join(kept, key), src, room)
}

// required finds what source names of packages: in require, import and export, with a name that is
// written out. What it misses costs speed alone.
var required = regexp.MustCompile(`(?:\brequire(?:\.resolve)?\s*\(|\bimport\s*\(?|\bfrom)\s*['"]([^'"./][^'"]*)['"]`)

// installedKey digests what decides which installed modules a load takes, and where it looks for
// them: the names in the source and its directories; "" if the code has packages of its own.
func installedKey(src, version string, args []string, rev *faas.Revision) (string, error) {
	root, err := os.OpenRoot(src)
	if err != nil {
		return "", err
	}
	defer root.Close()
	names, dirs, own := map[string]bool{}, map[string]bool{}, false
	err = fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		switch ext := path.Ext(p); {
		case err != nil:
			return err
		case e.Name() == "node_modules" || e.Type()&fs.ModeSymlink != 0:
			own = true
			return fs.SkipAll
		case e.Type().IsRegular() && (ext == ".js" || ext == ".cjs" || ext == ".mjs"):
			b, err := root.ReadFile(p)
			if err != nil {
				return err
			}
			dirs[path.Dir(p)] = true
			for _, m := range required.FindAllSubmatch(b, -1) {
				names[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil || own {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "installed %q %q %q %q %q\n", version, args, rev.Env, slices.Sorted(maps.Keys(names)), slices.Sorted(maps.Keys(dirs)))
	for _, l := range rev.Layers {
		fmt.Fprintf(h, "%q at %q\n", l.Digest, l.Target)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// packKey digests all that a pack depends on.
func packKey(src, version string, args []string, spec []byte, layers []faas.Layer) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", version, args, spec)
	for _, l := range layers {
		fmt.Fprintf(h, "%q at %q\n", l.Digest, l.Target)
	}
	err := filepath.WalkDir(src, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		if e.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(p)
			fmt.Fprintf(h, "%q -> %q\n", name, to)
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %d\n", name, info.Size())
		_, err = io.Copy(h, f)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// keepPack moves what the sandbox left in out to where it is kept.
func keepPack(out, to string, room faas.Bytes) error {
	f, err := os.OpenInRoot(out, "pack")
	if err != nil {
		return fmt.Errorf("the function left no pack: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(room) {
		return fmt.Errorf("the pack of %s is larger than there is room for", faas.Bytes(info.Size()))
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, io.LimitReader(f, int64(room)))
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}

// placePack copies a pack that is kept into the code.
func placePack(from, src string, room faas.Bytes) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > int64(room) {
		return cmp.Or(err, errors.New("the pack is larger than there is room for"))
	}
	to := filepath.Join(src, runtimes.NodePack)
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, w.Close(), os.Chmod(to, 0o644)) // whatever the umask is: the tree's digest counts it
}
