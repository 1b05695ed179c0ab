package leak

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

// draws is how many calls draw in each language and way; BRASA_LEAK_N changes it.
func draws() int {
	if n, err := strconv.Atoi(os.Getenv("BRASA_LEAK_N")); err == nil {
		return n
	}
	return 300
}

//go:embed testdata/draw.py
var drawPython string

//go:embed testdata/draw.js
var drawNode string

//go:embed testdata/draw.rb
var drawRuby string

//go:embed testdata/draw.php
var drawPHP string

//go:embed testdata/Draw.java
var drawJava string

// TestNothingIsDrawnTwice has functions draw from everything there is, in processes that were
// forked, put back, handed on or made ahead, and looks for what came twice.
func TestNothingIsDrawnTwice(t *testing.T) {
	for _, l := range []struct {
		runtime string
		code    func(t *testing.T, m *machine) (map[string]string, string)
	}{
		{runtimes.Python, func(*testing.T, *machine) (map[string]string, string) {
			return map[string]string{"f.py": drawPython}, "f.py"
		}},
		{runtimes.Node, func(*testing.T, *machine) (map[string]string, string) {
			return map[string]string{"f.js": drawNode}, "f.js"
		}},
		{runtimes.Java, func(t *testing.T, m *machine) (map[string]string, string) {
			return compileJava(t, m, "Draw", drawJava), "Draw.class"
		}},
		{runtimes.Ruby, func(*testing.T, *machine) (map[string]string, string) {
			return map[string]string{"f.rb": drawRuby}, "f.rb"
		}},
		{runtimes.PHP, func(*testing.T, *machine) (map[string]string, string) {
			return map[string]string{"f.php": drawPHP}, "f.php"
		}},
		{runtimes.Wasm, wasmProgram},
	} {
		t.Run(l.runtime, func(t *testing.T) {
			m := newMachine(t, func(c *worker.Config) { c.ReuseAny = true })
			files, entry := l.code(t, m)
			seen := map[string]string{}
			var mu sync.Mutex
			for _, way := range []struct {
				name      string
				functions int // that take turns; 0: another for each call
				reuse     faas.Reuse
				state     faas.State
				part      int // of the calls: a process for each takes its time
				dear      bool
			}{
				{"put back", 1, faas.ReuseFunction, faas.StatePristine, 1, false},
				{"handed on", 2, faas.ReuseTenant, faas.StatePristine, 3, false},
				{"handed on to other namespaces", 2, faas.ReuseAny, faas.StatePristine, 3, false},
				{"each in a new process", 1, faas.ReuseNever, faas.StateKept, 10, false},
				{"each a function's first", 0, faas.ReuseFunction, faas.StateKept, 10, false},
				{"made ahead", 1, faas.ReuseNever, faas.StateKept, 20, true},
			} {
				if way.dear && l.runtime != runtimes.Python && l.runtime != runtimes.Node {
					continue
				}
				revision := func(i int) *faas.Revision {
					return m.function(t, l.runtime, files, entry, func(r *faas.Revision) {
						r.Name = faas.Name{Namespace: "one", Function: fmt.Sprintf("f%d", i)}
						if way.reuse == faas.ReuseAny {
							r.Name.Namespace = fmt.Sprintf("n%d", i)
						}
						if way.dear {
							r.Env = map[string]string{"DEAR": "1"}
						}
						r.Reuse, r.State = way.reuse, way.state
					})
				}
				var revs []*faas.Revision
				for i := range way.functions {
					revs = append(revs, revision(i))
				}
				starts, instances, drawn := map[faas.Start]int{}, map[string]bool{}, 0
				n := max(draws()/way.part, 4)
				rt, err := m.reg.Lookup(l.runtime)
				if err != nil {
					t.Skip(err)
				}
				if rt.Fresh() && way.state == faas.StateKept {
					n = max(n/3, 4)
				}
				if !rt.Rewinds() && !rt.Fresh() {
					n = max(draws()/50, 4) // each of them makes a process
				}
				for i := range n {
					rev := (*faas.Revision)(nil)
					if way.functions > 0 {
						rev = revs[i%way.functions]
					} else {
						rev = revision(i)
					}
					a, err := m.call(rev, map[string]any{})
					if err != nil {
						t.Fatalf("%s, call %d: %v\n%s", way.name, i, err, a.log)
					}
					var out map[string]string
					if l.runtime == runtimes.Wasm {
						out = map[string]string{"random_get": a.body}
					} else if err := json.Unmarshal([]byte(a.body), &out); err != nil || len(out) < 10 {
						t.Fatalf("%s, call %d answers %.300q: %v", way.name, i, a.body, err)
					}
					mu.Lock()
					for what, v := range out {
						if len(v) < 5 {
							t.Fatalf("%s draws %q", what, v)
						}
						me := fmt.Sprintf("%s by call %d %s, started %q in %s", what, i, way.name, a.start, a.instance)
						if before := seen[v]; before != "" {
							t.Errorf("%s is drawn as\n%s\nand\n%s", v, before, me)
						}
						seen[v] = me
						drawn++
					}
					mu.Unlock()
					starts[a.start]++
					instances[a.instance] = true
					if way.functions == 0 {
						m.Forget(rev.Name)
					}
					m.settle(t)
				}
				t.Logf("%s: %d numbers by %d calls in %d processes, started %v", way.name, drawn, n, len(instances), starts)
				for _, rev := range revs {
					m.Forget(rev.Name)
				}
				if rt.Rewinds() {
					if way.reuse == faas.ReuseFunction && way.state == faas.StatePristine && starts[faas.StartRestored] < n/2 {
						t.Errorf("%s: %v; want most calls in a process that was put back", way.name, starts)
					}
					if (way.reuse == faas.ReuseTenant || way.reuse == faas.ReuseAny) && len(instances) > n/2 {
						t.Errorf("%s: %d processes for %d calls; want processes that serve many", way.name, len(instances), n)
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}
