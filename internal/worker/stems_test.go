package worker_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// stems returns how many processes wait for whatever function comes, and what they hold.
func (m *machine) stems(class string) (ready int, memory faas.Bytes) {
	for _, s := range m.Status().Stems {
		if s.Class == class {
			ready, memory = ready+s.Ready, memory+s.Memory
		}
	}
	return ready, memory
}

// awaitStems waits until at least n stems of the class are ready.
func (m *machine) awaitStems(t *testing.T, class string, n int) {
	t.Helper()
	within(t, fmt.Sprintf("%d stems of %s", n, class), func() bool {
		ready, _ := m.stems(class)
		return ready >= n
	})
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %s", what)
		}
	}
}

// pythonFunction returns a revision with a name of its own.
func (m *machine) pythonFunction(t *testing.T, name, code string, adjust func(*faas.Revision)) *faas.Revision {
	t.Helper()
	return m.function(t, "python", "f.py", code, func(r *faas.Revision) {
		r.Name.Function = name
		if adjust != nil {
			adjust(r)
		}
	})
}

func TestACallWithoutInstanceClaimsAStem(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "claims", `
import os, socket
def main(args):
    return [os.getcwd(), os.listdir("/code"), socket.gethostname(), os.environ.get("TOKEN"), open("/etc/hosts").read().count("claims"),
            os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize]
`, func(r *faas.Revision) {
		r.Secrets = []string{"TOKEN"}
		r.Limits.Tmp = 8 * faas.MiB
		r.Limits.Memory = 96 * faas.MiB
	})
	m.Expect(rev)
	m.awaitStems(t, "python", 1)
	inv := call(`{}`)
	got, err := m.do(rev, inv)
	if err != nil {
		t.Fatal(err)
	}
	want := `["/code",["f.py"],"claims","s3cret",1,` + strconv.Itoa(8<<20) + `]`
	if strings.ReplaceAll(got, " ", "") != want {
		t.Errorf("a claimed process sees %s, want %s", got, want)
	}
	if inv.Report.Start != faas.StartPrewarmed {
		t.Errorf("it started %q, want prewarmed", inv.Report.Start)
	}
	if _, booted := inv.Timing.Get(faas.PhaseRuntimeLoad); booted {
		t.Error("the call is said to have waited for the runtime to load")
	}
	if d, ok := inv.Timing.Get(faas.PhaseCodeLoad); !ok || d <= 0 {
		t.Errorf("code load took %v", d)
	}
	hog := m.pythonFunction(t, "hog", "def main(args):\n    return len(bytearray(args['n']))\n", func(r *faas.Revision) { r.Limits.Memory = 64 * faas.MiB })
	if got, err := m.do(hog, call(`{"n": 1048576}`)); err != nil || got != "1048576" {
		t.Errorf("within its memory: %q, %v", got, err)
	}
	if _, err := m.do(hog, call(`{"n": 134217728}`)); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("over the memory that its function has, not the stem's: %v, want it killed", err)
	}
}

func TestAFunctionWithAWayOutGetsAStemThatHasOne(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "plain", counter, nil)
	m.Expect(rev)
	m.awaitStems(t, "python", 1)
	out := m.pythonFunction(t, "out", "import os\ndef main(args):\n    return sorted(os.listdir('/sys/class/net')) if os.path.exists('/sys/class/net') else open('/proc/net/dev').read()\n",
		func(r *faas.Revision) { r.Network = faas.NetworkEgress })
	inv := call(`{}`)
	got, err := m.do(out, inv)
	if err != nil {
		t.Skipf("needs a way out for sandboxes: %v", err)
	}
	if !strings.Contains(got, "eth0") {
		t.Errorf("it has the interfaces %s, want one that leads out", got)
	}
	if got, err := m.do(m.pythonFunction(t, "closed", "def main(args):\n    return open('/proc/net/dev').read()\n", nil), call(`{}`)); err != nil || strings.Contains(got, "eth0") {
		t.Errorf("a function without network has %s, %v", got, err)
	}
}

func TestAStemThatDiedIsNotClaimed(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "f", counter, nil)
	m.Expect(rev)
	m.awaitStems(t, "python", 2)
	killStems(t, m)
	inv := call(`{}`)
	if got, err := m.do(rev, inv); err != nil || !strings.Contains(got, "1") {
		t.Errorf("the first call after its stems were killed: %q, %v", got, err)
	}
	m.awaitStems(t, "python", 1) // others take their place
}

// killStems kills all Python processes of sandboxes that have no code.
func killStems(t *testing.T, m *machine) {
	t.Helper()
	out, err := exec.Command("pgrep", "-f", "/brasa/(bootstrap|zygote).py").Output()
	if err != nil {
		t.Skipf("needs pgrep: %v", err)
	}
	for _, f := range strings.Fields(string(out)) {
		pid, _ := strconv.Atoi(f)
		if hasCode(pid) || !m.owns(pid) {
			continue
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestStemsGiveWayWhenMemoryIsShort(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 300 * faas.MiB; c.StemMemory = 200 * faas.MiB })
	small := m.pythonFunction(t, "small", counter, func(r *faas.Revision) { r.Limits.Memory = 64 * faas.MiB })
	m.Expect(small)
	m.awaitStems(t, "python", 1)
	large := m.pythonFunction(t, "large", counter, func(r *faas.Revision) { r.Limits.Memory = 300 * faas.MiB })
	if got, err := m.do(large, call(`{}`)); err != nil || !strings.Contains(got, "1") {
		t.Fatalf("a function that needs all the memory there is: %q, %v", got, err)
	}
	if s := m.Status(); s.Reserved > s.Memory {
		t.Errorf("%s are promised of %s", s.Reserved, s.Memory)
	}
}

func TestNoStemsWhereThereShallBeNone(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.NoStems = true })
	rev := m.pythonFunction(t, "f", counter, nil)
	m.Expect(rev)
	inv := call(`{}`)
	if _, err := m.do(rev, inv); err != nil || inv.Report.Start != faas.StartCold {
		t.Errorf("start %q, %v; want cold", inv.Report.Start, err)
	}
	if s := m.Status().Stems; len(s) > 0 {
		t.Errorf("there are stems: %+v", s)
	}
}

func TestABurstIsAnsweredByStemsAndTheyComeBack(t *testing.T) {
	m := newMachine(t, nil)
	first := m.pythonFunction(t, "first", counter, nil)
	m.Expect(first)
	m.awaitStems(t, "python", 2)
	prewarmed := 0
	for i := range 12 {
		inv := call(`{}`)
		if got, err := m.do(m.pythonFunction(t, fmt.Sprintf("f%d", i), counter, nil), inv); err != nil || !strings.Contains(got, "1") {
			t.Fatalf("function %d: %q, %v", i, got, err)
		}
		if inv.Report.Start == faas.StartPrewarmed {
			prewarmed++
		}
	}
	if prewarmed == 0 {
		t.Error("none of twelve functions got a stem")
	}
	m.awaitStems(t, "python", 6) // as many as the burst took, as far as the machine made them meanwhile
}

// hasCode says whether the process sees a function's code.
func hasCode(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	return err == nil && strings.Contains(string(b), " /code ")
}

// owns says whether the process is in a control group of this machine's sandboxes.
func (m *machine) owns(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), "/"+prefix+"/")
}
