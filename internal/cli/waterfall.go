package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// phaseNames are the phases as people read them.
var phaseNames = map[string]string{
	"resolve": "resolve", "queue": "queue", "provisioning": "provisioning",
	"runtime_load": "runtime load", "dependency_load": "dependency load", "code_load": "code load",
	"execution": "execution", "return": "return",
}

// bar is a phase with its place on the way.
type bar struct {
	name        string
	part        bool
	begin, took time.Duration
	cpu         time.Duration
}

// bars lays the phases one after the other; parts of a phase start where the phase starts. What
// no phase claims is the last bar, if it can be seen at all.
func bars(t faas.Timing) []bar {
	var out []bar
	var at, inside time.Duration
	for _, p := range t.Phases() {
		took, cpu := time.Duration(p.US)*time.Microsecond, time.Duration(p.CPU)*time.Microsecond
		if _, part, ok := strings.Cut(p.Name, "."); ok {
			out = append(out, bar{name: part, part: true, begin: inside, took: took, cpu: cpu})
			inside += took
			continue
		}
		name, ok := phaseNames[p.Name]
		if !ok {
			name = p.Name
		}
		out = append(out, bar{name: name, begin: at, took: took, cpu: cpu})
		inside = at
		at += took
	}
	if rest := t.Total - at; rest > t.Total/50 && rest > 50*time.Microsecond {
		out = append(out, bar{name: "elsewhere", begin: at, took: rest})
	}
	return out
}

// eighths are the bar's right ends.
var eighths = []rune(" ▏▎▍▌▋▊▉")

// drawBar draws a stretch of the whole in width cells, to an eighth of a cell at its end. What
// took time at all can be seen.
func drawBar(begin, took, total time.Duration, width int) string {
	if total <= 0 {
		return ""
	}
	from := int(int64(begin) * int64(width) / int64(total))
	from = min(from, width-1)
	n := int(int64(took) * int64(width) * 8 / int64(total))
	n = max(1, min(n, (width-from)*8))
	s := strings.Repeat(" ", from) + strings.Repeat("█", n/8)
	if n%8 > 0 {
		s += string(eighths[n%8])
	}
	return s
}

// Waterfall draws where the time of a call went, one line per phase, parts of a phase indented
// below it.
func Waterfall(w io.Writer, t faas.Timing, s Styles, width int) error {
	const left = 19 + 10 + 10 + 3 // columns: name, took, cpu, space
	cells := max(10, min(60, width-left))
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.Faint.Render(fmt.Sprintf("%-19s%10s%10s", "PHASE", "TIME", "CPU")))
	total := t.Total
	all := bars(t)
	for _, l := range all {
		total = max(total, l.begin+l.took)
	}
	for _, l := range all {
		name, style := l.name, s.Accent
		if l.part {
			name, style = "  "+l.name, s.Faint
		}
		switch l.name {
		case "execution":
			style = s.Good
		case "elsewhere":
			style = s.Faint
		}
		cpu := ""
		if l.cpu > 0 {
			cpu = Took(l.cpu)
		}
		line := padRight(name, 19) + padLeft(Took(l.took), 10) + padLeft(cpu, 10) + "  " + style.Render(drawBar(l.begin, l.took, total, cells))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Strip draws the phases of a call in one short bar: a letter per cell where there are no
// colours, a block in the phase's colour where there are.
func Strip(t faas.Timing, s Styles, width int) string {
	type kind struct {
		letter string
		style  Style
	}
	kinds := map[string]kind{
		"resolve": {"q", s.Faint}, "queue": {"q", s.Faint}, "provisioning": {"p", s.Warn},
		"runtime load": {"r", s.Accent}, "dependency load": {"d", s.Bad}, "code load": {"c", s.Accent},
		"execution": {"x", s.Good}, "return": {"x", s.Good}, "elsewhere": {".", s.Faint},
	}
	var total time.Duration
	all := bars(t)
	for _, l := range all {
		if !l.part {
			total += l.took
		}
	}
	if total <= 0 {
		return strings.Repeat(" ", width)
	}
	var b strings.Builder
	drawn := 0
	var at time.Duration
	for _, l := range all {
		if l.part {
			continue
		}
		at += l.took
		// Rounding the running sum, not each phase, makes the bar exactly as wide as asked.
		upto := int((int64(at)*int64(width) + int64(total)/2) / int64(total))
		n := upto - drawn
		drawn = upto
		k := kinds[l.name]
		if s.Good.on {
			b.WriteString(k.style.Render(strings.Repeat("━", n)))
		} else {
			b.WriteString(strings.Repeat(k.letter, n))
		}
	}
	return b.String()
}

func padLeft(s string, n int) string {
	return strings.Repeat(" ", max(0, n-len([]rune(s)))) + s
}

func padRight(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-len([]rune(s))))
}
