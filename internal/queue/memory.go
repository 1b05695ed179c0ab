package queue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Memory returns a Queue that lives in this process's memory and is gone with it. It is made for
// tests: it looks at all that waits each time, and it has no end.
func Memory() Queue {
	return &memory{
		known: map[faas.ID]bool{}, keys: map[memoryKey]known{}, paused: map[faas.Name]bool{}, changed: make(chan struct{}),
	}
}

type memory struct {
	mu      sync.Mutex
	items   []*item             // guarded by mu; in the order of their Push
	known   map[faas.ID]bool    // guarded by mu; for good: this is for tests
	keys    map[memoryKey]known // guarded by mu
	paused  map[faas.Name]bool  // guarded by mu
	buried  []grave             // guarded by mu; in the order of their IDs
	changed chan struct{}       // guarded by mu; closed and replaced when something may be due
	timer   *time.Timer         // guarded by mu; closes changed when the next is due
}

type memoryKey struct {
	function faas.Name
	key      string
}

type known struct {
	id    faas.ID
	until time.Time
}

type grave struct {
	item *item
	why  string
	at   time.Time
}

type item struct {
	data    []byte
	id      faas.ID
	name    faas.Name
	wait    faas.Wait
	subject string
	owner   string
	cause   faas.ID
	queued  time.Time
	attempt int
	due     time.Time
	why     string // of the last attempt
	leased  bool
}

func newItem(inv *faas.Invocation, data []byte, now time.Time) *item {
	it := &item{
		data: data, id: inv.ID, name: inv.Function.Name, subject: inv.Subject, owner: inv.Owner, cause: inv.Cause, queued: now, due: now,
	}
	if inv.Wait != nil {
		it.wait = *inv.Wait
	}
	it.wait.Priority = cmp.Or(it.wait.Priority, faas.PriorityNormal)
	if it.wait.NotBefore.After(now) {
		it.due = it.wait.NotBefore
	}
	return it
}

func (it *item) waiting() faas.Waiting {
	w := faas.Waiting{
		ID: it.id, Function: it.name, Stage: faas.StageQueued, Priority: it.wait.Priority, Key: it.wait.Key, Order: it.wait.Order,
		Subject: it.subject, Cause: it.cause, Queued: it.queued, Due: it.due, Attempt: it.attempt, Error: it.why,
	}
	switch {
	case it.leased:
		w.Stage, w.Due = faas.StageRunning, time.Time{}
	case it.attempt > 0:
		w.Stage = faas.StageRetrying
	}
	return w
}

func (it *item) invocation() (*faas.Invocation, error) {
	inv, err := decode(it.data)
	if err == nil {
		inv.Attempt = it.attempt
	}
	return inv, err
}

func (m *memory) Push(ctx context.Context, inv *faas.Invocation) (faas.ID, error) {
	data, err := encode(inv)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	it := newItem(inv, data, now)
	if it.wait.Key != "" {
		k := memoryKey{it.name, it.wait.Key}
		if was, ok := m.keys[k]; ok && now.Before(was.until) {
			return was.id, nil
		}
		m.keys[k] = known{inv.ID, now.Add(keepKeys)}
	}
	if !m.known[inv.ID] {
		m.known[inv.ID] = true
		m.items = append(m.items, it)
		m.tell()
	}
	return inv.ID, nil
}

// tell is called with mu held.
func (m *memory) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// ready returns what may be handed out, in the order of the Push, and how long it is until the
// next is due that is not; 0 if there is none. It is called with mu held.
func (m *memory) ready(now time.Time) (out []*item, next time.Duration) {
	type row struct {
		name  faas.Name
		order string
	}
	begun := map[row]bool{}
	for _, it := range m.items {
		if it.wait.Order != "" {
			r := row{it.name, it.wait.Order}
			if begun[r] {
				continue // behind another that is not settled
			}
			begun[r] = true
		}
		if it.leased || m.paused[it.name] {
			continue
		}
		if wait := it.due.Sub(now); wait > 0 {
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		out = append(out, it)
	}
	return out, next
}

func (m *memory) Pull(ctx context.Context, function faas.Name, most int) ([]Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ready, _ := m.ready(time.Now())
	ready = slices.DeleteFunc(ready, func(it *item) bool { return it.name != function })
	slices.SortStableFunc(ready, func(a, b *item) int { return cmp.Compare(rank(a.wait.Priority), rank(b.wait.Priority)) })
	var out []Lease
	for _, it := range ready[:min(len(ready), max(most, 0))] {
		inv, err := it.invocation()
		if err != nil {
			return nil, err
		}
		it.leased = true
		it.attempt++
		inv.Attempt = it.attempt
		out = append(out, &memoryLease{queue: m, item: it, inv: inv})
	}
	return out, nil
}

func (m *memory) Due(ctx context.Context) ([]faas.Name, <-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ready, next := m.ready(time.Now())
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
	if next > 0 {
		m.timer = time.AfterFunc(next, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.tell()
		})
	}
	seen := map[faas.Name]bool{}
	var out []faas.Name
	for _, it := range ready {
		if !seen[it.name] {
			seen[it.name] = true
			out = append(out, it.name)
		}
	}
	return out, m.changed, nil
}

func (m *memory) find(namespace string, id faas.ID) (*item, error) {
	for _, it := range m.items {
		if it.id == id && it.name.Namespace == namespace {
			return it, nil
		}
	}
	return nil, notWaiting(id)
}

func (m *memory) Find(_ context.Context, namespace string, id faas.ID) (faas.Waiting, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it, err := m.find(namespace, id)
	if err != nil {
		return faas.Waiting{}, err
	}
	return it.waiting(), nil
}

func (m *memory) List(_ context.Context, f Filter) ([]faas.Waiting, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []faas.Waiting
	for _, it := range m.items {
		if w := it.waiting(); f.match(it.name, it.id) && (f.Stage == "" || f.Stage == w.Stage) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b faas.Waiting) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return page(f, out), nil
}

func (m *memory) Cancel(ctx context.Context, namespace string, id faas.ID) (*faas.Invocation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	it, err := m.find(namespace, id)
	if err != nil {
		return nil, err
	}
	if it.leased {
		return nil, handedOut(id)
	}
	inv, err := it.invocation()
	if err != nil {
		return nil, err
	}
	m.remove(it)
	return inv, nil
}

// remove is called with mu held.
func (m *memory) remove(gone *item) {
	m.items = slices.DeleteFunc(m.items, func(it *item) bool { return it == gone })
	if gone.wait.Order != "" {
		m.tell() // the next of its row
	}
}

func (m *memory) Pause(ctx context.Context, function faas.Name, paused bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if paused {
		m.paused[function] = true
	} else {
		delete(m.paused, function)
		m.tell()
	}
	return nil
}

func (m *memory) Depths(_ context.Context, namespace string) ([]Depth, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[faas.Name]*Depth{}
	of := func(n faas.Name) *Depth {
		if all[n] == nil {
			all[n] = &Depth{Function: n}
		}
		return all[n]
	}
	for _, it := range m.items {
		d := of(it.name)
		if it.leased {
			d.Running++
			continue
		}
		d.Waiting++
		if d.Oldest.IsZero() || it.queued.Before(d.Oldest) {
			d.Oldest = it.queued
		}
	}
	for _, g := range m.buried {
		of(g.item.name).Dead++
	}
	for n := range m.paused {
		of(n).Paused = true
	}
	var out []Depth
	for n, d := range all {
		if namespace == "" || n.Namespace == namespace {
			out = append(out, *d)
		}
	}
	slices.SortFunc(out, func(a, b Depth) int { return strings.Compare(a.Function.String(), b.Function.String()) })
	return out, nil
}

func (m *memory) Owned(owner string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, it := range m.items {
		if it.owner == owner {
			n++
		}
	}
	return n
}

func (m *memory) Clear(ctx context.Context, function faas.Name) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.items)
	m.items = slices.DeleteFunc(m.items, func(it *item) bool { return it.name == function && !it.leased })
	m.tell() // of its rows
	return before - len(m.items), nil
}

func (m *memory) Drop(ctx context.Context, name faas.Name) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	of := func(n faas.Name) bool { return n == name || name.Function == "" && n.Namespace == name.Namespace }
	m.items = slices.DeleteFunc(m.items, func(it *item) bool { return of(it.name) && !it.leased })
	m.buried = slices.DeleteFunc(m.buried, func(g grave) bool { return of(g.item.name) })
	for k := range m.keys {
		if of(k.function) {
			delete(m.keys, k)
		}
	}
	for n := range m.paused {
		if of(n) {
			delete(m.paused, n)
		}
	}
	return nil
}
