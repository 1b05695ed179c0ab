package policy

import "time"

// Bounds of Wait.
const (
	// WaitMost is how long a call is let wait for an instance that is busy where the processors have
	// time for another: some times what it takes to make one.
	WaitMost = 5 * time.Millisecond
	// WaitBusy is the same where they have none.
	WaitBusy = time.Second
	// waitShort is how long calls of a function may take for that: whoever waits for a longer one is
	// held up by what he cannot foresee.
	waitShort = 2 * time.Millisecond
)

// Pace is how long calls of a function take.
type Pace struct {
	Least time.Duration // about what they take when nothing holds them up; 0: nothing is known
	CPU   time.Duration // of which they use a processor
}

// Computes says whether calls do little else than to use a processor. On busy processors it is that
// what they wait for, or what the server does that hands them their next call.
func (p Pace) Computes() bool { return p.Least > 0 && p.Least <= waitShort && p.CPU >= p.Least/3 }

// Wait says whether calls in line should wait for the instances that stand rather than have more of
// them made. Calls that keep the processors busy are not answered any sooner by more instances than
// there are processors, but by fewer, between which they need not change: sixteen processes of
// Node.js on two processors answered a third of what three did. starved says that instances of
// the function wait for a processor rather than for something else.
func Wait(standing, processors int, starved bool, pace Pace) bool {
	if pace.Least <= 0 {
		return false
	}
	if starved && standing > 0 {
		return pace.CPU <= waitShort
	}
	return standing > processors && pace.Least <= waitShort
}

// Crowd is how many instances of a function work at once while they are starved, though more may
// stand: one a processor, and one for which the next call is on its way meanwhile.
func Crowd(processors int) int { return processors + 1 }

// GrowAfterAll says whether a call that was let wait gets an instance made for it. known says
// whether it is known if the function's instances are starved.
func GrowAfterAll(waited time.Duration, starved, known bool) bool {
	if starved || !known {
		return waited >= WaitBusy
	}
	return waited >= WaitMost
}

// Demand is how many instances' worth of calls there are, from how many are under way or in line,
// and how many have ended each second.
//
// Of short calls most of those under way wait for each other: thirty-two clients that call again at
// once always have thirty-two under way, however many instances there are. What such calls take when
// nothing holds them up tells how many instances they would keep busy; twice that leaves room, and
// as many as work at once on busy processors are never too many.
func Demand(underWay, perSecond float64, processors int, pace Pace) float64 {
	if pace.Least <= 0 || pace.Least > waitShort {
		return underWay
	}
	return min(underWay, max(2*perSecond*pace.Least.Seconds(), float64(Crowd(processors))))
}
