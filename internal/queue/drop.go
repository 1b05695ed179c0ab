package queue

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Clear implements Queue.
func (q *Durable) Clear(ctx context.Context, function faas.Name) (int, error) {
	const op = "clear queue"
	if err := function.Validate(); err != nil {
		return 0, err
	}
	f := q.function(function)
	n, err := q.clear(ctx, f, true)
	return n, q.failure(op, err)
}

// Drop implements Queue.
func (q *Durable) Drop(ctx context.Context, name faas.Name) error {
	const op = "drop queue"
	if name.Namespace == "" {
		return faas.Errorf(faas.Invalid, op, "no namespace is given")
	}
	for _, f := range q.of(name) {
		if err := q.drop(ctx, f); err != nil {
			return q.failure(op, err)
		}
	}
	return nil
}

func (q *Durable) drop(ctx context.Context, f *function) error {
	dead, err := q.purge(ctx, q.dead, "dlq."+f.subject, nil)
	if err != nil {
		return err
	}
	if _, err := q.purge(ctx, q.keys, "invokekey."+f.subject, nil); err != nil {
		return err
	}
	if err := q.storePause(ctx, f.name, false); err != nil {
		return err
	}
	if _, err := q.clear(ctx, f, false); err != nil {
		return err
	}
	err = q.index.do(func(t *txn) error {
		fn, err := t.fn(f)
		if err != nil {
			return err
		}
		n, err := t.exec(`DELETE FROM dead WHERE fn = ? AND seq <= ?`, fn, int64(dead))
		if err != nil {
			return err
		}
		t.change(change{f: f, dead: -n})
		_, err = t.exec(`DELETE FROM key WHERE fn = ?`, fn)
		return err
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	f.paused = false
	return nil
}

// purge removes from a stream what a subject has, and returns up to which sequence that was: what
// is pushed meanwhile stays. first is done in between.
func (q *Durable) purge(ctx context.Context, p *part, subject string, first func() error) (uint64, error) {
	info, err := p.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	last := info.State.LastSeq
	if first != nil {
		if err := first(); err != nil {
			return 0, err
		}
	}
	if err := p.stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(last+1)); err != nil {
		return 0, fmt.Errorf("purge %s: %w", p.name, err)
	}
	fault("drop: purged")
	// It is not synced as a removal is: without this a power cut may bring back what was purged.
	return last, q.config.Engine.Sync()
}

// clear removes what waits of a function: by the subject, since a removal of each by itself would
// take minutes for a million. With keep, what is handed out stays.
func (q *Durable) clear(ctx context.Context, f *function, keep bool) (int, error) {
	last, err := q.purge(ctx, f.part, "invoke."+f.subject+".*", func() error {
		if !keep {
			return nil
		}
		return q.relocate(ctx, f)
	})
	if err != nil {
		return 0, err
	}
	const atOnce = 2000 // so that others' turns come in between
	all := 0
	for {
		n := 0
		err := q.index.do(func(t *txn) error {
			n = 0
			fn, err := t.fn(f)
			if err != nil {
				return err
			}
			return t.rows(func(r *sql.Rows) error {
				c := change{f: f, count: -1, owned: -1}
				var owner sql.NullString
				err := r.Scan(&c.state, &c.bytes, &owner)
				c.bytes, c.owner = -c.bytes, owner.String
				t.change(c)
				n++
				return err
			}, `DELETE FROM letter WHERE place IN (SELECT place FROM letter INDEXED BY letter_by_id WHERE fn = ? AND state <> 3 AND seq <= ? LIMIT ?) RETURNING state, size, owner`,
				fn, int64(last), atOnce)
		})
		if all += n; err != nil {
			return all, err
		}
		if n == 0 {
			break
		}
	}
	// A row that lost its first, and has one that came after, goes on.
	return all, q.index.do(func(t *txn) error { return t.headRows(f, q.now()) })
}

// relocate gives what is handed out of a function new copies, which are beyond what is purged.
func (q *Durable) relocate(ctx context.Context, f *function) error {
	q.mu.Lock()
	var held []*lease
	for _, l := range q.leases {
		if l.f == f {
			held = append(held, l)
		}
	}
	q.mu.Unlock()
	for _, l := range held {
		if err := l.relocate(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *lease) relocate(ctx context.Context) error {
	q := l.queue
	l.mu.Lock() // no settlement is under way
	defer l.mu.Unlock()
	if l.settled.Load() {
		return nil
	}
	if l.note == nil { // it was marked a moment ago
		if err := l.fetch(ctx); err != nil {
			if isGone(err) {
				return nil
			}
			return err
		}
	}
	n := *l.note
	n.Attempt, n.Place, n.From, n.Dead = l.attempt, l.place, l.seq, 0
	m, err := n.message(subjectOf(l.f, &n), l.data)
	if err != nil {
		return err
	}
	flight, err := q.publish(ctx, l.f.part, m, fmt.Sprintf("move-%s-%d", n.ID, l.seq))
	if err != nil || flight == nil {
		return err
	}
	fault("clear: copied")
	err = q.index.do(func(t *txn) error {
		t.lands(l.f.part, flight)
		_, err := t.exec(`UPDATE letter SET seq = ? WHERE place = ?`, int64(flight.seq), l.place)
		return err
	})
	if err != nil {
		l.f.part.lose(flight)
		return err
	}
	l.seq = flight.seq
	return nil
}

// headRows lets the first of every row of a function go that has none under way.
func (t *txn) headRows(f *function, now int64) error {
	fn, err := t.fn(f)
	if err != nil {
		return err
	}
	var rows []string
	err = t.rows(func(r *sql.Rows) error {
		var row string
		err := r.Scan(&row)
		rows = append(rows, row)
		return err
	}, `SELECT DISTINCT line FROM letter WHERE fn = ? AND line IS NOT NULL`, fn)
	for _, row := range rows {
		if err == nil {
			err = t.next(f, row, now)
		}
	}
	return err
}
