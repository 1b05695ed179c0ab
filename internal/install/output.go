package install

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// fanOut gives what an installation writes, and how far it is, to all who wait for it. Who comes
// later gets what was written before, up to a bound.
type fanOut struct {
	mu        sync.Mutex
	most      int
	written   bytes.Buffer // guarded by mu
	dropped   bool         // guarded by mu
	listeners map[*listener]bool
	now       Progress  // guarded by mu
	told      time.Time // guarded by mu
}

type listener struct {
	log      io.Writer
	progress func(Progress)
}

// tellEvery bounds how often growth is told.
const tellEvery = 200 * time.Millisecond

func newFanOut(most faas.Bytes) *fanOut {
	return &fanOut{most: int(most), listeners: map[*listener]bool{}}
}

// join adds one who listens, until leave. Writers and functions must not block for long: the tool
// waits for them.
func (f *fanOut) join(log io.Writer, progress func(Progress)) (leave func()) {
	l := &listener{log, progress}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[l] = true
	if log != nil && f.written.Len() > 0 {
		_, _ = log.Write(f.written.Bytes())
	}
	if progress != nil && f.now.Step != "" {
		progress(f.now)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, l)
	}
}

// Write is what the tools write.
func (f *fanOut) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if room := f.most - f.written.Len(); room > 0 {
		f.written.Write(p[:min(room, len(p))])
	} else {
		f.dropped = true
	}
	for l := range f.listeners {
		if l.log != nil {
			_, _ = l.log.Write(p) // who cannot keep it goes without
		}
	}
	if line := lastLine(p); line != "" {
		f.now.Line = line
		f.tell(false)
	}
	return len(p), nil
}

// lastLine returns the last line of text that is not empty, without what moves a terminal's cursor.
func lastLine(p []byte) string {
	for _, line := range reversed(bytes.FieldsFunc(p, func(r rune) bool { return r == '\n' || r == '\r' })) {
		if s := strings.TrimSpace(printable(string(line))); s != "" {
			if len(s) > 200 {
				s = strings.ToValidUTF8(s[:200], "") + "…"
			}
			return s
		}
	}
	return ""
}

func reversed(all [][]byte) [][]byte {
	out := make([][]byte, 0, len(all))
	for n := len(all) - 1; n >= 0; n-- {
		out = append(out, all[n])
	}
	return out
}

// colours are what tools write to a terminal besides text.
var colours = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// printable takes control characters out, and with them what they begin.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, colours.ReplaceAllString(s, ""))
}

// begin tells that a step begins.
func (f *fanOut) begin(p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Bytes = f.now.Bytes
	f.now = p
	for l := range f.listeners {
		if l.log != nil {
			_, _ = fmt.Fprintf(l.log, "--- %s: %s\n", p.Tool, p.Step)
		}
	}
	fmt.Fprintf(&f.written, "--- %s: %s\n", p.Tool, p.Step)
	f.tell(true)
}

// grown tells how much has been written to the disk.
func (f *fanOut) grown(size faas.Bytes) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now.Bytes = size
	f.tell(false)
}

// tell is called with mu held.
func (f *fanOut) tell(always bool) {
	if now := time.Now(); always || now.Sub(f.told) >= tellEvery {
		f.told = now
		for l := range f.listeners {
			if l.progress != nil {
				l.progress(f.now)
			}
		}
	}
}

// Tail keeps the end of what is written to it. It is not safe for concurrent use.
type Tail struct {
	Most int // bytes
	buf  bytes.Buffer
	cut  bool
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - t.Most; over > 0 {
		t.buf.Next(over)
		t.cut = true
	}
	return len(p), nil
}

// String returns it without what moves a terminal's cursor. It begins with … if it is not all.
func (t *Tail) String() string {
	text := printable(strings.ToValidUTF8(t.buf.String(), ""))
	if t.cut {
		return "…" + text
	}
	return text
}

// Lines returns the last lines, and how many there were before them.
func (t *Tail) Lines(most int) string {
	all := strings.Split(strings.TrimSpace(t.String()), "\n")
	if n := len(all); n > most {
		all = append([]string{fmt.Sprintf("… %d lines before", n-most)}, all[n-most:]...)
	}
	return strings.Join(all, "\n")
}
