package queue

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"

	"github.com/nats-io/nats.go"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Push implements Queue.
func (q *Durable) Push(ctx context.Context, inv *faas.Invocation) (faas.ID, error) {
	data, err := encode(inv)
	if err != nil {
		return "", err
	}
	f := q.function(inv.Function.Name)
	n := noteOf(inv, q.config.clock.wall())
	if n.Key == "" {
		return inv.ID, q.push(ctx, f, n, data)
	}
	// Two pushes with one key come one after the other, so that the second finds the first.
	m := &q.keyed[maphash.String(seed, n.Key)%uint64(len(q.keyed))]
	m.Lock()
	defer m.Unlock()
	var known faas.ID
	err = q.index.do(func(t *txn) (err error) {
		known, err = t.known(f, n.Key, q.now())
		return err
	})
	if err != nil {
		return "", q.failure("queue invocation", err)
	}
	if known != "" {
		return known, nil
	}
	return inv.ID, q.push(ctx, f, n, data)
}

var seed = maphash.MakeSeed()

func (q *Durable) push(ctx context.Context, f *function, n *note, data []byte) error {
	m, err := n.message(subjectOf(f, n), data)
	if err != nil {
		return err
	}
	release, err := q.room(f, int64(size(m)))
	if err != nil {
		return err
	}
	defer release()
	flight, err := q.publish(ctx, f.part, m, string(n.ID))
	if err != nil || flight == nil {
		return err
	}
	fault("push: stored")
	keyed := func(*txn) error { return nil }
	if n.Key != "" {
		// The key is kept beside the message, since that goes when the invocation is settled. It is
		// written second: a key whose invocation was not accepted would answer for one that never
		// runs. If the process is killed in between, recover finds the key in the message's note.
		if keyed, err = q.storeKey(ctx, f, n); err != nil {
			// What was not acknowledged does not run, if that can be helped.
			if gone := f.part.delete(context.WithoutCancel(ctx), flight.seq); gone != nil {
				f.part.lose(flight)
			} else {
				f.part.end(flight)
			}
			return err
		}
		fault("push: key stored")
	}
	err = q.index.do(func(t *txn) error {
		t.lands(f.part, flight)
		if err := keyed(t); err != nil {
			return err
		}
		return t.enter(f, n, flight.seq, size(m), q.now())
	})
	switch {
	case errors.Is(err, errTwice):
		err = q.discard(ctx, f.part, flight)
	case err != nil:
		// It is durable, which is what was asked for; the index gets it from the stream.
		f.part.lose(flight)
		q.config.Logger.Warn("invocation not in the index yet", "invocation", n.ID, "cause", err)
		q.nudge()
		err = nil
	}
	fault("push: entered")
	return err
}

// discard removes a second message of an invocation that waits.
func (q *Durable) discard(ctx context.Context, p *part, f *flight) error {
	if err := p.delete(context.WithoutCancel(ctx), f.seq); err != nil {
		p.lose(f) // it is discarded when it is looked for
		return nil
	}
	p.end(f)
	return nil
}

// subjectOf returns where a message lies: one subject for each function and priority.
func subjectOf(f *function, n *note) string {
	return "invoke." + f.subject + "." + string(priorities[n.Rank])
}

// storedKey is a message of the stream of keys.
type storedKey struct {
	Function faas.Name `json:"fn"`
	Key      string    `json:"key"`
	ID       faas.ID   `json:"id"`
	Until    int64     `json:"until"`
}

// storeKey makes a key durable, and returns what enters it into the index.
func (q *Durable) storeKey(ctx context.Context, f *function, n *note) (func(*txn) error, error) {
	k := storedKey{Function: f.name, Key: n.Key, ID: n.ID, Until: n.Queued + keepKeys.Microseconds()}
	flight, err := q.publishKey(ctx, f, k)
	if err != nil {
		return nil, err
	}
	return func(t *txn) error {
		if flight != nil {
			t.lands(q.keys, flight)
		}
		return t.remember(f, k.Key, k.ID, k.Until)
	}, nil
}

func (q *Durable) publishKey(ctx context.Context, f *function, k storedKey) (*flight, error) {
	data, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	return q.publish(ctx, q.keys, &nats.Msg{Subject: "invokekey." + f.subject, Data: data}, "key-"+string(k.ID))
}

// storeKeyAgain makes a key durable that the index has.
func (q *Durable) storeKeyAgain(ctx context.Context, f *function, n *note) error {
	flight, err := q.publishKey(ctx, f, storedKey{Function: f.name, Key: n.Key, ID: n.ID, Until: n.Queued + keepKeys.Microseconds()})
	if flight != nil {
		q.keys.end(flight)
	}
	return err
}

// room pledges n bytes of the queue to a push, or refuses it. A function may have as much waiting
// as is free: one that floods the queue gets half of it, two get a third each, and there is always
// something left for a third.
func (q *Durable) room(f *function, n int64) (release func(), err error) {
	const op = "queue invocation"
	q.mu.Lock()
	defer q.mu.Unlock()
	free := q.config.MaxBytes - q.bytes
	if mine := f.bytes + f.pledged; mine+n > free {
		return nil, faas.Errorf(faas.Overloaded, op, "the queue is full: %s of %q wait, and a function may have as much as is free, which is %s of %s",
			faas.Bytes(mine), f.name, faas.Bytes(max(free, 0)), faas.Bytes(q.config.MaxBytes)).
			WithLimit("queue_bytes").WithFix("try again later, or raise async.bytes in the configuration")
	}
	f.pledged += n
	q.bytes += n
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		f.pledged -= n
		q.bytes -= n
	}, nil
}
