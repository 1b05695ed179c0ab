package cli

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Fill breaks the lines of a text anew so that none is wider than width, where one is. Paragraphs are
// parted by empty lines; lines that begin with a blank, such as commands, stay as they are. With a
// width of 0 nothing is changed.
func Fill(text string, width int) string {
	if width <= 0 {
		return text
	}
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		lines := strings.Split(p, "\n")
		wide := false
		for _, l := range lines {
			wide = wide || ansi.StringWidth(l) > width
		}
		if !wide {
			continue
		}
		var out, run []string
		flush := func() {
			if len(run) > 0 {
				out = append(out, broken(run, width)...)
			}
			run = nil
		}
		for _, l := range lines {
			if strings.HasPrefix(l, " ") {
				flush()
				out = append(out, l)
				continue
			}
			run = append(run, strings.Fields(l)...)
		}
		flush()
		paragraphs[i] = strings.Join(out, "\n")
	}
	return strings.Join(paragraphs, "\n\n")
}

// broken puts words on lines. It breaks at blanks alone: a flag is found whole.
func broken(words []string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words {
		switch {
		case line == "":
			line = w
		case ansi.StringWidth(line)+1+ansi.StringWidth(w) > width:
			lines = append(lines, line)
			line = w
		default:
			line += " " + w
		}
	}
	return append(lines, line)
}
