package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

// fault is called between any two steps that a crash may separate; tests stop the process there.
var fault = func(string) {}

// lease is a Lease on a message of the engine, or the hold that a cancellation has on one.
type lease struct {
	queue   *Durable
	f       *function
	place   int64
	attempt int
	settled atomic.Bool

	mu   sync.Mutex // held by a settlement, and by Clear
	seq  uint64     // guarded by mu
	note *note      // guarded by mu until the lease is handed out, then fixed; so are the next two
	data []byte
	inv  *faas.Invocation
}

func (l *lease) Invocation() *faas.Invocation { return l.inv }

// Due implements Queue.
func (q *Durable) Due(ctx context.Context) ([]faas.Name, <-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []faas.Name
	for f := range q.due {
		if !f.paused {
			out = append(out, f.name)
		}
	}
	slices.SortFunc(out, func(a, b faas.Name) int { return strings.Compare(a.String(), b.String()) })
	return out, q.wake, nil
}

// Pull implements Queue.
func (q *Durable) Pull(ctx context.Context, function faas.Name, most int) ([]Lease, error) {
	const op = "take from queue"
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		q.mu.Lock()
		f := q.functions[function]
		none := most <= 0 || f == nil || f.paused || f.count[ready] == 0
		q.mu.Unlock()
		if none {
			return nil, nil
		}
		out, err := q.take(ctx, f, most)
		if len(out) > 0 || err != nil {
			return out, q.failure(op, err)
		}
		if err := ctx.Err(); err != nil { // all that was marked is nobody's to have: there may be more
			return nil, err
		}
	}
}

// take marks what goes next, and reads it.
func (q *Durable) take(ctx context.Context, f *function, most int) ([]Lease, error) {
	var marked []*lease
	err := q.index.do(func(t *txn) error {
		marked = nil
		found, err := t.take(f, most)
		if err != nil {
			return err
		}
		for _, k := range found {
			marked = append(marked, &lease{queue: q, f: f, place: k.place, seq: k.seq, attempt: k.attempt})
		}
		t.committed = append(t.committed, func() { q.hold(marked...) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	fault("pull: marked")
	var out []Lease
	for i, l := range marked {
		l.mu.Lock()
		err := l.fetch(ctx)
		l.mu.Unlock()
		if isGone(err) {
			// Its function was dropped, or the streams lost what the index still has.
			q.config.Logger.Debug("invocation in the index alone", "function", f.name, "sequence", l.seq)
			if err := q.forget(l); err != nil {
				q.config.Logger.Warn("invocation not removed from the index", "function", f.name, "cause", err)
			}
			continue
		}
		if err != nil {
			if err := q.putBack(marked[i:]); err != nil {
				q.config.Logger.Warn("invocations not put back", "function", f.name, "cause", err)
			}
			if len(out) == 0 {
				return nil, err
			}
			break // what was leased must reach the caller
		}
		if l.attempt > q.config.MaxAttempts {
			why := fmt.Errorf("it was handed out %d times and never settled", l.attempt-1)
			if err := l.Bury(ctx, why); err != nil {
				q.config.Logger.Error("invocation not buried", "invocation", l.inv.ID, "cause", err)
			}
			continue
		}
		out = append(out, l)
	}
	return out, nil
}

// fetch reads the message.
func (l *lease) fetch(ctx context.Context) error {
	m, err := l.f.part.stream.GetMsg(ctx, l.seq)
	if err != nil {
		return err
	}
	if l.note, err = readNote(m.Header); err == nil {
		l.inv, err = decode(m.Data)
	}
	if err != nil {
		return fmt.Errorf("read message %d of %s: %w", l.seq, l.f.part.name, err)
	}
	l.data, l.inv.Attempt = m.Data, l.attempt
	return nil
}

func isGone(err error) bool { return errors.Is(err, jetstream.ErrMsgNotFound) }

func (q *Durable) hold(leases ...*lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range leases {
		q.leases[l.place] = l
	}
}

// letGo is told to a transaction that ends a lease.
func (q *Durable) letGo(t *txn, l *lease) {
	t.committed = append(t.committed, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.leases[l.place] == l {
			delete(q.leases, l.place)
		}
	})
}

// forget removes a message from the index that is not in its stream any more.
func (q *Durable) forget(l *lease) error {
	return q.index.do(func(t *txn) error {
		q.letGo(t, l)
		return t.remove(l.f, l.place, q.now())
	})
}

// putBack makes what was marked wait again; nobody had it.
func (q *Durable) putBack(leases []*lease) error {
	return q.index.do(func(t *txn) error {
		for _, l := range leases {
			q.letGo(t, l)
			if err := t.restore(l.f, l.place, true, q.now()); err != nil {
				return err
			}
		}
		return nil
	})
}
