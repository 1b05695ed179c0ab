package cli_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/cli"
)

var hostile = []struct{ name, in, want string }{
	{"plain", "héllo\tworld\n", "héllo\tworld\n"},
	{"colours are dropped", "\x1b[1;31mred\x1b[0m", "red"},
	{"clipboard", "\x1b]52;c;ZXZpbA==\a", `\x1b]52;c;ZXZpbA==\x07`},
	{"cursor", "a\x1b[2K\x1b[1Ab", `a\x1b[2K\x1b[1Ab`},
	{"title", "\x1b]0;x\x1b\\", `\x1b]0;x\x1b\`},
	{"carriage return hides what was before", "secret\rpublic", `secret\x0dpublic`},
	{"line end of another world", "a\r\nb", "a\nb"},
	{"c1 controls", "\u009b31m", `\u009b31m`},
	{"raw c1 bytes", "\x9b31m", `\x9b31m`},
	{"right to left override", "user\u202egpj.exe", `user\u202egpj.exe`},
	{"line separator", "a\u2028b", `a\u2028b`},
	{"bell, backspace, delete", "\a\b\x7f", `\x07\x08\x7f`},
	{"escape at the end", "x\x1b", `x\x1b`},
	{"half a character at the end", "x\xc3", `x\xc3`},
	{"unfinished colour", "\x1b[31", `\x1b[31`},
	{"endless colour", "\x1b[" + strings.Repeat("1", 100), `\x1b[` + strings.Repeat("1", 100)},
}

func TestCleanMakesTextHarmless(t *testing.T) {
	for _, c := range hostile {
		if got := cli.Clean(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCleanerDoesNotCareHowTheTextIsCut(t *testing.T) {
	for _, c := range hostile {
		for size := 1; size <= len(c.in); size++ {
			var b bytes.Buffer
			w := &cli.Cleaner{W: &b}
			for in := []byte(c.in); len(in) > 0; in = in[min(size, len(in)):] {
				if n, err := w.Write(in[:min(size, len(in))]); err != nil || n != min(size, len(in)) {
					t.Fatalf("write: %d, %v", n, err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("%s in pieces of %d: got %q, want %q", c.name, size, &b, c.want)
			}
		}
	}
}

func FuzzCleanLetsNoControlThrough(f *testing.F) {
	for _, c := range hostile {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := cli.Clean(in)
		if !utf8.ValidString(got) {
			t.Fatalf("%q became %q, which is no UTF-8", in, got)
		}
		for _, r := range got {
			if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q became %q, which holds control %U", in, got, r)
			}
		}
	})
}
