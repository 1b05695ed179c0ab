package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// Config says what an Installer is made of.
type Config struct {
	Depot      *artifact.Depot
	Sandbox    *sandbox.Host
	Runtimes   *runtimes.Registry
	Dir        string // its own; what is below work in it is emptied by New
	Registries Registries
	Limits     Limits
	Logger     *slog.Logger
	// Fault, if set, is told of each moment that a crash may fall into; tests stop the process there.
	Fault func(string)
}

// Limits bound one installation. Zero means the default.
type Limits struct {
	Bytes   faas.Bytes    // of the layer, and of what is written on the way to it; key install_bytes. Default 2 GiB
	Entries int           // files and directories of the layer; key install_entries. Default 200,000
	Memory  faas.Bytes    // key build_memory. Default 2 GiB
	CPU     int           // thousandths of a core. Default 4000
	PIDs    int           // default 512
	Timeout time.Duration // of all steps together; key build_timeout. Default 10 minutes
	Log     faas.Bytes    // of what is kept of the output. Default 4 MiB
}

func (l *Limits) applyDefaults() {
	l.Bytes = cmp.Or(l.Bytes, 2*faas.GiB)
	l.Entries = cmp.Or(l.Entries, 200_000)
	l.Memory = cmp.Or(l.Memory, 2*faas.GiB)
	l.CPU = cmp.Or(l.CPU, 4000)
	l.PIDs = cmp.Or(l.PIDs, 512)
	l.Timeout = cmp.Or(l.Timeout, 10*time.Minute)
	l.Log = cmp.Or(l.Log, 4*faas.MiB)
}

// Request asks for what a function's code needs.
type Request struct {
	Namespace, NamespaceUID string
	Code                    string // directory
	Plan                    *runtimes.Plan
	Options
	Log      io.Writer      // gets all that the tools write; nil: nobody
	Progress func(Progress) // told of each step as it begins, and of its growth; nil: nobody
}

// Progress is how far an installation is.
type Progress struct {
	Tool  string     `json:"tool"`
	Step  string     `json:"step"`           // of Job.Steps, or "store"
	Bytes faas.Bytes `json:"bytes"`          // written so far
	Line  string     `json:"line,omitempty"` // the newest of the tool's output
}

// Result is what a manifest came to.
type Result struct {
	Layer     *faas.Layer // nil if it is for building alone
	BuildOnly bool
	Target    string            // where the layer is to be seen
	Env       map[string]string // of a process that uses the layer
	Dir       string            // the layer on this machine, read-only, until Release
	Release   func()
	Packages  []Package // the heaviest first
	Bytes     faas.Bytes
	Cached    bool // nothing had to be installed
	Tool      string
	Ecosystem string
	Manifest  string // the file that decided
	Note      string
	Key       string
}

// Installer is safe for concurrent use.
type Installer struct {
	cfg  Config
	ways map[string][]Ecosystem

	mu      sync.Mutex
	flights map[string]*flight // by scope and key; guarded by mu

	work sync.WaitGroup // flights
	life context.Context
	end  context.CancelFunc
}

// New empties the work directory of what a killed predecessor left there.
func New(cfg Config) (*Installer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Fault == nil {
		cfg.Fault = func(string) {}
	}
	cfg.Limits.applyDefaults()
	i := &Installer{cfg: cfg, ways: map[string][]Ecosystem{}, flights: map[string]*flight{}}
	tools := Tools{Runtimes: cfg.Runtimes, Registries: cfg.Registries}
	for runtime, all := range ecosystems {
		for _, make := range all {
			i.ways[runtime] = append(i.ways[runtime], make(tools))
		}
	}
	if err := artifact.RemoveTree(i.workDir()); err != nil {
		return nil, fmt.Errorf("empty the installer's work directory: %w", err)
	}
	for _, dir := range []string{i.workDir(), i.layersDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	// An installation outlives the call that began it for as long as another waits for it, so its
	// life hangs on the Installer's.
	i.life, i.end = context.WithCancel(context.Background())
	return i, nil
}

// Close ends what is being installed and waits until it is gone.
func (i *Installer) Close() error {
	i.end()
	i.work.Wait()
	return nil
}

func (i *Installer) workDir() string   { return filepath.Join(i.cfg.Dir, "work") }
func (i *Installer) layersDir() string { return filepath.Join(i.cfg.Dir, "layers") }

const op = "install dependencies"

// Install makes the layer that the code's manifest asks for, unless it is there; nil means that
// nothing is asked for. Those who want the same layer at the same time wait for one installation,
// which goes on as long as one of them does. The caller calls Release of the result.
func (i *Installer) Install(ctx context.Context, req Request) (*Result, error) {
	eco, m, err := i.find(&req)
	if err != nil || m == nil {
		return nil, err
	}
	m.Ecosystem = eco.Name()
	job, err := eco.Plan(ctx, m, req.Options)
	if err != nil {
		return nil, withOp(err)
	}
	key := keyOf(m, job, req.Options)
	scope := req.NamespaceUID
	if m.Verified && len(req.With) == 0 && !req.Scripts {
		scope = sharedScope
	}
	res := &Result{
		BuildOnly: job.BuildOnly, Target: job.Target, Env: job.Env, Tool: job.Tool, Ecosystem: m.Ecosystem,
		Manifest: m.name(req.Options), Note: m.Note, Key: key,
	}
	for range 2 {
		kept, err := i.kept(scope, key)
		if err != nil {
			return nil, err
		}
		res.Cached = kept != nil
		if kept == nil {
			if kept, err = i.join(ctx, scope, key, eco, m, job, &req); err != nil {
				return nil, err
			}
		}
		if kept.Digest == "" { // what was named came to nothing
			res.Release = func() {}
			return res, nil
		}
		res.Dir, res.Release, err = i.cfg.Depot.Tree(ctx, kept.Digest)
		if err == nil {
			res.Packages, res.Bytes = kept.Packages, kept.Bytes
			if !job.BuildOnly {
				res.Layer = &faas.Layer{Digest: kept.Digest, Target: job.Target, Bytes: kept.Bytes}
			}
			return res, nil
		}
		if code := faas.CodeOf(err); code != faas.NotFound && code != faas.Unavailable || ctx.Err() != nil {
			return nil, err
		}
		// The depot has lost it, or it is damaged: it is made anew.
		i.cfg.Logger.Warn("a layer of dependencies is gone; it is installed again", "ecosystem", m.Ecosystem, "digest", kept.Digest, "error", err)
		if err := i.forget(scope, key); err != nil {
			return nil, err
		}
	}
	return nil, faas.Errorf(faas.Unavailable, op, "what was installed cannot be read back").WithFix("try again; the server's log says more")
}

// find asks the ecosystems of the plan's runtime for a manifest.
func (i *Installer) find(req *Request) (Ecosystem, *Manifest, error) {
	root, err := os.OpenRoot(req.Code)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	ways := i.ways[cmp.Or(req.Plan.Source, languageOf(req.Plan))]
	for _, eco := range ways {
		m, err := eco.Find(root.FS(), req.Plan, req.Options)
		if err != nil {
			return nil, nil, withOp(err)
		}
		if m != nil {
			return eco, m, nil
		}
	}
	if len(req.With) > 0 {
		return nil, nil, faas.Errorf(faas.Invalid, op, "packages are named for %s, for which none can be installed", req.Plan.Runtime).
			WithFix("leave --with out")
	}
	return nil, nil, nil
}

// languageOf returns the runtime whose packages a plan's code uses. A program that speaks HTTP or
// lines, or is started for each call, may be a script of one of the languages.
func languageOf(plan *runtimes.Plan) string {
	if plan.Style() == runtimes.StyleFrames {
		return plan.Runtime
	}
	program := plan.Handler // the interpreter of an entry, where its name asks for one
	if len(plan.Command) > 0 {
		program = path.Base(plan.Command[0])
	}
	switch strings.TrimRight(program, "0123456789.") {
	case "python":
		return runtimes.Python
	case "node", "nodejs":
		return runtimes.Node
	}
	return plan.Runtime
}

func withOp(err error) error {
	e := *faas.AsError(err)
	if e.Op == "" {
		e.Op = op
	}
	return &e
}

// name says which file decided, for people.
func (m *Manifest) name(opt Options) string {
	switch {
	case m.From != "":
		return m.From
	case m.Lock != "":
		return m.Lock
	case len(opt.With) > 0 && len(m.Files) == 0:
		return "--with"
	}
	least := ""
	for f := range m.Files {
		if least == "" || len(f) < len(least) || len(f) == len(least) && f < least {
			least = f
		}
	}
	return least
}

// flight is one installation that any number of callers wait for.
type flight struct {
	done   chan struct{}
	cancel context.CancelCauseFunc
	out    *fanOut

	waiters int // guarded by Installer.mu

	kept *keptLayer // good after done
	err  error      // the same
}

// errDeserted ends an installation that nobody waits for any more.
var errDeserted = errors.New("nobody waits for it any more")

// join waits for the installation of a key, and begins it if there is none.
func (i *Installer) join(ctx context.Context, scope, key string, eco Ecosystem, m *Manifest, job *Job, req *Request) (*keptLayer, error) {
	id := scope + "/" + key
	i.mu.Lock()
	f := i.flights[id]
	if f == nil {
		life, cancel := context.WithCancelCause(i.life)
		f = &flight{done: make(chan struct{}), cancel: cancel, out: newFanOut(i.cfg.Limits.Log)}
		i.flights[id] = f
		i.work.Go(func() {
			defer cancel(nil)
			b := &build{i: i, scope: scope, key: key, eco: eco, m: m, job: job, opt: req.Options, out: f.out}
			f.kept, f.err = b.run(life)
			i.mu.Lock()
			if i.flights[id] == f {
				delete(i.flights, id)
			}
			i.mu.Unlock()
			close(f.done)
		})
	}
	f.waiters++
	i.mu.Unlock()
	leave := f.out.join(req.Log, req.Progress)
	defer leave()
	select {
	case <-f.done:
	case <-ctx.Done():
		i.mu.Lock()
		if f.waiters--; f.waiters == 0 {
			if i.flights[id] == f {
				delete(i.flights, id) // whoever comes now begins anew
			}
			f.cancel(errDeserted)
		}
		i.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	return f.kept, f.err
}
