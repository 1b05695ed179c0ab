package policy

import (
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What namespaces share on a node is the starts that go on at once, memory, and processors. Nobody
// is promised a part of them: one alone may have nearly all. But none can keep another from what is
// fair, which is an equal part of what those have that are at work.

const (
	// reserveShare is the part of the memory, one in so many, that a single namespace leaves to
	// others while there are others.
	reserveShare = 8
	// Recent is how long after its last call a namespace counts as at work.
	Recent = time.Minute
)

// Tenant is a namespace with what it has of a node.
type Tenant struct {
	Starting int        // instances of it being made
	Held     faas.Bytes // that its instances hold or may come to hold
}

// MayStart says whether a namespace may begin another start: one place always is left to others, so
// that the first call of one does not wait for all the first calls of another.
func MayStart(starts, starting int, mine Tenant) bool {
	return starting < starts && mine.Starting < max(1, starts-1)
}

// Fair is an equal part of the memory for those at work.
func Fair(total faas.Bytes, tenants int) faas.Bytes { return total / faas.Bytes(max(tenants, 1)) }

// MayHold says whether a namespace may have more memory: where others are at work a part is left to
// them. What it has at least is one instance, or it could do nothing.
func MayHold(total, need faas.Bytes, mine Tenant, tenants int) bool {
	return tenants < 2 || mine.Held == 0 || mine.Held+need <= total-total/reserveShare
}

// Hungry is a function with calls in line that could not get an instance.
type Hungry struct {
	Tenant
	Need faas.Bytes // of one instance
}

// NextFed chooses who is to get what has become free: one whose namespace has no more than is fair
// before one that has; then the one with the fewest starts under way; then who came first. It
// returns -1 for none.
func NextFed(all []Hungry, fair faas.Bytes) int {
	best := -1
	for i, h := range all {
		if best < 0 || before(h, all[best], fair) {
			best = i
		}
	}
	return best
}

func before(a, b Hungry, fair faas.Bytes) bool {
	if x, y := a.Held+a.Need > fair, b.Held+b.Need > fair; x != y {
		return y
	}
	return a.Starting < b.Starting
}

// Safe says whether an idle instance may not be ended for a namespace that needs its memory: it is
// another's that has no more than is fair and is at work, and the one that asks would have more.
func Safe(owner, asking Tenant, need, fair faas.Bytes, sinceCall time.Duration) bool {
	return sinceCall < Recent && owner.Held <= fair && asking.Held+need > fair
}

// GivesWay says whether an instance of a namespace is given up after its call though others are in
// line for it, so that another namespace gets what is fair.
func GivesWay(mine, waits Tenant, need, fair faas.Bytes) bool {
	return mine.Held > fair && waits.Held+need <= fair
}

// Weight returns the part of a processor, in thousandths, that an instance counts with when
// processors are scarce and several namespaces want them: each has a processor's worth for as many
// as there are, and divides it among those of its instances that work. Steps of two keep it from
// changing with each call.
func Weight(millis, working, processors, tenants int) int {
	w := millis
	if tenants < 2 {
		return w
	}
	for n := working; n > max(processors, 1) && w > minWeight; n /= 2 {
		w /= 2
	}
	return max(w, minWeight)
}

// minWeight is the least that keeps an instance going.
const minWeight = 10
