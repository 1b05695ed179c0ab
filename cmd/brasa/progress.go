package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	// comeBack is how long a server is waited for that went away while something was deployed: it
	// starts again in a second or two, also where a service manager pauses before.
	comeBack = time.Minute
	// sendings is how often the same is deployed at most.
	sendings = 3
)

// sendFollowed deploys src and shows on a terminal what is being done. If the server goes away
// meanwhile it is waited for, and src is sent again: nothing of a deploy that was cut off remains.
func (a *app) sendFollowed(ctx context.Context, client *api.Client, fn faas.Name, spec api.Spec, src *source) (*api.Outcome, error) {
	outcome, err := a.sendOnce(ctx, client, fn, spec, src)
	for n := 1; n < sendings && brokeOff(err) && src.again != nil; n++ {
		a.out.Warn("the server went away in the middle of the deploy; waiting up to %s for it to come back", comeBack)
		if !waitFor(ctx, client, comeBack) {
			return nil, err
		}
		next, failed := src.again()
		if failed != nil {
			return nil, failed
		}
		a.out.Say("it is back; %s is sent again", src.what)
		outcome, err = a.sendOnce(ctx, client, fn, spec, next)
		next.close()
	}
	return outcome, err
}

func (a *app) sendOnce(ctx context.Context, client *api.Client, fn faas.Name, spec api.Spec, src *source) (*api.Outcome, error) {
	what := "deploying " + src.what + " as " + fn.Path()
	say, done := a.out.Watch(what)
	defer done()
	said := ""
	steps := &stepTeller{say: func(step string) { a.out.Say("%s: %s …", what, step) }}
	if !a.out.ErrTTY {
		defer steps.begin()()
	}
	return send(ctx, client, fn, spec, src, func(e api.DeployEvent) {
		switch {
		case e.Begins != "":
			say(what + ": " + e.Begins)
			steps.at(e.Begins)
		case e.Install != nil:
			p := *e.Install
			if p.Tool != said { // once, for those who have no terminal
				said = p.Tool
				a.out.Detail("installing with %s", p.Tool)
			}
			tool, _, _ := strings.Cut(p.Tool, ", ") // not its plugins, which leave no room for the rest
			text := fmt.Sprintf("%s: %s", tool, p.Step)
			if p.Bytes > 0 {
				text += ", " + cli.Size(p.Bytes)
			}
			if p.Line != "" {
				text += "  " + p.Line
			}
			say(text)
		case e.Image != nil:
			say(imageProgress(e.Image))
		}
	})
}

// longSilence is how long a deploy may take before those who have no terminal, such as the log of a CI,
// are told which step it is at.
const longSilence = 3 * time.Second

// stepTeller says each step of something that takes long, and none of what does not.
type stepTeller struct {
	say func(step string)

	mu   sync.Mutex
	late bool   // guarded by mu; longSilence is over
	step string // guarded by mu
	told string // guarded by mu
}

// begin starts the clock; what it returns stops it.
func (s *stepTeller) begin() (end func()) {
	t := time.AfterFunc(longSilence, func() {
		s.mu.Lock()
		s.late = true
		s.mu.Unlock()
		s.at("")
	})
	return func() { t.Stop() }
}

// at says that a step begins; "" that the one before goes on.
func (s *stepTeller) at(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step != "" {
		s.step = step
	}
	if s.late && s.step != s.told {
		s.told = s.step
		s.say(s.step)
	}
}

// brokeOff says whether a server that had been reached was lost.
func brokeOff(err error) bool {
	u, ok := errors.AsType[*api.Unreachable](err)
	if !ok {
		return false
	}
	dial, ok := errors.AsType[*net.OpError](u.Err)
	return !ok || dial.Op != "dial"
}

// waitFor asks until the server is ready, for at most a while.
func waitFor(ctx context.Context, client *api.Client, most time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		if r, err := client.Ready(ctx); err == nil && r.Ready {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// installLine says what the dependencies came to.
func installLine(st api.Step) string {
	in := st.Install
	text := fmt.Sprintf("%d of %s", in.Count, in.Manifest)
	if in.Count == 0 {
		text = "of " + in.Manifest
	}
	text += ", " + cli.Size(in.Bytes)
	took := cli.Took(time.Duration(st.US) * time.Microsecond)
	if in.Cached {
		text += ", installed before (" + took + ")"
	} else {
		text += ", by " + in.Tool + " in " + took
	}
	var heavy []string
	for _, p := range in.Packages {
		heavy = append(heavy, strings.TrimSpace(p.Name+" "+p.Version)+" "+cli.Size(p.Bytes))
	}
	if len(heavy) > 0 {
		text += "\n         heaviest: " + strings.Join(heavy, ", ")
	}
	if in.Note != "" {
		text += "\n         " + in.Note
	}
	return text
}
