package deploy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Actions of OpenWhisk come as the text of one file or as an archive, and with the name of their
// language; the files in them have the names that OpenWhisk's runtimes look for. What can't be built is
// published all the same where the request asks for that, since its clients learn of it by a call.

// NativeAction is the language of executables that are started for each call with their arguments as
// their last word and whose last line of output is the answer, as OpenWhisk's docker skeleton has it.
// Those that stay, and speak ActionLoop, are runtimes.ActionLoop.
const NativeAction = "native"

const (
	maxForeign   = 7 * faas.MiB / 2 // of parameters and of what a dialect keeps, together: they are one record of the store with the rest
	maxActionEnv = 256 << 10        // of the environment of an action, in bytes
	actionEntry  = "exec"           // the file of an executable
	noCode       = "there is no code to run: the action was made without any"
	opAction     = "prepare action"
)

// checkForeign checks what another platform's contract adds to a request.
func checkForeign(req *Request) error {
	const op = "check parameters"
	if req.Contract != faas.ContractNative && req.Contract != faas.ContractOpenWhisk {
		return faas.Errorf(faas.Invalid, op, "there is no contract %q", req.Contract)
	}
	if req.Unproved && req.Contract == faas.ContractNative {
		return faas.Errorf(faas.Invalid, op, "a function of the platform's own contract is started once before it is published")
	}
	sum := faas.Bytes(0)
	for k, v := range req.Params {
		sum += faas.Bytes(len(k) + len(v))
	}
	if req.Origin != nil {
		sum += faas.Bytes(len(req.Origin.Document))
	}
	if sum > maxForeign {
		return faas.Errorf(faas.TooLarge, op, "the parameters, and what is kept with the function, have %s together; they may have %s", sum, maxForeign).WithLimit("params_bytes")
	}
	return nil
}

// foreign copies into a revision what a dialect has said of it.
func (req *Request) foreign(rev *faas.Revision) {
	rev.Contract, rev.Params, rev.Origin, rev.Conductor = req.Contract, req.Params, req.Origin, req.Conductor
}

// canBreak says whether a revision may be published with an error in place of what could be run: one
// that its author can mend, and not one of this server.
func (req *Request) canBreak(err error) bool {
	code := faas.CodeOf(err)
	return req.Unproved && (code == faas.Failed || code == faas.Invalid || code == faas.NotFound || code == faas.TooLarge)
}

// prepareAction is prepare for an action that is no image. The code as it was sent is kept too, as the
// blob Revision.Source, so that it can be read back.
func (d *Deployer) prepareAction(ctx context.Context, req Request, dir string, out *Outcome, steps *stepper) (*faas.Revision, error) {
	plan, err := d.actionPlan(&req)
	if err != nil {
		return nil, err
	}
	if err := d.settle(req, &plan); err != nil {
		return nil, err
	}
	if err := d.checkSecrets(req.Name.Namespace, plan.Secrets); err != nil {
		return nil, err
	}
	if err := checkAlone(&req, &plan); err != nil {
		return nil, err
	}
	a := &action{d: d, req: &req, plan: &plan, dir: dir, sent: filepath.Join(dir, "sent"), src: filepath.Join(dir, "src"), steps: steps}
	defer a.release()
	rev := &faas.Revision{Limits: plan.Limits}
	if rev.Source, err = a.keep(ctx, out); err != nil {
		return nil, faas.AsError(err)
	}
	err = a.make(ctx)
	if err == nil {
		err = a.store(ctx, rev)
	}
	if err != nil {
		if !req.canBreak(err) {
			return nil, faas.AsError(err)
		}
		rev.Broken, rev.Code, rev.CodeBytes = brokenBy(err), "", 0
	}
	out.Detected = detected(plan)
	rev.Name, rev.Runtime, rev.Version, rev.Entry, rev.Handler = req.Name, plan.Runtime, plan.Version, plan.Entry, plan.Handler
	rev.Command, rev.Env, rev.Secrets, rev.Network = plan.Command, plan.Env, plan.Secrets, plan.Network
	rev.Reuse, rev.State, rev.Async, rev.Warm, rev.Created = req.Reuse, req.State, plan.Async, plan.Warm, time.Now().UTC()
	if a.deps != nil && rev.Broken == "" {
		rev.Layers, rev.Env = a.deps.layers(), a.deps.env(rev.Env)
	}
	req.foreign(rev)
	rev.ID = rev.Digest()
	return rev, nil
}

// brokenBy is what a revision that can't be run says of why. It is shown to whoever calls it.
func brokenBy(err error) string {
	text := faas.AsError(err).Message()
	if len(text) > 8<<10 {
		text = strings.ToValidUTF8(text[:8<<10], "") + "…"
	}
	return cmp.Or(text, "it can't be built")
}

// actionPlan says how an action of the request's language is run. A language that this host lacks is
// Invalid: whoever sends it can only send another.
func (d *Deployer) actionPlan(req *Request) (runtimes.Plan, error) {
	plan := runtimes.Plan{Handler: cmp.Or(req.Handler, "main"), Why: "the kind is given"}
	language := strings.ToLower(req.Language)
	switch language {
	case runtimes.Java:
		if req.Handler == "" {
			return plan, faas.Errorf(faas.Invalid, opAction, "an action in Java must say its main class")
		}
		plan.Runtime = runtimes.Java
	case runtimes.DotNet:
		if req.Handler == "" {
			return plan, faas.Errorf(faas.Invalid, opAction, "an action in .NET must say its main method: Assembly::Namespace.Type::Method")
		}
		plan.Runtime = runtimes.DotNet
	case runtimes.Go, runtimes.Rust, runtimes.Swift:
		plan.Source, plan.Runtime = language, runtimes.ActionLoop
	case NativeAction:
		plan.Runtime = runtimes.Executable
	case runtimes.Python, runtimes.Node, runtimes.PHP, runtimes.Ruby, runtimes.ActionLoop:
		plan.Runtime = language
	default:
		return plan, faas.Errorf(faas.Invalid, opAction, "there are no actions in %q", req.Language)
	}
	rt, err := d.cfg.Runtimes.Lookup(cmp.Or(plan.Source, plan.Runtime))
	if err != nil {
		e := *faas.AsError(err)
		e.Code, e.Op = faas.Invalid, opAction
		return plan, &e
	}
	plan.Version = rt.Version
	return plan, nil
}

// action is an action on its way to a revision.
type action struct {
	d     *Deployer
	req   *Request
	plan  *runtimes.Plan
	dir   string // to work in
	sent  string // file: the code as it came
	src   string // directory: the code unpacked
	code  string // directory that is stored
	deps  *deps
	steps *stepper
}

func (a *action) release() {
	if a.deps != nil {
		a.deps.Release()
	}
}

// keep writes the code as it was sent to a file and stores it.
func (a *action) keep(ctx context.Context, out *Outcome) (digest faas.Digest, err error) {
	most := cmp.Or(a.d.cfg.Unpack.Bytes, 512*faas.MiB)
	f, err := os.Create(a.sent)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if a.req.Code != nil {
		n, err := io.Copy(f, io.LimitReader(a.req.Code, int64(most)+1))
		if err != nil {
			return "", err
		}
		if out.Sent = faas.Bytes(n); out.Sent > most {
			return "", faas.Errorf(faas.TooLarge, opAction, "the code has more than %s", most).WithLimit("code_bytes")
		}
	}
	if out.Sent == 0 {
		return "", nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	digest, _, err = a.d.cfg.Depot.Put(ctx, f, most)
	return digest, err
}

// make unpacks the code, finds its entry and builds it.
func (a *action) make(ctx context.Context) error {
	err := a.steps.do("unpack", func() error { return a.unpack(ctx) })
	if err != nil {
		return err
	}
	if err := a.steps.do("detect", a.settleEntry); err != nil {
		return err
	}
	if err := a.install(ctx); err != nil {
		return err
	}
	a.code = a.src
	build := a.builder()
	if build == nil {
		return nil
	}
	return a.steps.do("build", func() (err error) {
		a.code, err = build(ctx, *a.req, a.plan, a.deps, a.dir, a.src)
		return err
	})
}

func (a *action) store(ctx context.Context, rev *faas.Revision) error {
	return a.steps.do("store", func() error {
		root, err := os.OpenRoot(a.code) // not os.DirFS, which follows links out of the tree
		if err != nil {
			return err
		}
		defer root.Close()
		rev.Code, rev.CodeBytes, err = a.d.cfg.Depot.PutTree(ctx, root.FS(), a.d.cfg.Unpack)
		return err
	})
}

// prepareActionImage is prepare for an action whose runtime is an image. An image that can't be had is an
// error of whoever calls the action, as with all else that it lacks.
func (d *Deployer) prepareActionImage(ctx context.Context, req Request, dir string, out *Outcome, steps *stepper) (*faas.Revision, error) {
	req.Language = cmp.Or(req.Language, runtimes.OpenWhisk)
	plan := runtimes.Plan{Runtime: runtimes.OpenWhisk, Handler: req.Handler}
	a := &action{d: d, req: &req, plan: &plan, dir: dir, sent: filepath.Join(dir, "sent"), steps: steps}
	source, err := a.keep(ctx, out)
	if err != nil {
		return nil, faas.AsError(err)
	}
	sent := out.Sent
	req.Code = nil
	if source != "" {
		f, err := os.Open(a.sent)
		if err != nil {
			return nil, faas.AsError(err)
		}
		defer f.Close()
		req.Code, req.Filename = f, cmp.Or(req.Filename, actionEntry)
	}
	rev, err := d.prepareImage(ctx, req, dir, out, steps)
	out.Sent = sent
	if err != nil {
		if code := faas.CodeOf(err); !req.Unproved || ctx.Err() != nil || code == faas.Internal || code == faas.Canceled {
			return nil, err
		}
		if err := d.settle(req, &plan); err != nil {
			return nil, err
		}
		rev = &faas.Revision{
			Name: req.Name, Runtime: plan.Runtime, Handler: plan.Handler, Env: plan.Env, Secrets: plan.Secrets, Limits: plan.Limits, Network: plan.Network,
			Reuse: req.Reuse, State: req.State, Async: plan.Async, Warm: plan.Warm, Created: time.Now().UTC(),
			Broken: "the image " + cmp.Or(req.Image.Reference, req.Image.Name, req.Image.Filename, "of the action") + " can't be used: " + brokenBy(err),
		}
		req.foreign(rev)
	}
	rev.Source = source
	rev.ID = rev.Digest()
	return rev, nil
}

// exists says whether the code has a regular file of that name.
func (a *action) exists(name string) bool {
	info, err := os.Lstat(filepath.Join(a.src, filepath.FromSlash(name)))
	return filepath.IsLocal(filepath.FromSlash(name)) && err == nil && info.Mode().IsRegular()
}

// Source returns the code of a revision as it was sent, where that is kept, and closes it with the
// caller. It is NotFound for a revision that has none.
func (d *Deployer) Source(ctx context.Context, rev *faas.Revision) (io.ReadCloser, error) {
	if rev.Source == "" {
		return nil, faas.Errorf(faas.NotFound, "read source", "the code of %q is not kept as it was sent", rev.Name)
	}
	r, err := d.cfg.Depot.Get(ctx, rev.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, faas.Errorf(faas.NotFound, "read source", "the code of %q is gone", rev.Name)
	}
	return r, err
}
