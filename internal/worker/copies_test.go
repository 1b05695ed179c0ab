package worker_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// large is a function whose load leaves 96 MiB that nothing else has.
const large = "import os\nkept = os.urandom(96 << 20)\ndef main(args):\n    return 1\n"

// What processes are put back to is a copy of their memory, outside of all their limits: it counts
// as the node's, and is not made where there is no room for it.
func TestCopiesOfProcessesCountAsTheNodesMemory(t *testing.T) {
	for _, c := range []struct {
		memory   faas.Bytes
		restored bool
	}{{faas.GiB, true}, {200 * faas.MiB, false}} {
		t.Run(c.memory.String(), func(t *testing.T) {
			m := newMachine(t, func(w *worker.Config) { w.Memory = c.memory; w.NoStems = true })
			rev := m.function(t, "python", "f.py", large, func(r *faas.Revision) {
				pristine(r)
				r.Limits.Memory = 160 * faas.MiB
				r.Limits.MaxInstances = 1
			})
			restored := 0
			for range 6 {
				inv := call(`{}`)
				if _, err := m.do(rev, inv); err != nil {
					t.Fatal(err)
				}
				if inv.Report.Start == faas.StartRestored {
					restored++
				}
			}
			if c.restored != (restored > 0) {
				t.Errorf("%d of 6 calls found a process that was put back", restored)
			}
			if c.restored {
				within(t, "the instance and the copy of it are counted", func() bool {
					s := m.Status()
					return len(s.Instances) == 1 && s.Reserved >= s.Instances[0].Memory+96*faas.MiB
				})
			}
			m.Forget(rev.Name)
			within(t, "the copy is gone", func() bool { return m.Status().Reserved < 32*faas.MiB })
		})
	}
}
