package queue

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"

	"github.com/brasa-dev/brasa/internal/faas"
)

// compare looks whether each stream has as many messages as the index has of it. Where not, as
// after a power cut, which may take the index back by some seconds, the two are compared one by one.
func (q *Durable) compare(ctx context.Context) error {
	for _, p := range append([]*part{q.dead}, q.parts...) {
		info, err := p.stream.Info(ctx)
		if err != nil {
			return err
		}
		n := q.ledger.leftOf(p)
		for _, f := range q.of(faas.Name{}) {
			switch p {
			case f.part:
				n += f.waiting() + f.count[running]
			case q.dead:
				n += f.dead
			}
		}
		if uint64(n) == info.State.Msgs {
			continue
		}
		q.config.Logger.Warn("index of the queue differs from its stream", "stream", p.name, "messages", info.State.Msgs, "index", n)
		var there []uint64
		if info.State.Msgs > 0 {
			if err := q.replay(ctx, p, info.State.FirstSeq, q.index.do, func(seq uint64) { there = append(there, seq) }); err != nil {
				return err
			}
		}
		if err := q.sweep(q.index.do, p, there); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes from the index what a stream does not have; there is sorted.
func (q *Durable) sweep(do doer, p *part, there []uint64) error {
	if p == q.keys {
		return nil // they end by themselves
	}
	type entry struct {
		f     *function
		place int64
		seq   uint64
	}
	for after := int64(0); ; {
		var page []entry
		last := after
		err := do(func(t *txn) error {
			page = nil
			query := `SELECT fn.name, letter.place, letter.seq FROM letter JOIN fn ON fn.id = letter.fn WHERE place > ? AND place & 63 = ` + strconv.Itoa(p.number) + ` ORDER BY place LIMIT 1000`
			if p == q.dead {
				query = `SELECT fn.name, dead.seq, dead.seq FROM dead JOIN fn ON fn.id = dead.fn WHERE seq > ? ORDER BY seq LIMIT 1000`
			}
			err := t.rows(func(r *sql.Rows) error {
				var name string
				var e entry
				if err := r.Scan(&name, &e.place, &e.seq); err != nil {
					return err
				}
				n, err := readName(name)
				if err != nil {
					return err
				}
				e.f = q.function(n)
				page = append(page, e)
				return nil
			}, query, after)
			if err != nil {
				return err
			}
			for _, e := range page {
				last = e.place
				if _, found := slices.BinarySearch(there, e.seq); found {
					continue
				}
				if p == q.dead {
					err = t.exhume(e.f, e.seq)
				} else {
					err = t.remove(e.f, e.place, q.now())
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(page) == 0 {
			return err
		}
		after = last
	}
}

// beginAnew replaces the index by an empty one.
func (q *Durable) beginAnew() error {
	q.index.whole = false
	if err := q.index.close(); err != nil {
		q.config.Logger.Debug("damaged index closed", "cause", err)
	}
	if err := q.index.remove(); err != nil {
		return err
	}
	if err := q.index.open(); err != nil {
		return err
	}
	q.mu.Lock()
	for _, f := range q.functions {
		q.bytes -= f.bytes
		f.id, f.count, f.dead, f.bytes = 0, [states]int{}, 0, 0
	}
	q.total = [states]int{}
	clear(q.owned)
	clear(q.due)
	q.mu.Unlock()
	for _, p := range q.streams() {
		p.restart()
	}
	return nil
}

// mend makes the index again from nothing. It is called with index.writing held.
func (q *Durable) mend() error {
	if err := q.beginAnew(); err != nil {
		return err
	}
	q.mu.Lock()
	held := slices.Collect(maps.Values(q.leases))
	q.mu.Unlock()
	ctx := context.Background() // whoever met the damage waits for it, as do all others
	if err := q.catchUp(ctx, q.index.once); err != nil {
		return err
	}
	err := q.index.once(func(t *txn) error {
		for _, l := range held {
			var s state
			found, err := t.one(`SELECT state FROM letter WHERE place = ?`, []any{l.place}, &s)
			if err == nil && found {
				err = t.turn(l.f, l.place, s, running)
			}
			if err == nil && found {
				_, err = t.exec(`UPDATE letter SET attempt = ? WHERE place = ?`, l.attempt, l.place)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	q.index.whole = err == nil
	return err
}
