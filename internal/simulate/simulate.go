// Package simulate replays a trace against a policy, without a clock and without a machine: what
// would have started cold, how long callers would have waited for that, and how much memory would
// have been held for nobody.
package simulate

import (
	"container/heap"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// Policy says at which ages an idle instance is there. Each of an application's instances, counted
// by how many work beside it, has one of its own.
type Policy interface {
	// Plan is asked when an instance has become idle.
	Plan(costs policy.Costs) policy.Plan
	// Note is told how long it was until it was needed again, whether it was there or not.
	Note(pause time.Duration)
}

// Fixed keeps an idle instance for a time.
type Fixed time.Duration

// Plan is the time from zero.
func (f Fixed) Plan(policy.Costs) policy.Plan {
	if f <= 0 {
		return nil
	}
	return policy.Plan{{From: 0, To: time.Duration(f)}}
}

// Note forgets.
func (Fixed) Note(time.Duration) {}

// Config is what is simulated.
type Config struct {
	Policy func() Policy // makes one that knows nothing
	Cold   time.Duration // of each start; 0: what the trace says, and without that an error
	Idle   faas.Bytes    // that an idle instance holds; 0: as much as one that works
	Price  policy.Price
}

// Result is what it came to.
type Result struct {
	Calls      int     `json:"calls" doc:"Times in which an instance worked"`
	ColdStarts int     `json:"cold_starts"`
	ColdWait   float64 `json:"cold_wait_s" doc:"Seconds that all callers together waited for cold starts"`
	Wasted     float64 `json:"wasted_memory_ratio" doc:"Memory of idle instances over that of working ones, each by its time"`
	IdleMemory float64 `json:"idle_gib_h"`
	UsedMemory float64 `json:"used_gib_h"`
}

// AppResult is what it came to for one application.
type AppResult struct {
	App string `json:"app"`
	Result
}

// Outcome is the whole and its parts.
type Outcome struct {
	Result
	Apps []AppResult `json:"apps"`
}

// Run simulates. A trace whose calls take no memory at all has a ratio of zero.
func Run(t *Trace, cfg Config) (*Outcome, error) {
	out := &Outcome{}
	for i := range t.Apps {
		a := &t.Apps[i]
		costs := policy.Costs{Cold: cfg.Cold, Memory: cfg.Idle, Price: cfg.Price}
		if costs.Cold == 0 {
			costs.Cold = a.Cold
		}
		if costs.Cold <= 0 {
			return nil, faas.Errorf(faas.Invalid, "simulate", "the trace does not say how long a cold start of %q takes", a.Name).
				WithFix("say it: --cold 2.1ms")
		}
		if costs.Memory == 0 {
			costs.Memory = a.Memory
		}
		r := runApp(a, t.Until, cfg.Policy, costs)
		out.Apps = append(out.Apps, AppResult{a.Name, r})
		out.Calls += r.Calls
		out.ColdStarts += r.ColdStarts
		out.ColdWait += r.ColdWait
		out.IdleMemory += r.IdleMemory
		out.UsedMemory += r.UsedMemory
	}
	if out.UsedMemory > 0 {
		out.Wasted = out.IdleMemory / out.UsedMemory
	}
	return out, nil
}

// slot is the instance that works beside as many others as its number says.
type slot struct {
	policy Policy
	plan   policy.Plan
	since  time.Duration // when it became idle
	used   bool          // it has worked before
}

func runApp(a *App, until time.Duration, make func() Policy, costs policy.Costs) Result {
	var slots []*slot
	var free numbers // slots with nothing to do; the lowest is used first, so that the others grow cold
	var busy endings
	r := Result{Calls: len(a.Calls)}
	idle, used := 0.0, 0.0 // seconds
	for _, c := range a.Calls {
		for len(busy) > 0 && busy[0].end <= c.Begin {
			e := heap.Pop(&busy).(ending)
			s := slots[e.slot]
			s.since, s.plan = e.end, s.policy.Plan(costs)
			heap.Push(&free, e.slot)
		}
		if len(free) == 0 {
			heap.Push(&free, len(slots))
			slots = append(slots, &slot{policy: make()})
		}
		n := heap.Pop(&free).(int)
		s := slots[n]
		switch age := c.Begin - s.since; {
		case !s.used:
			r.ColdStarts++
		default:
			idle += s.plan.Held(age).Seconds()
			if !s.plan.Holds(age) {
				r.ColdStarts++
			}
			s.policy.Note(age)
		}
		s.used = true
		used += (c.End - c.Begin).Seconds()
		heap.Push(&busy, ending{c.End, n})
	}
	for _, e := range busy {
		slots[e.slot].since, slots[e.slot].plan = e.end, slots[e.slot].policy.Plan(costs)
	}
	for _, s := range slots { // until the end of the trace
		idle += s.plan.Held(max(until-s.since, 0)).Seconds()
	}
	const hour = 3600
	r.ColdWait = float64(r.ColdStarts) * costs.Cold.Seconds()
	r.IdleMemory = idle * float64(costs.Memory) / float64(faas.GiB) / hour
	r.UsedMemory = used * float64(a.Memory) / float64(faas.GiB) / hour
	if r.UsedMemory > 0 {
		r.Wasted = r.IdleMemory / r.UsedMemory
	}
	return r
}

type numbers []int

func (h numbers) Len() int           { return len(h) }
func (h numbers) Less(i, j int) bool { return h[i] < h[j] }
func (h numbers) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *numbers) Push(x any)        { *h = append(*h, x.(int)) }
func (h *numbers) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

type ending struct {
	end  time.Duration
	slot int
}

type endings []ending

func (h endings) Len() int { return len(h) }
func (h endings) Less(i, j int) bool {
	return h[i].end < h[j].end || h[i].end == h[j].end && h[i].slot < h[j].slot
}
func (h endings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *endings) Push(x any)   { *h = append(*h, x.(ending)) }
func (h *endings) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
