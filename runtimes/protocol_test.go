package runtimes

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// reader reads frames as a Conn does.
type reader struct {
	decoder
	from io.Reader
}

func newReader(from io.Reader) *reader {
	r := &reader{from: from}
	r.init()
	return r
}

func (r *reader) read() (frame, error) {
	for {
		f, ok, err := r.next()
		if ok || err != nil {
			return f, err
		}
		n, err := r.from.Read(r.room())
		r.filled(n)
		if n == 0 && err != nil {
			if r.torn() {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
}

func TestDecoderReadsWhatWasWritten(t *testing.T) {
	large := bytes.Repeat([]byte("x"), MaxPayload)
	var wire []byte
	wire = appendFrame(wire, frameLog, 3, []byte("\x01line"))
	wire = appendFrame(wire, frameResult, 5, large)
	wire = appendFrame(wire, frameEnd, 7, nil)
	wire = appendFrame(wire, frameData, 9, large[:readBuffer])
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(wire), "by bytes": iotest.OneByteReader(bytes.NewReader(wire)), "by halves": iotest.HalfReader(bytes.NewReader(wire))} {
		d := newReader(r)
		for i, want := range []struct {
			typ    frameType
			stream uint32
			size   int
		}{{frameLog, 3, 5}, {frameResult, 5, MaxPayload}, {frameEnd, 7, 0}, {frameData, 9, readBuffer}} {
			f, err := d.read()
			if err != nil || f.typ != want.typ || f.stream != want.stream || len(f.payload) != want.size {
				t.Fatalf("%s: frame %d = type %d, stream %d, %d bytes, %v; want %+v", name, i, f.typ, f.stream, len(f.payload), err, want)
			}
		}
		if _, err := d.read(); err != io.EOF {
			t.Errorf("%s: after the last frame: %v, want EOF", name, err)
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	for name, wire := range map[string]string{
		"too short":        "\x00\x00\x00\x04\x13\x00\x00\x00\x00",
		"too long":         "\x00\x10\x00\x06\x13\x00\x00\x00\x00",
		"enormous":         "\xff\xff\xff\xff\x13\x00\x00\x00\x00",
		"type of the host": "\x00\x00\x00\x05\x02\x00\x00\x00\x00",
		"unknown type":     "\x00\x00\x00\x05\xff\x00\x00\x00\x00",
	} {
		_, err := newReader(strings.NewReader(wire)).read()
		if _, ok := err.(*protocolError); !ok {
			t.Errorf("%s: %v, want a protocol error", name, err)
		}
	}
	for name, wire := range map[string]string{"half a head": "\x00\x00\x00\x05", "half a payload": "\x00\x00\x00\x09\x13\x00\x00\x00\x00ab"} {
		if _, err := newReader(strings.NewReader(wire)).read(); err != io.ErrUnexpectedEOF {
			t.Errorf("%s: %v, want unexpected EOF", name, err)
		}
	}
}

// FuzzDecoder gives the parser what a hostile instance may send: it never panics, never takes
// more than a frame's bound of memory, and hands on nothing outside the bounds.
func FuzzDecoder(f *testing.F) {
	f.Add(appendFrame(nil, frameLog, 1, []byte("\x01hello")))
	f.Add(appendFrame(nil, frameResult, 1, metaPayload(`{"status":200,"headers":{"a":["b"]}}`, "body")))
	f.Add([]byte("\x00\x00\x00\x05\x11\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		d := newReader(bytes.NewReader(wire))
		var heads answers
		total := 0
		for {
			fr, err := d.read()
			if err != nil {
				return
			}
			total += frameHead + len(fr.payload)
			if len(fr.payload) > MaxPayload || total > len(wire) {
				t.Fatalf("frame of %d bytes from %d", len(fr.payload), len(wire))
			}
			meta, rest, err := splitMeta(fr.payload)
			if err != nil {
				continue
			}
			if 4+len(meta)+len(rest) != len(fr.payload) {
				t.Fatalf("meta %d and rest %d of %d", len(meta), len(rest), len(fr.payload))
			}
			a, err := heads.read(meta)
			if err != nil {
				continue
			}
			if a.status < 200 || a.status > 599 {
				t.Fatalf("status %d", a.status)
			}
			for k, vs := range a.header {
				if reserved(k) || !validName(k) {
					t.Fatalf("header %q", k)
				}
				for _, v := range vs {
					if strings.ContainsAny(v, "\r\n\x00") {
						t.Fatalf("header %q: %q", k, v)
					}
				}
			}
		}
	})
}

func metaPayload(meta, body string) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(meta))), meta...), body...)
}

// FuzzCallMeta checks the hand-written JSON against encoding/json.
func FuzzCallMeta(f *testing.F) {
	f.Add("GET", "/päth", "a=1", "X-K", "v")
	f.Add("", "", "\x00\xff\"\\\n\u2028", "\t", "\x7f")
	f.Fuzz(func(t *testing.T, method, path, query, key, value string) {
		inv := &faas.Invocation{
			ID: "id", Kind: faas.KindHTTP, Method: method, Path: path, Query: query, Header: map[string][]string{key: {value, "2"}},
			Deadline: time.UnixMilli(1700000000000), Attempt: 2, Length: -1,
		}
		meta, rest, err := splitMeta(appendCallMeta(nil, inv, "stream", nil))
		if err != nil || len(rest) > 0 {
			return // over the bound
		}
		var got, want map[string]any
		if err := json.Unmarshal(meta, &got); err != nil {
			t.Fatalf("%s: %v", meta, err)
		}
		b, _ := json.Marshal(map[string]any{
			"id": "id", "deadline_ms": 1700000000000, "kind": "http", "method": orElse(method, "POST"), "path": orElse(path, "/"), "query": query,
			"headers": map[string]any{key: []string{value, "2"}}, "attempt": 2, "cause": "", "body": "stream", "length": -1,
		})
		_ = json.Unmarshal(b, &want)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &LineWriter{Stream: Stdout, Sink: LogFunc(func(l faas.LogLine) { got = append(got, l.Text) })}
	for _, s := range []string{"one\ntw", "o\r\n\n", "bad \xff\n", strings.Repeat("x", MaxLine+10), "\nlast"} {
		_, _ = io.WriteString(w, s)
	}
	w.Flush()
	want := []string{"one", "two", "", "bad \ufffd", strings.Repeat("x", MaxLine), strings.Repeat("x", 10), "last"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("lines = %q", got)
	}
}

func TestLogHoldsToItsLimit(t *testing.T) {
	told := 0
	l := NewLog(1000, func(faas.LogLine) { told++ })
	for range 1000 {
		l.Log(faas.LogLine{Text: strings.Repeat("x", 36), Stream: Stdout})
	}
	lines, truncated := l.Lines()
	if len(lines) != 11 || !truncated || lines[10].Stream != Platform || told != 11 {
		t.Errorf("%d lines, %d told, truncated %v, last %+v", len(lines), told, truncated, lines[len(lines)-1])
	}
}
