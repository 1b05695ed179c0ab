package policy

import (
	"math"
	"time"
)

// Instances are made when calls wait for one, within a millisecond of that, which no window could
// be faster than. What the windows are for is what comes before and after: that instances which
// serve several calls at once are joined by another before they are full, that those which the load
// of the last minute has use for stay though some find nothing to do for a moment, and that a load
// that has doubled within seconds does not shrink what it will need again in the next.

const (
	// StableWindow is the time whose mean load decides how many instances stay.
	StableWindow = 60 * time.Second
	// PanicWindow is the time whose mean load decides while it is at least twice what stands can serve.
	PanicWindow = 6 * time.Second
	// panicAt is how many times what stands can serve is a reason for panic.
	panicAt = 2
	// targetShare is the part of an instance's slots, in tenths, that are in use when another is made.
	targetShare = 7
	// slight is the part of an instance that is not worth to have one more for.
	slight = 0.1
)

// Target returns the calls at once in one instance that scaling aims at: what the function asks for,
// else seven tenths of what an instance serves at once.
func Target(asked, concurrency int) float64 {
	if asked > 0 {
		return float64(asked)
	}
	return math.Max(1, float64(concurrency)*targetShare/10)
}

// ScaleConfig bounds how many instances a function has.
type ScaleConfig struct {
	Min, Max int     // Max 0: as many as there is room for
	Target   float64 // calls at once in one instance that are aimed at; see Target
}

// Load is how many calls of a function were in flight and waiting, on average of each second. The
// zero value has seen none.
type Load struct {
	second [int(StableWindow / time.Second)]int64 // which second a figure is of, in Unix time
	calls  [int(StableWindow / time.Second)]float32
	panics int64 // the second in which panic was last called for
	most   int   // instances that the panic has asked for
}

// Note takes the load of a second into account. The larger of two of the same second counts.
func (l *Load) Note(second int64, calls float64) {
	i := int(((second % int64(len(l.second))) + int64(len(l.second))) % int64(len(l.second)))
	if l.second[i] == second {
		calls = math.Max(calls, float64(l.calls[i]))
	}
	l.second[i], l.calls[i] = second, float32(calls)
}

// Mean returns the load on average of those seconds of a window that were noted, and which end with
// now; 0 if there are none.
func (l *Load) Mean(now int64, window time.Duration) float64 {
	sum, n := 0.0, 0
	for i, s := range l.second {
		if s <= now && now-s < int64(window/time.Second) && s != 0 {
			sum += float64(l.calls[i])
			n++
		}
	}
	return sum / math.Max(1, float64(n))
}

// Wanted is how many instances a function shall have, and why.
type Wanted struct {
	Instances int
	Panic     bool // the load has grown too fast for the stable window
}

// Scale says how many instances there shall be where some stand: made before calls wait for them,
// and not ended by whatever policy says how long idle ones stay. It remembers a panic in the load.
func Scale(c ScaleConfig, l *Load, standing int, now int64) Wanted {
	serve := func(calls float64) int { return int(math.Ceil(calls/math.Max(c.Target, 1) - slight)) }
	stable, short := serve(l.Mean(now, StableWindow)), serve(l.Mean(now, PanicWindow))
	if short >= panicAt*max(standing, 1) {
		if !l.panicking(now) {
			l.most = 0
		}
		l.panics = now
	}
	w := Wanted{Instances: max(stable, 0), Panic: l.panicking(now)}
	if w.Panic { // nothing is taken away before it has been calm for as long as the stable window
		l.most = max(l.most, short, stable)
		w.Instances = l.most
	}
	w.Instances = max(w.Instances, c.Min)
	if c.Max > 0 {
		w.Instances = min(w.Instances, c.Max)
	}
	return w
}

func (l *Load) panicking(now int64) bool {
	return l.panics != 0 && now >= l.panics && now-l.panics < int64(StableWindow/time.Second)
}
