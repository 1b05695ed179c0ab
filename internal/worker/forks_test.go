package worker_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

const nodeCounter = "let n = 0; exports.main = () => [++n, process.pid, process.uptime() > 0];\n"

func (m *machine) nodeFunction(t *testing.T, name, code string, adjust func(*faas.Revision)) *faas.Revision {
	t.Helper()
	return m.function(t, runtimes.Node, "f.js", code, func(r *faas.Revision) {
		r.Name.Function = name
		if adjust != nil {
			adjust(r)
		}
	})
}

// nodeForks skips where the host's Node.js can't be forked.
func (m *machine) nodeForks(t *testing.T) {
	t.Helper()
	if ok, err := m.Forks(t.Context(), runtimes.Node); err != nil || !ok {
		t.Skipf("there is no Node.js that is forked: %v", err)
	}
}

// forked returns how many stems of Node.js were forked, of how many there are.
func (m *machine) forked() (forked, ready int) {
	for _, s := range m.Status().Stems {
		if strings.HasPrefix(s.Class, runtimes.Node) {
			forked, ready = forked+s.Forked, ready+s.Ready
		}
	}
	return forked, ready
}

// A burst empties the stock of booted processes; what it lacks is forked. Before, nothing is.
func TestABurstOfNodeIsMadeUpForByForks(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Forks = true })
	m.nodeForks(t)
	first := m.nodeFunction(t, "first", nodeCounter, nil)
	m.Expect(first)
	within(t, "the usual stock", func() bool { _, ready := m.forked(); return ready == 2 })
	if n, _ := m.forked(); n != 0 {
		t.Errorf("%d of the usual stock are forked", n)
	}
	var mu sync.Mutex
	starts, n := map[faas.Start]int{}, 0
	burst := func() {
		var all sync.WaitGroup
		for range 8 {
			n++
			rev := m.nodeFunction(t, fmt.Sprintf("f%d", n), nodeCounter, nil)
			all.Go(func() {
				inv := call(`{}`)
				if got, err := m.do(rev, inv); err != nil || !strings.HasPrefix(got, "[1,") {
					t.Errorf("%s: %q, %v", rev.Name, got, err)
				}
				mu.Lock()
				starts[inv.Report.Start]++
				mu.Unlock()
				m.Forget(rev.Name)
			})
		}
		all.Wait()
	}
	burst()
	within(t, "stems that are forked", func() bool {
		forked, ready := m.forked()
		if forked == 0 && ready == 2 { // the burst is made up for: it was slow, or the zygote was
			burst()
		}
		return forked > 0
	})
	clear(starts)
	burst()
	if starts[faas.StartCold] > 0 {
		t.Errorf("starts %v; want none of the last burst to have booted", starts)
	}
}

// A forked process is put back to its clean state as a started one is, and draws anew each time.
func TestForkedNodeIsPutBack(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Forks = true; c.StemMemory = 1 }) // no stem, so that each is forked in need
	m.nodeForks(t)
	within(t, "a process that is forked", func() bool {
		inv := call(`{}`)
		rev := m.nodeFunction(t, "first", nodeCounter, nil)
		if _, err := m.do(rev, inv); err != nil {
			t.Fatal(err)
		}
		m.Forget(rev.Name)
		return inv.Report.Start == faas.StartForked
	})
	rev := m.nodeFunction(t, "pristine", "let n = 0; exports.main = () => [++n, Math.random()];\n", func(r *faas.Revision) { r.State = faas.StatePristine })
	starts, seen := map[faas.Start]int{}, map[string]bool{}
	for range 12 {
		inv := call(`{}`)
		got, err := m.do(rev, inv)
		if err != nil || !strings.HasPrefix(got, "[1,") || seen[got] {
			t.Fatalf("%q, %v; want a first call that draws anew", got, err)
		}
		seen[got] = true
		starts[inv.Report.Start]++
	}
	if starts[faas.StartForked] == 0 || starts[faas.StartRestored] == 0 {
		t.Errorf("starts %v; want some forked, and put back", starts)
	}
}

func TestNodeIsNotForkedWhereItShallNotBe(t *testing.T) {
	m := newMachine(t, nil)
	if ok, err := m.Forks(t.Context(), runtimes.Node); ok && !errors.Is(err, worker.ErrNoForks) {
		t.Errorf("said to fork: %v", err)
	}
	for i := range 8 {
		inv := call(`{}`)
		if _, err := m.do(m.nodeFunction(t, fmt.Sprintf("f%d", i), nodeCounter, nil), inv); err != nil || inv.Report.Start == faas.StartForked {
			t.Errorf("start %q, %v", inv.Report.Start, err)
		}
	}
	if n, _ := m.forked(); n > 0 {
		t.Errorf("%d stems are forked", n)
	}
	if ok, err := m.Forks(t.Context(), runtimes.Python); ok {
		t.Errorf("Python, which is always forked, has a trial: %v", err)
	}
}
