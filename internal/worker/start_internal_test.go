package worker

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
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
