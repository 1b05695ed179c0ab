package deploy

import (
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

// Bounds of what is kept in the catalog for a revision, so that one document stays a document.
const (
	maxEnv      = 256
	maxEnvBytes = 64 << 10
	maxArgs     = 64
)

// checkSettings checks what does not depend on the code.
func (d *Deployer) checkSettings(req *Request) error {
	if err := checkForeign(req); err != nil {
		return err
	}
	bytes := 0
	for k, v := range req.Env {
		bytes += len(k) + len(v)
		if err := req.checkVariable(k, v); err != nil {
			return err
		}
	}
	most := maxEnvBytes
	if req.Contract == faas.ContractOpenWhisk { // its clients give parameters as variables
		most = maxActionEnv
	}
	if len(req.Env) > maxEnv || bytes > most {
		return faas.Errorf(faas.TooLarge, "check environment", "%d variables of %d bytes together are more than %d of %d bytes", len(req.Env), bytes, maxEnv, most).
			WithLimit("env_bytes").WithFix("put large values into a file beside the code")
	}
	seen := map[string]bool{}
	for _, s := range req.Secrets {
		if err := checkVariable(s, ""); err != nil {
			return err
		}
		if _, both := req.Env[s]; both || seen[s] {
			return faas.Errorf(faas.Invalid, "check secrets", "%q is given twice: as a secret and as another secret or variable", s)
		}
		seen[s] = true
	}
	slices.Sort(req.Secrets)
	if len(req.Command) > maxArgs {
		return faas.Errorf(faas.Invalid, "check command", "the command has %d words; at most %d", len(req.Command), maxArgs)
	}
	for _, w := range req.Command {
		if w == "" || strings.ContainsRune(w, 0) {
			return faas.Errorf(faas.Invalid, "check command", "the command has an empty word or one with a NUL character")
		}
	}
	switch req.Network {
	case "", faas.NetworkNone, faas.NetworkEgress:
	default:
		return faas.Errorf(faas.Invalid, "check network", "unknown network %q; there are %q and %q", req.Network, faas.NetworkNone, faas.NetworkEgress)
	}
	return d.checkReuse(req)
}

// checkReuse fills in what is left open of reuse and state, and checks that they go together.
func (d *Deployer) checkReuse(req *Request) error {
	const op = "check reuse"
	switch req.State {
	case "", faas.StateKept, faas.StatePristine:
	default:
		return faas.Errorf(faas.Invalid, op, "unknown state %q; there are %q and %q", req.State, faas.StateKept, faas.StatePristine)
	}
	switch req.Reuse {
	case "":
		req.Reuse = faas.ReuseFunction
	case faas.ReuseFunction, faas.ReuseNever:
	case faas.ReuseTenant, faas.ReuseAny:
		if req.State == faas.StateKept {
			return faas.Errorf(faas.Invalid, op, "a process that serves other functions too is put back to its clean state after each call: reuse %q does not go with state %q", req.Reuse, req.State).
				WithFix("leave state out, or choose reuse %q", faas.ReuseFunction)
		}
		req.State = faas.StatePristine
		if req.Reuse == faas.ReuseAny && !d.cfg.ReuseAny {
			return faas.Errorf(faas.Denied, op, "reuse %q lets functions of different namespaces take turns in one process; this server does not allow it", req.Reuse).
				WithFix("choose reuse %q, or have the administrator set the key reuse_any", faas.ReuseTenant)
		}
	default:
		return faas.Errorf(faas.Invalid, op, "unknown reuse %q; there are %q, %q, %q and %q", req.Reuse, faas.ReuseFunction, faas.ReuseTenant, faas.ReuseAny, faas.ReuseNever)
	}
	return nil
}

// oneAtATime says whether a process of the runtime may serve only one call at a time, because each
// is to find it clean, or to have it for itself. Programs that are started for each call see nothing
// of each other, nor do modules of WebAssembly.
func (req *Request) oneAtATime(runtime string) bool {
	return runtime != runtimes.Executable &&
		(req.Reuse == faas.ReuseNever || req.State == faas.StatePristine && runtime != runtimes.Wasm)
}

// checkAlone refuses calls at the same time where a process may serve only one.
func checkAlone(req *Request, plan *runtimes.Plan) error {
	n := plan.Limits.Concurrency
	if n <= 1 || !req.oneAtATime(plan.Runtime) {
		return nil
	}
	const op = "check concurrency"
	if req.Reuse == faas.ReuseNever {
		return faas.Errorf(faas.Invalid, op, "each call gets a process of its own: reuse %q does not go with a concurrency of %d", req.Reuse, n).
			WithLimit("concurrency").WithFix("deploy with --concurrency 1, or with --reuse %s", faas.ReuseFunction)
	}
	return faas.Errorf(faas.Invalid, op, "calls that share a process cannot each find it clean: state %q does not go with a concurrency of %d", req.State, n).
		WithLimit("concurrency").WithFix("deploy with --concurrency 1, or with --state %s", faas.StateKept)
}

// checkAsync checks a policy for calls whose caller does not wait. Functions that it names need not
// exist yet: two that name each other could not be deployed.
func (d *Deployer) checkAsync(a *faas.Async) error {
	if err := a.Validate(); err != nil || d.cfg.CheckHook == nil {
		return err
	}
	if err := d.cfg.CheckHook("async.on_success", a.OnSuccess); err != nil {
		return err
	}
	return d.cfg.CheckHook("async.on_failure", a.OnFailure)
}

// checkVariable keeps out variables of the request that it may not set. Parameters of actions become
// variables by whatever names they have.
func (req *Request) checkVariable(k, v string) error {
	if req.Contract != faas.ContractOpenWhisk {
		return checkVariable(k, v)
	}
	if k == "" || len(k) > 255 || strings.ContainsAny(k, "=\x00") || strings.HasPrefix(k, "BRASA_") || strings.HasPrefix(k, "LD_") ||
		k == "PORT" && req.Image != nil { // where its server listens
		return faas.Errorf(faas.Invalid, "check environment", "%q can't be the name of a variable of the environment", k)
	}
	if strings.ContainsRune(v, 0) {
		return faas.Errorf(faas.Invalid, "check environment", "the value of %s has a NUL character", k)
	}
	return nil
}

// checkVariable keeps out names that no environment can hold and those that are the platform's.
func checkVariable(k, v string) error {
	if err := runtimes.CheckEnv(k); err != nil {
		return err
	}
	if strings.ContainsRune(v, 0) {
		return faas.Errorf(faas.Invalid, "check environment", "the value of %s has a NUL character", k)
	}
	return nil
}

// settle puts together what the request, the code's own manifest and the defaults say, in that
// order, and checks the limits that come out.
func (d *Deployer) settle(req Request, plan *runtimes.Plan) error {
	env := map[string]string{}
	for k, v := range plan.Env {
		if err := checkVariable(k, v); err != nil {
			return err
		}
		env[k] = v
	}
	for k, v := range req.Env {
		env[k] = v
	}
	plan.Secrets = slices.Compact(slices.Sorted(slices.Values(append(plan.Secrets, req.Secrets...))))
	for _, s := range plan.Secrets {
		delete(env, s)
	}
	plan.Env = env
	if req.Network != "" {
		plan.Network = req.Network
	}
	if plan.Network == "" {
		plan.Network = faas.NetworkNone
	}
	plan.Async = req.Async.Fill(plan.Async)
	if plan.Async != nil {
		if err := d.checkAsync(plan.Async); err != nil {
			return err
		}
	}
	if req.Warm != nil {
		plan.Warm = req.Warm
	}
	if _, err := policy.ReadWindows(plan.Warm, d.cfg.Ceiling); err != nil {
		return err
	}
	l := req.Limits.Fill(plan.Limits)
	// The default share of a processor is a courtesy, and where it can't be enforced the server
	// says so once. Who asks for one relies on it.
	if l.CPU != 0 && d.cfg.Sandbox != nil && !d.cfg.Sandbox.Features().Has("cgroup cpu") {
		return faas.Errorf(faas.Unavailable, "check limits", "this server can't limit a function's processor time: it has no control group for it").
			WithLimit("cpu_millis").WithFix("leave cpu_millis out, or run the server as root; brasa doctor tells more")
	}
	if l.Concurrency == 0 && req.oneAtATime(plan.Runtime) {
		l.Concurrency = 1
	}
	if style := plan.Style(); req.Contract == faas.ContractOpenWhisk && (style == runtimes.StyleLoop || style == runtimes.StyleExec) {
		l.Concurrency = 1 // what is asked for is the most that such an action may get
	}
	switch plan.Style() {
	case runtimes.StyleFrames:
		if plan.Runtime == runtimes.Wasm && l.Concurrency == 0 {
			l.Concurrency = wasmConcurrency
		}
	case runtimes.StyleHTTP:
		fillServer(&l)
	case runtimes.StyleLoop:
		if l.Concurrency > 1 {
			return faas.Errorf(faas.Invalid, "check limits", "concurrency is %d; a program that speaks ActionLoop serves one call at a time", l.Concurrency).
				WithLimit("concurrency").WithFix("leave it out: as many processes are made as calls come in, up to max_instances")
		}
		l.Concurrency = 1
	case runtimes.StyleExec:
		if l.MinInstances > 0 || len(plan.Warm) > 0 {
			return faas.Errorf(faas.Invalid, "check limits", "each call of an %s function is a process of its own: none can stand ready before it", plan.Runtime).
				WithLimit("min_instances").WithFix("leave min_instances and warm windows out; sandboxes are made ready for it anyway")
		}
		if l.Concurrency > 1 {
			return faas.Errorf(faas.Invalid, "check limits", "concurrency is %d; each call of an %s function is a process of its own", l.Concurrency, plan.Runtime).
				WithLimit("concurrency").WithFix("leave it out: as many processes are made as calls come in, up to max_instances")
		}
	}
	l = l.Fill(d.cfg.Defaults)
	if err := l.Validate(d.cfg.Ceiling); err != nil {
		return err
	}
	plan.Limits = l
	return nil
}

// serverConcurrency is how many calls an HTTP server gets at once unless told otherwise: such
// programs are made to serve many.
const serverConcurrency = 100

// wasmConcurrency is how many calls a process gets at once that runs modules of WebAssembly, unless
// told otherwise. They see nothing of each other, so one process costs less than several; but each
// may have an equal part of its memory only, and they compute more than they wait, so that more of
// them than a few for each processor gain nothing.
const wasmConcurrency = 4

func fillServer(l *faas.Limits) {
	if l.Concurrency == 0 {
		l.Concurrency = serverConcurrency
	}
}
