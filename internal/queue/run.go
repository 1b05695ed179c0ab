package queue

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

const (
	// What failed is tried again this often, and the clock looked at.
	lookInterval  = time.Second
	pruneInterval = time.Minute
	// From here on a difference between the clocks is a step, not a drift.
	clockStep = time.Second
)

// Run lets those go that become due, and does what could not be done at once, until ctx ends. One
// Run at a time.
func (q *Durable) Run(ctx context.Context) error {
	clock := q.config.clock
	wall, steady := q.set.wall, q.set.steady
	look, prune := time.Now().Add(lookInterval), time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { q.cleaner(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.poke:
		case <-timer.C:
		}
		// A delay that was told in seconds stays that long when the clock is set; a time of day
		// stays that time.
		w, s := clock.wall(), clock.steady()
		if step := w.Sub(wall) - (s - steady); step.Abs() >= clockStep {
			q.config.Logger.Info("the clock was set", "by", step)
			q.warn(q.shift(step), "delays not moved with the clock")
			wall, steady = w, s
		}
		next, err := q.promote(micros(w)) // by the clock that was looked at: it may be set at any time
		q.warn(err, "what is due not found")
		if now := time.Now(); !now.Before(look) {
			look = now.Add(lookInterval)
			q.pay(ctx)
			if !now.Before(prune) {
				prune = now.Add(pruneInterval)
				q.warn(q.prune(ctx), "index of the queue not pruned")
			}
		}
		timer.Reset(min(next, max(time.Until(look), 0)))
	}
}

func (q *Durable) warn(err error, what string) {
	if err != nil {
		q.config.Logger.Warn(what, "cause", err)
	}
}

// promote lets those go that are due at a time, and says how long it is until the next.
func (q *Durable) promote(now int64) (time.Duration, error) {
	for {
		q.mu.Lock()
		none := q.total[later] == 0
		q.mu.Unlock()
		if none {
			return lookInterval, nil
		}
		const most = 1000
		n, next := 0, time.Duration(0)
		err := q.index.do(func(t *txn) error {
			n, next = 0, lookInterval
			var ids []int64
			err := t.rows(func(r *sql.Rows) error {
				var id int64
				err := r.Scan(&id)
				ids = append(ids, id)
				return err
			}, `UPDATE letter SET state = 0 WHERE place IN (SELECT place FROM letter WHERE state = 1 AND due <= ? ORDER BY due LIMIT ?) RETURNING fn`, now, most)
			if err != nil {
				return err
			}
			if n = len(ids); n > 0 {
				byID := q.byID()
				for _, id := range ids {
					t.change(change{f: byID[id], state: later, count: -1})
					t.change(change{f: byID[id], state: ready, count: 1})
				}
			}
			var due sql.NullInt64
			if _, err := t.one(`SELECT min(due) FROM letter WHERE state = 1`, nil, &due); err != nil {
				return err
			}
			if due.Valid {
				next = min(next, time.Duration(max(due.Int64-now, 0))*time.Microsecond)
			}
			return nil
		})
		if err != nil || n < most {
			if err != nil {
				next = lookInterval
			}
			return next, err
		}
	}
}

// byID is called with index.writing held, as all that runs in a transaction is.
func (q *Durable) byID() map[int64]*function {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make(map[int64]*function, len(q.functions))
	for _, f := range q.functions {
		if f.id != 0 {
			out[f.id] = f
		}
	}
	return out
}

// shift moves delays by what the clock was set by.
func (q *Durable) shift(step time.Duration) error {
	return q.index.do(func(t *txn) error {
		_, err := t.exec(`UPDATE letter SET due = due + ? WHERE state = 1 AND after > 0`, step.Microseconds())
		return err
	})
}

// pay does what could not be done at once: settlements that failed, and messages that the index
// refused.
func (q *Durable) pay(ctx context.Context) {
	q.mu.Lock()
	owed := q.owed
	q.owed = nil
	q.mu.Unlock()
	if len(owed) > 0 {
		_ = q.config.Engine.Room(0) // it brings a stream back that met the end of the disk
	}
	for i, try := range owed {
		if err := try(ctx); err != nil {
			q.warn(err, "settlement not written yet")
			q.mu.Lock()
			q.owed = append(owed[i:], q.owed...)
			q.mu.Unlock()
			break // the others will not fare better
		}
	}
	for _, p := range q.streams() {
		if len(p.lost()) > 0 {
			q.warn(q.catchUpPart(ctx, p, q.index.do), "index of the queue not brought up to its stream")
		}
	}
}

// prune forgets keys and dead letters that are too old.
func (q *Durable) prune(ctx context.Context) error {
	info, err := q.dead.stream.Info(ctx)
	if err != nil {
		return err
	}
	return q.index.do(func(t *txn) error {
		// Few at a time: whoever waits for the index is not to wait for this.
		if _, err := t.exec(`DELETE FROM key WHERE (fn, key) IN (SELECT fn, key FROM key WHERE until < ? LIMIT 20000)`, q.now()); err != nil {
			return err
		}
		byID := q.byID()
		return t.rows(func(r *sql.Rows) error {
			var id int64
			err := r.Scan(&id)
			t.change(change{f: byID[id], dead: -1})
			return err
		}, `DELETE FROM dead WHERE seq IN (SELECT seq FROM dead WHERE seq < ? LIMIT 20000) RETURNING fn`, int64(info.State.FirstSeq))
	})
}
