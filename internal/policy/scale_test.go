package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

// story is a time at a function: seconds of a load each, and what is wanted at the end of it.
type chapter struct {
	what     string
	seconds  int
	calls    float64
	standing int
	want     int
	panic    bool
}

func tell(t *testing.T, c policy.ScaleConfig, story []chapter) {
	t.Helper()
	var l policy.Load
	now := int64(1_800_000_000)
	for _, ch := range story {
		var got policy.Wanted
		for range ch.seconds {
			now++
			l.Note(now, ch.calls)
			got = policy.Scale(c, &l, ch.standing, now)
		}
		if got.Instances != ch.want || got.Panic != ch.panic {
			t.Errorf("%s: %+v, want %d, panic %v", ch.what, got, ch.want, ch.panic)
		}
	}
}

func TestScaleFollowsTheLoad(t *testing.T) {
	tell(t, policy.ScaleConfig{Target: 1}, []chapter{
		{"nobody calls", 10, 0, 0, 0, false},
		{"a call now and then is no reason to hold an instance", 60, 0.02, 1, 0, false},
		{"three at a time", 60, 3, 3, 3, false},
		{"one of them has nothing to do for some seconds: none goes", 5, 2, 3, 3, false},
		{"two at a time for good", 60, 2, 3, 2, false},
		{"nobody calls any more", 30, 0, 2, 1, false},
		{"nobody has called for a minute: scaled to zero", 31, 0, 1, 0, false},
	})
}

// A step from nothing to five hundred calls at once, and back.
func TestScalePanicsAtAStepAndCalmsDownAfterIt(t *testing.T) {
	tell(t, policy.ScaleConfig{Target: 70}, []chapter{
		{"a little", 60, 20, 1, 1, false},
		{"a step to 500: the mean of six seconds passes what stands within two", 3, 500, 1, 4, true},
		{"they are made", 3, 500, 4, 8, true},
		{"nothing is taken away while the panic lasts", 30, 500, 8, 8, true},
		{"the step back: not at once", 10, 0, 8, 8, true},
		{"calm again: as the minute says", 20, 0, 8, 4, false},
		{"and back to zero", 31, 0, 1, 0, false},
	})
}

func TestScaleKeepsWithinItsBounds(t *testing.T) {
	tell(t, policy.ScaleConfig{Target: 1, Min: 2, Max: 5}, []chapter{
		{"nobody calls", 60, 0, 2, 2, false},
		{"more than it may serve", 60, 50, 5, 5, true},
		{"the next day", 200, 0, 5, 2, false},
	})
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		asked, concurrency int
		want               float64
	}{{0, 1, 1}, {0, 10, 7}, {0, 100, 70}, {3, 10, 3}, {0, 0, 1}} {
		if got := policy.Target(tt.asked, tt.concurrency); got != tt.want {
			t.Errorf("Target(%d, %d) = %v, want %v", tt.asked, tt.concurrency, got, tt.want)
		}
	}
}

func TestLoadForgets(t *testing.T) {
	var l policy.Load
	l.Note(100, 8)
	l.Note(100, 4) // the larger counts
	if got := l.Mean(100, time.Minute); got != 8 {
		t.Errorf("mean %v, want 8", got)
	}
	if got := l.Mean(159, time.Minute); got != 8 {
		t.Errorf("at the end of the minute: %v", got)
	}
	if got := l.Mean(160, time.Minute); got != 0 {
		t.Errorf("after it: %v", got)
	}
}
