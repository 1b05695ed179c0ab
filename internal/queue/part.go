package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// part is a stream, and up to where the index knows it.
type part struct {
	number int
	name   string
	sender sender
	stream jetstream.Stream // by a connection that is not the engine's own; see store.Engine.Connect

	mu      sync.Mutex
	seen    uint64               // guarded by mu; the greatest sequence that is in the index
	flights map[*flight]struct{} // guarded by mu
}

// flight is a publication whose message is not in the index yet. While it is on its way all that
// comes after its begin may not be counted as seen.
type flight struct {
	begun uint64 // seen at the begin; fixed
	seq   uint64 // set when the engine has answered
	lost  bool   // guarded by part.mu; nobody will enter it, so it must be looked for
}

func (p *part) begin() *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &flight{begun: p.seen}
	p.flights[f] = struct{}{}
	return f
}

// end forgets a flight that brought nothing.
func (p *part) end(f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flights, f)
}

// lose marks a flight of which it is not known what it brought, or that the index refused.
func (p *part) lose(f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.lost = true
}

func (p *part) land(landed []*flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range landed {
		delete(p.flights, f)
		p.seen = max(p.seen, f.seq)
	}
}

// safe returns up to which sequence all is in the index, once those that land are.
func (p *part) safe(landing []*flight) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	seq := p.seen
	for _, f := range landing {
		seq = max(seq, f.seq)
	}
	over := map[*flight]bool{}
	for _, f := range landing {
		over[f] = true
	}
	for f := range p.flights {
		if !over[f] {
			seq = min(seq, f.begun)
		}
	}
	return seq
}

// lost returns the flights that must be looked for in the stream.
func (p *part) lost() []*flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*flight
	for f := range p.flights {
		if f.lost {
			out = append(out, f)
		}
	}
	return out
}

// catchUpTo notes that the index has been brought up to a sequence by reading the stream, and that
// flights which were lost before were looked for.
func (p *part) catchUpTo(seq uint64, found []*flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = max(p.seen, seq)
	for _, f := range found {
		delete(p.flights, f)
	}
}

// lands says that what a flight brought is entered by the transaction.
func (t *txn) lands(p *part, f *flight) { t.parts[p] = append(t.parts[p], f) }

// noteSeen writes down up to where the index will know the streams.
func (t *txn) noteSeen() error {
	for p, landing := range t.parts {
		if err := t.see(p.name, p.safe(landing)); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) see(stream string, seq uint64) error {
	_, err := t.exec(`INSERT INTO seen VALUES (?, ?) ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq`, stream, int64(seq))
	return err
}

// publish writes a message. The flight that is returned must land, end or be lost; it is nil if
// there is an error, or if the engine has the message under this ID already.
func (q *Durable) publish(ctx context.Context, p *part, m *nats.Msg, id string) (*flight, error) {
	if err := q.config.Engine.Room(int64(size(m))); err != nil {
		return nil, q.refusal(err, true)
	}
	f := p.begin()
	ack, err := p.sender.send(ctx, m, id)
	if err != nil {
		api, not := (*jetstream.APIError)(nil), errNotSent{}
		if errors.As(err, &api) || errors.As(err, &not) {
			p.end(f) // it was refused, or came to nothing before it was sent
		} else {
			p.lose(f)
		}
		return nil, q.refusal(q.config.Engine.Classify(err), q.config.Engine.Room(0) != nil)
	}
	if ack.duplicate {
		p.end(f)
		return nil, nil
	}
	f.seq = ack.seq
	return f, nil
}

// refusal makes of what the engine said what callers are told. disk: what is full, if something is, is the
// disk.
func (q *Durable) refusal(err error, disk bool) error {
	const op = "queue invocation"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrFull) && disk:
		return faas.Errorf(faas.Overloaded, op, "there is no room on the disk: %w", err).WithLimit("disk_free_bytes").
			WithFix("make room on the disk of the data directory, or try again later")
	case errors.Is(err, store.ErrFull):
		return faas.Errorf(faas.Overloaded, op, "the queue is full: %w", err).WithLimit("queue_bytes").
			WithFix("try again later, or raise async.bytes in the configuration")
	}
	return &faas.Error{Code: codeOf(err), Op: op, Err: err}
}

func codeOf(err error) faas.Code {
	if c := faas.CodeOf(err); c != faas.Internal {
		return c
	}
	return faas.Unavailable
}

// failure is for what the engine or the index could not do.
func (q *Durable) failure(op string, err error) error {
	if err == nil {
		return nil
	}
	err = q.config.Engine.Classify(err)
	if errors.Is(err, store.ErrFull) {
		return faas.Errorf(faas.Overloaded, op, "%w", err).WithLimit("disk_free_bytes").WithFix("make room on the disk of the data directory")
	}
	return &faas.Error{Code: codeOf(err), Op: op, Err: err}
}

// delete removes a message for good; one that is gone already is none to complain of.
func (p *part) delete(ctx context.Context, seq uint64) error {
	err := p.stream.DeleteMsg(ctx, seq)
	if err == nil {
		return nil
	}
	// The client tells no code of this refusal.
	if _, look := p.stream.GetMsg(ctx, seq); errors.Is(look, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("remove message %d of %s: %w", seq, p.name, err)
}
