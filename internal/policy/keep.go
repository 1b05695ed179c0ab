// Package policy holds the platform's decisions as pure functions of what was seen and the time:
// how long an idle instance stays, which one goes when memory is short.
//
// There is no goroutine, no clock and no lock here; the loops that apply the decisions live in
// packages worker and dispatch.
package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// KeepConfig bounds how long idle instances stay.
type KeepConfig struct {
	Oracle bool          // what was seen of each function decides; else Idle does
	Idle   time.Duration // the time that an idle instance stays whose code loads at once
	Price  Price         // for Oracle: what memory is worth
}

// What an instance cost to load is what its loss costs the next caller, so that a dear one stays
// longer: once more the time for each step, up to most times.
const (
	keepStep = 50 * time.Millisecond
	keepMost = 12
)

// DefaultIdle keeps an idle instance for five minutes: memory that nobody else asks for costs
// nothing, and what somebody asks for is taken by Evict long before.
const DefaultIdle = 5 * time.Minute

// DefaultKeep lets the oracle decide. Code that is run once has no history and stays for DefaultIdle.
func DefaultKeep() KeepConfig {
	return KeepConfig{Oracle: true, Idle: DefaultIdle, Price: DefaultPrice}
}

// Keep returns for how much longer an instance is worth keeping that has been idle for the given
// time, and whose code took load to be loaded; zero or less means that it may go.
func Keep(c KeepConfig, idle, load time.Duration) time.Duration {
	return c.Idle*time.Duration(min(1+load/keepStep, keepMost)) - idle
}

// Idle is an instance that may be ended for its memory.
type Idle struct {
	Memory faas.Bytes
	Since  time.Duration // since its last call
	Spare  bool          // made ahead, and nobody has used it
	Worth  float64       // what each byte of it saves, see History.Value; 0: nothing is known
}

// Evict chooses which idle instances go so that at least need bytes become free, and returns
// their indices in the order in which to end them. If all together hold too little it returns nil:
// then ending some would help nobody.
//
// Those go first whose bytes save least. Where nothing is known of that, those made ahead that
// nobody has used go first, and of the others the longest idle, weighted by its memory: what is
// freed soonest for the least loss, since the time since the last call is the best single guess at
// the time to the next.
func Evict(idle []Idle, need faas.Bytes) []int {
	var sum faas.Bytes
	order := make([]int, len(idle))
	for i, in := range idle {
		order[i] = i
		sum += in.Memory
	}
	if sum < need {
		return nil
	}
	weight := func(in *Idle) float64 { return in.Since.Seconds() * float64(max(in.Memory, 1)) }
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &idle[a], &idle[b]
		if x.Worth > 0 && y.Worth > 0 {
			return cmp.Compare(x.Worth, y.Worth)
		}
		if x.Spare != y.Spare {
			if x.Spare {
				return -1
			}
			return 1
		}
		return cmp.Compare(weight(y), weight(x))
	})
	for n := range order {
		if need -= idle[order[n]].Memory; need <= 0 {
			return order[:n+1]
		}
	}
	return nil
}
