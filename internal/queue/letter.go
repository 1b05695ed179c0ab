package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// letter is an invocation as it lies in a queue; the body follows.
type letter struct {
	ID       faas.ID             `json:"id"`
	Function faas.Name           `json:"function"`
	Revision faas.RevisionID     `json:"revision,omitempty"`
	Subject  string              `json:"subject,omitempty"`
	Cause    faas.ID             `json:"cause,omitempty"`
	Kind     faas.Kind           `json:"kind"`
	Method   string              `json:"method,omitempty"`
	Path     string              `json:"path,omitempty"`
	Query    string              `json:"query,omitempty"`
	Header   map[string][]string `json:"header,omitempty"`
	Deadline time.Time           `json:"deadline,omitzero"`
	Attempt  int                 `json:"attempt,omitempty"`
	Wait     *faas.Wait          `json:"wait,omitempty"`
	Timing   faas.Timing         `json:"timing"`
	Owner    string              `json:"owner,omitempty"`
	Note     json.RawMessage     `json:"note,omitempty"`
	Keep     faas.Bytes          `json:"keep,omitempty"`
	Part     bool                `json:"part,omitempty"`
	HasBody  bool                `json:"has_body,omitempty"`
}

// encode reads the invocation's body.
func encode(inv *faas.Invocation) ([]byte, error) {
	const op = "queue invocation"
	if _, err := faas.ParseID(string(inv.ID)); err != nil {
		return nil, err
	}
	if err := inv.Function.Name.Validate(); err != nil {
		return nil, err
	}
	if err := checkWait(inv.Wait); err != nil {
		return nil, err
	}
	var body []byte
	if inv.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(inv.Body, int64(MaxBody)+1)); err != nil {
			return nil, fmt.Errorf("%s: read body: %w", op, err)
		}
		if len(body) > int(MaxBody) {
			return nil, faas.Errorf(faas.TooLarge, op, "the body of a call that waits may have %s", MaxBody).WithLimit("queue_body_bytes").
				WithFix("call the function and wait for its answer, or pass a reference to the data")
		}
	}
	head, err := json.Marshal(letter{
		ID: inv.ID, Function: inv.Function.Name, Revision: inv.Function.Revision, Subject: inv.Subject, Cause: inv.Cause, Kind: inv.Kind,
		Method: inv.Method, Path: inv.Path, Query: inv.Query, Header: inv.Header, Deadline: inv.Deadline,
		Attempt: inv.Attempt, Wait: inv.Wait, Timing: inv.Timing, Owner: inv.Owner, Note: inv.Note, Keep: inv.Keep, Part: inv.Part, HasBody: inv.Body != nil,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if most := maxHead; len(head) > most {
		return nil, faas.Errorf(faas.TooLarge, op, "the headers of a call that waits may have %s", faas.Bytes(most)).WithLimit("queue_header_bytes")
	}
	return append(append(head, '\n'), body...), nil // JSON has no line feed of its own
}

const (
	maxHead = 256 << 10
	maxWord = 256 // bytes of a key, or of the word that names a row
)

func checkWait(w *faas.Wait) error {
	const op = "queue invocation"
	if w == nil {
		return nil
	}
	for what, s := range map[string]string{"key": w.Key, "order": w.Order} {
		if len(s) > maxWord {
			return faas.Errorf(faas.Invalid, op, "the %s of a call that waits has %d bytes; it may have %d", what, len(s), maxWord)
		}
	}
	switch w.Priority {
	case "", faas.PriorityHigh, faas.PriorityNormal, faas.PriorityLow:
		return nil
	}
	return faas.Errorf(faas.Invalid, op, "%q is no priority; use %q, %q or %q", w.Priority, faas.PriorityHigh, faas.PriorityNormal, faas.PriorityLow)
}

func decode(data []byte) (*faas.Invocation, error) {
	head, body, found := bytes.Cut(data, []byte{'\n'})
	var l letter
	if err := json.Unmarshal(head, &l); err != nil || !found {
		return nil, errors.Join(errors.New("it is not an invocation"), err)
	}
	inv := &faas.Invocation{
		ID: l.ID, Function: faas.Ref{Name: l.Function, Revision: l.Revision}, Subject: l.Subject, Cause: l.Cause, Kind: l.Kind,
		Method: l.Method, Path: l.Path, Query: l.Query, Header: l.Header, Deadline: l.Deadline,
		Attempt: l.Attempt, Wait: l.Wait, Timing: l.Timing, Owner: l.Owner, Note: l.Note, Keep: l.Keep, Part: l.Part,
	}
	if inv.Wait == nil {
		inv.Wait = &faas.Wait{} // nobody waits for what lies in a queue
	}
	if l.HasBody {
		inv.Body, inv.Length = bytes.NewReader(body), int64(len(body))
	}
	return inv, nil
}
