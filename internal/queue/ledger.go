package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	settledStream  = "INVOKE-SETTLED"
	settledSubject = "settled"
	// What is settled and not removed yet is kept in memory, some hundred bytes for each; beyond this a
	// settlement removes its message by itself.
	mostSettled = 1 << 16
	// One record has as many settlements at most.
	mostRecorded = 1024
)

// ledger is the stream in which settlements are durable. To remove a message costs the engine a sync of its
// own, so those that are settled at the same time are written down together, in one record and with one
// sync. The messages are removed many at once afterwards (see clean), and the records after them. Until
// then memory knows which are settled; whoever enters messages into the index passes them over.
type ledger struct {
	part *part
	js   jetstream.JetStream
	many chan struct{} // holds one: there is enough to remove
	at   int           // that much is enough
	most int64         // bytes that may be settled and not removed; a quarter of it is enough too

	records group[*settlement]

	mu    sync.Mutex
	left  map[*part]map[uint64]*settlement // guarded by mu; recorded and not removed, by sequence
	count int                              // guarded by mu; of those, and of those that are being recorded
	bytes int64                            // guarded by mu; of the same
	last  uint64                           // guarded by mu; up to this record all are in left, or were
}

// settlement is one message that is settled.
type settlement struct {
	f      *function
	seq    uint64
	id     faas.ID
	bytes  int64
	record uint64    // that has it
	since  time.Time // it was recorded
	err    error
}

// settledOf is the part of a record that is of one function.
type settledOf struct {
	Function faas.Name `json:"fn"`
	Seqs     []uint64  `json:"seqs"`
	IDs      []faas.ID `json:"ids"` // a stream that was taken back may give its numbers to others
}

func (q *Durable) openLedger(ctx context.Context) error {
	p, err := q.openPart(ctx, -1, settledStream, settledSubject, jetstream.DiscardNew, max(q.config.MaxBytes/64, 8<<20), 0, q.hands[2])
	if err != nil {
		return err
	}
	q.ledger = &ledger{part: p, js: q.config.Engine.JetStream(), many: make(chan struct{}, 1), at: q.config.cleanAt, most: q.config.MaxBytes / 8, left: map[*part]map[uint64]*settlement{}}
	return nil
}

// strike settles a message for good. It may be called again.
func (q *Durable) strike(ctx context.Context, f *function, seq uint64, id faas.ID, bytes int64) error {
	g := q.ledger
	s := &settlement{f: f, seq: seq, id: id, bytes: bytes}
	known, full := g.begin(s)
	if known {
		return nil
	}
	if !full {
		err := g.write(s)
		if err == nil {
			return nil
		}
		g.end(s)
		if api := (*jetstream.APIError)(nil); !errors.As(err, &api) {
			return fmt.Errorf("record settlement: %w", err)
		}
		q.config.Logger.Debug("settlement not recorded", "invocation", id, "cause", err) // there is no room
	}
	return f.part.delete(ctx, seq)
}

// begin makes place for a settlement, unless it is known or there is none.
func (g *ledger) begin(s *settlement) (known, full bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left[s.f.part][s.seq] != nil {
		return true, false
	}
	if g.count >= mostSettled || g.bytes+s.bytes > g.most {
		return false, true
	}
	g.count++
	g.bytes += s.bytes
	return false, false
}

// end takes a settlement back that was not recorded.
func (g *ledger) end(s *settlement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	g.bytes -= s.bytes
}

// write returns when a settlement is recorded.
func (g *ledger) write(s *settlement) error {
	g.records.do(s, func(all []*settlement) {
		for batch := range slices.Chunk(all, mostRecorded) {
			record, err := g.record(batch)
			for _, s := range batch {
				s.err, s.record, s.since = err, record, time.Now()
			}
			if err == nil {
				fault("settled: recorded")
				g.keep(batch)
			}
		}
	})
	return s.err
}

func (g *ledger) record(batch []*settlement) (uint64, error) {
	of := map[*function]*settledOf{}
	var all []*settledOf
	for _, s := range batch {
		x := of[s.f]
		if x == nil {
			x = &settledOf{Function: s.f.name}
			of[s.f] = x
			all = append(all, x)
		}
		x.Seqs, x.IDs = append(x.Seqs, s.seq), append(x.IDs, s.id)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	ack, err := g.js.PublishMsg(ctx, &nats.Msg{Subject: settledSubject, Data: data})
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// keep enters what is recorded.
func (g *ledger) keep(batch []*settlement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range batch {
		if g.left[s.f.part] == nil {
			g.left[s.f.part] = map[uint64]*settlement{}
		}
		g.left[s.f.part][s.seq] = s
		g.last = max(g.last, s.record)
	}
	if g.count >= g.at || g.bytes > g.most/4 {
		select {
		case g.many <- struct{}{}:
		default: // it is known
		}
	}
}

// has says whether a message is settled and not removed.
func (g *ledger) has(p *part, seq uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left[p][seq] != nil
}

// leftOf returns how many are settled and not removed of a partition.
func (g *ledger) leftOf(p *part) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.left[p])
}

// leftovers returns what is settled and not removed, in the order of the sequences.
func (g *ledger) leftovers() map[*part][]*settlement {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[*part][]*settlement, len(g.left))
	for p, left := range g.left {
		all := make([]*settlement, 0, len(left))
		for _, s := range left {
			all = append(all, s)
		}
		slices.SortFunc(all, func(a, b *settlement) int { return cmp.Compare(a.seq, b.seq) })
		out[p] = all
	}
	return out
}

// removed forgets what was removed from the streams for good, and returns up to which record there is
// nothing left.
func (g *ledger) removed(gone []*settlement) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range gone {
		delete(g.left[s.f.part], s.seq)
		if len(g.left[s.f.part]) == 0 {
			delete(g.left, s.f.part)
		}
		g.count--
		g.bytes -= s.bytes
	}
	upTo := g.last
	for _, left := range g.left {
		for _, s := range left {
			upTo = min(upTo, s.record-1)
		}
	}
	return upTo
}

// load reads what was recorded and may not have been removed when the process ended.
func (q *Durable) loadLedger(ctx context.Context) error {
	g := q.ledger
	clear(g.left)
	g.count, g.bytes = 0, 0
	info, err := g.part.stream.Info(ctx)
	if err != nil || info.State.Msgs == 0 {
		return err
	}
	of := map[*part][]*settlement{}
	err = q.read(ctx, g.part, info.State.FirstSeq, func(messages []jetstream.Msg) error {
		for _, m := range messages {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			var all []settledOf
			if err := json.Unmarshal(m.Data(), &all); err != nil {
				q.config.Logger.Error("settlements not readable", "sequence", meta.Sequence.Stream, "cause", err)
				continue
			}
			for _, x := range all {
				f := q.function(x.Function)
				for i, seq := range x.Seqs {
					of[f.part] = append(of[f.part], &settlement{f: f, seq: seq, id: x.IDs[i], record: meta.Sequence.Stream})
				}
			}
		}
		return nil
	})
	for p, all := range of {
		if err == nil {
			all, err = q.trusted(ctx, p, all)
		}
		if err != nil {
			return err
		}
		g.count += len(all)
		g.keep(all)
	}
	g.last = max(g.last, info.State.LastSeq)
	return err
}

// trusted leaves out settlements of messages that were lost with the end of their stream, as when a backup
// is put back: the numbers may be those of others now. A stream loses nothing but its end, so what
// comes before one that is still the same is too.
func (q *Durable) trusted(ctx context.Context, p *part, all []*settlement) ([]*settlement, error) {
	slices.SortFunc(all, func(a, b *settlement) int { return cmp.Compare(a.seq, b.seq) })
	for n := len(all); n > 0; n-- {
		m, err := p.stream.GetMsg(ctx, all[n-1].seq)
		switch {
		case isGone(err):
			continue // it was removed, or there is no such number yet: neither is to be removed
		case err != nil:
			return nil, err
		}
		if note, err := readNote(m.Header); err == nil && note.ID == all[n-1].id {
			return all[:n], nil
		}
		q.config.Logger.Warn("settlement of another message passed over", "stream", p.name, "sequence", all[n-1].seq)
	}
	return nil, nil
}
