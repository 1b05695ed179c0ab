// Package worker keeps instances ready on this machine and runs invocations in them.
//
// An instance is a sandbox with one revision loaded; the instances of a revision form its pool.
// A call takes an idle instance, or waits in the pool's line until one is free or a new one has
// been made for it; what an instance may come to hold is reserved in the node's memory before it
// is made, and idle instances of others give way for it. Executables that serve one call a
// process go the same way, with an instance that lives for one call.
//
// Whatever goes wrong in an instance ends that instance and never another: its whole process
// tree is killed when a call runs past its deadline, when the process dies, and when something
// is left running behind an answer.
//
// Which node runs an invocation is decided by package dispatch, how long an idle instance stays
// by package policy.
package worker

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// Config says what a Worker is made of.
type Config struct {
	Node     string // this machine's name
	Sandbox  *sandbox.Host
	Runtimes *runtimes.Registry
	Depot    *artifact.Depot
	// Secrets opens the values of a namespace's secrets. The epoch changes with any of them.
	Secrets func(ctx context.Context, namespace string, names []string) (map[string]string, uint64, error)
	// Stray takes lines that an instance wrote and that belong to no single call. It must not
	// block.
	Stray  func(rev *faas.Revision, instance string, lines []faas.LogLine)
	Memory faas.Bytes // that all instances may hold together; default four fifths of the machine's
	Starts int        // instances made at once; default two a processor and one, since more only slow each other
	// StemMemory is what processes may hold together that are ready for whatever function comes;
	// default an eighth of Memory.
	StemMemory faas.Bytes
	ReuseAny   bool // whether functions of different namespaces may take turns in one process, if they ask for it
	NoStems    bool // no process is made before it is known whose it will be
	// Forks lets runtimes whose processes are started as a rule fork some in need, where a trial
	// on this machine shows that such a process does all that a started one does.
	Forks bool
	Keep  policy.KeepConfig
	// Histories is a file in which it is kept how long pauses between calls were, so that a server
	// that starts knows what its functions are used to; empty: nowhere.
	Histories string
	// Resolve returns a function's active revision, for instances that are made before a call asks
	// for them; nil: none are made of functions that have no instance.
	Resolve func(faas.Name) (*faas.Revision, error)
	// Server returns the address by which functions with a network call this server; nil, and empty: they
	// can't. It is asked once instances may be made.
	Server func() string
	// Available returns what the machine's memory could still be used for, 0 if that is not known;
	// default what the kernel says.
	Available func() faas.Bytes
	Logger    *slog.Logger
}

// Worker is safe for concurrent use.
type Worker struct {
	cfg Config

	mu       sync.Mutex
	pools    map[poolKey]*pool                 // guarded by mu
	stems    map[stemClass]*stems              // guarded by mu
	zygotes  map[string]*zygote                // by class of stem; guarded by mu
	trials   map[string]*trial                 // by runtime; guarded by mu
	hungry   []*pool                           // guarded by mu; pools with calls in line that could not grow, in order of asking
	reserved faas.Bytes                        // guarded by mu; what instances hold or may come to hold, and waiting stems and snapshots hold
	copies   faas.Bytes                        // guarded by mu; what snapshots of armed processes were last seen to hold
	stemming faas.Bytes                        // guarded by mu; what stems will hold that are being made
	loads    map[faas.RevisionID]time.Duration // guarded by mu; how long code took to load
	starting int                               // guarded by mu
	draining bool                              // guarded by mu

	startingBy map[string]int               // of starting, by namespace; guarded by mu
	tenants    tenants                      // guarded by mu
	owed       owed                         // guarded by mu
	weighed    bool                         // some instances count for less than their own; guarded by mu
	room       faas.Bytes                   // what the machine lets instances hold together; 0: not known; guarded by mu
	warned     time.Time                    // when it was last said that this is less than is configured; guarded by mu
	standing   map[faas.Name]*faas.Revision // functions that ask for instances whether anybody calls or not; guarded by mu
	busy       bool                         // the processors had hardly any time in the last second; guarded by mu
	shelf      shelf                        // guarded by mu

	processors processors
	nested     nested

	upSeen, idleSeen time.Duration // of the machine, when busyNow looked; Run's alone

	work sync.WaitGroup // starts and endings of instances
	life context.Context
	end  context.CancelFunc
}

// New returns a Worker. No instance is made before the first call.
func New(cfg Config) *Worker {
	if cfg.Memory == 0 {
		cfg.Memory = machineMemory() / 5 * 4
	}
	if cfg.StemMemory == 0 {
		cfg.StemMemory = cfg.Memory / 8
	}
	if cfg.Starts == 0 {
		cfg.Starts = 2*runtime.NumCPU() + 1 // the one more is for another namespace: see policy.MayStart
	}
	if cfg.Available == nil {
		cfg.Available = availableMemory
	}
	if cfg.Keep == (policy.KeepConfig{}) {
		cfg.Keep = policy.DefaultKeep()
	}
	if cfg.Stray == nil {
		cfg.Stray = func(*faas.Revision, string, []faas.LogLine) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Worker{cfg: cfg, pools: map[poolKey]*pool{}, stems: map[stemClass]*stems{}, zygotes: map[string]*zygote{}, trials: map[string]*trial{}, loads: map[faas.RevisionID]time.Duration{},
		startingBy: map[string]int{}, standing: map[faas.Name]*faas.Revision{}, shelf: shelf{books: map[faas.Name]*policy.Book{}}}
	// An instance outlives the call that it was made for, so its life hangs on the worker's, not
	// on a call's context.
	w.life, w.end = context.WithCancel(context.Background())
	return w
}

// Run ends idle instances whose time is up, until ctx ends. It returns when no instance is left.
func (w *Worker) Run(ctx context.Context) error {
	w.restore(time.Now())
	tick := time.NewTicker(weighEvery)
	defer tick.Stop()
	tended := time.Now()
	for {
		select {
		case <-ctx.Done():
			w.close()
			w.save(true)
			return nil
		case <-tick.C:
			w.weigh()
			if now := time.Now(); now.Sub(tended) >= tendEvery {
				tended = now
				w.survey()
				w.tend(now)
				w.untangle(now)
				w.tellStray()
				w.save(false)
			}
		}
	}
}

// close ends every instance, those with calls too, and waits until they are gone.
func (w *Worker) close() {
	w.mu.Lock()
	w.draining = true
	for _, p := range w.pools {
		for _, in := range p.instances {
			w.retire(in, "shutdown")
		}
		for wt := p.line.pop(); wt != nil; wt = p.line.pop() { // whatever their deadlines
			wt.answer(grant{err: shuttingDown()})
		}
	}
	for _, s := range w.stems {
		w.emptyStems(s, 0)
	}
	w.mu.Unlock()
	w.end()
	w.work.Wait()
	w.endZygotes()
}

// tellStray hands on what instances wrote that belongs to no call.
func (w *Worker) tellStray() {
	w.mu.Lock()
	all := map[*instance]*faas.Revision{} // of now: a process may serve another function soon
	for _, p := range w.pools {
		for _, in := range p.instances {
			all[in] = p.rev
		}
	}
	w.mu.Unlock()
	for in, rev := range all {
		in.tellStray(rev, w.cfg.Stray)
	}
}

func shuttingDown() error {
	return faas.Errorf(faas.Unavailable, "run call", "the server is shutting down").WithFix("send the call again in a few seconds")
}

// Execute runs inv on rev, as dispatch.Node asks.
func (w *Worker) Execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	inv.Report.Node = w.cfg.Node
	if rev.Broken != "" {
		return nil, broken(rev)
	}
	res, loading, err := w.execute(ctx, rev, inv)
	return res, inContract(rev, inv, loading, err)
}

// execute is Execute without the words of another contract. Of an error it says whether the code was not
// loaded yet.
func (w *Worker) execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (res *faas.Result, loading bool, err error) {
	rt, err := w.cfg.Runtimes.Lookup(rev.Runtime)
	if err != nil {
		return nil, false, err
	}
	if err := w.fits(rev); err != nil {
		return nil, false, err
	}
	call := &call{inv: inv, log: runtimes.NewLog(rev.Limits.Log, nil), foreign: rev.Contract != faas.ContractNative}
	in, err := w.acquire(ctx, rev, rt, call)
	if err != nil {
		call.report()
		return nil, true, faas.AsError(err)
	}
	if !in.quick {
		res, err = w.run(ctx, in, call)
		return res, false, err
	}
	return w.runQuick(ctx, in, rev, rt, call)
}

// fits says whether the node could ever hold an instance.
func (w *Worker) fits(rev *faas.Revision) error {
	if rev.Limits.Memory <= w.cfg.Memory {
		return nil
	}
	return faas.Errorf(faas.Unavailable, "run function", "the function asks for %s of memory; this node has %s for all functions together", rev.Limits.Memory, w.cfg.Memory).
		WithLimit("memory_bytes").WithFix("ask for less with: brasa deploy PATH --memory, or give the node more with the key memory")
}

// Prove shows that rev's code can be loaded: by an instance of it that stands already, else by
// starting one, which is left idle for the first call. A failure carries the function's own error;
// the Proof has what it wrote even then, and no phases of a start where none was needed.
func (w *Worker) Prove(ctx context.Context, rev *faas.Revision) (faas.Proof, error) {
	rt, err := w.cfg.Runtimes.Lookup(rev.Runtime)
	if err != nil {
		return faas.Proof{}, err
	}
	if err := w.fits(rev); err != nil {
		return faas.Proof{}, err
	}
	if rt.Style == runtimes.StyleExec {
		return w.proveProgram(ctx, rev, rt)
	}
	// Longer than the start may take, which knows better what it has waited for.
	ctx, cancel := context.WithTimeout(ctx, max(rev.Limits.Timeout.D(), minLoadTime)+deathWait)
	defer cancel()
	c := &call{inv: &faas.Invocation{Kind: faas.KindProof}, log: runtimes.NewLog(rev.Limits.Log, nil)}
	c.inv.Timing.Begin = time.Now()
	in, err := w.acquire(ctx, rev, rt, c)
	proof := faas.Proof{}
	if err == nil {
		var u sandbox.Usage
		if u, err = in.box.Usage(); err == nil {
			proof.Memory = faas.Bytes(u.Memory)
		}
		err = nil // a figure that can't be read is no reason to refuse a deploy
		w.release(in, c, keep, proof.Memory)
	} else {
		err = faas.AsError(err)
	}
	c.inv.Timing.Total = time.Since(c.inv.Timing.Begin)
	proof.Timing = c.inv.Timing
	proof.Logs, _ = c.log.Lines()
	return proof, err
}

// Forget ends the idle instances of a function whose revision is not one of those to keep, and
// lets the busy ones end after their calls. It is called when a function moves to another
// revision or is deleted.
func (w *Worker) Forget(name faas.Name, keep ...faas.RevisionID) {
	w.forget(func(p *pool) bool { return p.key.name == name && !slices.Contains(keep, p.key.revision) })
	w.forgetHistory(name, keep)
}

// ForgetSecret does the same for the functions of a namespace that are given the secret, which
// has another value now, or none.
func (w *Worker) ForgetSecret(namespace, secret string) {
	w.forget(func(p *pool) bool { return p.key.name.Namespace == namespace && slices.Contains(p.rev.Secrets, secret) })
}

func (w *Worker) forget(is func(*pool) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pools {
		if !is(p) {
			continue
		}
		p.renewed = time.Now()
		for _, in := range p.instances {
			w.drainInstance(in)
		}
		w.dropIfEmpty(p)
	}
}

// Status says what this node holds.
func (w *Worker) Status() faas.NodeStatus {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := faas.NodeStatus{
		Name: w.cfg.Node, Memory: w.cfg.Memory, Reserved: w.reserved,
		Starting: w.starting, Draining: w.draining, Instances: []faas.InstanceStatus{}, Stems: []faas.StemStatus{},
	}
	for _, st := range w.stems {
		s.Stems = append(s.Stems, st.status())
	}
	for _, p := range w.pools {
		s.Waiting += p.line.len()
		for _, in := range p.instances {
			s.Instances = append(s.Instances, in.status(now))
		}
	}
	return s
}
