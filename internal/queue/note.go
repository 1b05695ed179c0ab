package queue

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/brasa-dev/brasa/internal/faas"
)

// note is what the index is to know of a message. It rides in the message's header, so that the
// index is made again without reading bodies. Times are microseconds since 1970.
type note struct {
	ID       faas.ID   `json:"id"`
	Function faas.Name `json:"fn"`
	Rank     int       `json:"rank"`
	Row      string    `json:"row,omitempty"`
	Key      string    `json:"key,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Cause    faas.ID   `json:"cause,omitempty"`
	Owner    string    `json:"owner,omitempty"`
	Queued   int64     `json:"queued"` // in a dead letter: when it was given up
	Due      int64     `json:"due,omitempty"`
	After    int64     `json:"after,omitempty"` // the delay that led to Due
	Attempt  int       `json:"attempt,omitempty"`
	Why      string    `json:"why,omitempty"` // in one line

	// What the message takes the place of. It is published first and the other is removed then; a
	// crash in between is mended by these.
	Place int64  `json:"place,omitempty"` // of the first copy, if this is a later one
	From  uint64 `json:"from,omitempty"`  // sequence of the copy before, in the same stream; in a dead letter, in the partition
	Dead  uint64 `json:"dead,omitempty"`  // sequence of the dead letter that was queued anew
}

const (
	noteHeader = "Brasa-Note"
	maxWhy     = 4 << 10
)

func noteOf(inv *faas.Invocation, now time.Time) *note {
	n := &note{
		ID: inv.ID, Function: inv.Function.Name, Rank: rank(""), Subject: inv.Subject, Cause: inv.Cause, Owner: inv.Owner,
		Queued: micros(now), Due: micros(now),
	}
	if w := inv.Wait; w != nil {
		n.Rank, n.Row, n.Key = rank(w.Priority), w.Order, w.Key
		if w.NotBefore.After(now) {
			n.Due = ceil(w.NotBefore)
		}
	}
	return n
}

// message makes a message of a note and what encode made.
func (n *note) message(subject string, data []byte) (*nats.Msg, error) {
	head, err := json.Marshal(n) // one line, as a header is
	if err != nil {
		return nil, fmt.Errorf("queue invocation: %w", err)
	}
	return &nats.Msg{Subject: subject, Header: nats.Header{noteHeader: {string(head)}}, Data: data}, nil
}

func readNote(h nats.Header) (*note, error) {
	var n note
	if err := json.Unmarshal([]byte(h.Get(noteHeader)), &n); err != nil {
		return nil, fmt.Errorf("read note: %w", err)
	}
	if _, err := faas.ParseID(string(n.ID)); err != nil {
		return nil, fmt.Errorf("read note: %w", err)
	}
	return &n, nil
}

const beside = 64

// size is what a message takes of the queue's room: itself, and about what the engine writes beside it.
func size(m *nats.Msg) int {
	return len(m.Subject) + len(m.Data) + len(m.Header.Get(noteHeader)) + len(noteHeader) + beside
}

// partBits is how much of a place says which partition it is in.
const partBits = 6

// placeOf numbers the first copy of a message: of one function those that came first are lower.
func placeOf(p *part, seq uint64) int64 { return int64(seq)<<partBits | int64(p.number) }
