package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// seen keeps what functions got, in order.
type seen struct {
	mu   sync.Mutex
	list []seenCall
}

type seenCall struct {
	id, cause      faas.ID
	function, body string
	kind           string // of the content
	chain          *faas.Chain
}

func (s *seen) note(rev *faas.Revision, inv *faas.Invocation) seenCall {
	body := ""
	if inv.Body != nil {
		b, _ := io.ReadAll(inv.Body)
		body = string(b)
	}
	c := seenCall{inv.ID, inv.Cause, rev.Name.Path(), body, strings.Join(inv.Header["Content-Type"], ""), inv.Chain}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, c)
	return c
}

func (s *seen) of(function string) (out []seenCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.list {
		if c.function == function {
			out = append(out, c)
		}
	}
	return out
}

func TestStepsGetTheAnswerOfTheOneBefore(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {OnSuccess: "never"}, "default/b": {}, "default/pack/c": {}, "default/end": {}, "default/never": {}, "default/sorry": {}})
	synctest.Test(t, func(t *testing.T) {
		var s seen
		refuse := ""
		b := start(t, dispatch.Config{Catalog: c, Node: &node{func(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			got := s.note(rev, inv)
			if rev.Name.Path() == refuse {
				return nil, faas.Errorf(faas.Invalid, "", "no such thing")
			}
			return text(got.body + ">" + got.function), nil
		}}})
		wait := faas.Wait{Then: []faas.Destination{"b", "pack/c"}, OnSuccess: "end", OnFailure: "sorry"}
		first := b.enqueue(t, call("default/a", wait))
		time.Sleep(time.Second)
		end := s.of("end")
		if len(end) != 1 || end[0].body != "in>a>b>pack/c" || end[0].kind != "text/plain" {
			t.Fatalf("at the end: %+v", s.list)
		}
		if len(s.list) != 4 {
			t.Errorf("%d calls, want four: the function's own destination gives way to the steps: %+v", len(s.list), s.list)
		}
		if got := s.of("b"); got[0].cause != first || end[0].chain == nil || end[0].chain.Root != first || strings.Join(end[0].chain.Path, " ") != "a b pack/c" {
			t.Errorf("b has the cause %s, the end has the chain %+v", got[0].cause, end[0].chain)
		}
		refuse = "b"
		s.list = nil
		b.enqueue(t, call("default/a", wait))
		time.Sleep(time.Second)
		var doc struct {
			Function, Outcome, Error string
			Attempt                  int
		}
		sorry := s.of("sorry")
		if len(sorry) != 1 || len(s.list) != 3 {
			t.Fatalf("after a step that fails: %+v", s.list)
		}
		if err := json.Unmarshal([]byte(sorry[0].body), &doc); err != nil || doc.Function != "b" || doc.Outcome != "invalid" || doc.Error != "no such thing" || doc.Attempt != 1 {
			t.Errorf("told of the failure: %s, %v", sorry[0].body, err)
		}
	})
}

// again is a queue whose leases forget that they were done, as after a crash before it.
type again struct {
	queue.Queue
	lose func(*faas.Invocation) bool
}

func (q *again) Pull(ctx context.Context, name faas.Name, most int) ([]queue.Lease, error) {
	leases, err := q.Queue.Pull(ctx, name, most)
	for i := range leases {
		leases[i] = &againLease{leases[i], q}
	}
	return leases, err
}

type againLease struct {
	queue.Lease
	q *again
}

func (l *againLease) Done(ctx context.Context) error {
	if l.q.lose(l.Invocation()) {
		return errors.Join(errBroken, l.Retry(ctx, 0, errBroken))
	}
	return l.Lease.Done(ctx)
}

func TestAnOutcomeThatIsHandedOnTwiceIsOneCall(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {OnSuccess: "b"}, "default/b": {}})
	synctest.Test(t, func(t *testing.T) {
		var s seen
		lost := 0
		q := &again{Queue: queue.Memory(), lose: func(inv *faas.Invocation) bool {
			if inv.Function.Name.Function == "a" && lost < 3 {
				lost++
				return true
			}
			return false
		}}
		b := start(t, dispatch.Config{Catalog: c, Queue: q, Node: &node{func(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			s.note(rev, inv)
			return text(""), nil
		}}})
		id := b.enqueue(t, call("default/a", faas.Wait{}))
		time.Sleep(time.Minute)
		as, bs := s.of("a"), s.of("b")
		if len(as) != 4 || len(bs) != 1 {
			t.Errorf("a ran %d times, want 4; b %d times, want once", len(as), len(bs))
		}
		for _, a := range as {
			if a.id != id {
				t.Errorf("a repeat has the ID %s, want %s", a.id, id)
			}
		}
		if s := b.stage(t, id); s != faas.StageSucceeded {
			t.Errorf("it is %s", s)
		}
	})
}

func TestARoundOfCallsIsEndedAndShown(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {OnSuccess: "b"}, "default/b": {OnSuccess: "a", OnFailure: "b"}, "default/f": {OnFailure: "f"}})
	synctest.Test(t, func(t *testing.T) {
		var s seen
		b := start(t, dispatch.Config{Catalog: c, Chain: dispatch.ChainConfig{Depth: 5}, Node: &node{func(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			s.note(rev, inv)
			if rev.Name.Function == "f" {
				return nil, faas.Errorf(faas.Invalid, "", "no")
			}
			return text(""), nil
		}}})
		b.enqueue(t, call("default/a", faas.Wait{}))
		b.enqueue(t, call("default/f", faas.Wait{}))
		time.Sleep(time.Hour)
		if n := len(s.of("a")) + len(s.of("b")); n != 5 {
			t.Errorf("%d calls, want as many as the chain may have", n)
		}
		if n := len(s.of("f")); n != 5 {
			t.Errorf("%d calls of one that tells itself of its failure, want 5", n)
		}
		dead, err := b.queue.Buried(t.Context(), queue.Filter{Namespace: "default", Function: "b"})
		if err != nil || len(dead) != 1 || !strings.Contains(dead[0].Why, "b → a → b") {
			t.Errorf("dead letters: %+v, %v", dead, err)
		}
		dead, err = b.queue.Buried(t.Context(), queue.Filter{Namespace: "default", Function: "f"})
		shown := slices.ContainsFunc(dead, func(d queue.Dead) bool { return strings.Contains(d.Why, "f → f") })
		if err != nil || len(dead) != 6 || !shown {
			t.Errorf("%d dead letters of f, %v; want one that shows the way", len(dead), err)
		}
	})
}

func TestFunctionsThatCallEachOtherAreStopped(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {}, "default/b": {}, "other/a": {}})
	for name, waits := range map[string]bool{"waiting": true, "not waiting": false} {
		synctest.Test(t, func(t *testing.T) {
			var b *bench
			var s seen
			var refused error
			var mu sync.Mutex
			b = start(t, dispatch.Config{Catalog: c, Chain: dispatch.ChainConfig{Depth: 6}, Node: &node{func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
				s.note(rev, inv)
				next := map[string]string{"a": "default/b", "b": "default/a"}[rev.Name.Function]
				inner := call(next, faas.Wait{})
				inner.Cause = inv.ID
				var err error
				if waits {
					inner.Wait = nil
					var res *faas.Result
					if res, err = b.Invoke(ctx, inner); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						err = res.Body.Close()
					}
				} else {
					_, err = b.Enqueue(ctx, inner)
				}
				mu.Lock()
				if err != nil && refused == nil {
					refused = err
				}
				mu.Unlock()
				return text(""), nil
			}}})
			b.enqueue(t, call("default/a", faas.Wait{}))
			time.Sleep(time.Minute)
			if len(s.list) != 6 || faas.CodeOf(refused) != faas.Invalid || !strings.Contains(refused.Error(), "a → b → a") || faas.AsError(refused).Limit != "chain.depth" {
				t.Errorf("%s: %d calls, then %v", name, len(s.list), refused)
			}
		})
	}
}

func TestAChainThatBranchesHasABudget(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {}, "other/a": {}})
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		var mu sync.Mutex
		ran, refused, foreign := 0, 0, 0
		b = start(t, dispatch.Config{Catalog: c, Chain: dispatch.ChainConfig{Calls: 50}, Node: &node{func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			if rev.Name.Namespace == "other" {
				return text(""), nil
			}
			for range 3 { // each leads to three more
				inner := call("default/a", faas.Wait{})
				inner.Cause = inv.ID
				_, err := b.Enqueue(ctx, inner)
				mu.Lock()
				if err != nil {
					if faas.AsError(err).Limit != "chain.calls" {
						t.Error(err)
					}
					refused++
				}
				mu.Unlock()
			}
			// Somebody else's cause is no cause.
			outer := call("other/a", faas.Wait{})
			outer.Cause = inv.ID
			if _, err := b.Enqueue(ctx, outer); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ran++
			foreign++
			return text(""), nil
		}}})
		b.enqueue(t, call("default/a", faas.Wait{}))
		time.Sleep(time.Minute)
		if ran != 50 || refused != 3*50-49 {
			t.Errorf("%d calls ran and %d were refused, want 50 and %d", ran, refused, 3*50-49)
		}
	})
}

// warmNode tells what it was asked to make ready.
type warmNode struct {
	node
	mu     sync.Mutex
	warmed []string
}

func (n *warmNode) Prefetch(_ context.Context, rev *faas.Revision) ([]faas.Tree, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.warmed = append(n.warmed, rev.Name.Function)
	return nil, nil
}

func TestTheNextStepIsMadeReadyWhileTheFirstRuns(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": {}, "default/b": {}})
	synctest.Test(t, func(t *testing.T) {
		n := &warmNode{}
		n.execute = func(_ context.Context, rev *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			time.Sleep(time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			if rev.Name.Function == "a" && len(n.warmed) == 0 {
				t.Error("b was not made ready while a ran")
			}
			return text(""), nil
		}
		b := start(t, dispatch.Config{Catalog: c, Node: n})
		for range 10 {
			b.enqueue(t, call("default/a", faas.Wait{Then: []faas.Destination{"b"}}))
		}
		time.Sleep(time.Minute)
		if len(n.warmed) != 1 || n.warmed[0] != "b" {
			t.Errorf("made ready: %v, want b, and once", n.warmed)
		}
	})
}
