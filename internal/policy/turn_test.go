package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestLate(t *testing.T) {
	pace := policy.Pace{Least: 100 * time.Millisecond}
	for _, tt := range []struct {
		what string
		turn policy.Turn
		want bool
	}{
		{"nothing is known of the function", policy.Turn{Ahead: 1e6, Slots: 1, Left: time.Second}, false},
		{"the next in line", policy.Turn{Slots: 1, Pace: pace, Left: time.Second}, false},
		{"nine before it, a second left", policy.Turn{Ahead: 9, Slots: 1, Pace: pace, Left: time.Second}, false},
		{"ten before it, a second left", policy.Turn{Ahead: 10, Slots: 1, Pace: pace, Left: time.Second}, true},
		{"ten before it, two at a time", policy.Turn{Ahead: 10, Slots: 2, Pace: pace, Left: time.Second}, false},
		{"many before it, and more instances to come", policy.Turn{Ahead: 1000, Slots: 1, Grows: true, Pace: pace, Left: time.Second}, false},
		{"no time at all", policy.Turn{Slots: 1, Grows: true, Pace: pace}, true},
	} {
		late, after := policy.Late(tt.turn)
		if late != tt.want || late && !tt.turn.Grows && after <= 0 {
			t.Errorf("%s: %v after %v, want %v", tt.what, late, after, tt.want)
		}
	}
}

func TestTooLate(t *testing.T) {
	pace := policy.Pace{Least: 100 * time.Millisecond}
	if policy.TooLate(pace, 60*time.Millisecond) || !policy.TooLate(pace, 40*time.Millisecond) || policy.TooLate(policy.Pace{}, time.Nanosecond) {
		t.Error("a call gives way that may be answered, or does not that can't")
	}
}
