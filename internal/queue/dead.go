package queue

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// deadLetter is a dead letter in the index.
type deadLetter struct {
	f   *function
	id  faas.ID
	seq uint64
}

// graves returns what a filter chooses, by ID.
func (q *Durable) graves(ctx context.Context, f Filter) ([]deadLetter, error) {
	var out []deadLetter
	for _, x := range q.chosen(f) {
		q.mu.Lock()
		some := x.dead > 0
		q.mu.Unlock()
		if !some {
			continue
		}
		query, args := `SELECT id, seq FROM dead WHERE fn = (SELECT id FROM fn WHERE name = ?) AND id > ?`, []any{x.name.String(), blob(f.After)}
		if f.After == "" {
			args[1] = []byte{}
		}
		if f.ID != "" {
			query += ` AND id = ?`
			args = append(args, blob(f.ID))
		}
		limit := f.Limit
		if limit <= 0 {
			limit = -1
		}
		before := len(out)
		err := q.index.read(ctx, func() { out = out[:before] }, func(r *sql.Rows) error {
			d := deadLetter{f: x}
			var id []byte
			err := r.Scan(&id, &d.seq)
			d.id = faas.ID(hex.EncodeToString(id))
			out = append(out, d)
			return err
		}, query+` ORDER BY id LIMIT ?`, append(args, limit)...)
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b deadLetter) int { return cmp.Compare(a.id, b.id) })
	return page(f, out), nil
}

// exhume reads a dead letter; nil if it is gone, as one that was kept long enough is.
func (q *Durable) exhume(ctx context.Context, d deadLetter) (*faas.Invocation, *note, error) {
	m, err := q.dead.stream.GetMsg(ctx, d.seq)
	if isGone(err) {
		return nil, nil, q.index.do(func(t *txn) error { return t.exhume(d.f, d.seq) })
	}
	if err != nil {
		return nil, nil, err
	}
	n, err := readNote(m.Header)
	if err != nil {
		return nil, nil, err
	}
	inv, err := decode(m.Data)
	if err != nil {
		return nil, nil, err
	}
	inv.Attempt = n.Attempt
	return inv, n, nil
}

// Buried implements Queue.
func (q *Durable) Buried(ctx context.Context, f Filter) ([]Dead, error) {
	const op = "look at dead letters"
	graves, err := q.graves(ctx, f)
	if err != nil {
		return nil, q.failure(op, err)
	}
	var out []Dead
	for _, d := range graves {
		inv, n, err := q.exhume(ctx, d)
		if err != nil {
			return nil, q.failure(op, err)
		}
		if inv != nil {
			out = append(out, Dead{Invocation: inv, Why: n.Why, At: time.UnixMicro(n.Queued)})
		}
	}
	return out, nil
}

// Redrive implements Queue.
func (q *Durable) Redrive(ctx context.Context, f Filter) (int, error) {
	const op = "queue dead letters anew"
	graves, err := q.graves(ctx, f)
	if err != nil {
		return 0, q.failure(op, err)
	}
	for i, d := range graves {
		if err := q.redrive(ctx, d); err != nil {
			return i, q.failure(op, err)
		}
	}
	return len(graves), nil
}

func (q *Durable) redrive(ctx context.Context, d deadLetter) error {
	inv, _, err := q.exhume(ctx, d)
	if err != nil || inv == nil {
		return err
	}
	now := q.config.clock.wall()
	renew(inv, now)
	data, err := encode(inv)
	if err != nil {
		return err
	}
	n := noteOf(inv, now)
	n.Dead = d.seq
	m, err := n.message(subjectOf(d.f, n), data)
	if err != nil {
		return err
	}
	release, err := q.room(d.f, int64(size(m)))
	if err != nil {
		return err
	}
	defer release()
	flight, err := q.publish(ctx, d.f.part, m, fmt.Sprintf("redrive-%d", d.seq))
	if err != nil {
		return err
	}
	fault("redrive: copied")
	ctx = context.WithoutCancel(ctx)
	if err := q.dead.delete(ctx, d.seq); err != nil {
		if flight != nil {
			d.f.part.lose(flight) // it is found with the note, which says what is to be removed
		}
		return err
	}
	fault("redrive: removed")
	return q.index.do(func(t *txn) error {
		if err := t.exhume(d.f, d.seq); err != nil || flight == nil {
			return err
		}
		t.lands(d.f.part, flight)
		return t.enter(d.f, n, flight.seq, size(m), q.now())
	})
}

// Purge implements Queue.
func (q *Durable) Purge(ctx context.Context, f Filter) (int, error) {
	const op = "purge dead letters"
	graves, err := q.graves(ctx, f)
	if err != nil {
		return 0, q.failure(op, err)
	}
	for i, d := range graves {
		if err := q.dead.delete(ctx, d.seq); err != nil {
			return i, q.failure(op, err)
		}
		if err := q.index.do(func(t *txn) error { return t.exhume(d.f, d.seq) }); err != nil {
			return i, q.failure(op, err)
		}
	}
	return len(graves), nil
}
