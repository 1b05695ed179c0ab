package policy_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestStemsAreForkedWhereABurstEmptiedThePoolAndBeyondTheUsualStock(t *testing.T) {
	c := policy.StemConfig{Base: 2, Max: 20}
	for _, tt := range []struct {
		why                    string
		ready, booted, busiest int
		want                   bool
	}{
		{"nothing was asked for yet", 0, 0, 0, false},
		{"one was taken", 1, 1, 1, false},
		{"one was taken from a pool that was not full", 0, 0, 1, false},
		{"a burst took all", 0, 0, 2, true},
		{"a burst took all, and one is booting", 0, 1, 30, true},
		{"the burst is being made up for", 3, 0, 30, false},
		{"the usual stock stands", 2, 2, 30, true},
		{"the usual stock stands beside forked ones", 9, 2, 30, true},
		{"of the usual stock one is missing", 9, 1, 30, false},
	} {
		if got := policy.Fork(c, tt.ready, tt.booted, tt.busiest); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
	if policy.Fork(policy.StemConfig{}, 0, 0, 0) != true {
		t.Error("without a usual stock one is booted")
	}
}
