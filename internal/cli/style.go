package cli

import (
	"charm.land/lipgloss/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Styles are the few looks that text has. The sixteen basic colours only: the terminal's owner
// chose those, and chose them to be readable.
type Styles struct {
	Strong, Faint, Good, Warn, Bad, Accent Style
}

// Style draws text, or leaves it alone.
type Style struct {
	on    bool
	style lipgloss.Style
}

// Render returns s drawn in the style.
func (s Style) Render(text string) string {
	if !s.on || text == "" {
		return text
	}
	return s.style.Render(text)
}

// NewStyles returns the styles; plain ones leave text alone.
func NewStyles(color bool) Styles {
	fg := func(n lipgloss.ANSIColor) Style {
		return Style{on: color, style: lipgloss.NewStyle().Foreground(n)}
	}
	return Styles{
		Strong: Style{on: color, style: lipgloss.NewStyle().Bold(true)},
		Faint:  Style{on: color, style: lipgloss.NewStyle().Faint(true)},
		Good:   fg(2),
		Warn:   fg(3),
		Bad:    fg(1),
		Accent: fg(6),
	}
}

// Outcome draws the name of an outcome in the colour of who can mend it.
func (s Styles) Outcome(c faas.Code) string {
	switch c.Fault() {
	case "":
		return s.Good.Render(c.String())
	case "caller":
		return s.Warn.Render(c.String())
	}
	return s.Bad.Render(c.String())
}
