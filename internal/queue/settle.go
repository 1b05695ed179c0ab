package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// settleTimeout bounds what the engine may take for one step. A settlement that begins goes to its
// end whatever becomes of its caller's context.
const settleTimeout = 10 * time.Second

// retryLong is from when on a delay that was no attempt is worth a new copy of the message: a
// shorter one may be lost with the index.
const retryLong = time.Minute

// Done implements Lease.
func (l *lease) Done(ctx context.Context) error {
	return l.settle(ctx, "finish invocation", l.finish)
}

// finish settles the message and then removes what the index has of it. It may be called again.
func (l *lease) finish(ctx context.Context) error {
	if err := l.strike(ctx); err != nil {
		return err
	}
	fault("done: removed")
	return l.queue.forget(l)
}

// strike settles the message for good. It is called with mu held.
func (l *lease) strike(ctx context.Context) error {
	return l.queue.strike(ctx, l.f, l.seq, l.note.ID, int64(len(l.data)))
}

// settle runs the steps of a settlement. If one fails, as on a full disk, Run tries again until it
// succeeds: the invocation comes once more only if the process ends before.
func (l *lease) settle(ctx context.Context, op string, steps func(context.Context) error) error {
	if l.settled.Swap(true) {
		return ErrSettled
	}
	q := l.queue
	try := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, settleTimeout)
		defer cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		return steps(ctx)
	}
	err := try(context.WithoutCancel(ctx))
	if err == nil {
		return nil
	}
	q.mu.Lock()
	q.owed = append(q.owed, try)
	q.mu.Unlock()
	return q.failure(op, fmt.Errorf("%w (it is tried again until it succeeds)", err))
}

// Retry implements Lease.
func (l *lease) Retry(ctx context.Context, after time.Duration, why error) error {
	after = max(after, 0)
	n := *l.note
	n.Due, n.After = ceil(l.queue.config.clock.wall().Add(after)), after.Microseconds()
	n.Attempt, n.Place, n.Dead = l.attempt, l.place, 0
	if why == nil {
		n.Attempt--
		n.Why = l.note.Why
	} else {
		n.Why = plainWhy(why)
	}
	// Where something is to be kept a new copy of the message keeps it. If it can't be written the
	// index keeps it, which a kill does not touch, nor anything but the loss of the index.
	if why != nil || after > retryLong {
		return l.settle(ctx, "put off invocation", l.copier(&n))
	}
	return l.settle(ctx, "put off invocation", func(context.Context) error { return l.putOff(&n) })
}

func (l *lease) putOff(n *note) error {
	q := l.queue
	return q.index.do(func(t *txn) error {
		q.letGo(t, l)
		return t.putOff(l.f, l.place, n, q.now())
	})
}

// copier returns the steps of a retry, of which each is done once.
func (l *lease) copier(n *note) func(context.Context) error {
	q, p := l.queue, l.f.part
	var copied *flight
	bytes := 0
	return func(ctx context.Context) error {
		if copied == nil {
			n.From = l.seq
			m, err := n.message(subjectOf(l.f, n), l.data)
			if err != nil {
				return err
			}
			bytes = size(m)
			if copied, err = q.publish(ctx, p, m, fmt.Sprintf("retry-%s-%d", n.ID, l.seq)); err != nil || copied == nil {
				q.config.Logger.Warn("retry kept by the index alone", "invocation", n.ID, "cause", err)
				return l.putOff(n)
			}
			fault("retry: copied")
		}
		if err := l.strike(ctx); err != nil {
			return err
		}
		fault("retry: removed")
		return q.index.do(func(t *txn) error {
			q.letGo(t, l)
			t.lands(p, copied)
			return t.moved(l.f, n, l.place, copied.seq, bytes, q.now())
		})
	}
}

// Bury implements Lease.
func (l *lease) Bury(ctx context.Context, why error) error {
	q := l.queue
	n := *l.note
	n.Queued, n.Attempt, n.Why = q.now(), l.attempt, plainWhy(why)
	n.Place, n.Dead = l.place, 0
	var copied *flight
	asked := false
	return l.settle(ctx, "bury invocation", func(ctx context.Context) error {
		// First the copy, then the removal: a crash in between is mended by the copy's note.
		if !asked {
			n.From = l.seq
			m, err := n.message("dlq."+l.f.subject, l.data)
			if err != nil {
				return err
			}
			if copied, err = q.publish(ctx, q.dead, m, fmt.Sprintf("bury-%d-%d", l.place, l.seq)); err != nil {
				return err
			}
			asked = true // without a flight Run finds the copy
			fault("bury: copied")
		}
		if err := l.strike(ctx); err != nil {
			return err
		}
		fault("bury: removed")
		var older uint64
		err := q.index.do(func(t *txn) (err error) {
			q.letGo(t, l)
			if copied != nil {
				t.lands(q.dead, copied)
				if older, err = t.bury(l.f, n.ID, copied.seq); err != nil {
					return err
				}
			}
			return t.remove(l.f, l.place, q.now())
		})
		if err == nil && older > 0 {
			err = q.dead.delete(ctx, older)
		}
		return err
	})
}

// Cancel implements Queue.
func (q *Durable) Cancel(ctx context.Context, namespace string, id faas.ID) (*faas.Invocation, error) {
	const op = "cancel invocation"
	w, l, err := q.look(ctx, namespace, id)
	if err != nil {
		return nil, err
	}
	if w.Stage == faas.StageRunning {
		return nil, handedOut(id)
	}
	// Whoever marks it has it: Pull, or another Cancel, does not get it any more.
	marked := false
	err = q.index.do(func(t *txn) (err error) {
		var from state
		marked, err = t.one(`SELECT state, seq FROM letter WHERE place = ? AND state <> 3`, []any{l.place}, &from, &l.seq)
		if err != nil || !marked {
			return err
		}
		t.committed = append(t.committed, func() { q.hold(l) })
		return t.turn(l.f, l.place, from, running)
	})
	switch {
	case err != nil:
		return nil, q.failure(op, err)
	case !marked:
		if _, _, err := q.look(ctx, namespace, id); err != nil {
			return nil, err
		}
		return nil, handedOut(id)
	}
	fault("cancel: marked")
	l.mu.Lock()
	err = l.fetch(ctx)
	l.mu.Unlock()
	if isGone(err) {
		return nil, firstError(q.failure(op, q.forget(l)), notWaiting(id))
	}
	if err != nil {
		if back := q.restore(l); back != nil {
			q.config.Logger.Warn("invocation not put back", "invocation", id, "cause", back)
		}
		return nil, q.failure(op, err)
	}
	return l.inv, l.settle(ctx, op, func(ctx context.Context) error {
		if err := l.strike(ctx); err != nil {
			return err
		}
		fault("cancel: removed")
		return q.forget(l)
	})
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *Durable) restore(l *lease) error {
	return q.index.do(func(t *txn) error {
		q.letGo(t, l)
		return t.restore(l.f, l.place, false, q.now())
	})
}
