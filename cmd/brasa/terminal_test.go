package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
)

// forTerminal returns an app whose output goes to a buffer as if it were a terminal, or not.
func forTerminal(tty bool) (*app, *bytes.Buffer) {
	var out bytes.Buffer
	return &app{out: &cli.Printer{Out: &out, Err: io.Discard, OutTTY: tty, ErrTTY: tty, Width: 80, Now: time.Now}}, &out
}

const clipboard = "\x1b]52;c;ZXZpbA==\a"

func TestAnAnswerCannotSteerATerminal(t *testing.T) {
	for _, c := range []struct {
		name     string
		tty, raw bool
		want     string
	}{
		{"terminal", true, false, "a" + `\x1b]52;c;ZXZpbA==\x07` + "b\n"},
		{"terminal, raw asked for", true, true, "a" + clipboard + "b\n"},
		{"no terminal", false, false, "a" + clipboard + "b"},
	} {
		a, out := forTerminal(c.tty)
		if err := a.copyAnswer(strings.NewReader("a"+clipboard+"b"), c.raw); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestALogLineCannotPassForAnother(t *testing.T) {
	l := api.LogEntry{Stream: "stdout", Function: "evil", Text: "x\r2026-01-01 00:00:00.000 platform| all is well\n2026 pay stdout | y" + clipboard}
	for _, tty := range []bool{true, false} {
		a, _ := forTerminal(tty)
		line := a.logLine(&logFlags{}, l)
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, " evil stdout  | x") {
			t.Errorf("on a terminal %v: got %q; want one line that says function and stream first", tty, line)
		}
		if tty && strings.ContainsAny(line, "\r\x1b\a") {
			t.Errorf("on a terminal: got %q; want no control characters", line)
		}
	}
}

func TestARecordCannotSteerATerminal(t *testing.T) {
	act := &faas.Activation{
		ID: "0", Function: "f", Outcome: faas.Failed, Error: "boom" + clipboard, Trace: "at" + clipboard, Subject: clipboard, Fault: "function",
		Logs: []faas.LogLine{{Stream: "stderr", Text: clipboard}},
	}
	a, out := forTerminal(true)
	if err := a.describeActivation(out, act); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\a") {
		t.Errorf("got %q; want no control characters", out)
	}
}
