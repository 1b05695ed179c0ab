package runtimes

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// MaxLine is the longest log line, in bytes. What is longer is broken into several.
const MaxLine = 32 << 10

// Streams of a log line.
const (
	Stdout   = "stdout"
	Stderr   = "stderr"
	Platform = "platform"
)

// LogSink takes log lines. Log is called from the goroutine that reads for all calls of an
// instance, so it must not block; it may be called from several goroutines at once. The text is
// valid UTF-8, at most MaxLine long, without its line end, and may be kept.
type LogSink interface {
	Log(line faas.LogLine)
}

// LogFunc is a function as a LogSink.
type LogFunc func(line faas.LogLine)

// Log calls f.
func (f LogFunc) Log(line faas.LogLine) { f(line) }

// lineOverhead is what a line counts for besides its text, so that a flood of empty lines meets
// the limit too. It is about what the line's other fields take in memory.
const lineOverhead = 64

// Log collects the lines of one call up to a limit. It is a LogSink.
type Log struct {
	tee func(faas.LogLine)

	mu        sync.Mutex
	left      int64 // bytes until the limit; guarded by mu
	lines     []faas.LogLine
	truncated bool
}

// NewLog returns a log of at most limit bytes, each line counting for 64 bytes more than its
// text. tee, if not nil, is called with each line that is kept, in order, and must not block.
func NewLog(limit faas.Bytes, tee func(faas.LogLine)) *Log {
	return &Log{left: int64(limit), tee: tee}
}

// Log keeps a line. The first one over the limit is replaced by a platform line that says so;
// the rest is dropped.
func (l *Log) Log(line faas.LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.truncated {
		return
	}
	l.left -= int64(len(line.Text)) + lineOverhead
	if l.left < 0 {
		l.truncated = true
		line = faas.LogLine{Time: line.Time, Stream: Platform, Text: "log_bytes is reached; further lines of this call are dropped"}
	}
	l.lines = append(l.lines, line)
	if l.tee != nil {
		l.tee(line)
	}
}

// Full says that nothing more is kept.
func (l *Log) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.truncated
}

// full says whether a sink would drop every line. Who asks before cutting text into lines spares
// the server the work: an empty line costs its writer nothing and us a hundred times as much.
func full(sink LogSink) bool {
	b, ok := sink.(interface{ Full() bool })
	return sink == nil || ok && b.Full()
}

// Lines returns what was kept and whether lines were dropped. The slice must not be changed.
func (l *Log) Lines() (lines []faas.LogLine, truncated bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)], l.truncated
}

// LineWriter cuts what a process writes into lines for a sink. It keeps at most MaxLine bytes
// of an unfinished line. It is for one goroutine.
type LineWriter struct {
	Sink   LogSink
	Stream string
	Skip   string // a line that is dropped; empty: none
	part   []byte
}

// Write takes p; it never fails.
func (w *LineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if full(w.Sink) {
			w.part = w.part[:0]
			break
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			for len(w.part)+len(p) >= MaxLine {
				take := MaxLine - len(w.part)
				w.emit(append(w.part, p[:take]...))
				p = p[take:]
			}
			w.part = append(w.part, p...)
			break
		}
		line := p[:i]
		if len(w.part) > 0 {
			line = append(w.part, line...)
		}
		w.emit(line)
		p = p[i+1:]
	}
	return n, nil
}

// Flush hands on a last line that has no end.
func (w *LineWriter) Flush() {
	if len(w.part) > 0 {
		w.emit(w.part)
	}
}

func (w *LineWriter) emit(line []byte) {
	if w.Skip == "" || string(line) != w.Skip {
		emitLine(w.Sink, w.Stream, time.Now(), line)
	}
	w.part = w.part[:0]
}

// emitLines hands each line of text to sink.
func emitLines(sink LogSink, stream string, text []byte) {
	now := time.Now()
	text = bytes.TrimSuffix(text, []byte("\n"))
	for !full(sink) {
		line, rest, more := bytes.Cut(text, []byte("\n"))
		emitLine(sink, stream, now, line)
		if !more {
			return
		}
		text = rest
	}
}

func emitLine(sink LogSink, stream string, now time.Time, line []byte) {
	if sink == nil {
		return
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	for {
		part := line
		if len(part) > MaxLine {
			part = part[:MaxLine]
		}
		sink.Log(faas.LogLine{Time: now, Stream: stream, Text: strings.ToValidUTF8(string(part), "\ufffd")})
		if line = line[len(part):]; len(line) == 0 {
			return
		}
	}
}
