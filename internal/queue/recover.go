package queue

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/brasa-dev/brasa/internal/faas"
)

// doer runs a write of the index.
type doer func(func(*txn) error) error

// recover brings the index to where the streams are, and makes what a process left behind wait
// again.
func (q *Durable) recover(ctx context.Context) error {
	if err := q.load(); err != nil {
		return err
	}
	if err := q.loadPauses(ctx); err != nil {
		return err
	}
	if err := q.loadLedger(ctx); err != nil {
		return err
	}
	if err := q.catchUp(ctx, q.index.do); err != nil {
		return err
	}
	if err := q.settleLeft(); err != nil {
		return err
	}
	err := q.index.do(func(*txn) error {
		q.index.whole = true
		return nil
	})
	if err != nil {
		return err
	}
	q.warn(q.clean(ctx, 0), "what is settled not removed yet") // a disk may be full, and this is tried again
	if err := q.comeBack(ctx); err != nil {
		return err
	}
	if err := q.compare(ctx); err != nil {
		return err
	}
	return q.index.do(func(t *txn) error {
		// No delay is longer from now than it was from then: where it is the clock was set back.
		_, err := t.exec(`UPDATE letter SET due = ?1 + after WHERE state = 1 AND after > 0 AND due > ?1 + after`, micros(q.set.wall))
		return err
	})
}

// load reads the figures of each function.
func (q *Durable) load() error {
	return q.index.do(func(t *txn) error {
		if _, err := t.exec(`DELETE FROM fn WHERE id NOT IN (SELECT fn FROM letter UNION SELECT fn FROM dead UNION SELECT fn FROM key)`); err != nil {
			return err
		}
		byID := map[int64]*function{}
		err := t.rows(func(r *sql.Rows) error {
			var id int64
			var name string
			if err := r.Scan(&id, &name); err != nil {
				return err
			}
			n, err := readName(name)
			if err != nil {
				return err
			}
			f := q.function(n)
			f.id, byID[id] = id, f
			return nil
		}, `SELECT id, name FROM fn`)
		if err != nil {
			return err
		}
		err = t.rows(func(r *sql.Rows) error {
			var id int64
			var c change
			err := r.Scan(&id, &c.state, &c.count, &c.bytes)
			c.f = byID[id]
			t.change(c)
			return err
		}, `SELECT fn, state, count(*), sum(size) FROM letter GROUP BY fn, state`)
		if err != nil {
			return err
		}
		err = t.rows(func(r *sql.Rows) error {
			var id int64
			var c change
			err := r.Scan(&id, &c.dead)
			c.f = byID[id]
			t.change(c)
			return err
		}, `SELECT fn, count(*) FROM dead GROUP BY fn`)
		if err != nil {
			return err
		}
		err = t.rows(func(r *sql.Rows) error {
			c := change{}
			err := r.Scan(&c.owner, &c.owned)
			t.change(c)
			return err
		}, `SELECT owner, count(*) FROM letter WHERE owner IS NOT NULL GROUP BY owner`)
		if err != nil {
			return err
		}
		for _, p := range q.streams() {
			var seq int64
			if _, err := t.one(`SELECT seq FROM seen WHERE stream = ?`, []any{p.name}, &seq); err != nil {
				return err
			}
			p.catchUpTo(uint64(seq), nil)
		}
		return nil
	})
}

// streams returns all, those first of which the others' entries depend.
func (q *Durable) streams() []*part { return append([]*part{q.dead, q.keys}, q.parts...) }

// catchUp reads what the index has not seen of the streams.
func (q *Durable) catchUp(ctx context.Context, do doer) error {
	for _, p := range q.streams() {
		if err := q.catchUpPart(ctx, p, do); err != nil {
			return fmt.Errorf("read stream %s: %w", p.name, err)
		}
	}
	return nil
}

func (q *Durable) catchUpPart(ctx context.Context, p *part, do doer) error {
	lost := p.lost()
	info, err := p.stream.Info(ctx)
	if err != nil {
		return err
	}
	from, end := p.safe(nil)+1, info.State.LastSeq
	if end+1 < from {
		// The stream is not the one that the index was made of.
		q.config.Logger.Warn("stream is older than its index", "stream", p.name, "sequence", end, "index", from-1)
		if err := q.sweep(do, p, nil); err != nil {
			return err
		}
		p.restart()
		from = 1
	}
	from = max(from, info.State.FirstSeq)
	if info.State.Msgs > 0 && from <= end {
		if end-from > 1000 {
			q.config.Logger.Info("index of the queue is brought up to its stream", "stream", p.name, "sequences", end-from+1)
		}
		if err := q.replay(ctx, p, from, do, nil); err != nil {
			return err
		}
	}
	p.catchUpTo(end, lost)
	return do(func(t *txn) error { return t.see(p.name, p.safe(nil)) })
}

// restart forgets what was seen of a stream.
func (p *part) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = 0
}

// comeBack makes those wait again that were handed out, or being cancelled, when the process ended.
func (q *Durable) comeBack(ctx context.Context) error {
	for _, f := range q.of(faas.Name{}) {
		var held []*lease
		err := q.index.do(func(t *txn) error {
			held = nil
			fn, err := t.fn(f)
			if err != nil {
				return err
			}
			return t.rows(func(r *sql.Rows) error {
				l := &lease{queue: q, f: f}
				err := r.Scan(&l.place, &l.seq)
				held = append(held, l)
				return err
			}, `SELECT place, seq FROM letter WHERE fn = ? AND state = 3 ORDER BY place`, fn)
		})
		if err != nil {
			return err
		}
		for _, l := range held {
			_, err := f.part.stream.GetMsg(ctx, l.seq)
			switch {
			case isGone(err):
				err = q.forget(l) // it was being settled
			case err == nil:
				err = q.restore(l)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
