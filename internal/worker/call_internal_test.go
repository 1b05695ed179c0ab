package worker

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// An instance that a call in line is given may have been begun for another one: whoever is first to use it,
// though it did not wait for all of its start, is told that it is a new one.
func TestTheFirstCallOfAnInstanceIsToldSo(t *testing.T) {
	for name, c := range map[string]struct {
		waited time.Duration
		start  faas.Start
		load   time.Duration
	}{
		"that waited for all of its start":  {3 * time.Second, faas.StartForked, time.Second},
		"that waited for the end of it":     {time.Millisecond, faas.StartPrewarmed, 0},
		"of a process that had calls":       {time.Millisecond, faas.StartWarm, -1},
		"of one that had, after a long one": {3 * time.Second, faas.StartWarm, -1},
	} {
		in := &instance{id: "i-1", pool: &pool{rev: &faas.Revision{}}, births: births{start: faas.StartForked, total: 2 * time.Second}}
		in.births.timing.Add(faas.PhaseCodeLoad, time.Second)
		in.used.Store(c.load < 0)
		call := &call{inv: &faas.Invocation{}, foreign: true}
		if _, err := call.granted(grant{in: in}, c.waited); err != nil {
			t.Fatal(err)
		}
		load, told := call.inv.Timing.Get(faas.PhaseCodeLoad)
		if call.inv.Report.Start != c.start || told != (c.load >= 0) || told && load != c.load {
			t.Errorf("%s: start %q, load %v (told: %t)", name, call.inv.Report.Start, load, told)
		}
	}
}
