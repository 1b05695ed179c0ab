package worker_test

import (
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/worker"
)

// TestABusyMachineMakesNothingDear: code that loads in some milliseconds takes many times that where
// others have the processors. No instance is kept ready for it because of that.
func TestABusyMachineMakesNothingDear(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Keep.Idle = 300 * time.Millisecond })
	rev := m.pythonFunction(t, "quick", "import time\nbegan = time.process_time()\nwhile time.process_time() - began < 0.006: pass\n"+counter, nil)
	for range 12 * runtime.NumCPU() {
		burn := exec.Command("sh", "-c", "while :; do :; done")
		if err := burn.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = burn.Process.Kill(), burn.Wait() })
	}
	seemed := time.Duration(0)
	for range 5 {
		inv := call(`{}`)
		if _, err := m.do(rev, inv); err != nil {
			t.Fatal(err)
		}
		took, _ := inv.Timing.Get(faas.PhaseCodeLoad)
		seemed = max(seemed, took)
		within(t, "nothing is left of what loads quickly", func() bool {
			s := m.Status()
			return len(s.Instances) == 0 && s.Starting == 0
		})
	}
	if seemed < policy.ParkLoad {
		t.Skipf("the machine was not busy enough to tell: the code seemed to load in %v", seemed)
	}
}
