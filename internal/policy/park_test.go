package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestParkWhatIsDearToLoadAndInUse(t *testing.T) {
	for _, tt := range []struct {
		what    string
		load    time.Duration
		busiest int
		rewound bool
		want    int
	}{
		{"nobody has called for a minute", time.Second, 0, true, 0},
		{"cheap to load, each process for one call", time.Millisecond, 10, false, 0},
		{"dear to load, called now and then", 60 * time.Millisecond, 1, false, 1},
		{"dear to load, called in bursts", 60 * time.Millisecond, 10, false, 15},
		{"no burst fills the machine", 60 * time.Millisecond, 10_000, false, 64},
		{"rewound: one serves many", time.Millisecond, 10, true, 1},
	} {
		if got := policy.Park(tt.load, tt.busiest, tt.rewound); got != tt.want {
			t.Errorf("%s: %d wait, want %d", tt.what, got, tt.want)
		}
	}
}
