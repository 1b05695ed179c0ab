package worker_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// A call that the server's stop cuts off is told so, whatever its contract: how the process took its
// end is not the function's doing.
func TestCallsThatAStopCutsOff(t *testing.T) {
	m := newMachine(t, nil)
	ended := make(chan error, 2)
	for _, contract := range []string{faas.ContractNative, faas.ContractOpenWhisk} {
		rev := m.pythonFunction(t, "f"+contract, "import time\ndef main(args):\n    time.sleep(60)\nhandle = main\n", func(r *faas.Revision) { r.Contract = contract })
		go func() {
			_, err := m.do(rev, call(`{}`))
			ended <- err
		}()
	}
	working := func() (n int) {
		for _, in := range m.Status().Instances {
			n += in.Active
		}
		return n
	}
	for deadline := time.Now().Add(30 * time.Second); working() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2 calls are running", working())
		}
	}
	m.stop()
	for range 2 {
		if err := <-ended; faas.CodeOf(err) != faas.Unavailable || faas.AsError(err).Fix == "" {
			t.Errorf("%v, want Unavailable with what to do", err)
		}
	}
}
