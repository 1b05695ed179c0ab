package leak

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/worker"
)

// fate is what becomes of a process in which something was left, where it may be put back.
type fate int

const (
	restored fate = iota // it is put back
	replaced             // it is ended, and another takes its place
	either               // as the moment has it
)

func (f fate) String() string { return [...]string{"restored", "replaced", "either"}[f] }

// thing is something that a call can leave.
type thing struct {
	name string
	fate fate
	// seenAs is what of that which calls look at must show it, where the instance is kept: if it
	// did not, that nothing is found elsewhere would show nothing. Empty: only the marks in memory
	// do, or it can't be seen from inside.
	seenAs string
	ends   bool // no instance is kept after it
	// marks says that it leaves the mark of its call in memory, where a later one can find it.
	marks bool
}

// language is one that can be told what to leave.
type language struct {
	runtime string
	things  []thing
	// make returns the code for a function, with its mark in it.
	make  func(t *testing.T, m *machine, mark string) (files map[string]string, entry string)
	scans bool // it can search its memory
	cheap bool // its processes are quick to make
}

// party is a function in a test, and what it may find.
type party struct {
	t     *testing.T
	m     *machine
	l     *language
	rev   *faas.Revision
	own   map[string]string // marks that are its own: what they are
	usual map[string]string // what it finds where nothing was left
	last  string            // mark of its last call
}

// theirs are all marks that were ever given out: whose they are.
var theirs = map[string]string{}

func (l *language) party(t *testing.T, m *machine, namespace, name string, reuse faas.Reuse, state faas.State, adjust func(*faas.Revision)) *party {
	t.Helper()
	p := &party{t: t, m: m, l: l, own: map[string]string{}}
	who := namespace + "/" + name
	code, env := newMark(), newMark()
	files, entry := l.make(t, m, markHead+code)
	secret := strings.ToUpper("secret_of_" + name)
	p.rev = m.function(t, l.runtime, files, entry, func(r *faas.Revision) {
		r.Name = faas.Name{Namespace: namespace, Function: name}
		r.Env = map[string]string{"OWN_" + strings.ToUpper(name): markHead + env}
		r.Secrets = []string{secret}
		r.Reuse, r.State = reuse, state
		if adjust != nil {
			adjust(r)
		}
	})
	for mark, what := range map[string]string{code: "code", env: "environment", secretOf(namespace, secret): "secret"} {
		p.own[mark] = what
		theirs[mark] = "the " + what + " of " + who
	}
	return p
}

// found is what a call says.
type found struct {
	Found  map[string]json.RawMessage `json:"found"`
	Marks  []string                   `json:"marks"`
	Failed string                     `json:"failed"`
	Quiet  bool                       `json:"-"` // nothing was left in this call
}

// ask calls the function, which leaves something, or nothing if that is empty. after says what was
// left before, for messages.
func (p *party) ask(leave, after string, scan bool) (found, answer) {
	p.t.Helper()
	mark := newMark()
	theirs[mark] = fmt.Sprintf("the request of the call of %s that left %q", p.rev.Name, leave)
	p.last = mark
	if p.rev.State == faas.StateKept && p.rev.Reuse == faas.ReuseFunction {
		p.own[mark] = "request"
	}
	a, err := p.m.call(p.rev, map[string]any{"leave": leave, "note": markHead + mark, "memory": scan})
	if err != nil {
		p.t.Fatalf("%s, started %q in %s, after %q: %v\n%s", p.rev.Name, a.start, a.instance, after, err, a.log)
	}
	var f found
	if err := json.Unmarshal([]byte(a.body), &f); err != nil || f.Found == nil {
		p.t.Fatalf("%s, after %q, answers %.300q: %v", p.rev.Name, after, a.body, err)
	}
	f.Quiet = leave == ""
	return f, a
}

// learn has the function say what it finds in processes in which nothing was left.
func (p *party) learn() {
	p.t.Helper()
	f, _ := p.ask("", "nothing", false)
	p.usual = map[string]string{}
	for k, v := range f.Found {
		p.usual[k] = string(v)
	}
}

// clean fails the test if a call found anything that is not its own.
func (p *party) clean(f found, a answer, after string) (ok bool) {
	p.t.Helper()
	ok = true
	for _, k := range p.differs(f) {
		ok = false
		p.t.Errorf("%s, started %q, after %q: %s is %.200s, was %.200s where nothing had been left", p.rev.Name, a.start, after, k, f.Found[k], p.usual[k])
	}
	for _, mark := range f.Marks {
		if mark != p.last && p.own[mark] == "" {
			whose := theirs[mark]
			if whose == "" {
				whose = "nobody's"
			}
			ok = false
			p.t.Errorf("%s, started %q, after %q: its memory holds %s, %s", p.rev.Name, a.start, after, mark, whose)
		}
	}
	if f.Quiet && strings.Contains(a.log, "LEFT") {
		p.t.Errorf("%s, started %q, after %q: its log has lines of another call:\n%.300s", p.rev.Name, a.start, after, a.log)
		ok = false
	}
	return ok
}

// differs returns what is not as it was where nothing had been left.
func (p *party) differs(f found) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(p.usual)) {
		if string(f.Found[k]) != p.usual[k] {
			out = append(out, k)
		}
	}
	return out
}

// languages are those whose functions are told what to leave.
var languages = []*language{&python, &node, &java}

func eachLanguage(t *testing.T, f func(t *testing.T, l *language)) {
	for _, l := range languages {
		t.Run(l.runtime, func(t *testing.T) { f(t, l) })
	}
}

// TestTwoFunctionsNeverMeet shows that what a function keeps no other function finds; and, by its
// own next calls, that all of it can be found.
func TestTwoFunctionsNeverMeet(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, nil)
		other := l.party(t, m, "one", "other", faas.ReuseFunction, faas.StateKept, nil)
		other.learn()
		check := func(left *party, instance, what string) {
			t.Helper()
			f, a := other.ask("", what, l.scans)
			other.clean(f, a, what)
			if a.instance == instance {
				t.Errorf("after %q both functions were served by instance %s", what, instance)
			}
		}
		names := 0
		var one *party
		instance := ""
		fresh := func() {
			names++
			one = l.party(t, m, "one", fmt.Sprintf("kept%d", names), faas.ReuseFunction, faas.StateKept, nil)
			one.learn()
			instance = ""
		}
		fresh()
		for _, x := range l.things {
			before, _ := one.ask("", "before "+x.name, false)
			f, a := one.ask(x.name, "", false)
			left := one.last
			if f.Failed != "" {
				t.Logf("cannot be left here: %s: %s", x.name, f.Failed)
				if a.instance != instance {
					instance = a.instance
				}
				continue
			}
			time.Sleep(10 * time.Millisecond) // until a timer or thread of it has done something
			next, b := one.ask("", x.name, x.marks && l.scans)
			instance = b.instance
			if x.ends {
				if b.instance == a.instance {
					t.Errorf("%s: the instance was used again", x.name)
				}
			} else if b.instance != a.instance {
				t.Errorf("%s: the instance was not kept: %s", x.name, m.log.why(a.instance))
			} else if x.seenAs != "" && string(next.Found[x.seenAs]) == string(before.Found[x.seenAs]) {
				t.Errorf("%s: the next call in the same process does not see it as %q: %s; so the test shows nothing", x.name, x.seenAs, next.Found[x.seenAs])
			} else if x.marks && l.scans && !slices.Contains(next.Marks, left) {
				t.Errorf("%s: the next call in the same process does not find its mark in memory; so the test shows nothing", x.name)
			}
			if l.cheap && x.name != l.things[len(l.things)-1].name {
				m.Forget(one.rev.Name) // what is left changes how the next thing is left
			}
		}
		check(one, instance, "everything")
	})
}

// TestPristineCalls leaves one thing after the other in a pristine function. The next call finds
// none, and the process in which it was left was put back or replaced as the table has it.
func TestPristineCalls(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, nil)
		p := l.party(t, m, "one", "pristine", faas.ReuseFunction, faas.StatePristine, func(r *faas.Revision) { r.Limits.MaxInstances = 1 })
		p.learn()
		if !l.rewinds(t, m) {
			replaceEach(t, m, l, p)
			return
		}
		put, gone := 0, 0
		for _, x := range l.things {
			// What is left is left in a process that can be put back.
			var f found
			var a answer
			for tries := 0; ; tries++ {
				m.settle(t)
				f, a = p.ask("", "", false)
				p.clean(f, a, "the end of "+x.name)
				m.settle(t)
				if a.start == faas.StartRestored && m.rewinds(a.instance) > 0 {
					break
				}
				if tries == 10 {
					t.Fatalf("before %s: no process is put back: %s", x.name, m.log.why(a.instance))
				}
			}
			before := m.rewinds(a.instance)
			f, b := p.ask(x.name, "", false)
			p.clean(f, b, "nothing")
			if b.instance != a.instance {
				t.Errorf("before %s: instance %s serves, want %s, which is clean: %s", x.name, b.instance, a.instance, m.log.why(a.instance))
				continue
			}
			if f.Failed != "" {
				t.Logf("cannot be left here: %s: %s", x.name, f.Failed)
				continue
			}
			m.settle(t)
			after := m.rewinds(b.instance)
			switch {
			case after > before:
				put++
			case after < 0:
				gone++
			}
			if x.fate == restored && after <= before || x.fate == replaced && after >= 0 {
				t.Errorf("%s: the process was put back %d times before and %d after, want it %v: %s", x.name, before, after, x.fate, m.log.why(b.instance))
			}
			f, c := p.ask("", x.name, l.scans && x.marks)
			if !p.clean(f, c, x.name) {
				m.Forget(p.rev.Name) // what is found once would be found again
			}
			if after > before && (c.instance != b.instance || c.start != faas.StartRestored) {
				t.Errorf("%s: the next call started %q in %s, want the process that was put back, %s", x.name, c.start, c.instance, b.instance)
			}
		}
		t.Logf("%d things were put back, %d processes replaced", put, gone)
	})
}

// rewinds says whether processes of the language are put back here.
func (l *language) rewinds(t *testing.T, m *machine) bool {
	t.Helper()
	rt, err := m.reg.Lookup(l.runtime)
	if err != nil {
		t.Skip(err)
	}
	return rt.Rewinds()
}

// some returns each n-th of the things, where those between would take long and show no more.
func some(things []thing, n int) []thing {
	var out []thing
	for i := 0; i < len(things); i += n {
		out = append(out, things[i])
	}
	return out
}

// replaceEach is for a language whose processes are not put back: each serves one call.
func replaceEach(t *testing.T, m *machine, l *language, p *party) {
	t.Helper()
	last := ""
	for _, x := range some(l.things, 4) {
		for _, leave := range []string{x.name, ""} {
			f, a := p.ask(leave, x.name, leave == "" && l.scans && x.marks)
			p.clean(f, a, x.name)
			if a.instance == last {
				t.Errorf("%s: instance %s served twice", x.name, last)
			}
			last = a.instance
		}
	}
	t.Logf("%s is not put back here: each call had a process of its own", l.runtime)
}

// takeTurns has one function leave things and another look, in processes they share.
func takeTurns(t *testing.T, m *machine, l *language, one, other *party) {
	// Each has been called in a process that served nobody before.
	one.learn()
	other.learn()
	put, gone := 0, 0
	things := l.things
	if !l.rewinds(t, m) {
		things = some(things, 4)
	}
	tries := 0
	for i := 0; i < len(things); i++ {
		x := things[i]
		away := func() {
			t.Helper()
			deadline := time.Now().Add(20 * time.Second)
			for len(m.Status().Instances) > 0 {
				if time.Now().After(deadline) {
					t.Fatalf("after %s: processes have not gone back: %+v", x.name, m.Status().Instances)
				}
				time.Sleep(500 * time.Microsecond)
			}
		}
		away()
		f, a := one.ask(x.name, "", false)
		one.clean(f, a, "nothing")
		away()
		g, b := other.ask("", x.name, l.scans && x.marks)
		other.clean(g, b, x.name)
		if f.Failed != "" {
			continue
		}
		if l.rewinds(t, m) && x.fate == restored && b.instance != a.instance && tries < 3 && m.log.why(a.instance) == "" {
			// It went back, and one that was made meanwhile was taken before it.
			tries++
			i--
			continue
		}
		tries = 0
		if b.instance == a.instance {
			put++
		} else {
			gone++
		}
		if same := b.instance == a.instance; !l.rewinds(t, m) && same {
			t.Errorf("%s: the other function was served by the same process, which was not put back", x.name)
		} else if l.rewinds(t, m) && (x.fate == restored && !same || x.fate == replaced && same) {
			t.Errorf("%s: the other function was served by the same process: %v, want it %v: %s", x.name, same, x.fate, m.log.why(a.instance))
		}
	}
	t.Logf("%d things were put back, %d processes replaced", put, gone)
}

// TestTurnsWithinANamespace has two functions of one namespace share processes.
func TestTurnsWithinANamespace(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, nil)
		one := l.party(t, m, "one", "leaves", faas.ReuseTenant, faas.StatePristine, nil)
		other := l.party(t, m, "one", "looks", faas.ReuseTenant, faas.StatePristine, nil)
		takeTurns(t, m, l, one, other)
	})
}

// TestTurnsAcrossNamespaces has functions of two namespaces share processes, which must be allowed.
func TestTurnsAcrossNamespaces(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, func(c *worker.Config) { c.ReuseAny = true })
		one := l.party(t, m, "one", "leaves", faas.ReuseAny, faas.StatePristine, nil)
		other := l.party(t, m, "two", "looks", faas.ReuseAny, faas.StatePristine, nil)
		takeTurns(t, m, l, one, other)
	})
}

// TestCallsThatShareNothing has calls that each get a process of their own, by their policy or as
// code that is run once.
func TestCallsThatShareNothing(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, nil)
		never := l.party(t, m, "one", "never", faas.ReuseNever, faas.StateKept, nil)
		never.learn()
		once := func(n int) *party {
			return l.party(t, m, "one", fmt.Sprintf("once%d", n), faas.ReuseFunction, faas.StatePristine, nil)
		}
		seen := map[string]string{}
		served := func(a answer, what string) {
			t.Helper()
			if before, twice := seen[a.instance]; twice {
				t.Errorf("instance %s served the call that left %q after the one that left %q", a.instance, what, before)
			}
			seen[a.instance] = what
		}
		things := some(l.things, 6)
		if l.cheap {
			things = some(l.things, 2)
		}
		for i, x := range things {
			f, a := never.ask(x.name, "", false)
			served(a, x.name)
			never.clean(f, a, "nothing")
			if i%3 != 0 {
				continue
			}
			f, a = never.ask("", x.name, l.scans)
			served(a, "nothing")
			never.clean(f, a, x.name)
			one, other := once(2*i), once(2*i+1)
			_, a = one.ask(x.name, "", false)
			served(a, x.name)
			other.usual = maps.Clone(never.usual)
			f, a = other.ask("", x.name, l.scans)
			served(a, "nothing")
			for _, own := range []string{"the host's name", "the environment"} { // which are each function's own
				delete(other.usual, own)
			}
			other.clean(f, a, x.name)
		}
	})
}

// TestEveryThingIsInTheTable holds the tables to what the functions can leave.
func TestEveryThingIsInTheTable(t *testing.T) {
	eachLanguage(t, func(t *testing.T, l *language) {
		m := newMachine(t, nil)
		files, entry := l.make(t, m, markHead+newMark())
		rev := m.function(t, l.runtime, files, entry, nil)
		a, err := m.call(rev, map[string]any{"names": true})
		if err != nil {
			t.Fatal(err)
		}
		var names struct{ Look, Leave []string }
		if err := json.Unmarshal([]byte(a.body), &names); err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, x := range l.things {
			have = append(have, x.name)
			if x.seenAs != "" && !slices.Contains(names.Look, x.seenAs) {
				t.Errorf("%s: nothing looks at %q", x.name, x.seenAs)
			}
		}
		slices.Sort(have)
		slices.Sort(names.Leave)
		if !slices.Equal(have, names.Leave) {
			t.Errorf("the table has\n%q\nthe function can leave\n%q", have, names.Leave)
		}
	})
}
