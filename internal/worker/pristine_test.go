package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// rewinds returns how often instances were put back, all together.
func (m *machine) rewinds() (n int64) {
	for _, in := range m.Status().Instances {
		n += in.Rewinds
	}
	return n
}

func pristine(r *faas.Revision) { r.State = faas.StatePristine }

func TestAPristineFunctionFindsNothingOfTheCallsBefore(t *testing.T) {
	m := newMachine(t, nil)
	for _, l := range []struct{ runtime, entry, code string }{
		{"python", "f.py", "import random, uuid\n" + strings.Replace(counter, `return {"n": n}`, `return [n, random.random(), str(uuid.uuid4())]`, 1)},
		{"node", "f.js", "let n = 0;\nexports.main = () => [++n, Math.random(), require('crypto').randomUUID()];\n"},
	} {
		t.Run(l.runtime, func(t *testing.T) {
			rev := m.function(t, l.runtime, l.entry, l.code, func(r *faas.Revision) { r.Name.Function = l.runtime; pristine(r) })
			seen := map[string]bool{}
			instances := map[string]int{}
			restored := 0
			for i := range 40 {
				inv := call(`{}`)
				got, err := m.do(rev, inv)
				if err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
				n, random, _ := strings.Cut(strings.Trim(got, "[]"), ",")
				if n != "1" {
					t.Fatalf("call %d, started %q, finds what %s calls have left", i, inv.Report.Start, n)
				}
				if seen[random] {
					t.Errorf("call %d, started %q, draws %s, as a call before it did", i, inv.Report.Start, random)
				}
				seen[random] = true
				instances[inv.Report.Instance]++
				if inv.Report.Start == faas.StartRestored {
					restored++
				}
			}
			t.Logf("%d instances, %d calls found one put back", len(instances), restored)
			if restored < 20 {
				t.Errorf("%d of 40 calls found a process that was put back to its clean state; want most of them", restored)
			}
		})
	}
}

func TestWhatCannotBePutBackIsReplaced(t *testing.T) {
	m := newMachine(t, nil)
	for i, change := range []string{
		"os.umask(0o077)", "open('/tmp/x', 'w').write('x')", "os.chdir('/tmp')", "kept.append(open('/dev/null'))",
		"signal.signal(signal.SIGUSR1, lambda *a: None)", "subprocess.Popen(['sleep', '60'])", "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
		"signal.setitimer(signal.ITIMER_REAL, 50)", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
	} {
		code := `
import os, resource, signal, subprocess, threading, time
kept = []
n = 0
def main(args):
    global n
    n += 1
    umask = os.umask(0o22)
    os.umask(umask)
    found = [n, umask, os.listdir("/tmp"), os.getcwd(), len(kept), signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
             threading.active_count(), signal.getitimer(signal.ITIMER_REAL)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64]
    ` + change + `
    return found
`
		rev := m.pythonFunction(t, fmt.Sprintf("f%d", i), code, pristine)
		want := `[1,18,[],"/code",0,true,1,0.0,true]`
		for j := range 8 {
			inv := call(`{}`)
			got, err := m.do(rev, inv)
			if err != nil {
				t.Fatalf("%s: call %d: %v", change, j, err)
			}
			if got := strings.ReplaceAll(got, " ", ""); got != want {
				t.Errorf("%s: call %d, started %q, finds %s, want %s", change, j, inv.Report.Start, got, want)
			}
		}
		m.Forget(rev.Name)
	}
}

func TestOneIsReadyOfWhatIsDearToLoad(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Keep.Idle = 300 * time.Millisecond })
	rev := m.pythonFunction(t, "dear", "import time\ntime.sleep(0.03)\n"+counter, nil)
	first := call(`{}`)
	if got, err := m.do(rev, first); err != nil || !strings.Contains(got, "1") {
		t.Fatalf("%q, %v", got, err)
	}
	// What has served a call goes, what nobody has used stays.
	within(t, "only an instance is left that nobody has used", func() bool {
		in := m.Status().Instances
		return len(in) == 1 && in[0].Calls == 0 && in[0].Spare
	})
	time.Sleep(2 * time.Second) // more than the time after which idle ones go
	inv := call(`{}`)
	if got, err := m.do(rev, inv); err != nil || !strings.Contains(got, "1") {
		t.Fatalf("%q, %v", got, err)
	}
	if inv.Report.Start != faas.StartPrewarmed || inv.Report.Instance == first.Report.Instance {
		t.Errorf("start %q in %s, want prewarmed in another instance", inv.Report.Start, inv.Report.Instance)
	}
	if d, loaded := inv.Timing.Get(faas.PhaseCodeLoad); loaded {
		t.Errorf("the call is said to have waited %v for the code", d)
	}
	cheap := m.pythonFunction(t, "cheap", counter, nil)
	if _, err := m.do(cheap, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	m.Forget(rev.Name)
	within(t, "nothing is left of what loads at once", func() bool { return len(m.Status().Instances) == 0 })
}

// TestNothingIsMadeAheadOfCodeThatRunsOnce: whoever runs many pieces of code leaves no instance of
// each that nobody has used.
func TestNothingIsMadeAheadOfCodeThatRunsOnce(t *testing.T) {
	m := newMachine(t, nil)
	dear := func(name, code string) *faas.Revision {
		return m.pythonFunction(t, name, "import time\ntime.sleep(0.03)\n"+code, func(r *faas.Revision) { r.State = faas.StatePristine })
	}
	for i := range 3 {
		if _, err := m.do(dear(faas.AdHoc, fmt.Sprintf("main = lambda args: %d", i)), call(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.do(dear("deployed", counter), call(`{}`)); err != nil {
		t.Fatal(err)
	}
	within(t, "an instance is ready of what was deployed", func() bool {
		return slices.ContainsFunc(m.Status().Instances, func(in faas.InstanceStatus) bool { return in.Function.Function == "deployed" && in.Calls == 0 })
	})
	for _, in := range m.Status().Instances {
		if in.Function.Function == faas.AdHoc && in.Calls == 0 {
			t.Errorf("%s waits for a second call of code that is run once", in.ID)
		}
	}
}

func TestWhatNobodyHasUsedGivesWayFirst(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 300 * faas.MiB; c.NoStems = true })
	dear := m.pythonFunction(t, "dear", "import time\ntime.sleep(0.03)\nheld = bytearray(60 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1\n"+counter, func(r *faas.Revision) { r.Limits.Memory = 100 * faas.MiB })
	if _, err := m.do(dear, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	within(t, "one is ready beside the one that served", func() bool { return len(m.Status().Instances) == 2 })
	large := m.pythonFunction(t, "large", counter, func(r *faas.Revision) { r.Limits.Memory = 200 * faas.MiB })
	if _, err := m.do(large, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	served := 0
	for _, in := range m.Status().Instances {
		if in.Spare {
			t.Errorf("%s is still there, which nobody has used", in.Function)
		}
		if in.Function == dear.Name && in.Calls > 0 {
			served++
		}
	}
	if served == 0 {
		t.Error("the one that served calls went too, though there was room for it")
	}
}
