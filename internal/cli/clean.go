package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestSequence bounds what a Cleaner holds back while it waits for the end of a colour
// sequence. ECMA-48 sets no bound; real ones are under 20 bytes.
const longestSequence = 64

// Cleaner is a writer that makes a stranger's text harmless to a terminal. New lines and tabs
// pass; colour sequences (SGR) are dropped; every other control character, C1 controls, bytes that
// are no UTF-8 and characters that reorder or hide text are written as visible escapes such as
// \x1b. Close writes what was held back.
type Cleaner struct {
	W    io.Writer
	held []byte // an unfinished character or sequence
}

// Write cleans b and passes it on. It reports len(b) unless the writer below fails.
func (c *Cleaner) Write(b []byte) (int, error) {
	in := append(c.held, b...)
	out, rest := clean(in, false)
	c.held = append([]byte(nil), rest...)
	if _, err := io.WriteString(c.W, out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close writes what was held back. It does not close the writer below.
func (c *Cleaner) Close() error {
	out, _ := clean(c.held, true)
	c.held = nil
	_, err := io.WriteString(c.W, out)
	return err
}

// Clean returns s made harmless to a terminal, as a Cleaner would write it.
func Clean(s string) string {
	out, _ := clean([]byte(s), true)
	return out
}

// CleanLine is Clean for text that must stay on its line: ends of lines are escaped too.
func CleanLine(s string) string {
	return strings.ReplaceAll(Clean(s), "\n", `\n`)
}

// clean returns what can be written and, unless this is the end, what must wait for more.
func clean(in []byte, end bool) (out string, rest []byte) {
	var b strings.Builder
	for len(in) > 0 {
		if !end && !utf8.FullRune(in) {
			return b.String(), in
		}
		if in[0] == '\r' {
			if len(in) == 1 && !end {
				return b.String(), in
			}
			if len(in) > 1 && in[1] == '\n' {
				in = in[1:] // an end of line of another world
				continue
			}
		}
		if in[0] == 0x1b {
			n, unfinished := colour(in)
			if unfinished && !end {
				return b.String(), in
			}
			if n > 0 {
				in = in[n:]
				continue
			}
		}
		r, size := utf8.DecodeRune(in)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, in[0])
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0xa0 && r >= 0x80, deceptive(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		in = in[size:]
	}
	return b.String(), nil
}

// colour returns the length of the SGR sequence at the start of in, 0 if there is none, and
// whether more bytes could still make one.
func colour(in []byte) (n int, unfinished bool) {
	if len(in) == 1 {
		return 0, true
	}
	if in[1] != '[' {
		return 0, false
	}
	for i := 2; i < len(in) && i < longestSequence; i++ {
		switch c := in[i]; {
		case c == 'm':
			return i + 1, false
		case c >= '0' && c <= '9', c == ';', c == ':':
		default:
			return 0, false
		}
	}
	return 0, len(in) < longestSequence
}

// deceptive says whether a character makes text read other than it is: it reorders, it is
// invisible, or it separates lines for some readers only.
func deceptive(r rune) bool {
	return unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 || r == 0x2029 || r == 0xfeff ||
		r >= 0xe0000 && r <= 0xe007f
}
