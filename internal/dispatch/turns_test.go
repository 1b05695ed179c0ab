package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// gauge counts what is under way, by a word for each call.
type gauge struct {
	mu        sync.Mutex
	now, most map[string]int
}

func newGauge() *gauge { return &gauge{now: map[string]int{}, most: map[string]int{}} }

func (g *gauge) enter(words ...string) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range words {
		g.now[w]++
		g.most[w] = max(g.most[w], g.now[w])
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, w := range words {
			g.now[w]--
		}
	}
}

func TestEachFunctionAndNamespaceHasItsTurn(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/flood": {}, "default/other": {}, "quiet/f": {}})
	synctest.Test(t, func(t *testing.T) {
		g := newGauge()
		ended := map[string]time.Duration{} // when the last of a function has ended
		var mu sync.Mutex
		q := queue.Memory()
		began := time.Now()
		inv := func(name string) {
			i := call(name, faas.Wait{})
			i.ID = faas.NewID(time.Now())
			if _, err := q.Push(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			inv("default/flood")
		}
		for range 4 {
			inv("default/other")
			inv("quiet/f")
		}
		start(t, dispatch.Config{Catalog: c, Queue: q, Async: dispatch.AsyncConfig{Function: 6, Namespace: 8, All: 9}, Node: &node{func(_ context.Context, rev *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			defer g.enter(rev.Name.String(), rev.Name.Namespace, "all")()
			time.Sleep(time.Second)
			mu.Lock()
			ended[rev.Name.String()] = time.Since(began)
			mu.Unlock()
			return text(""), nil
		}}})
		time.Sleep(time.Hour)
		want := map[string]int{"default/flood": 6, "default": 8, "all": 9}
		for word, most := range want {
			// The last one of the namespace's may be left for a third function.
			if n := g.most[word]; n > most || n < most && (word != "default" || n < most-1) {
				t.Errorf("%d of %q at once, want %d", n, word, most)
			}
		}
		if ended["default/flood"] < 100*time.Second || ended["default/other"] > 5*time.Second || ended["quiet/f"] > 5*time.Second {
			t.Errorf("the last ended after %v: four calls of the quiet ones take no more than five rounds of a second", ended)
		}
	})
}

// Calls that take hours, of as many namespaces or functions as could take all places together, leave
// some for those that come after them.
func TestThoseWhoCameFirstLeavePlaces(t *testing.T) {
	functions := map[string]*faas.Async{"late/f": {}, "n0/late": {}}
	for ns := range 4 {
		for f := range 2 {
			functions[fmt.Sprintf("n%d/f%d", ns, f)] = &faas.Async{}
		}
	}
	c := deployed(t, functions)
	synctest.Test(t, func(t *testing.T) {
		var quick atomic.Int64
		b := start(t, dispatch.Config{Catalog: c, Async: dispatch.AsyncConfig{Function: 8, Namespace: 16, All: 64}, Node: &node{func(_ context.Context, rev *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			if rev.Name.Function == "late" || rev.Name.Namespace == "late" {
				quick.Add(1)
			} else {
				time.Sleep(time.Hour)
			}
			return text(""), nil
		}}})
		for name := range functions {
			for range 100 {
				if name != "late/f" && name != "n0/late" {
					b.enqueue(t, call(name, faas.Wait{}))
				}
			}
		}
		time.Sleep(time.Second)
		for range 10 {
			b.enqueue(t, call("late/f", faas.Wait{}))
			b.enqueue(t, call("n0/late", faas.Wait{}))
		}
		time.Sleep(10 * time.Second)
		if n := quick.Load(); n != 20 {
			t.Errorf("of 20 calls that came last %d have run", n)
		}
	})
}

func TestThoseOfHighPriorityGoFirst(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	synctest.Test(t, func(t *testing.T) {
		var order []faas.Priority
		q := queue.Memory()
		for i, p := range []faas.Priority{faas.PriorityLow, faas.PriorityNormal, faas.PriorityHigh, faas.PriorityLow, faas.PriorityHigh} {
			inv := call("default/f", faas.Wait{Priority: p})
			inv.ID = faas.NewID(time.Now().Add(time.Duration(i) * time.Millisecond))
			if _, err := q.Push(t.Context(), inv); err != nil {
				t.Fatal(err)
			}
		}
		start(t, dispatch.Config{Catalog: c, Queue: q, Async: dispatch.AsyncConfig{Function: 1}, Node: &node{func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			order = append(order, inv.Wait.Priority)
			return text(""), nil
		}}})
		time.Sleep(time.Second)
		if got, want := fmt.Sprint(order), "[high high normal low low]"; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	})
}

func TestABoundOfCallersIsNotOneOfTheQueue(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int64
		b := start(t, dispatch.Config{Catalog: c, MaxWaiting: 1, MaxNamespace: 1, Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			time.Sleep(time.Second)
			ran.Add(1)
			return text(""), nil
		}}})
		for range 10 {
			b.enqueue(t, call("default/f", faas.Wait{}))
		}
		time.Sleep(time.Second + time.Millisecond)
		if n := ran.Load(); n != 10 {
			t.Errorf("%d of 10 ran side by side", n)
		}
	})
}

// flaky is a queue that fails for a while.
type flaky struct {
	queue.Queue
	broken atomic.Bool
	asked  atomic.Int64
}

var errBroken = errors.New("the disk is gone")

func (f *flaky) Due(ctx context.Context) ([]faas.Name, <-chan struct{}, error) {
	f.asked.Add(1)
	if f.broken.Load() {
		return nil, nil, errBroken
	}
	return f.Queue.Due(ctx)
}

func (f *flaky) Pull(ctx context.Context, name faas.Name, most int) ([]queue.Lease, error) {
	if f.broken.Load() {
		return nil, errBroken
	}
	return f.Queue.Pull(ctx, name, most)
}

func TestAQueueThatFailsIsAskedAgain(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	synctest.Test(t, func(t *testing.T) {
		q := &flaky{Queue: queue.Memory()}
		q.broken.Store(true)
		b := start(t, dispatch.Config{Catalog: c, Queue: q, Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			return text(""), nil
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(time.Minute)
		if n := q.asked.Load(); n < 5 || n > 60 {
			t.Errorf("asked %d times in a minute", n)
		}
		q.broken.Store(false)
		time.Sleep(10 * time.Second)
		if s := b.stage(t, id); s != faas.StageSucceeded {
			t.Errorf("when the queue is well again the call is %s", s)
		}
		// Idle, it is woken by a push alone.
		began := time.Now()
		id = b.enqueue(t, call("default/f", faas.Wait{}))
		synctest.Wait()
		if s := b.stage(t, id); s != faas.StageSucceeded || time.Since(began) > 0 {
			t.Errorf("a push on an idle system: %s after %v", s, time.Since(began))
		}
	})
}

func TestACallThatWaitsIsCancelled(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {OnFailure: "f"}})
	synctest.Test(t, func(t *testing.T) {
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			t.Error("it ran")
			return text(""), nil
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{NotBefore: time.Now().Add(time.Hour)}))
		if err := b.Cancel(t.Context(), "other", id); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("somebody else's: %v", err)
		}
		for range 2 { // the second time it is so already
			if err := b.Cancel(t.Context(), "default", id); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		if s := b.stage(t, id); s != faas.StageCanceled {
			t.Errorf("it is %s", s)
		}
		if err := b.Cancel(t.Context(), "default", faas.NewID(time.Now())); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("nobody's: %v", err)
		}
	})
}

func TestACallThatRunsIsCancelledAndNotTriedAgain(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {OnFailure: "f"}})
	synctest.Test(t, func(t *testing.T) {
		told, calls := false, 0
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(ctx context.Context, _ *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			if calls++; calls > 1 {
				return text(""), nil
			}
			<-ctx.Done()
			told = true
			return nil, faas.Errorf(faas.Crashed, "", "it takes it badly")
		}}})
		id := b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(time.Second)
		if s := b.stage(t, id); s != faas.StageRunning {
			t.Errorf("it is %s", s)
		}
		if err := b.Cancel(t.Context(), "default", id); err != nil {
			t.Fatal(err)
		}
		if !told {
			t.Error("the function was not told before Cancel returned")
		}
		time.Sleep(time.Hour)
		if s := b.stage(t, id); s != faas.StageCanceled || calls != 1 {
			t.Errorf("after %d calls it is %s", calls, s)
		}
		id = b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(time.Second)
		if err := b.Cancel(t.Context(), "default", id); faas.CodeOf(err) != faas.Conflict {
			t.Errorf("one that has succeeded: %v", err)
		}
	})
}

func TestAStopGivesAGraceAndThenHandsBack(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}, "default/g": {}})
	for _, drain := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var ran sync.Map
			b := start(t, dispatch.Config{Catalog: c, Async: dispatch.AsyncConfig{Grace: 5 * time.Second}, Node: &node{func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
				ran.Store(inv.ID, true)
				takes := 3 * time.Second
				if rev.Name.Function == "g" {
					takes = 20 * time.Second
				}
				select {
				case <-time.After(takes):
					return text(""), nil
				case <-ctx.Done():
					return nil, faas.Errorf(faas.Crashed, "", "it takes it badly")
				}
			}}})
			short, long := b.enqueue(t, call("default/f", faas.Wait{})), b.enqueue(t, call("default/g", faas.Wait{}))
			time.Sleep(time.Second)
			began := time.Now()
			if drain {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				_ = b.Drain(ctx) // the long one is still there
				cancel()
			}
			late := b.enqueue(t, call("default/f", faas.Wait{}))
			b.stop()
			<-b.ended
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("drain %v: it took %v to stop, want the grace", drain, took)
			}
			if s := b.stage(t, short); s != faas.StageSucceeded {
				t.Errorf("drain %v: what had the time is %s", drain, s)
			}
			w, err := b.Standing(t.Context(), "default", long)
			if err != nil || w.Stage != faas.StageQueued || w.Attempt != 0 {
				t.Errorf("drain %v: what had not the time is %+v, %v; want it to wait, with no attempt counted", drain, w, err)
			}
			if _, began := ran.Load(late); began && drain {
				t.Error("what came while it drained was begun")
			}
			if s := b.stage(t, late); drain && s != faas.StageQueued {
				t.Errorf("what came while it drained is %s", s)
			}
		})
	}
}

func TestTheDeadlineIsOfEachAttempt(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/f": {}})
	synctest.Test(t, func(t *testing.T) {
		var took []time.Duration
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(ctx context.Context, _ *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			began := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(began))
			return nil, ctx.Err()
		}}})
		inv := call("default/f", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
		inv.Deadline = time.Now().Add(7 * time.Second)
		id := b.enqueue(t, inv)
		time.Sleep(2 * time.Hour)
		if got := fmt.Sprint(took); got != "[7s 7s 7s 7s]" {
			t.Errorf("attempts took %s, want each its seven seconds", got)
		}
		if w, err := b.Standing(t.Context(), "default", id); err != nil || w.Stage != faas.StageDead {
			t.Errorf("standing %+v, %v", w, err)
		}
	})
}
