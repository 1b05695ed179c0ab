package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Host makes sandboxes on this machine.
type Host struct {
	cfg      Config
	log      *slog.Logger
	features Features
	lease    *lease
	filter   []byte        // compiled seccomp program; fixed
	masks    masks         // fixed
	rootless bool          // fixed
	standIn  bool          // spawners are this binary itself; fixed before ready is closed
	layout   *cgroupLayout // nil where there are no usable cgroups; fixed
	devnull  *os.File
	ready    chan struct{}

	root     *root
	bases    *bases
	maker    *netnsMaker
	nets     *pool[*netns]
	ways     *pool[*netns] // with a way out
	groups   *pool[*cgroup]
	egress   *egress
	noWay    error // why there is no egress; written before ready is closed
	watcher  *watcher
	visitors *visitors
	sweeper  *sweeper

	rewinders rewinders

	waitOnce sync.Once
	waitFile *os.File // the waiting program; nil until the first sandbox that waits
	waitErr  error

	mu       sync.Mutex
	running  bool                 // guarded by mu
	spawners []*spawner           // nil where one is being restarted; guarded by mu
	turn     int                  // guarded by mu
	changed  chan struct{}        // closed and replaced when spawners change; guarded by mu
	live     map[string]*Sandbox  // nil value while starting; guarded by mu
	uids     uidRange             // guarded by mu
	zygotes  map[*Zygote]struct{} // guarded by mu
	starting sync.WaitGroup       // Add under mu while running
	minding  sync.WaitGroup       // one or two goroutines per live sandbox
}

// New checks what this machine can do and removes what a predecessor with the same Dir left
// behind when it was killed: processes, cgroups, interfaces, the packet filter's table. It
// starts nothing. It fails if another server holds Dir or uses the same Prefix, and with an
// *UnsupportedError if sandboxes cannot be had here at all.
func New(cfg Config) (*Host, error) {
	if err := cfg.applyDefaults(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg:      cfg,
		log:      cfg.Logger,
		rootless: !mapsManyIDs("/proc/self/uid_map", cfg.UIDBase, cfg.UIDCount),
		ready:    make(chan struct{}),
		changed:  make(chan struct{}),
		live:     map[string]*Sandbox{},
		sweeper:  newSweeper(cfg.Logger),
		zygotes:  map[*Zygote]struct{}{},
	}
	h.uids = uidRange{base: cfg.UIDBase, count: cfg.UIDCount, used: map[int]bool{}}
	h.features = probe(cfg)
	h.standIn = cfg.GoInit || h.features.lacks(featureSpawner)
	if err := h.features.required(); err != nil {
		return nil, err
	}
	if h.rootless && cfg.GoInit {
		return nil, &UnsupportedError{Feature: featureSpawner, Why: "its stand-in in Go cannot make user namespaces, as it has threads", Fix: "run as root, or on amd64 or arm64 where memfd may be executed"}
	}
	program, err := compileSeccomp()
	if err != nil {
		return nil, err
	}
	h.filter = encodeFilter(program)
	h.masks = findMasks()
	h.layout, err = lookCgroups(ownCgroups(), cfg.Prefix)
	if err != nil {
		h.loss("no control groups; limits are watched instead", err)
		h.layout = nil
	}
	if h.lease, err = takeLease(cfg); err != nil {
		return nil, err
	}
	if err := h.lease.cleanUp(h.log); err != nil {
		h.lease.release()
		return nil, fmt.Errorf("clean up after a crash: %w", err)
	}
	return h, nil
}

// Features returns what New found.
func (h *Host) Features() Features { return h.features }

// Ready is closed when Start may be called.
func (h *Host) Ready() <-chan struct{} { return h.ready }

// Close releases what New took, for a Host whose Run is never called.
func (h *Host) Close() error { return h.lease.release() }

// Run starts spawners and pools and blocks until ctx ends. When it returns every sandbox is
// dead, and nothing is left on the machine. It may be called once.
func (h *Host) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, h.lease.release()) }()
	if h.devnull, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	defer h.devnull.Close()
	if h.layout != nil {
		if err := h.layout.settle(); err != nil {
			h.loss("no control groups; limits are watched instead", err)
			h.layout = nil
		}
	}
	if err := h.lease.write(h.layout); err != nil {
		return err
	}
	h.maker = newNetnsMaker()
	defer h.maker.close()

	stop, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends our own parts, after the sandboxes
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()

	h.egress, h.noWay = newEgress(h.cfg, h.lease, h.log)
	if h.noWay != nil {
		h.loss("sandboxes have no way out", h.noWay)
	} else {
		defer h.egress.close()
		parts.Go(func() { h.egress.serveNames(stop) })
	}
	gateway := netip.Addr{}
	if h.noWay == nil {
		gateway = h.egress.cfg.Egress.gateway()
	}
	if h.root, err = newRoot(h.cfg.RootDirs, gateway, h.rootless); err != nil {
		return err
	}
	defer h.root.close()
	if h.bases, err = newBases(h.root, filepath.Join(h.cfg.Dir, "skeletons"), etcFiles(gateway)["resolv.conf"]); err != nil {
		return err
	}
	defer h.bases.close()
	parts.Go(func() { h.bases.run(stop) })
	h.visitors = newVisitors()
	defer h.visitors.close()
	if h.layout == nil || !h.layout.has["memory"] {
		h.watcher = newWatcher()
		parts.Go(func() { h.watcher.run(stop) })
	}

	h.nets = newPool(h.cfg.NetPool, func() (*netns, error) { return h.maker.create(nil) }, (*netns).close)
	h.ways = newPool(h.cfg.EgressPool, func() (*netns, error) { return h.egress.create(h.maker) }, (*netns).close)
	h.groups = newPool(h.cfg.CgroupPool, h.makeGroup, h.discard)
	parts.Go(func() { h.nets.fill(stop, h.log) })
	if h.noWay == nil {
		parts.Go(func() { h.ways.fill(stop, h.log) })
	}
	if h.layout != nil {
		parts.Go(func() { h.groups.fill(stop, h.log) })
	}
	swept, closed := make(chan struct{}), make(chan struct{})
	go func() { defer close(swept); h.sweeper.run(closed) }()

	err = h.trySpawner()
	var keepers sync.WaitGroup
	started := make(chan error, h.cfg.Spawners)
	h.spawners = make([]*spawner, h.cfg.Spawners)
	for i := range h.spawners {
		if err != nil {
			started <- nil // as good as ended
			continue
		}
		keepers.Go(func() { h.keepSpawner(stop, i, started) })
	}
	for range h.spawners {
		if e := <-started; e != nil && err == nil {
			err = e
		}
	}
	if err == nil {
		h.mu.Lock()
		h.running = true
		h.mu.Unlock()
		close(h.ready)
		h.log.Info("sandboxes can be started", "spawners", len(h.spawners), "cgroups", h.layout.describe(), "rootless", h.rootless, "network", h.noWay == nil)
		<-ctx.Done()
	}
	h.stop()
	h.rewinders.close()
	if h.waitFile != nil {
		h.waitFile.Close()
	}
	cancel()
	keepers.Wait()
	parts.Wait() // a pool that is being filled still throws away what it made too late
	h.nets.drain()
	h.ways.drain()
	h.groups.drain()
	close(closed)
	<-swept
	if h.layout != nil {
		err = errors.Join(err, h.layout.unsettle())
	}
	return err
}

// stop lets no new sandbox begin and closes those there are.
func (h *Host) stop() {
	h.mu.Lock()
	h.running = false
	h.mu.Unlock()
	h.starting.Wait()
	h.mu.Lock()
	var all []*Sandbox
	for _, s := range h.live {
		all = append(all, s)
	}
	zygotes := slices.Collect(maps.Keys(h.zygotes))
	h.mu.Unlock()
	var closing sync.WaitGroup
	for _, z := range zygotes {
		closing.Go(func() { z.Close() })
	}
	for _, s := range all {
		closing.Go(func() { s.Close() })
	}
	closing.Wait()
	h.minding.Wait()
}

// makeGroup makes a control group with the limits that most sandboxes have.
func (h *Host) makeGroup() (*cgroup, error) {
	g, err := h.layout.create()
	if err != nil {
		return nil, err
	}
	if err := g.limit(defaultMemory, 0, defaultPIDs); err != nil {
		h.discard(g)
		return nil, fmt.Errorf("limit cgroup: %w", err)
	}
	return g, nil
}

// discard gives a cgroup to the sweeper.
func (h *Host) discard(g *cgroup) {
	if g != nil {
		g.closeFiles()
		h.sweeper.add(g)
	}
}

// uidRange hands out one user id per live sandbox, each as long after its last use as possible.
type uidRange struct {
	base, count, next int
	used              map[int]bool
}

func (u *uidRange) take() (int, error) {
	if len(u.used) >= u.count {
		return 0, fmt.Errorf("all %d user ids are in use", u.count)
	}
	for u.used[u.next] {
		u.next = (u.next + 1) % u.count
	}
	n := u.next
	u.used[n] = true
	u.next = (u.next + 1) % u.count
	return u.base + n, nil
}

func (u *uidRange) give(uid int) { delete(u.used, uid-u.base) }

// maxOpenFiles is the hard limit on descriptors, which only CAP_SYS_RESOURCE can raise.
func maxOpenFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return defaultFiles
	}
	return int(min(limit.Max, 1<<20))
}

// loss logs what this machine does not give. To an ordinary user's server it is nothing to be
// warned of: Probe tells it, and no setting of the machine has gone wrong.
func (h *Host) loss(what string, why error) {
	level := slog.LevelWarn
	if h.rootless {
		level = slog.LevelInfo
	}
	h.log.Log(context.Background(), level, what, "why", why)
}
