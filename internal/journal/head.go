package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/brasa-dev/brasa/internal/faas"
)

// entry is what a chunk's head says of one record.
type entry struct {
	id                   []byte
	function             int   // which of the head's
	began, took          int64 // µs
	parts                int   // that its log has
	outcome, start, kind string
	cold                 bool
	at, size, logs       int // in data: the record is at:at+size, its log behind it
}

var errChunk = errors.New("a chunk of records is damaged")

// append writes the entry, which is of the given function of its head.
func (e *entry) append(h []byte, function int) []byte {
	h = append(h, e.id...)
	h = binary.AppendUvarint(h, uint64(function))
	h = binary.AppendUvarint(h, uint64(e.began))
	h = binary.AppendUvarint(h, uint64(e.took))
	h = binary.AppendUvarint(h, uint64(e.parts))
	h = appendText(h, e.outcome)
	h = appendText(h, e.start)
	h = appendText(h, e.kind)
	cold := uint64(0)
	if e.cold {
		cold = 1
	}
	h = binary.AppendUvarint(h, cold)
	h = binary.AppendUvarint(h, uint64(e.size))
	return binary.AppendUvarint(h, uint64(e.logs))
}

func appendFunctions(h []byte, functions []string) []byte {
	h = binary.AppendUvarint(h, uint64(len(functions)))
	for _, f := range functions {
		h = appendText(h, f)
	}
	return h
}

// reader takes what append wrote from the front of a head.
type reader struct {
	left []byte
	err  error
}

func (r *reader) number() int {
	v, n := binary.Uvarint(r.left)
	if n <= 0 || v > 1<<62 {
		r.err, r.left = errChunk, nil
		return 0
	}
	r.left = r.left[n:]
	return int(v)
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n > len(r.left) {
		r.err, r.left = errChunk, nil
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *reader) functions() (out []string) {
	for n := r.number(); n > 0 && r.err == nil; n-- {
		out = append(out, string(r.bytes(r.number())))
	}
	return out
}

// tells says whether a head has entries of the function; of a damaged one entries says more.
func tells(head []byte, function string) bool {
	r := &reader{left: head}
	for n := r.number(); n > 0; n-- {
		if string(r.bytes(r.number())) == function {
			return true
		}
		if r.err != nil {
			return true
		}
	}
	return false
}

// entry reads one of the form given. In the first they had no function, and did not say whether they
// were cold; how an instance came to serve tells that of nearly all.
func (r *reader) entry(at, form int) (e entry) {
	e.id, e.at = r.bytes(16), at
	if form > 1 {
		e.function = r.number()
	}
	e.began, e.took, e.parts = int64(r.number()), int64(r.number()), r.number()
	e.outcome, e.start, e.kind = word(r.bytes(r.number())), word(r.bytes(r.number())), word(r.bytes(r.number()))
	if form > 1 {
		e.cold = r.number() == 1
	} else {
		e.cold = e.start != "" && e.start != string(faas.StartWarm) && e.start != string(faas.StartRestored)
	}
	e.size, e.logs = r.number(), r.number()
	if e.size > maxChunk || e.logs > maxChunk {
		r.err = errChunk
	}
	return e
}

// word is string(b), without an allocation for what nearly all records say.
func word(b []byte) string {
	switch string(b) {
	case okWord:
		return okWord
	case string(faas.StartWarm):
		return string(faas.StartWarm)
	case string(faas.KindInvoke):
		return string(faas.KindInvoke)
	}
	return string(b)
}

var okWord = faas.OK.String()

// entries reads a head. What it returns is valid as long as head is.
func entries(head []byte) (functions []string, out []entry, err error) {
	r := &reader{left: head}
	functions = r.functions()
	for at := 0; len(r.left) > 0 && r.err == nil; {
		e := r.entry(at, messageForm)
		if e.function >= len(functions) {
			r.err = errChunk
		}
		at += e.size + e.logs
		out = append(out, e)
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	return functions, out, nil
}

// renew returns a head of the form before, of a chunk of one function, in that of now.
func renew(function string, head []byte) ([]byte, error) {
	r := &reader{left: head}
	h := appendFunctions(nil, []string{function})
	for len(r.left) > 0 && r.err == nil {
		e := r.entry(0, 1)
		if r.err == nil {
			h = e.append(h, 0)
		}
	}
	return h, r.err
}

// record reads one record out of a chunk's data, with the first part of its log or without.
func (e *entry) record(data []byte, logs bool) (*faas.Activation, error) {
	if e.at+e.size+e.logs > len(data) {
		return nil, errChunk
	}
	a := &faas.Activation{}
	if err := json.Unmarshal(data[e.at:e.at+e.size], a); err != nil {
		return nil, err
	}
	if logs && e.logs > 0 {
		if err := json.Unmarshal(data[e.at+e.size:][:e.logs], &a.Logs); err != nil {
			return nil, err
		}
	}
	return a, nil
}
