// Package daemon builds the parts of a node from its configuration, starts them from the ground
// up, and stops them from the door down.
//
// It is the only package that reads configuration, and it decides nothing else: it builds and
// connects. Whatever a part needs of another is handed to it here.
package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway"
	"github.com/brasa-dev/brasa/internal/image"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/openwhisk"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/registry"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

// Daemon is a node.
type Daemon struct {
	// Version is what the server says of itself; set before Run.
	Version api.Version

	step  func(string) // tests kill the process in it; nil: nobody is told
	built func(*node)  // tests get at the parts by it; nil: nobody does
	cfg   Config
	log   *slog.Logger
	ready atomic.Bool
}

// New checks the configuration. Nothing is opened or started. What the node has to say of changes
// of its state goes to standard error.
func New(cfg Config) (*Daemon, error) {
	cfg.applyDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Daemon{cfg: cfg, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.Log}))}, nil
}

// node holds the parts while they run.
type node struct {
	keys      *auth.Keys
	subjects  *auth.Subjects
	whisk     *openwhisk.Server
	apis      store.Store // of OpenWhisk's gateway
	catalog   *catalog.Catalog
	depot     *artifact.Depot
	journal   *journal.Journal
	queue     *queue.Durable
	runtimes  *runtimes.Registry
	host      *sandbox.Host
	worker    *worker.Worker
	installer *install.Installer
	builds    *install.Builds
	images    *image.Store
	registry  *registry.Registry
	deployer  *deploy.Deployer
	dispatch  *dispatch.Dispatcher
	triggers  *trigger.Manager
	inside    string // the address by which functions call this server; empty: they can't; set before the worker runs
}

// Run starts the node and returns when ctx has ended and everything is stopped, or when a part
// failed. Calls in flight when ctx ends may go on for the configured grace.
func (d *Daemon) Run(ctx context.Context) (err error) {
	closing := closers{}
	defer func() { err = closing.close(err) }()
	running := newRunning(d.log)
	defer func() {
		if e := running.stop(); err == nil {
			err = e
		}
	}()
	if err := os.MkdirAll(d.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	engine, err := store.Open(store.Config{Dir: d.cfg.Data, Logger: d.log.With("part", "store")})
	if err != nil {
		return err
	}
	closing.add("store", engine.Close)
	n := &node{}
	if err := d.openState(ctx, n, engine, &closing); err != nil {
		return err
	}
	if err := d.openMachine(ctx, n, &closing); err != nil {
		return err
	}
	if err := d.openTriggers(ctx, n, engine); err != nil {
		return err
	}
	if err := d.openSubjects(ctx, n, engine); err != nil {
		return err
	}
	gate, err := d.openDoor(n)
	if err != nil {
		return err
	}
	if d.built != nil {
		d.built(n)
	}
	// Before anything is started, since an address that is taken is the likeliest failure.
	if _, err := gate.Listen(ctx); err != nil {
		return err
	}
	closing.add("gateway", gate.Close)

	running.start(ctx, part{"keys", n.keys.Run})
	running.start(ctx, part{"subjects", n.subjects.Run})
	running.start(ctx, part{"openwhisk", n.whisk.Run})
	running.start(ctx, part{"catalog", n.catalog.Run})
	running.start(ctx, part{"journal", n.journal.Run})
	running.start(ctx, part{"queue", n.queue.Run})
	running.start(ctx, part{"registry", n.registry.Run})
	running.start(ctx, part{"collector", func(ctx context.Context) error { return d.collect(ctx, n) }})
	if d.cfg.Profile != "" {
		running.start(ctx, part{"profiles", d.serveProfiles})
	}
	running.start(ctx, part{"sandbox", n.host.Run})
	select {
	case <-n.host.Ready():
	case err := <-running.failed:
		return err
	case <-ctx.Done():
		return nil
	}
	n.inside = d.inside(ctx, n.host.Door())
	running.start(ctx, part{"worker", n.worker.Run})
	running.start(ctx, part{"async", n.dispatch.Run})
	running.start(ctx, part{"triggers", n.triggers.Run})
	running.start(ctx, part{"gateway", gate.Run})
	running.start(ctx, part{"stems", func(ctx context.Context) error {
		expect(n)
		<-ctx.Done()
		return nil
	}})
	running.start(ctx, part{"java archive", func(ctx context.Context) error {
		if err := n.deployer.ArchiveJava(ctx); err != nil {
			d.log.Warn("there is no archive of Java's classes; processes of Java take longer to start", "error", err)
		}
		<-ctx.Done()
		return nil
	}})
	d.ready.Store(true)
	d.log.Info("node started", "url", d.cfg.URL, "inside", n.inside, "data", d.cfg.Data)
	select {
	case err := <-running.failed:
		return err
	case <-ctx.Done():
	}
	d.ready.Store(false)
	d.log.Info("node stopping", "grace", d.cfg.Drain)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Drain)
	defer cancel()
	if err := n.dispatch.Drain(drain); err != nil {
		d.log.Warn("calls were still running after the grace", "grace", d.cfg.Drain)
	}
	return nil
}

func (d *Daemon) keyFile() string { return filepath.Join(d.cfg.Data, "admin.key") }

// openState opens what is on the disk.
func (d *Daemon) openState(ctx context.Context, n *node, engine *store.Engine, closing *closers) error {
	bucket := func(name string) (store.Store, error) { return engine.Bucket(ctx, name, 10) }
	documents, err := bucket("catalog")
	if err != nil {
		return err
	}
	secrets, err := engine.Bucket(ctx, "secrets", 1) // an old value is not to be found
	if err != nil {
		return err
	}
	keys, err := bucket("keys")
	if err != nil {
		return err
	}
	master, err := catalog.LoadKey(filepath.Join(d.cfg.Data, "secret.key"))
	if err != nil {
		return err
	}
	quota := d.cfg.Quota
	if n.catalog, err = catalog.Open(ctx, catalog.Config{
		Store: documents, Secrets: secrets, Key: master, Logger: d.log.With("part", "catalog"), MaxNamespaces: quota.Namespaces, MaxFunctions: quota.Functions,
		MaxPackages: quota.Packages, MaxTriggers: quota.Triggers, MaxRules: quota.Rules, MaxSecrets: quota.Secrets,
	}); err != nil {
		return err
	}
	if n.keys, err = auth.Open(ctx, auth.Config{Store: keys, File: d.keyFile(), Logger: d.log.With("part", "auth")}); err != nil {
		return err
	}
	if _, _, err := n.keys.EnsureAdmin(ctx); err != nil {
		return err
	}
	objects, err := engine.Objects(ctx, "blobs")
	if err != nil {
		return err
	}
	n.depot, err = artifact.Open(artifact.Config{
		Objects: objects, Dir: filepath.Join(d.cfg.Data, "code"), MaxCache: d.cfg.Code.Cache, Logger: d.log.With("part", "artifact"),
	})
	if err != nil {
		return err
	}
	closing.add("artifact", n.depot.Close)
	records, err := engine.Bucket(ctx, "registry", 1)
	if err != nil {
		return err
	}
	if err := d.openImages(ctx, n, records); err != nil {
		return err
	}
	n.journal, err = journal.Open(ctx, journal.Config{
		Engine: engine, Dir: filepath.Join(d.cfg.Data, "journal"), MaxAge: d.cfg.Retention.Age, MaxBytes: d.cfg.Retention.Bytes,
		Logger: d.log.With("part", "journal"),
	})
	if err != nil {
		return err
	}
	closing.add("journal", n.journal.Close)
	return d.openQueue(ctx, n, engine, closing)
}

// openMachine finds out what this machine can run and builds what runs it.
func (d *Daemon) openMachine(ctx context.Context, n *node, closing *closers) (err error) {
	n.runtimes, err = runtimes.Discover(ctx, runtimes.Config{Dir: filepath.Join(d.cfg.Data, "runtimes"), Logger: d.log.With("part", "runtimes")})
	if err != nil {
		return err
	}
	n.host, err = sandbox.New(sandbox.Config{
		Dir: filepath.Join(d.cfg.Data, "sandbox"), RootDirs: n.runtimes.RootDirs(), Prefix: d.cfg.Prefix,
		Egress: d.cfg.egress(), Logger: d.log.With("part", "sandbox"),
	})
	if err != nil {
		return err
	}
	closing.add("sandbox", n.host.Close)
	n.worker = worker.New(worker.Config{
		Node: d.cfg.Node, Sandbox: n.host, Runtimes: n.runtimes, Depot: n.depot, Secrets: n.catalog.OpenSecrets,
		Stray: func(rev *faas.Revision, instance string, lines []faas.LogLine) {
			d.recordStray(n, rev, instance, lines)
		},
		Memory: d.cfg.Memory, Keep: policy.KeepConfig{Oracle: d.cfg.Keep.Policy == keepOracle, Idle: d.cfg.Keep.Idle, Price: d.cfg.Keep.Price},
		Histories: filepath.Join(d.cfg.Data, "histories"), Resolve: n.active, Logger: d.log.With("part", "worker"),
		Server: func() string { return n.inside }, ReuseAny: d.cfg.ReuseAny, NoStems: d.cfg.Stems.Off, StemMemory: d.cfg.Stems.Memory, Forks: !d.cfg.Stems.Off && !d.cfg.Stems.NoForks,
	})
	if n.installer, err = d.newInstaller(n); err != nil {
		return err
	}
	closing.add("installer", n.installer.Close)
	if n.builds, err = install.OpenBuilds(filepath.Join(d.cfg.Data, "install", "logs"), d.log.With("part", "install")); err != nil {
		return err
	}
	n.deployer, err = deploy.New(deploy.Config{
		Catalog: n.catalog, Depot: n.depot, Runtimes: n.runtimes, Sandbox: n.host, Install: n.installer, Images: n.images, Builds: n.builds, Prover: n.worker, Prefetch: n.worker.Prefetch,
		Dir: filepath.Join(d.cfg.Data, "deploy"), Unpack: artifact.Limits{Bytes: d.cfg.Code.Bytes, Entries: d.cfg.Code.Entries},
		Defaults: d.cfg.Limits, Ceiling: d.cfg.Ceiling, ReuseAny: d.cfg.ReuseAny, Step: d.step, Logger: d.log.With("part", "deploy"),
		CheckHook: func(name string, to faas.Destination) error { return n.dispatch.CheckHook(name, to) },
	})
	if err != nil {
		return err
	}
	n.dispatch = dispatch.New(dispatch.Config{
		Catalog: n.catalog, Node: n.worker, Recorder: n.journal,
		MaxWaiting: d.cfg.Queue.Function, MaxNamespace: d.cfg.Queue.Namespace, Logger: d.log.With("part", "dispatch"),
		Queue: n.queue, Journal: n.journal, Async: d.cfg.async(), Chain: dispatch.ChainConfig{Depth: d.cfg.Chain.Depth, Calls: d.cfg.Chain.Calls}, Step: d.step,
		// The dialect is made later, and before anything is called.
		Env: map[string]func(context.Context, *faas.Revision, *faas.Invocation) (map[string]string, error){
			faas.ContractOpenWhisk: func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (map[string]string, error) {
				return n.whisk.Env(ctx, rev, inv)
			},
		},
		Next: map[string]func(context.Context, *faas.Invocation, string) (faas.Name, error){
			faas.ContractOpenWhisk: func(ctx context.Context, inv *faas.Invocation, action string) (faas.Name, error) {
				return n.whisk.Next(ctx, inv, action)
			},
		},
		Steps: map[string]int{faas.ContractOpenWhisk: d.cfg.OpenWhisk.Sequence},
		Note: map[string]func(*faas.Revision, *faas.Invocation) json.RawMessage{
			faas.ContractOpenWhisk: func(rev *faas.Revision, inv *faas.Invocation) json.RawMessage { return n.whisk.Note(rev, inv) },
		},
	})
	n.catalog.OnChange(func(e catalog.Event) {
		follow(n, e)
		d.dropCalls(n, e)
	})
	return nil
}

// follow ends the instances that a change of the catalog made old.
func follow(n *node, e catalog.Event) {
	switch e.Kind {
	case catalog.FunctionChanged:
		n.worker.Forget(e.Function.Name, e.Function.Active)
		if rev, err := n.catalog.Revision(e.Function.Name, e.Function.Active); err == nil {
			n.worker.Hold(rev)
		}
	case catalog.FunctionDeleted:
		n.worker.Forget(e.Function.Name)
	case catalog.SecretChanged, catalog.SecretDeleted:
		n.worker.ForgetSecret(e.Namespace, e.Secret)
	case catalog.NamespaceDeleted:
		n.worker.ForgetNamespace(e.Namespace)
	}
}

// recordStray keeps lines that belong to no call as a record of their own.
func (d *Daemon) recordStray(n *node, rev *faas.Revision, instance string, lines []faas.LogLine) {
	now := time.Now()
	n.journal.Record(&faas.Activation{
		ID: faas.NewID(now), Namespace: rev.Name.Namespace, Function: rev.Name.Path(), Revision: rev.ID, Runtime: rev.Runtime,
		Kind: faas.KindInstance, Node: d.cfg.Node, Instance: instance, Timing: faas.Timing{Begin: now}, Logs: lines,
	})
}

// openDoor builds the API and the gateway before it.
func (d *Daemon) openDoor(n *node) (*gateway.Gateway, error) {
	server, err := api.New(api.Config{
		Catalog: n.catalog, Dispatcher: n.dispatch, Queue: n.queue, Deployer: n.deployer, Builds: n.builds, Journal: n.journal, Keys: n.keys,
		Triggers: n.triggers, Subjects: n.subjects, CheckKinds: openwhisk.CheckKinds,
		Runtimes: func() []api.Runtime { return describeRuntimes(n.runtimes) },
		Nodes:    func() []faas.NodeStatus { return []faas.NodeStatus{n.worker.Status()} },
		Doctor:   func(ctx context.Context) api.Doctor { return n.examine(ctx) },
		Ready: func() (bool, string) {
			if d.ready.Load() {
				return true, ""
			}
			return false, "the node is starting or stopping"
		},
		Version: d.Version, Dir: d.cfg.Data, URL: d.cfg.URL, MaxCode: d.cfg.Code.Bytes, MaxImage: d.cfg.Images.Limits.Packed, Logger: d.log.With("part", "api"),
	})
	if err != nil {
		return nil, err
	}
	n.whisk = d.openWhisk(n)
	return gateway.New(gateway.Config{
		API: server, Registry: n.registry, OpenWhisk: n.whisk, Keys: n.keys, Listen: d.cfg.Listen, Cert: d.cfg.TLS.Cert, Key: d.cfg.TLS.Key,
		Inside: n.host.Door, Visitor: n.host.Visitor,
		Grace: d.cfg.Drain, Logger: d.log.With("part", "gateway"),
	})
}

// collectEvery is how often code is looked for that nothing points at.
const collectEvery = 10 * time.Minute

// collect removes such code.
func (d *Daemon) collect(ctx context.Context, n *node) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		live := n.catalog.Digests()
		n.deployer.Live(func(digest faas.Digest) { live[digest] = true })
		if err := collectLayers(n, live); err != nil {
			d.log.Warn("collect layers of dependencies", "error", err)
		}
		if err := collectImages(n, live); err != nil {
			d.log.Warn("collect images", "error", err)
		}
		if err := n.depot.Collect(ctx, func(digest faas.Digest) bool { return live[digest] }); err != nil && ctx.Err() == nil {
			d.log.Warn("collect unused code", "error", err)
		}
		if err := n.deployer.CollectCaches(); err != nil {
			d.log.Warn("collect build caches", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
