package queue

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

const atOnce = 512 // messages of a stream that are read, and entered, together

// read reads a stream from a sequence on, many messages at once.
func (q *Durable) read(ctx context.Context, p *part, from uint64, each func([]jetstream.Msg) error) error {
	consumer, err := p.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		HeadersOnly: p.number >= 0 || p == q.dead, MemoryStorage: true, InactiveThreshold: settleTimeout, Replicas: 1,
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
		if err := each(messages); err != nil {
			return err
		}
	}
}

// replay enters the messages of a stream from a sequence on, and calls each with their sequences.
func (q *Durable) replay(ctx context.Context, p *part, from uint64, do doer, each func(uint64)) error {
	return q.read(ctx, p, from, func(messages []jetstream.Msg) error {
		var then []func(context.Context) error
		err := do(func(t *txn) error {
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
		if err != nil || each == nil {
			return err
		}
		for _, m := range messages {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			each(meta.Sequence.Stream)
		}
		return nil
	})
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
	if q.ledger.has(p, seq) {
		return nil, nil // it is settled
	}
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
	if errors.Is(err, errTwice) {
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
