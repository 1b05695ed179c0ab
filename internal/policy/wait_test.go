package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

func TestWait(t *testing.T) {
	for _, c := range []struct {
		what             string
		standing, inLine int
		takes            time.Duration
		want             bool
	}{
		{"a new function", 0, 1, 0, false},
		{"fewer instances than processors", 1, 10, 100 * time.Microsecond, false},
		{"as many instances as processors", 2, 10, 100 * time.Microsecond, false},
		{"short calls", 3, 30, 300 * time.Microsecond, true},
		{"short calls of which there are too many", 3, 300, 300 * time.Microsecond, false},
		{"long calls", 3, 1, 2 * time.Millisecond, false},
		{"nothing known of the calls", 3, 1, 0, false},
	} {
		if got := policy.Wait(c.standing, 2, c.inLine, c.takes); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
