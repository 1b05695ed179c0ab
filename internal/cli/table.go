package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Grid is a table without borders. Cells may hold styled text.
type Grid struct {
	head []string
	rows [][]string
}

// NewGrid returns an empty table with these column heads.
func NewGrid(head ...string) *Grid { return &Grid{head: head} }

// Row adds a row; missing cells are empty.
func (g *Grid) Row(cells ...string) { g.rows = append(g.rows, cells) }

// Len returns the number of rows.
func (g *Grid) Len() int { return len(g.rows) }

// fewest is how many columns a table has, however narrow the terminal.
const fewest = 2

// Write draws the table. An empty cell is drawn as a dash, so that columns can be counted. Of a
// width that is not 0, the last columns are left out that do not fit.
func (g *Grid) Write(w io.Writer, s Styles, width int) error {
	widths := make([]int, len(g.head))
	cell := func(row []string, i int) string {
		if i >= len(row) || row[i] == "" {
			return "-"
		}
		return row[i]
	}
	for i, h := range g.head {
		widths[i] = lipgloss.Width(h)
		for _, r := range g.rows {
			widths[i] = max(widths[i], lipgloss.Width(cell(r, i)))
		}
	}
	head := g.head
	if width > 0 {
		for total(widths[:len(head)]) > width && len(head) > fewest {
			head = head[:len(head)-1]
		}
	}
	var b strings.Builder
	line := func(get func(int) string, draw func(string) string) {
		var l strings.Builder
		for i := range head {
			c := get(i)
			l.WriteString(draw(c))
			if i < len(head)-1 {
				l.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(c)+2))
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	line(func(i int) string { return g.head[i] }, s.Faint.Render)
	for _, r := range g.rows {
		line(func(i int) string { return cell(r, i) }, func(c string) string { return c })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// total is the width of a line with columns of these widths.
func total(widths []int) int {
	n := 2 * (len(widths) - 1)
	for _, w := range widths {
		n += w
	}
	return n
}

// Ago says how long ago t was, in one unit; "never" for the zero time.
func Ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d/time.Hour))
	}
	return fmt.Sprintf("%dd ago", int(d/(24*time.Hour)))
}

// Took prints a time span with three digits that matter: 84µs, 4.21ms, 312ms, 1.24s.
func Took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// Size prints a measured number of bytes with at most one digit behind the point: 268B, 3.5MiB.
func Size(b faas.Bytes) string {
	for _, u := range []struct {
		unit faas.Bytes
		name string
	}{{faas.GiB, "GiB"}, {faas.MiB, "MiB"}, {faas.KiB, "KiB"}} {
		if b >= u.unit {
			return strings.TrimSuffix(strconv.FormatFloat(float64(b)/float64(u.unit), 'f', 1, 64), ".0") + u.name
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}
