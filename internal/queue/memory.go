package queue

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Memory returns a Queue that lives in this process's memory and is gone with it.
func Memory() OldQueue {
	return &memory{known: map[faas.ID]bool{}, changed: make(chan struct{})}
}

type memory struct {
	mu      sync.Mutex
	items   []*item          // guarded by mu; in the order of their Push
	known   map[faas.ID]bool // guarded by mu; for good: this is for tests
	buried  []grave          // guarded by mu
	changed chan struct{}    // guarded by mu; closed and replaced when something may be due
}

type grave struct {
	item *item
	why  string
	at   time.Time
}

type item struct {
	data    []byte
	attempt int
	due     time.Time
	leased  bool
}

func (m *memory) Push(ctx context.Context, inv *faas.Invocation) error {
	data, err := encode(inv)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known[inv.ID] {
		m.known[inv.ID] = true
		m.items = append(m.items, &item{data: data})
		m.tell()
	}
	return nil
}

// tell is called with mu held.
func (m *memory) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) Pull(ctx context.Context, most int) ([]Lease, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m.mu.Lock()
		out, next, err := m.take(most, time.Now())
		changed := m.changed
		m.mu.Unlock()
		if len(out) > 0 || err != nil {
			return out, err
		}
		timer := time.NewTimer(next)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// take leases what is due, or says how long to wait. It is called with mu held.
func (m *memory) take(most int, now time.Time) (out []Lease, next time.Duration, err error) {
	next = time.Hour
	for _, it := range m.items {
		if len(out) >= max(most, 1) {
			break
		}
		if it.leased {
			continue
		}
		if wait := it.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		inv, err := decode(it.data)
		if err != nil {
			return nil, 0, err
		}
		it.leased = true
		it.attempt++
		inv.Attempt = it.attempt
		out = append(out, &memoryLease{queue: m, item: it, inv: inv})
	}
	return out, next, nil
}

func (m *memory) Depth(context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items), nil
}

func (m *memory) Buried(_ context.Context, limit int) ([]Dead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Dead
	for _, g := range m.buried {
		if limit > 0 && len(out) == limit {
			break
		}
		inv, err := decode(g.item.data)
		if err != nil {
			return nil, err
		}
		inv.Attempt = g.item.attempt
		out = append(out, Dead{Invocation: inv, Why: g.why, At: g.at})
	}
	return out, nil
}

type memoryLease struct {
	queue   *memory
	item    *item
	inv     *faas.Invocation
	settled bool // guarded by queue.mu
}

func (l *memoryLease) Invocation() *faas.Invocation { return l.inv }

func (l *memoryLease) Done(ctx context.Context) error {
	return l.settle(ctx, l.remove)
}

func (l *memoryLease) Retry(ctx context.Context, after time.Duration, why error) error {
	return l.settle(ctx, func() {
		l.item.leased, l.item.due = false, time.Now().Add(after)
		l.queue.tell()
	})
}

func (l *memoryLease) Bury(ctx context.Context, why error) error {
	return l.settle(ctx, func() {
		l.remove()
		l.queue.buried = append(l.queue.buried, grave{l.item, why.Error(), time.Now()})
	})
}

func (l *memoryLease) remove() {
	l.queue.items = slices.DeleteFunc(l.queue.items, func(it *item) bool { return it == l.item })
}

func (l *memoryLease) settle(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	if l.settled {
		return ErrSettled
	}
	l.settled = true
	f()
	return nil
}
