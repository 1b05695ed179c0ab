package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	// What is settled is removed this often if it is not much.
	cleanInterval = time.Second
	// A message is removed by itself when it has been settled for so long, because one that came before
	// it waits still: all of a function up to there can't be.
	cleanAlone = 10 * time.Second
	// Of more functions that have something waiting in a partition it is not asked up to where all is settled.
	cleanAsk = 256
)

// cleaner removes what is settled, until ctx ends.
func (q *Durable) cleaner(ctx context.Context) {
	tick := time.NewTicker(cleanInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-q.ledger.many:
		}
		if err := q.clean(ctx, cleanAlone); err != nil && ctx.Err() == nil {
			q.warn(err, "what is settled not removed yet")
		}
	}
}

// clean removes from the streams what is settled: with one command what lies in a partition, or of one
// function, before all that is not; by itself what is left and was settled as long ago as alone.
// When that is on the disk the records go too.
func (q *Durable) clean(ctx context.Context, alone time.Duration) error {
	q.cleaning.Lock()
	defer q.cleaning.Unlock()
	left := q.ledger.leftovers()
	if len(left) == 0 {
		return nil
	}
	ends, err := q.ends(ctx, left)
	var gone []*settlement
	for p, all := range left {
		some, e := q.cleanPart(ctx, p, all, ends[p], alone)
		gone, err = append(gone, some...), errors.Join(err, e)
	}
	if len(gone) == 0 {
		return err
	}
	fault("clean: removed")
	// What was removed by the many is not synced as one message is: it may come back until this is done.
	if e := q.config.Engine.Sync(); e != nil {
		return errors.Join(err, e)
	}
	fault("clean: synced")
	if upTo := q.ledger.removed(gone); upTo > 0 {
		if e := q.ledger.part.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); e != nil {
			err = errors.Join(err, fmt.Errorf("purge %s: %w", q.ledger.part.name, e))
		}
		fault("clean: done")
	}
	return err
}

// end is up to which sequence nothing waits, in a partition and of its functions.
type end struct {
	all uint64
	of  map[*function]uint64
}

// ends finds up to where the partitions can be emptied. Nothing can be said of one whose index is not
// whole.
func (q *Durable) ends(ctx context.Context, left map[*part][]*settlement) (map[*part]end, error) {
	messages := map[*part]uint64{}
	for p := range left {
		info, err := p.stream.Info(ctx)
		if err != nil {
			return nil, err
		}
		messages[p] = info.State.Msgs
	}
	made := q.index.made.Load()
	safe, waits, live := map[*part]uint64{}, map[*part]uint64{}, map[*part][]*function{}
	whole := false
	// Between transactions, so that what counts as safe is counted.
	err := q.index.do(func(*txn) error {
		if whole = q.index.whole; !whole {
			return nil
		}
		for p := range left {
			safe[p], waits[p] = p.safe(nil), uint64(q.ledger.leftOf(p)+p.underway())
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, f := range q.functions {
			if n := f.waiting() + f.count[running]; n > 0 && left[f.part] != nil {
				live[f.part] = append(live[f.part], f)
				waits[f.part] += uint64(n)
			}
		}
		return nil
	})
	if err != nil || !whole {
		return nil, err
	}
	out := map[*part]end{}
	for p, all := range left {
		// There may be fewer, since some are settled right now; if there are more the index lacks some, and
		// does not know what must stay.
		if messages[p] > waits[p] {
			q.config.Logger.Debug("stream has more than its index", "stream", p.name, "messages", messages[p], "known", waits[p])
			continue
		}
		e := end{all: safe[p], of: map[*function]uint64{}}
		for _, s := range all {
			e.of[s.f] = safe[p]
		}
		for i, f := range live[p] {
			if i == cleanAsk {
				for _, f := range live[p][i:] {
					delete(e.of, f)
				}
				e.all = 0
				break
			}
			if e.of[f], err = q.lowest(ctx, f, safe[p]); err != nil {
				return nil, err
			}
			e.all = min(e.all, e.of[f])
		}
		out[p] = e
	}
	if made != q.index.made.Load() {
		return nil, nil
	}
	return out, nil
}

// underway returns how many publications are not in the index yet.
func (p *part) underway() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flights)
}

// lowestPlace finds the place of a function's first message that is not settled: for each state and
// priority it is one step down the index.
var lowestPlace = func() string {
	var each []string
	for s := range states {
		for r := range priorities {
			each = append(each, fmt.Sprintf(`SELECT * FROM (SELECT place FROM letter WHERE fn = (SELECT id FROM fn WHERE name = ?1) AND state = %d AND rank = %d ORDER BY place LIMIT 1)`, s, r))
		}
	}
	return `SELECT min(place) FROM (` + strings.Join(each, ` UNION ALL `) + `)`
}()

// lowest returns up to which sequence, but not beyond safe, all of a function is settled. A message that was
// put off lies further back than its place says, never before it.
func (q *Durable) lowest(ctx context.Context, f *function, safe uint64) (uint64, error) {
	err := q.index.read(ctx, func() {}, func(r *sql.Rows) error {
		var place sql.NullInt64
		err := r.Scan(&place)
		if place.Valid {
			safe = min(safe, max(uint64(place.Int64)>>partBits, 1)-1)
		}
		return err
	}, lowestPlace, f.name.String())
	return safe, err
}

// cleanPart removes what it can of a partition's, and returns that.
func (q *Durable) cleanPart(ctx context.Context, p *part, all []*settlement, e end, alone time.Duration) (gone []*settlement, err error) {
	take := func(yes func(*settlement) bool) (out []*settlement) {
		rest := make([]*settlement, 0, len(all))
		for _, s := range all {
			if yes(s) {
				out = append(out, s)
			} else {
				rest = append(rest, s)
			}
		}
		all = rest
		return out
	}
	if some := take(func(s *settlement) bool { return s.seq <= e.all }); len(some) > 0 {
		if err := p.stream.Purge(ctx, jetstream.WithPurgeSequence(e.all+1)); err != nil {
			return nil, fmt.Errorf("purge %s: %w", p.name, err)
		}
		gone = some
		fault("clean: purged")
	}
	many := map[*function]int{}
	for _, s := range all {
		if s.seq <= e.of[s.f] {
			many[s.f]++
		}
	}
	for f, n := range many {
		if n < 2 {
			continue // by itself, if it stays so
		}
		if err := p.stream.Purge(ctx, jetstream.WithPurgeSubject("invoke."+f.subject+".*"), jetstream.WithPurgeSequence(e.of[f]+1)); err != nil {
			return gone, fmt.Errorf("purge %s: %w", p.name, err)
		}
		gone = append(gone, take(func(s *settlement) bool { return s.f == f && s.seq <= e.of[f] })...)
		fault("clean: purged")
	}
	old := take(func(s *settlement) bool { return time.Since(s.since) >= alone })
	if err := p.deleteAll(ctx, old); err != nil {
		return gone, err
	}
	return append(gone, old...), nil
}

// deleteAll removes messages one by one.
func (p *part) deleteAll(ctx context.Context, all []*settlement) error {
	const workers = 4
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(all) && errs[w] == nil; i += workers {
				errs[w] = p.delete(ctx, all[i].seq)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// settleLeft brings the index to where the ledger is, when the process begins.
func (q *Durable) settleLeft() error {
	for _, all := range q.ledger.leftovers() {
		for len(all) > 0 {
			some := all[:min(len(all), atOnce)]
			all = all[len(some):]
			err := q.index.do(func(t *txn) error {
				for _, s := range some {
					if err := t.struck(s.f, s.seq, s.id, q.now()); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// struck removes what is settled, if it is by that very message that it waits.
func (t *txn) struck(f *function, seq uint64, id faas.ID, now int64) error {
	fn, err := t.fn(f)
	if err != nil {
		return err
	}
	var place int64
	found, err := t.one(`SELECT place FROM letter WHERE fn = ? AND id = ? AND seq = ?`, []any{fn, blob(id), int64(seq)}, &place)
	if err != nil || !found {
		return err
	}
	return t.remove(f, place, now)
}
