package faas

import (
	"encoding/json"
	"time"
)

// Phase is one stretch of an invocation's way. Names with a dot are parts of the phase before
// the dot; the others follow one another and add up to the total.
type Phase uint8

// Phases, in the order of the way.
const (
	PhaseResolve      Phase = iota // the name becomes a revision
	PhaseQueue                     // waiting for a slot
	PhaseProvisioning              // an instance is found or its sandbox made
	PhaseFetch                     // part of provisioning: code laid out on this node
	PhaseCgroup                    // part of provisioning: limits
	PhaseNetwork                   // part of provisioning: network namespace
	PhaseSpawn                     // part of provisioning: process, mounts, confinement, exec
	PhaseRuntimeLoad               // the language boots
	PhaseDependencies              // what the code imports
	PhaseCodeLoad                  // the code itself, to its handler
	PhaseExecution                 // the handler
	PhaseReturn                    // the rest of the answer goes to the caller
	phaseCount
)

var phaseNames = [phaseCount]string{
	"resolve", "queue", "provisioning", "provisioning.fetch", "provisioning.cgroup",
	"provisioning.network", "provisioning.spawn", "runtime_load", "dependency_load", "code_load",
	"execution", "return",
}

// String returns the phase's name on the wire.
func (p Phase) String() string { return phaseNames[p] }

// Part says whether the phase is a part of provisioning rather than a phase of its own.
func (p Phase) Part() bool { return p >= PhaseFetch && p <= PhaseSpawn }

// Timing says where an invocation's time went. It is filled by one goroutine at a time and
// allocates nothing, save for the trees of a start.
type Timing struct {
	Begin time.Time     // when the door took the request
	Total time.Duration // until the last byte of the answer was handed over
	took  [phaseCount]time.Duration
	cpu   [phaseCount]time.Duration
	seen  [phaseCount]bool
	trees []Tree // that its instance was made with, if that was made for it; not changed once it is here
}

// From says where a tree was when it was asked for.
type From string

// Froms.
const (
	FromNode  From = "node"  // laid out on this node, and compared with its digest before
	FromDisk  From = "disk"  // laid out on this node, and compared with its digest now
	FromStore From = "store" // in the store: it was fetched, laid out and compared
)

// Tree is a directory of files that an instance was made with: its code, a layer, the root of an
// image.
type Tree struct {
	Target string `json:"target" doc:"Where the process sees it"`
	Digest Digest `json:"digest"`
	Bytes  Bytes  `json:"bytes" doc:"Size of its files; 0 where it is not known"`
	From   From   `json:"from" enum:"node,disk,store" doc:"Where it was: laid out on the node, there but to be compared with its digest, or in the store"`
	US     int64  `json:"us" doc:"Time until it was there, in microseconds"`
}

// Add adds d to a phase.
func (t *Timing) Add(p Phase, d time.Duration) {
	t.took[p] += max(d, 0) // a clock step must not make a phase negative
	t.seen[p] = true
}

// AddCPU adds processor time to a phase, as the cgroup counted it.
func (t *Timing) AddCPU(p Phase, d time.Duration) { t.cpu[p] += max(d, 0) }

// Merge adds the phases of a part of the invocation, and what that part's instance was made with.
func (t *Timing) Merge(part *Timing) {
	for p := range phaseCount {
		if part.seen[p] {
			t.Add(p, part.took[p])
			t.AddCPU(p, part.cpu[p])
		}
	}
	t.trees = append(t.trees[:len(t.trees):len(t.trees)], part.trees...)
}

// Trees returns what the invocation's instance was made with; nil if it was there before.
func (t *Timing) Trees() []Tree { return t.trees }

// SetTrees says what the invocation's instance was made with. The slice is the Timing's from then on.
func (t *Timing) SetTrees(trees []Tree) { t.trees = trees }

// Get returns the phase's time; ok is false if the invocation never entered it.
func (t *Timing) Get(p Phase) (d time.Duration, ok bool) { return t.took[p], t.seen[p] }

// CPU returns the phase's processor time; 0 if it was not measured.
func (t *Timing) CPU(p Phase) time.Duration { return t.cpu[p] }

// PhaseTime is a phase as it is written in an activation.
type PhaseTime struct {
	Name string `json:"name" doc:"The phase; a name with a dot is a part of the phase before the dot"`
	US   int64  `json:"us" doc:"Time in microseconds"`
	CPU  int64  `json:"cpu_us" doc:"Processor time in microseconds, from the cgroup; 0 where it was not measured"`
}

// Phases lists the phases that the invocation entered, in order.
func (t *Timing) Phases() []PhaseTime {
	out := make([]PhaseTime, 0, phaseCount)
	for p := range phaseCount {
		if t.seen[p] {
			out = append(out, PhaseTime{Name: p.String(), US: t.took[p].Microseconds(), CPU: t.cpu[p].Microseconds()})
		}
	}
	return out
}

type timingJSON struct {
	Begin   time.Time   `json:"begin"`
	TotalUS int64       `json:"total_us"`
	Phases  []PhaseTime `json:"phases"`
}

// MarshalJSON writes begin, total_us and phases.
func (t Timing) MarshalJSON() ([]byte, error) {
	return json.Marshal(timingJSON{Begin: t.Begin, TotalUS: t.Total.Microseconds(), Phases: t.Phases()})
}

// UnmarshalJSON reads what MarshalJSON writes; phases it does not know are left out.
func (t *Timing) UnmarshalJSON(b []byte) error {
	var j timingJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*t = Timing{Begin: j.Begin, Total: time.Duration(j.TotalUS) * time.Microsecond}
	for _, pt := range j.Phases {
		for p := range phaseCount {
			if phaseNames[p] == pt.Name {
				t.Add(p, time.Duration(pt.US)*time.Microsecond)
				t.AddCPU(p, time.Duration(pt.CPU)*time.Microsecond)
			}
		}
	}
	return nil
}
