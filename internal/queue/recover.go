package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
	if err := q.catchUp(ctx, q.index.do); err != nil {
		return err
	}
	if err := q.comeBack(ctx); err != nil {
		return err
	}
	if err := q.compare(ctx); err != nil {
		return err
	}
	return q.index.do(func(t *txn) error {
		// No delay is longer from now than it was from then: where it is the clock was set back.
		_, err := t.exec(`UPDATE letter SET due = ?1 + after WHERE state = 1 AND after > 0 AND due > ?1 + after`, q.now())
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

const atOnce = 512 // messages of a stream that are read, and entered, together

// replay enters the messages of a stream from a sequence on, and calls each with their sequences.
func (q *Durable) replay(ctx context.Context, p *part, from uint64, do doer, each func(uint64)) error {
	consumer, err := p.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		HeadersOnly: p != q.keys, MemoryStorage: true, InactiveThreshold: settleTimeout, Replicas: 1,
	})
	if err != nil {
		return err
	}
	defer func() {
		_ = p.stream.DeleteConsumer(context.WithoutCancel(ctx), consumer.CachedInfo().Name) // else it goes when nobody asks it any more
	}()
	for {
		batch, err := consumer.FetchNoWait(atOnce)
		if err != nil {
			return err
		}
		var messages []jetstream.Msg
		for m := range batch.Messages() {
			messages = append(messages, m)
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if len(messages) == 0 {
			return nil
		}
		var then []func(context.Context) error
		err = do(func(t *txn) error {
			then = nil
			for _, m := range messages {
				after, err := q.enterAgain(t, p, m)
				if err != nil {
					return err
				}
				if after != nil {
					then = append(then, after)
				}
			}
			return nil
		})
		for _, f := range then {
			if err == nil {
				err = f(ctx)
			}
		}
		if err != nil {
			return err
		}
		if each != nil {
			for _, m := range messages {
				meta, err := m.Metadata()
				if err != nil {
					return err
				}
				each(meta.Sequence.Stream)
			}
		}
	}
}

// enterAgain enters a message that was read from a stream, and returns what is to be done in the
// streams when that is committed.
func (q *Durable) enterAgain(t *txn, p *part, m jetstream.Msg) (then func(context.Context) error, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	seq := meta.Sequence.Stream
	if p == q.keys {
		var k storedKey
		if err := json.Unmarshal(m.Data(), &k); err != nil {
			q.config.Logger.Error("key not readable", "sequence", seq, "cause", err)
			return nil, nil
		}
		return nil, t.remember(q.function(k.Function), k.Key, k.ID, k.Until)
	}
	n, err := readNote(m.Headers())
	if err != nil {
		q.config.Logger.Error("invocation not readable", "stream", p.name, "sequence", seq, "cause", err)
		return nil, nil
	}
	f := q.function(n.Function)
	if p == q.dead {
		return q.buryAgain(t, f, n, seq)
	}
	return q.pushAgain(t, f, n, seq, m)
}

// buryAgain goes on with a burial from where its copy was written.
func (q *Durable) buryAgain(t *txn, f *function, n *note, seq uint64) (func(context.Context) error, error) {
	older, err := t.bury(f, n.ID, seq)
	if err != nil {
		return nil, err
	}
	// The message that it was made of, if it is there still.
	var was int64
	there, err := t.one(`SELECT seq FROM letter WHERE place = ?`, []any{n.Place}, &was)
	if err == nil && there && uint64(was) == n.From {
		err = t.remove(f, n.Place, q.now())
	}
	return func(ctx context.Context) error {
		if older > 0 {
			if err := q.dead.delete(ctx, older); err != nil {
				return err
			}
		}
		return q.deleteOlder(ctx, f.part, n.From)
	}, err
}

// deleteOlder removes a message that another has taken the place of, unless it is long gone.
func (q *Durable) deleteOlder(ctx context.Context, p *part, seq uint64) error {
	if seq == 0 || seq < p.stream.CachedInfo().State.FirstSeq {
		return nil
	}
	return p.delete(ctx, seq)
}

// pushAgain enters what lies in a partition, and goes on with a push, a retry or a redrive from
// where it was stored.
func (q *Durable) pushAgain(t *txn, f *function, n *note, seq uint64, m jetstream.Msg) (func(context.Context) error, error) {
	body, _ := strconv.Atoi(m.Headers().Get(nats.MsgSize)) // there by the consumer's configuration
	bytes := len(m.Subject()) + body + len(m.Headers().Get(noteHeader)) + beside
	discard := func(ctx context.Context) error { return f.part.delete(ctx, seq) }
	newKey := false
	if n.Key != "" && n.Place == 0 && n.Dead == 0 {
		var other faas.ID
		var until int64
		fn, err := t.fn(f)
		if err != nil {
			return nil, err
		}
		found, err := t.one(`SELECT id, until FROM key WHERE fn = ? AND key = ?`, []any{fn, n.Key}, &other, &until)
		switch pushed := until - keepKeys.Microseconds(); {
		case err != nil:
			return nil, err
		case found && other != n.ID && pushed < n.Queued+keepKeys.Microseconds() && pushed >= n.Queued:
			// While this one's key would have held another was accepted with it: this one was never
			// acknowledged.
			return discard, nil
		case !found && n.Queued+keepKeys.Microseconds() > q.now():
			newKey = true
		}
	}
	err := t.enter(f, n, seq, bytes, q.now())
	if err == errTwice {
		return discard, nil
	}
	if err != nil {
		return nil, err
	}
	if n.Dead > 0 {
		if err := t.exhume(f, n.Dead); err != nil {
			return nil, err
		}
	}
	if newKey {
		if err := t.remember(f, n.Key, n.ID, n.Queued+keepKeys.Microseconds()); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		if newKey {
			if err := q.storeKeyAgain(ctx, f, n); err != nil {
				return err
			}
		}
		if n.Dead > 0 {
			if err := q.deleteOlder(ctx, q.dead, n.Dead); err != nil {
				return err
			}
		}
		return q.deleteOlder(ctx, f.part, n.From)
	}, nil
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

// compare looks whether each stream has as many messages as the index has of it. Where not, as
// after a power cut, which may take the index back by some seconds, the two are compared one by one.
func (q *Durable) compare(ctx context.Context) error {
	for _, p := range q.parts {
		info, err := p.stream.Info(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, f := range q.of(faas.Name{}) {
			if f.part == p {
				n += f.waiting() + f.count[running]
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
	return q.index.once(func(t *txn) error {
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
}
