package worker_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// To stop a process that hardly ever gets a processor takes long, and others wait for it.
func TestNoProcessIsPutBackThatHasHardlyAProcessor(t *testing.T) {
	m := newMachine(t, nil)
	for _, reuse := range []faas.Reuse{faas.ReuseFunction, faas.ReuseTenant} {
		for _, c := range []struct {
			name string
			cpu  int
			want bool
		}{{"little", 50, false}, {"enough", 1000, true}} {
			rev := m.function(t, "python", "f.py", counter, func(r *faas.Revision) {
				pristine(r)
				r.Name.Function = c.name + string(reuse)
				r.Reuse, r.Limits.CPU = reuse, c.cpu
			})
			seen, again := map[string]bool{}, false
			for range 12 {
				inv := call(`{}`)
				if got, err := m.do(rev, inv); err != nil || got != "1" && got != `{"n":1}` {
					t.Fatalf("%s: %s, %v", rev.Name, got, err)
				}
				again = again || seen[inv.Report.Instance]
				seen[inv.Report.Instance] = true
			}
			if again != c.want {
				t.Errorf("%s: a process served twice: %v, want %v", rev.Name, again, c.want)
			}
		}
	}
}
