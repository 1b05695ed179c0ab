package cli

import "testing"

func TestFillBreaksProseAndLeavesCommands(t *testing.T) {
	text := "Prose that was broken for a wide\nterminal names --some-flag whole.\n\n  brasa deploy PATH --name NAME --memory 512MiB\n\nShort\nlines."
	want := "Prose that was broken\nfor a wide terminal\nnames --some-flag\nwhole.\n\n  brasa deploy PATH --name NAME --memory 512MiB\n\nShort\nlines."
	if got := Fill(text, 22); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, width := range []int{0, 80} {
		if got := Fill(text, width); got != text {
			t.Errorf("with a width of %d: got\n%s\nwant it as it was", width, got)
		}
	}
}
