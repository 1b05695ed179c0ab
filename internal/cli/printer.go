package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/term"
	"go.yaml.in/yaml/v3"
)

// Format is the form of the data on stdout.
type Format string

// Formats.
const (
	Table Format = "table" // for people: the columns that fit
	Wide  Format = "wide"  // all columns
	JSON  Format = "json"  // {"ok":true,"data":…} or {"ok":false,"error":{…}}
	YAML  Format = "yaml"  // the same, as YAML
	Names Format = "name"  // names alone, one per line
)

// ParseFormat reads the value of --output.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Table, Wide, JSON, YAML, Names:
		return f, nil
	case "":
		return Table, nil
	}
	return "", Usagef("-o %s: no such form; use table, wide, json, yaml or name", s)
}

// Printer writes results and talk. It is safe for concurrent use.
type Printer struct {
	Out, Err       io.Writer
	OutTTY, ErrTTY bool
	Format         Format
	Quiet          bool // talk only when something fails
	Verbose        bool
	Width          int // of the terminal; 80 where there is none
	Now            func() time.Time

	color bool
	mu    sync.Mutex
}

// NewPrinter returns a Printer for two files, usually stdout and stderr. Colours are used on
// terminals unless noColor is set, NO_COLOR is in the environment or TERM is "dumb".
func NewPrinter(out, err *os.File, noColor bool) *Printer {
	p := &Printer{
		Out: out, Err: err, OutTTY: term.IsTerminal(out.Fd()), ErrTTY: term.IsTerminal(err.Fd()),
		Format: Table, Width: 80, Now: time.Now,
		color: !noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
	for _, f := range []*os.File{out, err} {
		if w, _, e := term.GetSize(f.Fd()); e == nil && w > 0 {
			p.Width = w
			break
		}
	}
	return p
}

// OutStyles returns the styles for stdout, plain ones where no person is looking.
func (p *Printer) OutStyles() Styles { return NewStyles(p.color && p.OutTTY) }

// ErrStyles returns the styles for stderr.
func (p *Printer) ErrStyles() Styles { return NewStyles(p.color && p.ErrTTY) }

// TableWidth is the width that a table must fit in: that of the terminal, unless all columns are
// asked for; 0 where there is none.
func (p *Printer) TableWidth() int {
	if !p.OutTTY || p.Format == Wide {
		return 0
	}
	return p.Width
}

// Structured says whether stdout is to hold JSON or YAML and nothing else.
func (p *Printer) Structured() bool { return p.Format == JSON || p.Format == YAML }

// Say writes a line of talk to stderr, unless quiet.
func (p *Printer) Say(format string, args ...any) {
	if !p.Quiet {
		p.talk(fmt.Sprintf(format, args...))
	}
}

// Detail writes a line of talk that only --verbose shows.
func (p *Printer) Detail(format string, args ...any) {
	if p.Verbose && !p.Quiet {
		p.talk(fmt.Sprintf(format, args...))
	}
}

// Warn writes a line of talk that --quiet does not silence.
func (p *Printer) Warn(format string, args ...any) {
	p.talk(p.ErrStyles().Warn.Render("warning:") + " " + fmt.Sprintf(format, args...))
}

func (p *Printer) talk(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.Err, strings.TrimRight(s, "\n")+"\n") // nobody is left to tell if stderr is gone
}

type envelope struct {
	OK    bool         `json:"ok"`
	Data  any          `json:"data,omitempty"`
	Error *FailureJSON `json:"error,omitempty"`
}

type emptyEnvelope struct {
	OK   bool `json:"ok"`
	Data any  `json:"data"`
}

// Data writes v in the form that was asked for. human draws it for people and for `-o name`; it
// writes to the writer it is given.
func (p *Printer) Data(v any, human func(w io.Writer) error) error {
	if !p.Structured() {
		return human(p.Out) // which may talk, and so takes the lock itself
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.structured(emptyEnvelope{OK: true, Data: v}, true)
}

// Item writes v as one line of JSON in its envelope, for answers that are a stream of items.
func (p *Printer) Item(v any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.structured(emptyEnvelope{OK: true, Data: v}, false)
}

func (p *Printer) structured(v any, pretty bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if p.Format == YAML {
		b, err = jsonToYAML(b)
		if err != nil {
			return err
		}
		if !pretty {
			b = append([]byte("---\n"), b...)
		}
		_, err = p.Out.Write(b)
		return err
	}
	if pretty && p.OutTTY {
		if b, err = json.MarshalIndent(v, "", "  "); err != nil {
			return err
		}
	}
	_, err = p.Out.Write(append(b, '\n'))
	return err
}

// jsonToYAML writes a JSON document as YAML with its keys in the same order: JSON is YAML, so
// it is parsed as such and written again in the block style.
func jsonToYAML(b []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return nil, err
	}
	var plain func(*yaml.Node)
	plain = func(n *yaml.Node) {
		n.Style = 0
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&n)
	return yaml.Marshal(&n)
}

// Fail prints err and returns the exit code. With --json and -o yaml the error goes to stdout as
// an envelope, so that a script has one place to look.
func (p *Printer) Fail(err error) int {
	if q, ok := errors.AsType[*QuietError](err); ok {
		return q.Exit
	}
	f := Explain(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Structured() {
		j := f.JSON()
		_ = p.structured(envelope{Error: &j}, true) // nobody is left to tell if stdout is gone
		return f.Exit
	}
	if f.Code == "interrupted" {
		return f.Exit // the person knows
	}
	clean := func(s string) string { return s }
	if p.ErrTTY {
		clean = Clean
	}
	_, _ = io.WriteString(p.Err, f.lines(p.ErrStyles(), clean))
	return f.Exit
}

// Line writes a line of data to stdout.
func (p *Printer) Line(s string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := io.WriteString(p.Out, s+"\n")
	return err
}
