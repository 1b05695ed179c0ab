package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// marked is a function that tells what it finds and leaves all it can.
const marked = `
import builtins, json, os, random, sys, uuid
sys.modules.setdefault("left_behind", os)
def main(args):
    found = [getattr(builtins, "left", 0), os.environ.get("LEFT"), os.environ.get("OWN"), sorted(m for m in sys.modules if m.startswith("left_by")),
             json.dumps is not None and getattr(json, "patched", 0), os.listdir("/code"), os.path.exists("/tmp/left")]
    builtins.left = 1
    os.environ["LEFT"] = "1"
    sys.modules["left_by_" + args["me"]] = os
    json.patched = 1
    return {"found": found, "random": [random.random(), str(uuid.uuid4())]}
`

// reused returns a function with its own name, namespace and environment.
func (m *machine) reused(t *testing.T, namespace, name string, reuse faas.Reuse) *faas.Revision {
	t.Helper()
	return m.function(t, "python", name+".py", marked, func(r *faas.Revision) {
		r.Name = faas.Name{Namespace: namespace, Function: name}
		r.Env = map[string]string{"OWN": namespace + name}
		r.Reuse, r.State = reuse, faas.StatePristine
	})
}

// takeTurns calls functions in turns and returns which instances served each.
func (m *machine) takeTurns(t *testing.T, revs ...*faas.Revision) []map[string]bool {
	t.Helper()
	by := make([]map[string]bool, len(revs))
	seen := map[string]bool{}
	for round := range 12 {
		for i, rev := range revs {
			if by[i] == nil {
				by[i] = map[string]bool{}
			}
			inv := call(fmt.Sprintf(`{"me":%q}`, rev.Name.Function))
			got, err := m.do(rev, inv)
			if err != nil {
				t.Fatal(err)
			}
			found, random, _ := strings.Cut(strings.ReplaceAll(got, " ", ""), `,"random":`)
			want := fmt.Sprintf(`{"found":[0,null,%q,[],0,["%s.py"],false]`, rev.Name.Namespace+rev.Name.Function, rev.Name.Function)
			if found != want {
				t.Errorf("round %d: %s finds %s, want %s", round, rev.Name, found, want)
			}
			if seen[random] {
				t.Errorf("round %d: %s draws %s, as a call before it", round, rev.Name, random)
			}
			seen[random] = true
			by[i][inv.Report.Instance] = true
			within(t, "the process is back", func() bool { return len(m.Status().Instances) == 0 })
		}
	}
	return by
}

func shared(a, b map[string]bool) (n int) {
	for id := range a {
		if b[id] {
			n++
		}
	}
	return n
}

func TestFunctionsOfANamespaceTakeTurnsInACleanProcess(t *testing.T) {
	m := newMachine(t, nil)
	a, b := m.reused(t, "one", "a", faas.ReuseTenant), m.reused(t, "one", "b", faas.ReuseTenant)
	other := m.reused(t, "two", "a", faas.ReuseTenant)
	wide := m.reused(t, "three", "a", faas.ReuseAny) // nobody has allowed it
	by := m.takeTurns(t, a, b, other, wide)
	if shared(by[0], by[1]) == 0 {
		t.Errorf("the functions of a namespace never met in a process: %v, %v", by[0], by[1])
	}
	for i, x := range by {
		for j, y := range by {
			if i < j && (i != 0 || j != 1) && shared(x, y) > 0 {
				t.Errorf("functions %d and %d of different namespaces were served by the same process", i, j)
			}
		}
	}
}

func TestCallersOfOtherNamespacesTakeNoTurnsInAProcess(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.reused(t, "one", "a", faas.ReuseTenant)
	by := map[string]string{}
	for i := range 12 {
		owner := []string{"", "two", "three"}[i%3]
		inv := call(`{"me":"a"}`)
		inv.Owner = owner
		if _, err := m.do(rev, inv); err != nil {
			t.Fatal(err)
		}
		if was, served := by[inv.Report.Instance]; served && was != owner {
			t.Errorf("call %d, of %q, was served by a process that has served %q", i, owner, was)
		}
		by[inv.Report.Instance] = owner
		within(t, "the process is back", func() bool { return len(m.Status().Instances) == 0 })
	}
}

func TestFunctionsOfAllNamespacesTakeTurnsWhereThatIsAllowed(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.ReuseAny = true })
	a, b := m.reused(t, "one", "a", faas.ReuseAny), m.reused(t, "two", "b", faas.ReuseAny)
	tenant := m.reused(t, "one", "c", faas.ReuseTenant)
	by := m.takeTurns(t, a, b, tenant)
	if shared(by[0], by[1]) == 0 {
		t.Errorf("they never met in a process: %v, %v", by[0], by[1])
	}
	if shared(by[2], by[0])+shared(by[2], by[1]) > 0 {
		t.Error("a function that shares within its namespace was served by a process that is anyone's")
	}
}
