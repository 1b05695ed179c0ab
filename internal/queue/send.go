package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	// A stream stores one message after the other, each with a sync of its own. So many are on their way
	// to one at a time; those that come meanwhile wait.
	sendAlone = 8
	// From so many on those that wait are stored together, with one sync: that costs as much as this many
	// by themselves.
	sendTogether = 24
	// The engine takes a thousand together; of large ones fewer, since each is written twice.
	togetherMost  = 256
	togetherBytes = 4 << 20
	sendTimeout   = 10 * time.Second
)

// sender puts messages into a stream.
type sender struct {
	js              jetstream.JetStream
	alone, together int

	mu      sync.Mutex
	under   int        // guarded by mu; on their way by themselves
	batch   bool       // guarded by mu; some are on their way together
	waiting []*sending // guarded by mu
}

// sending is a message that waits for its turn.
type sending struct {
	m     *nats.Msg
	bytes int
	turn  chan bool // told true: it is to be sent by itself; false: it was sent, with this outcome
	ack   sent
	err   error
}

// sent is what the engine answered.
type sent struct {
	seq       uint64
	duplicate bool // it has the message under its ID already
}

// send stores a message under an ID.
func (s *sender) send(ctx context.Context, m *nats.Msg, id string) (sent, error) {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	m.Header.Set(jetstream.MsgIDHeader, id)
	s.mu.Lock()
	if s.under < s.alone && !s.batch && len(s.waiting) == 0 {
		s.under++
		s.mu.Unlock()
		return s.one(ctx, m)
	}
	w := &sending{m: m, bytes: size(m), turn: make(chan bool, 1)}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	alone := false
	select {
	case alone = <-w.turn:
	case <-ctx.Done():
		s.mu.Lock()
		if at := slices.Index(s.waiting, w); at >= 0 {
			s.waiting = slices.Delete(s.waiting, at, at+1)
			s.mu.Unlock()
			return sent{}, errNotSent{ctx.Err()}
		}
		s.mu.Unlock()
		alone = <-w.turn // it is under way, which takes a bounded time
	}
	if alone {
		return s.one(ctx, m)
	}
	return w.ack, w.err
}

// errNotSent says that the engine has not seen the message.
type errNotSent struct{ error }

func (e errNotSent) Unwrap() error { return e.error }

// one sends a message by itself.
func (s *sender) one(ctx context.Context, m *nats.Msg) (sent, error) {
	ack, err := s.js.PublishMsg(ctx, m)
	s.mu.Lock()
	s.under--
	s.next()
	s.mu.Unlock()
	if err != nil {
		return sent{}, err
	}
	return sent{ack.Sequence, ack.Duplicate}, nil
}

// next lets go whose turn it is. It is called with mu held.
func (s *sender) next() {
	for len(s.waiting) > 0 && !s.batch {
		n, bytes := 0, 0
		for n < min(len(s.waiting), togetherMost) && bytes+s.waiting[n].bytes <= togetherBytes {
			bytes += s.waiting[n].bytes
			n++
		}
		switch {
		case n >= s.together:
			s.batch = true
			batch := slices.Clone(s.waiting[:n])
			s.waiting = slices.Delete(s.waiting, 0, n)
			go s.all(batch)
		case s.under < s.alone:
			s.under++
			s.waiting[0].turn <- true
			s.waiting = slices.Delete(s.waiting, 0, 1)
		default:
			return
		}
	}
}

// all sends messages together: all of them are stored, or none.
func (s *sender) all(batch []*sending) {
	last, err := s.commit(batch)
	s.mu.Lock()
	s.batch = false
	api := (*jetstream.APIError)(nil)
	if errors.As(err, &api) {
		// Refused, as when one of them is there already. Each is told by itself.
		s.under += len(batch)
	}
	s.next()
	s.mu.Unlock()
	for i, w := range batch {
		if api == nil {
			w.ack, w.err = sent{seq: last - uint64(len(batch)-1-i)}, err
		}
		w.turn <- api != nil
	}
}

// commit returns the sequence of the last one.
func (s *sender) commit(batch []*sending) (uint64, error) {
	id := nuid.Next()
	for i, w := range batch {
		m := &nats.Msg{Subject: w.m.Subject, Data: w.m.Data, Header: nats.Header{
			"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(i + 1)},
		}}
		for k, v := range w.m.Header {
			m.Header[k] = v
		}
		if i < len(batch)-1 {
			if err := s.js.Conn().PublishMsg(m); err != nil {
				return 0, err
			}
			continue
		}
		fault("push: sent together")
		m.Header["Nats-Batch-Commit"] = []string{"1"}
		answer, err := s.js.Conn().RequestMsg(m, sendTimeout)
		if err != nil {
			return 0, err
		}
		var ack struct {
			Error *jetstream.APIError `json:"error"`
			Seq   uint64              `json:"seq"`
			Count int                 `json:"count"`
		}
		if err := json.Unmarshal(answer.Data, &ack); err != nil {
			return 0, err
		}
		if ack.Error != nil {
			return 0, ack.Error
		}
		if ack.Count != len(batch) {
			return 0, fmt.Errorf("%d of %d messages were stored together", ack.Count, len(batch))
		}
		return ack.Seq, nil
	}
	return 0, nil
}
