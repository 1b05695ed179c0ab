// Package catalog knows what exists: namespaces, functions, their revisions, triggers, rules, secrets.
//
// A revision is an immutable document; a function is a small document that points at one of
// them. Publishing writes the revision first and then moves the pointer by compare-and-set: that
// one write is the deployment, and whatever dies before it leaves the old revision in force and
// an orphan, which is collected. What the documents say is also held in memory, kept fresh by a
// watch on the store, so resolving a name is a look-up in a map and needs neither disk nor quorum.
// Most functions are idle most of the time: there they lie packed, in a few hundred bytes, and are
// unpacked for as long as somebody uses them.
//
// Secrets' values are encrypted with a data key of their namespace, which is wrapped by the
// node's master key. They are opened for the worker that starts an instance and for nobody else.
//
// Bytes of code lie in package artifact; who may do what is decided by package auth.
package catalog

import (
	"cmp"
	"context"
	"crypto/cipher"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// DefaultNamespace exists from the start and cannot be deleted.
const DefaultNamespace = "default"

// Config says what a Catalog is made of. Zero of a limit means its default.
type Config struct {
	Store   store.Store // for functions, revisions and namespaces
	Secrets store.Store // for secrets and their data keys; another than Store
	Key     []byte      // 32 bytes, the master key; see LoadKey
	Logger  *slog.Logger

	MaxNamespaces int // default 1,000
	MaxFunctions  int // of one namespace; default 1,000
	MaxRevisions  int // kept of one function, the active one among them; default 10
	MaxSecrets    int // of one namespace; default 100
	MaxTriggers   int // of one namespace; default 500
	MaxRules      int // of one namespace; default 1,000
	MaxPackages   int // of one namespace; default 1,000
}

func (c *Config) applyDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.MaxNamespaces = cmp.Or(c.MaxNamespaces, 1000)
	c.MaxFunctions = cmp.Or(c.MaxFunctions, 1000)
	c.MaxRevisions = cmp.Or(c.MaxRevisions, 10)
	c.MaxSecrets = cmp.Or(c.MaxSecrets, 100)
	c.MaxTriggers = cmp.Or(c.MaxTriggers, 500)
	c.MaxRules = cmp.Or(c.MaxRules, 1000)
	c.MaxPackages = cmp.Or(c.MaxPackages, 1000)
}

// Catalog is safe for concurrent use. What its methods return is shared and must not be changed.
type Catalog struct {
	config Config      // fixed after Open
	master cipher.AEAD // fixed after Open
	ready  chan struct{}

	index atomic.Pointer[index] // names to what they resolve to; read without a lock

	apply  sync.Mutex // one document at a time enters the copy and is told to the listeners
	listen atomic.Pointer[[]func(Event)]

	mu         sync.RWMutex
	loading    bool                     // guarded by mu; nobody resolves yet
	watched    [2]store.Version         // guarded by mu; up to where Store and Secrets were read or watched
	seen       map[string]store.Version // guarded by mu; newest seen of a key; functions and revisions know their own
	namespaces map[string]*Namespace    // guarded by mu
	live       map[string]int           // guarded by mu; functions of each namespace that has any
	linked     linked                   // guarded by mu
	secrets    map[string]*secretState  // guarded by mu; by namespace

	writers sync.Map // namespace to *sync.Mutex: quotas are counted and kept under it
}

// The two stores, as the watch numbers them.
const (
	documents = iota
	secrets
)

// Open reads all documents into memory and returns when names can be resolved. It makes the
// default namespace when there is none, and fails if Key is not the one with which the secrets
// were written.
func Open(ctx context.Context, config Config) (*Catalog, error) {
	config.applyDefaults()
	c := &Catalog{
		config:     config,
		ready:      make(chan struct{}),
		seen:       map[string]store.Version{},
		namespaces: map[string]*Namespace{},
		live:       map[string]int{},
		linked:     newLinked(),
		secrets:    map[string]*secretState{},
		loading:    true,
	}
	c.index.Store(&index{})
	c.listen.Store(&[]func(Event){})
	var err error
	if c.master, err = newAEAD(config.Key); err != nil {
		return nil, fmt.Errorf("open catalog: master key: %w", err)
	}
	if err := c.checkKey(ctx); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	for i, s := range []store.Store{config.Store, config.Secrets} {
		if err := c.load(ctx, i, s); err != nil {
			return nil, fmt.Errorf("open catalog: %w", err)
		}
	}
	c.mu.Lock()
	c.loading = false
	c.mu.Unlock()
	if _, err := c.createNamespace(ctx, DefaultNamespace); err != nil && faas.CodeOf(err) != faas.Conflict {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	close(c.ready)
	return c, nil
}

// load learns all that a store holds. It goes through a watch, since a list of everything would
// be in memory at once.
func (c *Catalog) load(ctx context.Context, from int, s store.Store) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records, err := s.Watch(ctx, "", 0)
	if err != nil {
		return err
	}
	read := 0
	for r := range records {
		if r.Key == "" {
			if read > manyRecords {
				debug.FreeOSMemory()
			}
			return nil
		}
		c.learn(from, r)
		read++
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.ErrClosed
}

// What reading this many records leaves behind in the heap is worth giving back at once: nothing
// that comes later needs as much.
const manyRecords = 10_000

// Ready is closed when names can be resolved, which is when Open returns.
func (c *Catalog) Ready() <-chan struct{} { return c.ready }

// How often Run looks for documents that nothing points to.
const collectInterval = 10 * time.Minute

// Run follows what other nodes write and removes what is orphaned, until ctx ends. The catalog
// shows its own writes whether or not Run is running.
func (c *Catalog) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.RLock()
	from := c.watched
	c.mu.RUnlock()
	docs, err := c.config.Store.Watch(ctx, "", from[documents])
	if err != nil {
		return watchEnd(ctx, err)
	}
	secs, err := c.config.Secrets.Watch(ctx, "", from[secrets])
	if err != nil {
		return watchEnd(ctx, err)
	}
	tick := time.NewTicker(collectInterval)
	defer tick.Stop()
	for {
		select {
		case r, ok := <-docs:
			if !ok {
				return watchEnd(ctx, store.ErrClosed)
			}
			c.learn(documents, r)
		case r, ok := <-secs:
			if !ok {
				return watchEnd(ctx, store.ErrClosed)
			}
			c.learn(secrets, r)
		case <-tick.C:
			if err := c.Collect(ctx); err != nil && ctx.Err() == nil {
				c.config.Logger.Warn("orphans not collected", "cause", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// watchEnd is what Run returns when a watch ends with err: nil if that is because ctx ended.
func watchEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch catalog: %w", err)
}

// lock keeps other writers of the namespace out until the returned function is called.
func (c *Catalog) lock(namespace string) (unlock func()) {
	m, _ := c.writers.LoadOrStore(namespace, new(sync.Mutex))
	mu := m.(*sync.Mutex)
	mu.Lock()
	return mu.Unlock
}
