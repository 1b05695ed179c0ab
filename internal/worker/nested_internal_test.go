package worker

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// A call is refused if it waits for the instance that waits for it, and only then.
func TestACallThatWaitsForItsCallerIsRefused(t *testing.T) {
	gone := make(chan struct{})
	close(gone)
	for name, c := range map[string]struct {
		from    string
		gone    chan struct{}
		waited  time.Duration
		most    int
		through bool // an instance of another function asked for the call, and serves one of the first's
		refused bool
	}{
		"of the only instance":                   {from: "i-1", waited: stuckFor, most: 1, refused: true},
		"through another function":               {from: "i-2", waited: stuckFor, most: 1, through: true, refused: true},
		"that has not waited long":               {from: "i-1", waited: stuckFor - 1, most: 1},
		"while there may be another instance":    {from: "i-1", waited: stuckFor, most: 2},
		"of nobody's":                            {waited: stuckFor, most: 1},
		"of an instance that is gone":            {from: "i-0", waited: stuckFor, most: 1},
		"of an instance that waits no more":      {from: "i-1", gone: gone, waited: stuckFor, most: 1},
		"through one that does not wait for it":  {from: "i-2", gone: gone, waited: stuckFor, most: 1, through: true},
		"of an instance that serves another too": {from: "i-3", waited: stuckFor, most: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := New(Config{Memory: faas.GiB})
			defer w.end()
			pool := func(function string, most int, instances ...*instance) *pool {
				rev := &faas.Revision{Name: faas.Name{Namespace: "default", Function: function}, Limits: faas.DefaultLimits()}
				rev.Limits.MaxInstances = most
				p := w.pool(rev, &runtimes.Runtime{Style: runtimes.StyleFrames})
				for _, in := range instances {
					in.pool, in.held, in.slots = p, rev.Limits.Memory, in.active
					p.instances[in.id] = in
				}
				return p
			}
			first := &instance{id: "i-1", active: 1}
			p := pool("f", c.most, first)
			second := &instance{id: "i-2", active: 1}
			pool("g", 1, second)
			if c.from == "i-3" {
				pool("f", c.most, &instance{id: "i-3", active: 2})
			}
			now := time.Now()
			inner := &call{inv: &faas.Invocation{}, from: "i-1", gone: c.gone}
			if c.through {
				w.serves(second, inner)
			}
			wt := &waiter{call: &call{inv: &faas.Invocation{}, from: c.from, gone: c.gone}, since: now.Add(-c.waited), ready: make(chan grant, 1)}
			w.nested.waiting.Add(1)
			p.line.push(wt)
			w.untangle(now)
			refused := len(wt.ready) == 1
			if refused != c.refused {
				t.Errorf("refused: %t, want %t", refused, c.refused)
			}
			if refused {
				if g := <-wt.ready; faas.CodeOf(g.err) != faas.Overloaded || faas.AsError(g.err).Limit != "max_instances" {
					t.Errorf("got %v", g.err)
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.served(inner); len(w.nested.served) != 0 {
				t.Errorf("%d instances are said to wait for calls that have ended", len(w.nested.served))
			}
		})
	}
}
