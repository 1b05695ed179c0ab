package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

func TestWhomAFailedStartConcerns(t *testing.T) {
	for _, c := range []struct {
		what        string
		line        int
		works       bool
		concurrency int
		own         bool
		want        int
	}{
		{"no instance works: all would meet it", 7, false, 1, false, 7},
		{"one works: the one whom the new one would have served", 7, true, 1, false, 1},
		{"one works: those whom the new one would have served", 7, true, 3, false, 3},
		{"fewer wait than it would have served", 2, true, 50, false, 2},
		{"nobody waits", 0, true, 1, false, 0},
		{"a process of one call's own is nobody else's", 7, false, 1, true, 0},
	} {
		p := &pool{rev: &faas.Revision{Limits: faas.Limits{Concurrency: c.concurrency}}, instances: map[string]*instance{}}
		for range c.line {
			p.line.push(&waiter{ready: make(chan grant, 1)})
		}
		if c.works {
			p.instances["i"] = &instance{}
		}
		var of *waiter
		if c.own {
			of = &waiter{}
		}
		if got := p.concerned(of); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}

// What this host cannot do is said when the server starts; a log that repeats it each minute hides the rest.
func TestWhatAHostCannotDoIsNoSurprise(t *testing.T) {
	u := &sandbox.UnsupportedError{Feature: "egress", Why: "an ordinary user has no power over it", Fix: "run as root"}
	err := unsupported(fmt.Errorf("start: %w", u))
	if got := surprise(err); got != slog.LevelDebug {
		t.Errorf("%v: logged at %v, want %v", err, got, slog.LevelDebug)
	}
	if e := faas.AsError(err); e.Code != faas.Unavailable || e.Fix != u.Fix || !strings.Contains(e.Message(), "egress: an ordinary user") {
		t.Errorf("got %v with the fix %q", err, e.Fix)
	}
	if got := surprise(unsupported(errors.New("out of processes"))); got != slog.LevelWarn {
		t.Errorf("another failure: logged at %v, want %v", got, slog.LevelWarn)
	}
}

// Every name of a function makes a name of a host.
func TestHostnames(t *testing.T) {
	for name, want := range map[string]string{"f": "f", "a-b": "a-b", "foo-": "foox", "-": "x", "_a": "xa", "A.b-C": "axb-c", "a--": "a-x"} {
		if got := hostname(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
