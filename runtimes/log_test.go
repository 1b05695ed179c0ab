package runtimes

import (
	"bytes"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// fullSink counts what it is given though it has said that it keeps nothing.
type fullSink struct{ given int }

func (s *fullSink) Log(faas.LogLine) { s.given++ }
func (s *fullSink) Full() bool       { return true }

// Empty lines cost an instance nothing; the server must not cut and stamp each of them for a log
// that is full.
func TestNothingIsDoneForALogThatIsFull(t *testing.T) {
	s := &fullSink{}
	flood := bytes.Repeat([]byte{'\n'}, MaxPayload-1)
	emitLines(s, Stdout, flood)
	w := LineWriter{Sink: s, Stream: Stdout}
	if n, err := w.Write(flood); n != len(flood) || err != nil {
		t.Errorf("written: %d, %v", n, err)
	}
	w.Flush()
	if s.given != 0 {
		t.Errorf("%d lines given to a full log", s.given)
	}
	l := NewLog(10*lineOverhead, nil)
	emitLines(l, Stdout, flood)
	if lines, truncated := l.Lines(); !truncated || len(lines) != 11 || !l.Full() {
		t.Errorf("%d lines, truncated %v", len(lines), truncated)
	}
	l.Log(faas.LogLine{Time: time.Now()})
}
