package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// known calls the function once, so that it is known how long its code takes to load, and has its
// instances ended.
func (m *machine) known(t *testing.T, rev *faas.Revision) {
	t.Helper()
	if _, err := m.do(rev, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	m.Forget(rev.Name)
	within(t, "no instance is left", func() bool { return len(m.Status().Instances) == 0 })
	m.awaitStems(t, "python", 1)
}

func TestACallComesWithTheLoadOfItsFunction(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "f", "import time\nprint('loading')\ntime.sleep(0.002)\n"+counter, nil)
	m.known(t, rev)
	inv := call(`{}`)
	got, err := m.do(rev, inv)
	if err != nil || !strings.Contains(got, "1") {
		t.Fatalf("%q, %v", got, err)
	}
	if inv.Report.Start != faas.StartPrewarmed {
		t.Errorf("start %q, want prewarmed", inv.Report.Start)
	}
	load, _ := inv.Timing.Get(faas.PhaseCodeLoad)
	if load < 2*time.Millisecond {
		t.Errorf("the code is said to have loaded in %v; it slept for 2ms", load)
	}
	if logs := lines(inv.Report.Logs); !strings.Contains(logs, "loading") {
		t.Errorf("what it wrote while loading is not in the log of the call it loaded for: %q", logs)
	}
	again := call(`{}`)
	if got, err := m.do(rev, again); err != nil || !strings.Contains(got, "2") || again.Report.Start != faas.StartWarm {
		t.Errorf("the call after it: %q, %v, start %q", got, err, again.Report.Start)
	}
}

func TestALoadThatFailsAfterAllFailsItsCall(t *testing.T) {
	m := newMachine(t, nil)
	soon := time.Now().Add(2 * time.Second)
	rev := m.pythonFunction(t, "f", fmt.Sprintf("import time\nif time.time() > %f: raise ValueError('too late')\n", float64(soon.UnixMilli())/1000)+counter, nil)
	m.known(t, rev)
	time.Sleep(time.Until(soon))
	for range 2 { // by its own load, then by one that is begun for it
		if _, err := m.do(rev, call(`{}`)); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "too late") {
			t.Fatalf("the error is %v, want the function's own", err)
		}
	}
	within(t, "what could not load is gone", func() bool { return len(m.Status().Instances) == 0 })
}

func TestACallerWhoGivesUpDoesNotHaveTheNextBeginAnew(t *testing.T) {
	m := newMachine(t, nil)
	soon := time.Now().Add(2 * time.Second)
	rev := m.pythonFunction(t, "f", fmt.Sprintf("import time\nif time.time() > %f: time.sleep(3)\n", float64(soon.UnixMilli())/1000)+counter,
		func(r *faas.Revision) { r.Limits.Timeout = faas.Duration(2 * time.Second) })
	m.known(t, rev)
	time.Sleep(time.Until(soon))
	if _, err := m.do(rev, call(`{}`)); faas.CodeOf(err) != faas.Timeout {
		t.Fatalf("a load of 3s in a call of 2s: %v, want a timeout", err)
	}
	// One at least: what is dear to load may have another made ahead.
	within(t, "an instance is there all the same", func() bool { return len(m.Status().Instances) >= 1 })
	inv := call(`{}`)
	if got, err := m.do(rev, inv); err != nil || !strings.Contains(got, "1") {
		t.Errorf("the next call: %q, %v", got, err)
	}
}
