package policy_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestStemsFollowTheBusiestSecondWithinTheirBounds(t *testing.T) {
	c := policy.StemConfig{Base: 2, Max: 20}
	for _, tt := range []struct{ busiest, want int }{{0, 2}, {1, 2}, {2, 3}, {10, 15}, {13, 19}, {14, 20}, {1000, 20}} {
		if got := policy.Stems(c, tt.busiest); got != tt.want {
			t.Errorf("%d claims in the busiest second: %d stems, want %d", tt.busiest, got, tt.want)
		}
	}
	if got := policy.Stems(policy.StemConfig{Base: 3}, 50); got != 3 {
		t.Errorf("without a Max there are %d, want the 3 of Base", got)
	}
}

// A day at a class of stems: the burst is remembered for a minute and forgotten after it.
func TestClaimsAreForgottenAfterAMinute(t *testing.T) {
	var c policy.Claims
	at := int64(1_700_000_000)
	if got := c.Busiest(at); got != 0 {
		t.Errorf("before any claim: %d", got)
	}
	for range 7 {
		c.Add(at)
	}
	c.Add(at + 1)
	for _, tt := range []struct {
		after int64
		want  int
	}{{0, 7}, {30, 7}, {59, 7}, {60, 1}, {61, 0}, {100000, 0}} {
		if got := c.Busiest(at + tt.after); got != tt.want {
			t.Errorf("%ds after the burst the busiest second had %d, want %d", tt.after, got, tt.want)
		}
	}
	c.Add(at + 60) // the same place in the ring as the burst
	if got := c.Busiest(at + 60); got != 1 {
		t.Errorf("a minute later: %d, want the burst overwritten by 1", got)
	}
	if got := c.Busiest(at - 10); got != 0 {
		t.Errorf("a clock that was set back sees %d claims of the future", got)
	}
}
