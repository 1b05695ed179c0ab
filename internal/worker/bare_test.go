package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// script returns a revision of a shell script whose process serves one call.
func (m *machine) script(t *testing.T, name, code string, adjust func(*faas.Revision)) *faas.Revision {
	t.Helper()
	return m.function(t, "exec", "run.sh", "#!/bin/sh\n"+code, func(r *faas.Revision) {
		r.Name.Function = name
		if adjust != nil {
			adjust(r)
		}
	})
}

func TestAnExecutableIsGivenASandboxThatWaits(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.script(t, "waits", `
read in
echo "$in $TOKEN $A $HTTP_METHOD $(pwd) $(ls /code) $(cat /proc/sys/kernel/hostname) $(df -k /tmp | tail -n 1 | tr -s ' ' | cut -d' ' -f2) $(ls /tmp | wc -l) $(ls /proc/self/fd | tr '\n' ' ')"
echo log >&2
touch /tmp/left`, func(r *faas.Revision) {
		r.Secrets = []string{"TOKEN"}
		r.Env = map[string]string{"A": "b"}
		r.Limits.Tmp = 8 * faas.MiB
	})
	m.Expect(rev)
	m.awaitStems(t, "exec", 1)
	for range 3 { // each with a process and a sandbox of its own
		m.awaitStems(t, "exec", 1)
		inv := call("input\n")
		got, err := m.do(rev, inv)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("input s3cret b POST /code run.sh waits %d 0 0 1 2 3", 8<<10); strings.TrimSpace(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if inv.Report.Start != faas.StartPrewarmed {
			t.Errorf("it started %q, want prewarmed", inv.Report.Start)
		}
		if len(inv.Report.Logs) != 1 || inv.Report.Logs[0].Text != "log" {
			t.Errorf("logs %v", inv.Report.Logs)
		}
	}
}

// Programs that speak lines or HTTP come to the same sandboxes, and so do functions in Go.
func TestAllExecutablesShareTheSandboxesThatWait(t *testing.T) {
	m := newMachine(t, nil)
	const lines = `
while read -r line; do
	id=${line#*\"id\":\"}; id=${id%%\"*}
	echo "{\"id\":\"$id\",\"result\":\"$(cat /proc/sys/kernel/hostname)\"}" >&3
done`
	rev := m.function(t, "lines", "run.sh", "#!/bin/sh\n"+lines, func(r *faas.Revision) { r.Name.Function = "talks" })
	m.Expect(m.script(t, "other", "exit 0", nil))
	m.awaitStems(t, "exec", 1)
	inv := call(`{}`)
	got, err := m.do(rev, inv)
	if err != nil || got != `"talks"` {
		t.Fatalf("got %q %v", got, err)
	}
	if inv.Report.Start != faas.StartPrewarmed {
		t.Errorf("it started %q, want prewarmed", inv.Report.Start)
	}
	inv = call(`{}`)
	if got, err := m.do(rev, inv); err != nil || got != `"talks"` || inv.Report.Start != faas.StartWarm {
		t.Errorf("the second call: %q %v, %s", got, err, inv.Report.Start)
	}
}

func TestWhatAnExecutableEndsWithIsToldOfAWaitingSandboxToo(t *testing.T) {
	m := newMachine(t, nil)
	for code, want := range map[string]faas.Code{
		"echo why >&2; exit 3":             faas.Failed,
		"kill -9 $$":                       faas.Crashed,
		"head -c 64m /dev/zero | tail | :": faas.Crashed, // over its memory
		"sleep 100":                        faas.Timeout,
	} {
		rev := m.script(t, "ends", code, func(r *faas.Revision) {
			r.Limits.Memory = 16 * faas.MiB
			r.Limits.Timeout = faas.Duration(1e9)
		})
		m.Expect(rev)
		m.awaitStems(t, "exec", 1)
		inv := call("")
		if _, err := m.do(rev, inv); faas.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", code, err, want)
		}
		if inv.Report.Start != faas.StartPrewarmed {
			t.Errorf("%s: it started %q", code, inv.Report.Start)
		}
	}
}

// More than a waiting sandbox can be told is run all the same.
func TestALongEnvironmentIsStartedCold(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.script(t, "long", `echo ${#A} ${#B}`, func(r *faas.Revision) {
		r.Env = map[string]string{"A": strings.Repeat("a", 60<<10), "B": strings.Repeat("b", 60<<10)}
	})
	m.Expect(rev)
	m.awaitStems(t, "exec", 1)
	inv := call("")
	got, err := m.do(rev, inv)
	if err != nil || strings.TrimSpace(got) != fmt.Sprint(60<<10, " ", 60<<10) {
		t.Fatalf("got %q %v", got, err)
	}
	if inv.Report.Start != faas.StartCold {
		t.Errorf("it started %q, want cold", inv.Report.Start)
	}
}

func TestWithoutStemsExecutablesAreStartedCold(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.NoStems = true })
	rev := m.script(t, "cold", `echo hi`, nil)
	m.Expect(rev)
	inv := call("")
	if got, err := m.do(rev, inv); err != nil || got != "hi\n" || inv.Report.Start != faas.StartCold {
		t.Errorf("got %q %v, %s", got, err, inv.Report.Start)
	}
	if n, _ := m.stems("exec"); n != 0 {
		t.Errorf("%d sandboxes wait", n)
	}
}

func TestStemsOfANamespaceGoWithIt(t *testing.T) {
	m := newMachine(t, nil)
	mine, others := m.reused(t, "mine", "a", faas.ReuseTenant), m.reused(t, "others", "a", faas.ReuseTenant)
	m.Expect(mine)
	m.Expect(others)
	m.awaitStems(t, "python", 2)
	m.ForgetNamespace("mine")
	if n, _ := m.stems("python"); n != 1 {
		t.Errorf("%d stems are left, want 1", n)
	}
}
