package worker_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/worker"
)

// outcome is what became of a call.
type outcome struct {
	inv  *faas.Invocation
	err  *faas.Error
	took time.Duration
}

// atOnce calls the function n times at the same time.
func (m *machine) atOnce(rev *faas.Revision, n int, input func(i int) *faas.Invocation) []outcome {
	out := make([]outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			inv := input(i)
			began := time.Now()
			_, err := m.do(rev, inv)
			out[i] = outcome{inv, faas.AsError(err), time.Since(began)}
		})
	}
	wg.Wait()
	return out
}

func plainCall(int) *faas.Invocation { return call(`{}`) }

// limited calls with a deadline.
func limited(d time.Duration) func(int) *faas.Invocation {
	return func(int) *faas.Invocation {
		inv := call(`{}`)
		inv.Deadline = inv.Timing.Begin.Add(d)
		return inv
	}
}

const sleeper = `
import time
n = 0
def main(args):
    global n
    n += 1
    time.sleep(args.get("s", 0.2))
    return {"n": n}
`

func TestFiftyFirstCallsMakeOneOrTwoInstances(t *testing.T) {
	for _, noStems := range []bool{false, true} {
		t.Run(fmt.Sprintf("without stems %v", noStems), func(t *testing.T) {
			m := newMachine(t, func(c *worker.Config) { c.NoStems = noStems })
			rev := m.function(t, "python", "f.py", sleeper, func(r *faas.Revision) { r.Limits.Concurrency = 50 })
			made := map[string]bool{}
			for _, o := range m.atOnce(rev, 50, plainCall) {
				if o.err != nil {
					t.Fatal(o.err)
				}
				made[o.inv.Report.Instance] = true
			}
			if len(made) > 2 {
				t.Errorf("%d instances were made, want one or two", len(made))
			}
		})
	}
}

func TestACallThatCannotBeMetIsRefusedAtOnce(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", sleeper, func(r *faas.Revision) { r.Limits.MaxInstances = 1 })
	for range 3 { // until it is known how long calls take
		if _, err := m.do(rev, call(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	answered, refused := 0, 0
	const patience = 2 * time.Second
	for _, o := range m.atOnce(rev, 40, limited(patience)) {
		switch {
		case o.err == nil:
			answered++
		case o.err.Code == faas.Overloaded && o.err.Limit == "max_instances" && o.took < patience/2:
			if o.err.After <= 0 || o.err.Fix == "" {
				t.Errorf("refused without saying when to come again: %+v", o.err)
			}
			refused++
		}
	}
	if answered < 3 || refused < 25 {
		t.Errorf("of 40 calls of which ten can be met %d were answered, and %d refused at once", answered, refused)
	}
}

func TestACallGivesWayWhoseTimeIsOver(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", sleeper, func(r *faas.Revision) { r.Limits.MaxInstances = 1 })
	for range 3 {
		if _, err := m.do(rev, call(`{"s":0.5}`)); err != nil {
			t.Fatal(err)
		}
	}
	long := make(chan error, 1)
	go func() {
		_, err := m.do(rev, call(`{"s":1}`))
		long <- err
	}()
	within(t, "it runs", func() bool { return m.Status().Instances[0].Active == 1 })
	// It could be met if the one before it were as quick as the others.
	o := m.atOnce(rev, 1, limited(1200*time.Millisecond))[0]
	if err := <-long; err != nil {
		t.Fatal(err)
	}
	if o.err == nil || o.err.Code != faas.Overloaded {
		t.Errorf("error %v, want it refused when its turn came", o.err)
	}
	if got, err := m.do(rev, call(`{"s":0}`)); err != nil || !strings.Contains(got, "5") {
		t.Errorf("%s, %v: want the fifth call that ran", got, err)
	}
}

// Instances go while calls come: none of them sees that.
func TestNoCallFailsWhenInstancesGo(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Keep = policy.KeepConfig{Idle: time.Millisecond} })
	rev := m.function(t, "python", "f.py", counter, func(r *faas.Revision) { r.Limits.MaxInstances = 3 })
	stop := make(chan struct{})
	var gone sync.WaitGroup
	gone.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond): // longer than a start, or none would ever be of use
				m.Forget(rev.Name) // ends those that are idle
			}
		}
	})
	var calls sync.WaitGroup
	var failed atomic.Value
	for range 6 {
		calls.Go(func() {
			for began := time.Now(); time.Since(began) < 3*time.Second; {
				if _, err := m.do(rev, call(`{}`)); err != nil {
					failed.Store(err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	calls.Wait()
	close(stop)
	gone.Wait()
	if err := failed.Load(); err != nil {
		t.Errorf("a call failed: %v", err)
	}
}

func TestInstancesStandThatTheFunctionAsksFor(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Keep = policy.KeepConfig{Oracle: true, Price: 1e9} }) // by which none would stay
	least := m.pythonFunction(t, "least", counter, func(r *faas.Revision) { r.Limits.MinInstances = 2 })
	window := m.pythonFunction(t, "window", counter, func(r *faas.Revision) {
		r.Warm = []faas.WarmWindow{{At: "* * * * *", For: faas.Duration(time.Hour)}}
	})
	m.Hold(least)
	m.Hold(window)
	stand := func(rev *faas.Revision, why string) (n int) {
		for _, in := range m.Status().Instances {
			if in.Function == rev.Name && strings.HasPrefix(in.Kept, why) {
				n++
			}
		}
		return n
	}
	within(t, "two stand, and one by the clock", func() bool { return stand(least, "min_instances") == 2 && stand(window, "warm window") == 1 })
	inv := call(`{}`)
	if _, err := m.do(least, inv); err != nil || inv.Report.Start == faas.StartCold {
		t.Errorf("start %s, %v", inv.Report.Start, err)
	}
	// One that dies is replaced.
	dying := m.pythonFunction(t, "least", "import os\ndef main(args): os._exit(1)\n", func(r *faas.Revision) { r.Limits.MinInstances = 2 })
	m.Forget(least.Name, dying.ID)
	m.Hold(dying)
	within(t, "two of the next revision stand", func() bool { return stand(dying, "min_instances") == 2 })
	_, _ = m.do(dying, call(`{}`))
	within(t, "two stand again", func() bool { return stand(dying, "min_instances") == 2 })
	m.Forget(dying.Name)
	m.Forget(window.Name)
	within(t, "none is left of functions that are no more", func() bool { return len(m.Status().Instances) == 0 })
}

// What can't be loaded is not tried over and over though instances of it are asked for.
func TestInstancesThatCannotBeMadeAreNotTriedForEver(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "bad", "raise RuntimeError('no')\n", func(r *faas.Revision) { r.Limits.MinInstances = 1 })
	m.Hold(rev)
	began := time.Now()
	starts := 0
	for time.Since(began) < 4*time.Second {
		if m.Status().Starting > 0 {
			starts++
		}
		time.Sleep(time.Millisecond)
	}
	if starts > 2000 {
		t.Errorf("it was being made nearly all of the time")
	}
	if _, err := m.do(rev, call(`{}`)); faas.CodeOf(err) != faas.Failed {
		t.Errorf("a call of it: %v, want its own failure", err)
	}
}

func TestTheOracleSaysWhyInstancesStay(t *testing.T) {
	for _, c := range []struct {
		price policy.Price
		stays bool
	}{{1e-6, true}, {1e9, false}} {
		t.Run(fmt.Sprintf("at a price of %g", float64(c.price)), func(t *testing.T) {
			m := newMachine(t, func(cfg *worker.Config) { cfg.Keep = policy.KeepConfig{Oracle: true, Price: c.price} })
			rev := m.function(t, "python", "f.py", counter, nil)
			if _, err := m.do(rev, call(`{}`)); err != nil {
				t.Fatal(err)
			}
			if !c.stays {
				within(t, "what is not worth its memory goes", func() bool { return len(m.Status().Instances) == 0 })
				return
			}
			within(t, "it is said why it stays", func() bool {
				s := m.Status().Instances
				return len(s) == 1 && strings.HasPrefix(s[0].Kept, "oracle: ")
			})
		})
	}
}

// A server that starts knows from the file that a function is called each minute, and has an
// instance ready when it is time.
func TestTheOracleMakesReadyWhatItRemembers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "histories")
	now := time.Now()
	pauses := make([]float32, 30)
	for i := range pauses {
		pauses[i] = 60
	}
	name := faas.Name{Namespace: "default", Function: "f"}
	line, err := json.Marshal(struct {
		Function faas.Name `json:"function"`
		policy.Record
	}{name, policy.Record{Cold: 5 * time.Millisecond, Memory: 50 * faas.MiB, Last: now, Slots: []policy.SlotRecord{{Pauses: pauses, Since: now.Add(-50 * time.Second)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(line, "\n{\"function\": cut"...), 0o600); err != nil {
		t.Fatal(err)
	}
	var rev atomic.Pointer[faas.Revision]
	m := newMachine(t, func(c *worker.Config) {
		c.Keep = policy.DefaultKeep()
		c.Histories = file
		c.Resolve = func(n faas.Name) (*faas.Revision, error) {
			if r := rev.Load(); r != nil && n == name {
				return r, nil
			}
			return nil, faas.Errorf(faas.NotFound, "resolve", "no %s", n)
		}
	})
	r := m.function(t, "python", "f.py", counter, nil)
	rev.Store(r)
	within(t, "an instance is ready that nobody has called", func() bool {
		s := m.Status().Instances
		return len(s) == 1 && s[0].Calls == 0 && strings.HasPrefix(s[0].Kept, "oracle: ")
	})
	inv := call(`{}`)
	if _, err := m.do(r, inv); err != nil {
		t.Fatal(err)
	}
	if _, loaded := inv.Timing.Get(faas.PhaseCodeLoad); loaded {
		t.Error("the call waited for the code to load")
	}
}

// What the machine has no memory for waits until it has.
func TestWhatDoesNotFitWaits(t *testing.T) {
	var free atomic.Int64
	free.Store(int64(64 * faas.MiB))
	m := newMachine(t, func(c *worker.Config) {
		c.Memory = 8 * faas.GiB
		c.Available = func() faas.Bytes { return faas.Bytes(free.Load()) }
		c.NoStems = true
	})
	within(t, "the node knows how little there is", func() bool { time.Sleep(1100 * time.Millisecond); return true })
	rev := m.function(t, "python", "f.py", counter, nil) // 256 MiB
	_, err := m.do(rev, limited(500*time.Millisecond)(0))
	e := faas.AsError(err)
	if e == nil || e.Code != faas.Overloaded || e.Limit != "memory_bytes" {
		t.Fatalf("error %v, want it to have waited for memory", err)
	}
	if !strings.Contains(e.Message(), "the caller gave it") {
		t.Errorf("it does not say whose clock fired: %s", e.Message())
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.do(rev, call(`{}`))
		done <- err
	}()
	within(t, "it waits", func() bool { return m.Status().Waiting == 1 })
	free.Store(int64(16 * faas.GiB))
	if err := <-done; err != nil {
		t.Errorf("when there was memory: %v", err)
	}
}

// One namespace's calls take all the memory for a second each; another's calls go between.
func TestAFloodDoesNotHoldUpAnotherNamespace(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory, c.NoStems = 10*64*faas.MiB, true })
	small := func(r *faas.Revision) { r.Limits.Memory = 64 * faas.MiB }
	flood := m.pythonFunction(t, "flood", sleeper, func(r *faas.Revision) { small(r); r.Name.Namespace = "flooding" })
	other := m.pythonFunction(t, "other", counter, func(r *faas.Revision) { small(r); r.Name.Namespace = "small" })
	if _, err := m.do(other, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	var ended atomic.Int64
	for range 40 {
		flooding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = m.do(flood, call(`{"s":1}`))
					ended.Add(1)
				}
			}
		})
	}
	waiting := 0
	within(t, "the flood has all that it may have", func() bool {
		s := m.Status()
		waiting = s.Waiting
		return waiting > 20 && len(s.Instances) >= 7
	})
	// It is counted who goes first, which is the same on a slow machine: had they to wait in the flood's
	// line, as many of its calls would end before each of them as stand there.
	const calls = 20
	var overtaken []int
	for range calls {
		before := ended.Load()
		if _, err := m.do(other, call(`{}`)); err != nil {
			t.Errorf("a call beside the flood: %v", err)
		}
		overtaken = append(overtaken, int(ended.Load()-before))
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	flooding.Wait()
	slices.Sort(overtaken)
	// One that came when others just ended may see them all; more is a line.
	if most := overtaken[calls-2]; most > waiting/2 || overtaken[calls/2] > waiting/8 {
		t.Errorf("while each of %d calls took its time, these many of the flood ended: %v; %d stood in its line", calls, overtaken, waiting)
	}
}

// A flash of first calls, and a step: all are answered, and no more instances are made than there
// are calls at once.
func TestAFlashAndAStepAreServed(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.pythonFunction(t, "flash", counter, func(r *faas.Revision) { r.Limits.Memory = 32 * faas.MiB })
	for _, o := range m.atOnce(rev, 200, plainCall) {
		if o.err != nil {
			t.Fatal(o.err)
		}
	}
	if n := len(m.Status().Instances); n > 200 {
		t.Errorf("%d instances for 200 calls", n)
	}
	step := m.pythonFunction(t, "step", sleeper, func(r *faas.Revision) {
		r.Limits.Memory, r.Limits.Concurrency, r.Limits.MaxInstances = 64*faas.MiB, 10, 20
	})
	for range 3 {
		for _, o := range m.atOnce(step, 100, plainCall) {
			if o.err != nil {
				t.Fatal(o.err)
			}
		}
	}
	n := 0
	for _, in := range m.Status().Instances {
		if in.Function == step.Name {
			n++
		}
	}
	if n < 10 || n > 20 {
		t.Errorf("%d instances for 100 calls at once, ten each", n)
	}
}

func TestTheErrorSaysWhichClockFired(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", sleeper, func(r *faas.Revision) { r.Limits.MaxInstances, r.Limits.Timeout = 1, faas.Duration(time.Second) })
	busy := make(chan error, 1)
	go func() {
		_, err := m.do(rev, call(`{"s":10}`))
		busy <- err
	}()
	within(t, "the instance works", func() bool { s := m.Status().Instances; return len(s) == 1 && s[0].Active == 1 })
	o := m.atOnce(rev, 2, func(i int) *faas.Invocation {
		return limited([]time.Duration{300 * time.Millisecond, time.Minute}[i])(i)
	})
	if o[0].err == nil || o[0].err.Code != faas.Overloaded || !strings.Contains(o[0].err.Message(), "the caller gave it, 300ms") || o[0].err.Limit != "max_instances" {
		t.Errorf("in line, the caller's clock: %+v", o[0].err)
	}
	if err := faas.AsError(<-busy); err == nil || err.Code != faas.Timeout || !strings.Contains(err.Message(), "the function ran past its timeout of 1s") || err.Limit != "timeout_ms" {
		t.Errorf("running, the function's clock: %+v", err)
	}
}

// Those in line are told which limit kept them there, though an instance was ended by the same clock.
func TestAllInLineAreToldWhichLimitKeptThem(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", sleeper, func(r *faas.Revision) { r.Limits.MaxInstances, r.Limits.Timeout = 2, faas.Duration(time.Second) })
	told := map[string]int{}
	for _, o := range m.atOnce(rev, 40, func(int) *faas.Invocation { return call(`{"s":0.6}`) }) {
		if o.err != nil && o.err.Code == faas.Overloaded {
			told[o.err.Limit]++
		}
	}
	if told["max_instances"] < 20 || len(told) != 1 {
		t.Errorf("of 40 calls those in line were told %v, want max_instances", told)
	}
}

func TestWhatWasSeenIsWrittenWhenTheServerStops(t *testing.T) {
	file := filepath.Join(t.TempDir(), "histories")
	t.Run("a server", func(t *testing.T) {
		m := newMachine(t, func(c *worker.Config) { c.Keep, c.Histories = policy.DefaultKeep(), file })
		rev := m.function(t, "python", "f.py", counter, nil)
		for range 3 {
			if _, err := m.do(rev, call(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
	})
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var h struct {
		Function faas.Name
		policy.Record
	}
	if err := json.Unmarshal(b, &h); err != nil || h.Function.Function != "f" || len(h.Slots) == 0 || len(h.Slots[0].Pauses) != 2 || h.Cold <= 0 {
		t.Errorf("written: %s, %v", b, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
