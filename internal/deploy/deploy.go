// Package deploy turns source into a published revision: check, unpack, detect, build, store,
// prove, publish.
//
// Everything up to the last step leaves nothing that a caller can see. The revision is immutable
// and named by the digest of all that decides how it runs; it is started once in its sandbox
// before the function's pointer moves to it, and that one write is the deployment: a deploy that
// fails, or a server that is killed before it, leaves the old revision live.
//
// Ad-hoc code goes the same way without the last two steps (Stage). Where the bytes lie is left
// to package artifact, what a language looks like to package runtimes.
package deploy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/image"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// Prover starts a revision once and says what that showed.
type Prover interface {
	Prove(ctx context.Context, rev *faas.Revision) (faas.Proof, error)
}

// Config says what a Deployer is made of.
type Config struct {
	Catalog  *catalog.Catalog
	Depot    *artifact.Depot
	Runtimes *runtimes.Registry
	Sandbox  *sandbox.Host      // builds run in it
	Install  *install.Installer // nil: nothing is installed
	Images   *image.Store       // nil: there are no functions of images
	Builds   *install.Builds    // keeps what is written while it is installed and built; nil: nobody does
	Prover   Prover
	// Prefetch has all that a revision runs of laid out on this machine, and an instance ready; it
	// returns what and where that was. nil: a deploy that asks for it is refused.
	Prefetch func(ctx context.Context, rev *faas.Revision) ([]faas.Tree, error)
	Dir      string          // for work in progress; emptied by New
	Unpack   artifact.Limits // of what is sent, unpacked
	Defaults faas.Limits     // where a function asks for nothing
	Ceiling  faas.Limits     // the most it may ask for
	Build    BuildLimits
	ReuseAny bool // processes may serve functions of several namespaces, one after the other
	// CheckHook says whether outcomes of a function's calls may be told to a web hook; name is said in
	// the error. nil: all may.
	CheckHook func(name string, to faas.Destination) error
	// Step, if set, is told of each step before it begins, and of "done" after the last. Tests of
	// what a kill leaves behind kill there.
	Step   func(name string)
	Logger *slog.Logger
}

// BuildLimits bound a compilation.
type BuildLimits struct {
	Memory  faas.Bytes
	CPU     int // thousandths of a core
	PIDs    int
	Timeout time.Duration
	Bytes   faas.Bytes // on the disk, its namespace's cache included. Default 4 GiB
}

// DefaultBuildLimits are enough for the Go compiler and its linker.
func DefaultBuildLimits() BuildLimits {
	return BuildLimits{Memory: 2 * faas.GiB, CPU: 4000, PIDs: 512, Timeout: 3 * time.Minute}
}

// Deployer is safe for concurrent use.
type Deployer struct {
	cfg    Config
	staged staged
	turns  turns // at the caches of builds that can't be shared
}

// New empties the work directory of what a killed predecessor left and returns a Deployer.
func New(cfg Config) (*Deployer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Build == (BuildLimits{}) {
		cfg.Build = DefaultBuildLimits()
	}
	cfg.Defaults = cfg.Defaults.Fill(faas.DefaultLimits())
	cfg.Ceiling = cfg.Ceiling.Fill(faas.CeilingLimits())
	if err := artifact.RemoveTree(filepath.Join(cfg.Dir, "work")); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "work"), 0o700); err != nil {
		return nil, err
	}
	return &Deployer{cfg: cfg, staged: newStaged()}, nil
}

// Deploy makes req's code the active revision of the function req.Name. progress, which may be
// nil, is told what happens, on other goroutines too. Errors are *faas.Error; after one the function
// is as it was before.
func (d *Deployer) Deploy(ctx context.Context, req Request, progress func(Progress)) (*Outcome, error) {
	began := time.Now()
	out := &Outcome{}
	steps := stepper{out: out, told: progress, begin: d.cfg.Step}
	if err := req.Name.Validate(); err != nil {
		return nil, err
	}
	rev, err := d.prepare(ctx, req, out, &steps)
	if err != nil {
		return nil, d.logged(&steps, req.Name.Namespace, fullDisk(err))
	}
	if !req.Unproved {
		err = steps.do("prove", func() error {
			out.Proof, err = d.cfg.Prover.Prove(ctx, rev)
			return err
		})
		if err != nil {
			return out, d.keepOld(rev.Name, out.Detected.Lacks, err)
		}
	}
	if (req.Prefetch || out.prefetch) && rev.Broken == "" {
		if err := d.prefetch(ctx, rev, &steps); err != nil {
			return out, d.keepOld(rev.Name, "", err)
		}
	}
	if before, _, err := d.cfg.Catalog.Resolve(faas.Ref{Name: rev.Name}); err == nil {
		out.Previous = before.Active
		out.Same = before.Active == rev.ID
	} else {
		out.Created = true
	}
	err = steps.do("publish", func() error {
		out.Function, err = d.cfg.Catalog.Publish(ctx, rev, catalog.PublishOptions{Public: req.Public})
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	if d.cfg.Step != nil {
		d.cfg.Step("done")
	}
	out.Revision = rev
	out.Total = time.Since(began)
	d.cfg.Logger.Info("function deployed", "function", rev.Name.String(), "revision", rev.ID.Short(), "runtime", rev.Runtime, "took", out.Total)
	return out, nil
}

// fullDisk says of a file that could not be written for want of room what the caller may act upon, who has no
// use for where it was to lie.
func fullDisk(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return faas.Errorf(faas.Unavailable, "prepare code", "the server's disk is full").WithLimit("store_bytes").
		WithFix("nothing was changed; the operator has to make room on the server's disk")
}

// prefetch is the step that leaves nothing for the first call to do.
func (d *Deployer) prefetch(ctx context.Context, rev *faas.Revision, steps *stepper) error {
	if d.cfg.Prefetch == nil {
		return faas.Errorf(faas.Unavailable, "prefetch", "this server runs no functions, so there is nothing to lay code out on")
	}
	return steps.do("prefetch", func() (err error) {
		steps.code, err = d.cfg.Prefetch(ctx, rev)
		return err
	})
}

// keepOld says in the error that what was live still is, and what the likely remedy is if the
// code names dependencies that it does not bring.
func (d *Deployer) keepOld(name faas.Name, lacks string, err error) error {
	e := *faas.AsError(err)
	if e.Op == "" {
		e.Op = "prove revision"
	}
	if e.Fix == "" && e.Code == faas.Failed {
		switch lacks {
		case "requirements.txt":
			e.Fix = "bring what requirements.txt names with the code: pip install --target vendor -r requirements.txt"
		case "package.json":
			e.Fix = "bring what package.json names with the code: npm install --omit=dev"
		default:
			e.Fix = nameIt(e.Message())
		}
	}
	if fn, _, rerr := d.cfg.Catalog.Resolve(faas.Ref{Name: name}); rerr == nil {
		stays := "revision " + fn.Active.Short() + " stays live"
		if e.Fix == "" {
			stays = "mend it and deploy again; " + stays
		} else {
			stays = e.Fix + "; " + stays
		}
		e.Fix = stays
	}
	return &e
}

// Stage prepares ad-hoc code to be run once: the same checks as a deploy, and nothing published.
// Code that was staged before with the same settings is found again without work.
func (d *Deployer) Stage(ctx context.Context, req Request) (*faas.Revision, error) {
	if err := faas.ValidateName("namespace", req.Name.Namespace); err != nil {
		return nil, err
	}
	if req.Image != nil {
		return nil, faas.Errorf(faas.Invalid, "run code", "an image is not run once but deployed").WithFix("brasa deploy NAME --image IMAGE")
	}
	if req.Async != nil {
		return nil, faas.Errorf(faas.Invalid, "run code", "whoever runs code waits for its answer: there is no async here").WithFix("deploy it, and call it with: brasa invoke NAME --async")
	}
	req.Name.Package, req.Name.Function = "", faas.AdHoc
	req.Limits.MinInstances, req.Warm = 0, []faas.WarmWindow{}    // nobody calls it again
	req.Reuse, req.State = faas.ReuseFunction, faas.StatePristine // ad-hoc code never sees another call's state
	if req.Limits.Concurrency == 0 {
		req.Limits.Concurrency = 1 // whatever its manifest says: it is called once
	}
	key, small, err := d.staged.key(&req)
	if err != nil {
		return nil, err
	}
	if small {
		if rev := d.staged.get(key); rev != nil {
			return rev, nil
		}
	}
	out := &Outcome{}
	steps := &stepper{out: out, begin: d.cfg.Step}
	rev, err := d.prepare(ctx, req, out, steps)
	if err != nil {
		return nil, d.logged(steps, req.Name.Namespace, err)
	}
	if small {
		d.staged.put(key, rev)
	}
	return rev, nil
}

// prepare does all that leaves no trace a caller could see: the revision's code is stored, and
// collected again if nothing comes to point at it.
func (d *Deployer) prepare(ctx context.Context, req Request, out *Outcome, steps *stepper) (_ *faas.Revision, err error) {
	if err := d.checkSettings(&req); err != nil {
		return nil, err
	}
	ctx, ended := d.logBuild(ctx, &req, steps)
	defer func() { ended(err) }()
	dir, err := os.MkdirTemp(filepath.Join(d.cfg.Dir, "work"), "deploy-")
	if err != nil {
		return nil, faas.AsError(err)
	}
	defer func() {
		if err := artifact.RemoveTree(dir); err != nil {
			d.cfg.Logger.Warn("remove work directory", "dir", dir, "error", err)
		}
	}()
	if req.Image != nil && req.Contract == faas.ContractOpenWhisk {
		return d.prepareActionImage(ctx, req, dir, out, steps)
	}
	if req.Image != nil {
		return d.prepareImage(ctx, req, dir, out, steps)
	}
	if req.Contract == faas.ContractOpenWhisk {
		return d.prepareAction(ctx, req, dir, out, steps)
	}
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		return nil, faas.AsError(err)
	}
	err = steps.do("unpack", func() error {
		out.Sent, err = d.unpack(ctx, req, src)
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	var plan runtimes.Plan
	err = steps.do("detect", func() error {
		plan, err = d.detect(req, src)
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	if err := checkAlone(&req, &plan); err != nil {
		return nil, err
	}
	deps, err := d.install(ctx, &req, &plan, src, steps)
	if err != nil {
		return nil, faas.AsError(err)
	}
	if deps != nil {
		defer deps.Release()
		plan.Lacks = ""
	}
	out.Detected, out.prefetch, req.Conductor = detected(plan), plan.Prefetch, req.Conductor || plan.Conductor
	code := src
	if build := d.builder(&plan); build != nil {
		err = steps.do("build", func() error {
			code, err = build(ctx, req, &plan, deps, dir, src)
			return err
		})
		if err != nil {
			return nil, faas.AsError(err)
		}
	}
	rev := &faas.Revision{
		Name: req.Name, Runtime: plan.Runtime, Version: plan.Version, Entry: plan.Entry, Handler: plan.Handler,
		Command: plan.Command, Env: plan.Env, Secrets: plan.Secrets, Limits: plan.Limits, Network: plan.Network, Reuse: req.Reuse, State: req.State,
		Async: plan.Async, Warm: plan.Warm, Created: time.Now().UTC(),
	}
	if deps != nil {
		rev.Layers, rev.Env = deps.layers(), deps.env(rev.Env)
	}
	req.foreign(rev)
	err = steps.do("store", func() error {
		// Not os.DirFS, which follows links out of the tree.
		root, err := os.OpenRoot(code)
		if err != nil {
			return err
		}
		defer root.Close()
		rev.Code, rev.CodeBytes, err = d.cfg.Depot.PutTree(ctx, root.FS(), d.cfg.Unpack)
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	rev.ID = rev.Digest()
	return rev, nil
}

// checkSecrets says whether the namespace has the secrets that a revision names.
func (d *Deployer) checkSecrets(namespace string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	have := map[string]bool{}
	for _, s := range d.cfg.Catalog.Secrets(namespace) {
		have[s.Name] = true
	}
	var missing []error
	for _, name := range names {
		if !have[name] {
			missing = append(missing, faas.Errorf(faas.Invalid, "check secrets", "namespace %q has no secret %q", namespace, name).
				WithFix("put it first: brasa secret put %s", name))
		}
	}
	if len(missing) > 0 {
		return errors.Join(missing...)
	}
	return nil
}
