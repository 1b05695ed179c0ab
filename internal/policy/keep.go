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
	Idle time.Duration // the time that an idle instance stays whose code loads at once
}

// What an instance cost to load is what its loss costs the next caller, so that a dear one stays
// longer: once more the time for each step, up to most times.
const (
	keepStep = 50 * time.Millisecond
	keepMost = 12
)

// DefaultKeep keeps an idle instance for five minutes: memory that nobody else asks for costs
// nothing, and what somebody asks for is taken by Evict long before.
func DefaultKeep() KeepConfig { return KeepConfig{Idle: 5 * time.Minute} }

// Keep returns for how much longer an instance is worth keeping that has been idle for the given
// time, and whose code took load to be loaded; zero or less means that it may go.
func Keep(c KeepConfig, idle, load time.Duration) time.Duration {
	return c.Idle*time.Duration(min(1+load/keepStep, keepMost)) - idle
}

// Evict chooses which idle instances go so that at least need bytes become free, and returns
// their indices in the order in which to end them. Instances with calls are never chosen. If all
// idle ones together hold too little it returns nil: then ending some would help nobody.
//
// Those made ahead that nobody has used go first. Of the others the longest idle goes first, weighted by its memory: what is freed soonest for the least
// loss, since the time since the last call is the best single guess at the time to the next.
func Evict(instances []faas.InstanceStatus, need faas.Bytes) []int {
	var idle []int
	var sum faas.Bytes
	for i, in := range instances {
		if in.Active == 0 {
			idle = append(idle, i)
			sum += in.Memory
		}
	}
	if sum < need {
		return nil
	}
	weight := func(i int) float64 {
		return instances[i].Idle.D().Seconds() * float64(max(instances[i].Memory, 1))
	}
	slices.SortStableFunc(idle, func(a, b int) int {
		if x, y := instances[a].Spare, instances[b].Spare; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(weight(b), weight(a))
	})
	for n := range idle {
		if need -= instances[idle[n]].Memory; need <= 0 {
			return idle[:n+1]
		}
	}
	return nil
}
