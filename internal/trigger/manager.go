package trigger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Manager is made of.
type Config struct {
	Catalog    *catalog.Catalog
	Dispatcher *dispatch.Dispatcher
	State      store.Store // for what sources have to remember
	// Dial connects to what tenants name; nil: to nothing.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Files  []Opened // what of this machine's disk sources may watch
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
	// Kinds are of sources besides schedules, web hooks and files.
	Kinds []Kind

	// A source that failed is run again after a time that doubles from the first to the second.
	// Default 1 s and 1 min.
	RetryLeast, RetryMost time.Duration
}

// Manager runs the sources of all triggers. It is safe for concurrent use.
type Manager struct {
	cfg      Config
	kinds    []Kind
	dialects map[string]DialectFire // not changed after Run has begun

	mu      sync.Mutex
	runs    map[string]*running // guarded by mu; by namespace/name
	changed chan struct{}       // holds one token when the catalog has changed
	work    sync.WaitGroup
}

// running is a source at work.
type running struct {
	trigger *faas.Trigger
	source  Source
	fire    Fire
	stop    context.CancelFunc

	mu     sync.Mutex
	status Status // guarded by mu
}

// Status is how a trigger's source fares.
type Status struct {
	Running bool      // it watches
	Error   string    // why it does not, or did not before; empty once an event was told
	Since   time.Time // since when
	Events  int64     // told since the server's start
	Failed  int64     // of these, not accepted
	Last    time.Time // when the last one was told; zero: none was
	Passed  Passed    // told, or not, and given up
}

// New returns a Manager; nothing is started.
func New(cfg Config) *Manager {
	cfg.RetryLeast = cmp.Or(cfg.RetryLeast, time.Second)
	cfg.RetryMost = cmp.Or(cfg.RetryMost, time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("this server connects to nothing")
		}
	}
	m := &Manager{cfg: cfg, kinds: kindsOf(cfg.Kinds), runs: map[string]*running{}, changed: make(chan struct{}, 1)}
	cfg.Catalog.OnChange(func(e catalog.Event) {
		switch e.Kind {
		case catalog.TriggerChanged, catalog.TriggerDeleted, catalog.SecretChanged, catalog.SecretDeleted:
			m.look(e)
		}
	})
	return m
}

// DialectFire calls what a trigger of another platform's API leads to. It keeps what Fire promises of the
// calls and the error.
type DialectFire func(ctx context.Context, t *faas.Trigger, e faas.Event) ([]Call, error)

// Register has triggers whose origin is the dialect fired by it. It is called before Run and Fire.
func (m *Manager) Register(dialect string, fire DialectFire) {
	if m.dialects == nil {
		m.dialects = map[string]DialectFire{}
	}
	m.dialects[dialect] = fire
}

// look has the sources compared with the catalog. A source whose secret has changed is begun anew.
func (m *Manager) look(e catalog.Event) {
	if e.Secret != "" {
		m.mu.Lock()
		for key, r := range m.runs {
			if r.trigger.Namespace == e.Namespace && contains(r.trigger.Source.Secrets, e.Secret) {
				r.stop()
				delete(m.runs, key)
			}
		}
		m.mu.Unlock()
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Run runs the sources until ctx ends, and returns when all have ended.
func (m *Manager) Run(ctx context.Context) error {
	defer func() {
		m.mu.Lock()
		for _, r := range m.runs {
			r.stop()
		}
		m.runs = map[string]*running{}
		m.mu.Unlock()
		m.work.Wait()
	}()
	for {
		m.reconcile(ctx)
		if err := m.forget(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("what deleted triggers remembered is not removed", "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
		}
	}
}

// reconcile starts and stops sources so that they are those of the catalog.
func (m *Manager) reconcile(ctx context.Context) {
	want := map[string]*faas.Trigger{}
	for _, t := range m.cfg.Catalog.Triggers("") {
		if t.Source != nil && !t.Paused {
			want[t.Namespace+"/"+t.Name] = t
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, r := range m.runs {
		if t := want[key]; t == nil || t.UID != r.trigger.UID || !t.Updated.Equal(r.trigger.Updated) {
			r.stop()
			delete(m.runs, key)
		}
	}
	for key, t := range want {
		if m.runs[key] != nil {
			continue
		}
		own, stop := context.WithCancel(ctx)
		r := &running{trigger: t, stop: stop, status: Status{Since: m.cfg.Now()}}
		m.runs[key] = r
		o := m.outside(t)
		o.passed = func(n int64, why string) { r.pass(n, why, m.cfg.Now()) }
		source, err := m.open(t, o)
		if err != nil {
			// It was checked when it was made, by another version perhaps.
			r.status.Error = err.Error()
			m.cfg.Logger.Warn("trigger not run", "trigger", key, "cause", err)
			continue
		}
		r.source, r.fire = source, m.firing(r)
		m.work.Go(func() { m.keepRunning(own, r) })
	}
}

// stateKey is where a trigger's source keeps what it remembers.
func stateKey(t *faas.Trigger) string { return statePrefix + t.Namespace + "/" + t.UID }

const statePrefix = "source/"

// forget removes what sources remembered whose triggers are no more.
func (m *Manager) forget(ctx context.Context) error {
	live := map[string]bool{}
	for _, t := range m.cfg.Catalog.Triggers("") {
		live[stateKey(t)] = true
	}
	records, err := m.cfg.State.List(ctx, statePrefix, "", 0)
	if err != nil {
		return err
	}
	for _, r := range records {
		if live[r.Key] {
			continue
		}
		if err := m.cfg.State.Delete(ctx, r.Key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (m *Manager) outside(t *faas.Trigger) Outside {
	return Outside{
		Log: m.cfg.Logger.With("trigger", t.Namespace+"/"+t.Name), Now: m.cfg.Now, Dial: m.cfg.Dial,
		State: bucketState{m.cfg.State, stateKey(t)},
		Secret: func(ctx context.Context, name string) (string, error) {
			if !contains(t.Source.Secrets, name) {
				return "", fmt.Errorf("the trigger does not name the secret %q", name)
			}
			values, _, err := m.cfg.Catalog.OpenSecrets(ctx, t.Namespace, []string{name})
			return values[name], err
		},
	}
}

// firing is Fire for a source, with its events counted.
func (m *Manager) firing(r *running) Fire {
	return func(ctx context.Context, e faas.Event) (Fired, error) {
		fired, err := m.Fire(ctx, r.trigger.Namespace, r.trigger.Name, e)
		if why := fired.uncalled(); err == nil && why != nil {
			r.pass(1, fmt.Sprintf("no function could be called with event %.200q: %s", e.ID, faas.AsError(why).Message()), m.cfg.Now())
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.status.Events++
		r.status.Last = m.cfg.Now()
		if err != nil {
			r.status.Failed++
		} else {
			r.status.Error = "" // it fares well again
		}
		return fired, err
	}
}

// keepRunning runs a source, again and again if it fails, until ctx ends.
func (m *Manager) keepRunning(ctx context.Context, r *running) {
	wait := m.cfg.RetryLeast
	for ctx.Err() == nil {
		begun := time.Now()
		r.set(true, "", m.cfg.Now())
		err := r.source.Run(ctx, r.fire)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		r.set(false, faas.Told(err), m.cfg.Now())
		m.cfg.Logger.Warn("trigger's source failed; it is tried again", "trigger", r.trigger.Namespace+"/"+r.trigger.Name, "cause", err)
		if time.Since(begun) > m.cfg.RetryMost {
			wait = m.cfg.RetryLeast
		}
		// A tenth more or less, so that many whose broker went away do not come back at once.
		timer := time.NewTimer(wait + time.Duration((rand.Float64()-0.5)/5*float64(wait)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait = min(2*wait, m.cfg.RetryMost)
	}
}

func (r *running) set(runs bool, failure string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Running != runs {
		r.status.Since = now
	}
	r.status.Running = runs
	if failure != "" {
		r.status.Error = failure
	}
}

// Status says how a trigger's source fares; the zero value of one that has none or is paused.
func (m *Manager) Status(namespace, name string) Status {
	m.mu.Lock()
	r := m.runs[namespace+"/"+name]
	m.mu.Unlock()
	if r == nil {
		return Status{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Next returns at most n times at which the trigger will fire by itself, if its source knows.
func (m *Manager) Next(t *faas.Trigger, after time.Time, n int) []time.Time {
	if t.Source == nil {
		return nil
	}
	source, err := m.open(t, Outside{})
	if err != nil {
		return nil
	}
	p, ok := source.(Planned)
	if !ok {
		return nil
	}
	return p.Next(after, n)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

// Listens says whether a trigger takes events as requests: nil, or NotFound.
func (m *Manager) Listens(namespace, name string) error {
	_, _, err := m.listener(namespace, name)
	return err
}

// Answer hands a request to the source of a trigger whose events come as requests; NotFound if it has
// none. Errors are not answered yet.
func (m *Manager) Answer(w http.ResponseWriter, r *http.Request, namespace, name string, body []byte) error {
	l, fire, err := m.listener(namespace, name)
	if err != nil {
		return err
	}
	return l.Answer(w, r, body, fire)
}

func (m *Manager) listener(namespace, name string) (Listener, Fire, error) {
	m.mu.Lock()
	run := m.runs[namespace+"/"+name]
	m.mu.Unlock()
	if run != nil {
		if l, ok := run.source.(Listener); ok {
			return l, run.fire, nil
		}
	}
	return nil, nil, faas.Errorf(faas.NotFound, "take web hook", "there is no web hook here")
}
