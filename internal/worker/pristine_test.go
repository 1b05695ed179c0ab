package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
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
			if restored < 30 && l.runtime == "python" {
				t.Errorf("%d of 40 calls found a process that was put back to its clean state; want most of them", restored)
			}
		})
	}
}

func TestWhatCannotBePutBackIsReplaced(t *testing.T) {
	m := newMachine(t, nil)
	for i, change := range []string{
		"os.umask(0o077)", "open('/tmp/x', 'w').write('x')", "os.chdir('/tmp')", "kept.append(open('/dev/null'))",
		"signal.signal(signal.SIGUSR1, lambda *a: None)", "subprocess.Popen(['sleep', '60'])",
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
