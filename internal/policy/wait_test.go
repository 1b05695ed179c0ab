package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestWait(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		what     string
		standing int
		starved  bool
		pace     policy.Pace
		want     bool
	}{
		{"a new function", 0, false, policy.Pace{}, false},
		{"none that stands, while the processors are busy", 0, true, policy.Pace{Least: 100 * us, CPU: 90 * us}, false},
		{"fewer instances than processors", 1, false, policy.Pace{Least: 100 * us, CPU: 90 * us}, false},
		{"as many instances as processors", 2, false, policy.Pace{Least: 100 * us, CPU: 90 * us}, false},
		{"one, that has no processor", 1, true, policy.Pace{Least: 100 * us, CPU: 90 * us}, true},
		{"short calls", 3, false, policy.Pace{Least: 300 * us, CPU: 90 * us}, true},
		{"long calls", 3, false, policy.Pace{Least: 3 * ms, CPU: 90 * us}, false},
		{"short calls that take long for want of a processor", 20, true, policy.Pace{Least: 9 * ms, CPU: 300 * us}, true},
		{"calls that compute for long", 3, true, policy.Pace{Least: 50 * ms, CPU: 50 * ms}, false},
		{"nothing known of the calls", 3, true, policy.Pace{}, false},
	} {
		if got := policy.Wait(c.standing, 2, c.starved, c.pace); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestGrowAfterAll(t *testing.T) {
	for _, c := range []struct {
		what           string
		waited         time.Duration
		starved, known bool
		want           bool
	}{
		{"a moment", time.Millisecond, false, true, false},
		{"processors with nothing to do", 6 * time.Millisecond, false, true, true},
		{"processors that are busy", 60 * time.Millisecond, true, true, false},
		{"nothing known of the processors", 6 * time.Millisecond, false, false, false},
		{"long, whatever the processors do", 2 * time.Second, true, true, true},
	} {
		if got := policy.GrowAfterAll(c.waited, c.starved, c.known); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestDemand(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name                string
		underWay, perSecond float64
		least               time.Duration
		want                float64
	}{
		{"nothing is known", 32, 100, 0, 32},
		{"calls are long", 32, 100, 20 * ms, 32},
		{"short ones that wait for each other", 32, 5000, ms / 4, 3},
		{"short ones of which many are really under way", 32, 6000, 2 * ms, 24},
		{"few", 1, 1000, ms / 4, 1},
		{"none", 0, 0, ms / 4, 0},
	} {
		if got := policy.Demand(c.underWay, c.perSecond, 2, policy.Pace{Least: c.least}); got != c.want {
			t.Errorf("%s: %g, want %g", c.name, got, c.want)
		}
	}
}
