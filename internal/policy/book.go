package policy

import (
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxSlots is for how many instances of a function at once the pauses are told apart. Those beyond
// are needed alike: by whatever makes so many at once.
const maxSlots = 32

// The costs of a function that nobody has measured.
const (
	guessCold   = 3 * time.Millisecond
	guessMemory = 8 * faas.MiB
	// A cost is believed quickly when it is less than those before, and slowly when it is more: on a
	// busy machine all take long, and what is then kept for what it seems to cost is never measured
	// again.
	costDown, costUp = 0.75, 0.0625
)

// Book is what is remembered of one function: for each number of instances that worked at once how
// long the pauses were until another was needed, and what it costs not to have one. Instances are
// told apart by how many work beside them, as those of a pool are used: the one that was used last
// is used first, so that the others grow cold. It is not safe for concurrent use. The zero value
// knows nothing.
type Book struct {
	slots  []slot
	cold   time.Duration
	memory faas.Bytes
	last   time.Time // when an instance was last needed or became idle
	due    time.Time // when an instance is to be made before it is needed; zero: never
}

// slot is the place of the instance that works beside as many others as its number says.
type slot struct {
	History
	since time.Time // when it became idle; zero: it works
	plan  Plan
	fresh bool // the plan is of this pause
}

func (b *Book) slot(n int) *slot {
	n = min(n, maxSlots-1)
	for len(b.slots) <= n {
		b.slots = append(b.slots, slot{})
	}
	return &b.slots[n]
}

// Needed notes that an instance was needed beside as many as work, whether one was there or not.
func (b *Book) Needed(working int, now time.Time) {
	b.last = now
	s := b.slot(working)
	if !s.since.IsZero() {
		s.Note(now.Sub(s.since))
	}
	s.since, s.fresh = time.Time{}, false
}

// Rested notes that an instance has become idle, and how many still work.
func (b *Book) Rested(working int, now time.Time) {
	b.last = now
	s := b.slot(working)
	s.since, s.fresh = now, false
}

// Costs notes what a caller has waited for who found no instance, and what an idle one holds. What
// is zero was not measured.
func (b *Book) Costs(cold time.Duration, memory faas.Bytes) {
	move := func(v, to int64) int64 {
		if v == 0 || to == 0 {
			return max(v, to)
		}
		if to < v {
			return v + int64(float64(to-v)*costDown)
		}
		return v + int64(float64(to-v)*costUp)
	}
	b.cold = time.Duration(move(int64(b.cold), int64(cold)))
	b.memory = faas.Bytes(move(int64(b.memory), int64(memory)))
}

// Last returns when the function was last at work; zero if never.
func (b *Book) Last() time.Time { return b.last }

// Due returns when Stand is to be asked again, because an instance may have to be made; zero if
// nothing is planned.
func (b *Book) Due() time.Time { return b.due }

func (b *Book) costs(price Price) Costs {
	c := Costs{Cold: b.cold, Memory: b.memory, Price: price}
	if c.Cold == 0 {
		c.Cold = guessCold
	}
	if c.Memory == 0 {
		c.Memory = guessMemory
	}
	return c
}

// Stand says how many idle instances shall stand now beside those that work, those that are to be
// there within the lead included, and until when the first of them does. Spare says that one more
// shall stand than ever were needed at once, for as long as what is known of nothing says.
func (b *Book) Stand(working int, now time.Time, lead time.Duration, price Price, spare bool) (idle int, until time.Time) {
	c := b.costs(price)
	b.due = time.Time{}
	for i := working; i < len(b.slots); i++ {
		s := &b.slots[i]
		if s.since.IsZero() {
			continue // it was needed and not seen to rest: an instance that was ended
		}
		if !s.fresh {
			s.plan, s.fresh = s.Plan(c), true
		}
		idle, until = b.hold(s.plan, s.since, now, lead, idle, until)
	}
	if n := max(len(b.slots), working); spare && n < maxSlots && !b.last.IsZero() {
		var unknown History
		idle, until = b.hold(unknown.Plan(c), b.last, now, lead, idle, until)
	}
	return idle, until
}

// hold counts one instance if its plan has it stand, and notes when a plan next asks for one.
func (b *Book) hold(p Plan, since, now time.Time, lead time.Duration, idle int, until time.Time) (int, time.Time) {
	age := max(now.Sub(since), 0)
	for _, s := range p {
		switch {
		case age > s.To:
			continue
		case age+lead >= s.From:
			idle++
			if end := since.Add(s.To); until.IsZero() || end.Before(until) {
				until = end
			}
		default:
			if at := since.Add(s.From - lead); b.due.IsZero() || at.Before(b.due) {
				b.due = at
			}
			return idle, until
		}
	}
	return idle, until
}

// Worth says how much waiting each byte saves of the instance that is to be used after so many
// others have been: see History.Value.
func (b *Book) Worth(slot int, memory faas.Bytes, now time.Time, price Price) float64 {
	c := b.costs(price)
	c.Memory = memory
	if slot >= len(b.slots) || b.slots[slot].since.IsZero() {
		var unknown History
		return unknown.Value(max(now.Sub(b.last), 0), c) / 2 // never needed so far
	}
	s := &b.slots[slot]
	return s.Value(max(now.Sub(s.since), 0), c)
}

// Record is a Book as it is kept on the disk.
type Record struct {
	Slots  []SlotRecord  `json:"slots"`
	Cold   time.Duration `json:"cold_ns"`
	Memory faas.Bytes    `json:"memory_bytes"`
	Last   time.Time     `json:"last"`
}

// SlotRecord is a slot of it: pauses in seconds, the oldest first.
type SlotRecord struct {
	Pauses []float32 `json:"pauses"`
	Since  time.Time `json:"since,omitzero"`
}

// Record returns what a Book knows.
func (b *Book) Record() Record {
	r := Record{Cold: b.cold, Memory: b.memory, Last: b.last}
	for i := range b.slots {
		s := &b.slots[i]
		n := min(s.seen, maxPauses)
		first := s.seen % maxPauses
		pauses := slices.Clone(s.pauses[:n])
		if s.seen > maxPauses {
			pauses = slices.Concat(s.pauses[first:], s.pauses[:first])
		}
		since := s.since
		if since.IsZero() {
			since = b.last // it worked when this was written, and works no more when it is read
		}
		r.Slots = append(r.Slots, SlotRecord{pauses, since})
	}
	return r
}

// Restore makes a Book of a Record. What makes no sense in it is left out.
func Restore(r Record, now time.Time) *Book {
	b := &Book{cold: max(r.Cold, 0), memory: max(r.Memory, 0), last: r.Last}
	if b.last.After(now) {
		b.last = now
	}
	for i, from := range r.Slots[:min(len(r.Slots), maxSlots)] {
		s := b.slot(i)
		for _, p := range from.Pauses[max(0, len(from.Pauses)-maxPauses):] {
			if p >= 0 && float64(p) < 1e9 { // not NaN either
				s.Note(seconds(float64(p)))
			}
		}
		if s.since = from.Since; s.since.After(now) {
			s.since = now
		}
	}
	// The earliest plan is found when Stand is first asked, which is to be soon.
	b.due = now
	return b
}
