package policy

import "time"

// Bounds of Wait.
const (
	// WaitMost is how long a call is let wait for an instance that is busy before another is made for
	// it: some times what that takes.
	WaitMost = 5 * time.Millisecond
	// waitShort is how long calls of a function may take for that: whoever waits for a longer one is
	// held up by what he cannot foresee.
	waitShort = time.Millisecond
)

// Wait says whether calls in line should wait for the instances that stand rather than have more of
// them made. Calls that keep the processors busy are not answered any sooner by more instances than
// there are processors, but by fewer, between which they need not change.
func Wait(standing, processors, inLine int, takes time.Duration) bool {
	if standing <= processors || takes <= 0 || takes > waitShort {
		return false
	}
	return takes*time.Duration(inLine)/time.Duration(standing) <= WaitMost
}
