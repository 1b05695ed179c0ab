package policy

import (
	"math"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// The oracle decides at which ages an idle instance is worth its memory: from how long the pauses
// between calls were so far, what the lack of an instance would cost the next caller, and what
// memory is worth. It is the value of greedy-dual caches (Cao and Irani, USITS 1997: frequency times
// cost over size) taken over the time to come instead of over the past: an instance is held through
// a span of ages if the calls that will likely fall into it save more waiting than the memory costs.
// So one decision makes three of others: for how long an instance stays, that it goes at once, and
// that one is made again shortly before the next call of a function that is called at even intervals
// (Shahrad et al., USENIX ATC 2020, choose these by quantiles of a histogram and without a price).

// Costs are what the oracle weighs.
type Costs struct {
	Cold   time.Duration // that a caller waits longer who finds no instance
	Memory faas.Bytes    // that an idle instance holds
	Price  Price
}

// Price is what memory is worth: seconds of waiting that one gibibyte, held for an hour, must save.
type Price float64

// DefaultPrice keeps an instance of 3 MiB whose cold start takes 3 ms for some minutes if nothing is
// known of its function.
const DefaultPrice Price = 1

// Span is a span of ages of an idle instance: the time since its last call.
type Span struct{ From, To time.Duration }

// Plan says at which ages an instance shall be there: spans in order, apart from each other. The
// first begins at zero if the instance that has served stays.
type Plan []Span

// Holds says whether an instance shall be there at an age.
func (p Plan) Holds(age time.Duration) bool {
	for _, s := range p {
		if age >= s.From && age <= s.To {
			return true
		}
	}
	return false
}

// Held returns for how much of the time up to an age an instance is there.
func (p Plan) Held(age time.Duration) (held time.Duration) {
	for _, s := range p {
		held += max(min(s.To, age)-s.From, 0)
	}
	return held
}

const (
	// maxPauses is how many pauses a history remembers: enough to see what comes once in some dozens,
	// few enough to follow a change within a day, in 256 bytes.
	maxPauses = 64
	// Pauses are told apart by ratios, since a function called each second is not late after three
	// and one called each day is not after an hour.
	firstBin  = time.Second
	lastBin   = 26 * time.Hour // a day, and what clocks and weekends make of it
	binRatio  = 1.15
	priorSeen = 2.0 // pauses that the first guess counts for
)

// History is what is remembered of the pauses between calls of one function: between the end of a
// call and the begin of the next that found no other instance free. The zero value has seen none.
type History struct {
	pauses [maxPauses]float32 // seconds; a ring
	seen   uint32             // pauses that were noted
}

// Note takes a pause into account.
func (h *History) Note(pause time.Duration) {
	h.pauses[h.seen%maxPauses] = float32(max(pause, 0).Seconds())
	h.seen++
}

// Seen returns how many pauses were noted.
func (h *History) Seen() int { return int(h.seen) }

// bins are the ages at which the oracle decides anew: bin i reaches from edges[i] to edges[i+1].
var edges = func() []float64 {
	e := []float64{0}
	for at := firstBin.Seconds(); at < lastBin.Seconds(); at *= binRatio {
		e = append(e, at)
	}
	return append(e, lastBin.Seconds())
}()

// priorShare is the guess of a function of which nothing is known: pauses of every order of
// magnitude are as likely as each other (a straight line over the logarithm, as the inter-arrival
// times of the Azure trace of 2019 lie about).
func priorShare(i int) float64 {
	all := math.Log1p(edges[len(edges)-1])
	return (math.Log1p(edges[i+1]) - math.Log1p(edges[i])) / all
}

// Plan decides for an instance that has just become idle.
func (h *History) Plan(c Costs) Plan {
	n := int(min(h.seen, maxPauses))
	pauses := slices.Clone(h.pauses[:n])
	slices.Sort(pauses)
	total := float64(n) + priorSeen
	rent := float64(c.Price) / 3600 * float64(c.Memory) / float64(faas.GiB) // seconds of waiting for a second of holding
	cold := c.Cold.Seconds()
	if n == 0 && rent <= 0 {
		return Plan{{0, lastBin}}
	}

	var plan Plan
	left := 1.0 // chance that the pause is not over
	at := 0     // first pause that is not before the bin
	for i := range len(edges) - 1 {
		from, to := edges[i], edges[i+1]
		first := at
		for at < n && float64(pauses[at]) <= to {
			at++
		}
		inside := pauses[first:at]
		share := (float64(len(inside)) + priorSeen*priorShare(i)) / total
		// What was seen lies close together if the function is called at even intervals: the bin is
		// then held from the earliest to the latest alone, with as much again on either side for the
		// next that is earlier or later.
		lo, hi := from, to
		if len(inside) >= evenPauses {
			least, most := float64(inside[0]), float64(inside[len(inside)-1])
			slack := max((most-least)/2, evenSlack.Seconds())
			lo, hi = max(0, least-slack), most+slack
			share = float64(len(inside)) / total
		}
		width := (left - share/2) * (hi - lo) // expected time until the call or the end of the span
		if share*cold > rent*width {
			plan = plan.join(seconds(lo), seconds(hi))
		} else if len(inside) >= evenPauses {
			// The whole of a wide bin may be worth it where its part is, never the other way round.
			if lo, hi = from, to; share*cold > rent*(left-share/2)*(hi-lo) {
				plan = plan.join(seconds(lo), seconds(hi))
			}
		}
		left -= (float64(len(inside)) + priorSeen*priorShare(i)) / total
	}
	return plan
}

const (
	// evenPauses is how many pauses in one bin are looked at for what they have in common.
	evenPauses = 3
	// evenSlack is how much earlier than ever before a call may come and still find an instance.
	evenSlack = 2 * time.Second
	// planGap is the longest time without an instance that is not worth to end one for: making it
	// again takes a processor some milliseconds.
	planGap = 15 * time.Second
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// join adds a span after the others.
func (p Plan) join(from, to time.Duration) Plan {
	if n := len(p); n > 0 && from-p[n-1].To <= planGap {
		p[n-1].To = max(p[n-1].To, to)
		return p
	}
	if from <= planGap {
		from = 0
	}
	return append(p, Span{from, to})
}

// Value says how much waiting a byte of an idle instance saves, as seen now: what is worth least
// goes first when memory is short.
func (h *History) Value(age time.Duration, c Costs) float64 {
	n := int(min(h.seen, maxPauses))
	within := age + max(age, time.Minute) // the next as long again
	later, soon := priorSeen, priorSeen/2
	for _, p := range h.pauses[:n] {
		if d := seconds(float64(p)); d > age {
			later++
			if d <= within {
				soon++
			}
		}
	}
	return soon / later * c.Cold.Seconds() / float64(max(c.Memory, 1)) / (within - age).Seconds()
}
