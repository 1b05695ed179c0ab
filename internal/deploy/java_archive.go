package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// ArchiveJava sees to it that there is an archive of the classes of Java's own part that fits this
// machine's Java: the one that is there is tried, and where there is none or it doesn't fit, one is
// made, confined like a build. Processes of Java start without it meanwhile, and always if there can
// be none, which the returned error tells the reason of.
func (d *Deployer) ArchiveJava(ctx context.Context) error {
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Java)
	if err != nil || rt.Archive == nil {
		return nil // no Java
	}
	began, a := time.Now(), rt.Archive
	if check := a.Checker(); check != nil {
		err := d.runArchiver(ctx, rt, check, nil)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		d.cfg.Logger.Warn("the archive of Java's classes does not fit; it is made anew", "error", err)
		a.Drop(err)
	}
	if err := d.makeArchive(ctx, rt); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		a.Drop(err)
		return fmt.Errorf("archive classes of java: %w", err)
	}
	d.cfg.Logger.Info("archive of Java's classes made", "took", time.Since(began))
	return nil
}

// makeArchive makes the archive, and keeps it if it then fits.
func (d *Deployer) makeArchive(ctx context.Context, rt *runtimes.Runtime) (err error) {
	out, err := os.MkdirTemp(filepath.Join(d.cfg.Dir, "work"), "archive-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	if err := os.Chmod(out, 0o755); err != nil {
		return err
	}
	args, target, name := rt.Archive.Maker()
	if err := d.runArchiver(ctx, rt, args, &sandbox.Mount{Source: out, Target: target, Writable: true}); err != nil {
		return err
	}
	f, err := os.OpenInRoot(out, name)
	if err != nil {
		return errors.New("java wrote no archive")
	}
	defer f.Close()
	if err := rt.Archive.Keep(f); err != nil {
		return err
	}
	return d.runArchiver(ctx, rt, rt.Archive.Checker(), nil)
}

// runArchiver runs Java without a function.
func (d *Deployer) runArchiver(ctx context.Context, rt *runtimes.Runtime, args []string, out *sandbox.Mount) error {
	_, env, boot := rt.Command(nil)
	mounts := readable(boot)
	if out != nil {
		mounts = append(mounts, *out)
	}
	log := &install.Tail{Most: 4 << 10}
	err := d.runBuild(ctx, sandbox.Spec{
		Name: "archive-java", Hostname: "build", Args: args, Env: env, Dir: "/tmp", Mounts: mounts,
		Tmp: int64(256 * faas.MiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 256,
	}, log)
	if said := log.Lines(20); err != nil && faas.CodeOf(err) == faas.Failed && said != "" {
		return errors.New(filepath.Base(rt.Program) + " says: " + said)
	}
	return err
}
