package policy

import "time"

// Turn is a call's place in the line for the instances of its function.
type Turn struct {
	Ahead int  // calls before it
	Slots int  // calls that are served at once by the instances there are and that are being made
	Grows bool // more instances may come
	Pace  Pace
	Left  time.Duration // until its deadline
}

// Late says whether the call can't be answered in time any more, and when it may be worth to send
// another. It judges by the quickest calls of the function, so that it refuses none that could have
// been answered; what it does not know it hopes for.
func Late(t Turn) (late bool, after time.Duration) {
	if t.Pace.Least <= 0 || t.Slots <= 0 {
		return false, 0
	}
	if t.Grows {
		return t.Left <= 0, 0
	}
	// It has its own turn after as many as go before it. Calls are seldom all as quick as that.
	until := time.Duration(t.Ahead/t.Slots+1) * t.Pace.Least
	return until > t.Left, until
}

// TooLate says whether a call whose turn it is gives way to those behind it: it has less time left
// than half of what the quickest calls of the function take.
func TooLate(p Pace, left time.Duration) bool { return left < p.Least/2 }
