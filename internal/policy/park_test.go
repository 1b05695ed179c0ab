package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestParkWhatIsDearToLoadAndInUse(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		what string
		use  policy.Use
		want int
	}{
		{"one call each: nobody has called for a minute", policy.Use{OneCall: true, Rewound: true, Load: time.Second}, 0},
		{"one call each, cheap to load", policy.Use{OneCall: true, Load: ms, Busiest: 10}, 0},
		{"one call each, dear to load, called now and then", policy.Use{OneCall: true, Load: 60 * ms, Busiest: 1}, 1},
		{"one call each, dear to load, called in bursts", policy.Use{OneCall: true, Load: 60 * ms, Busiest: 10}, 15},
		{"one call each: no burst fills the machine", policy.Use{OneCall: true, Load: 60 * ms, Busiest: 10_000}, 64},
		{"rewound: one serves many", policy.Use{OneCall: true, Rewound: true, Load: ms, Busiest: 10}, 1},
		{"many calls each, cheap to load", policy.Use{Load: ms, Busiest: 10}, 0},
		{"many calls each, dear to load", policy.Use{Load: 40 * ms, Idle: time.Minute}, 1},
		{"many calls each, dear to load, not called for long", policy.Use{Load: 40 * ms, Idle: time.Hour}, 0},
	} {
		if got := policy.Park(tt.use); got != tt.want {
			t.Errorf("%s: %d wait, want %d", tt.what, got, tt.want)
		}
	}
}
