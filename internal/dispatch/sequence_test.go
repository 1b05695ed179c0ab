package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
)

// makeSequence publishes one of functions of the namespace default.
func makeSequence(t *testing.T, c *catalog.Catalog, name string, change func(*faas.Revision), steps ...string) {
	t.Helper()
	rev := &faas.Revision{Name: faas.Name{Namespace: "default", Function: name}, Runtime: faas.RuntimeSequence, Limits: faas.DefaultLimits(), Network: faas.NetworkNone, Sequence: &faas.Sequence{}}
	for _, s := range steps {
		rev.Sequence.Steps = append(rev.Sequence.Steps, faas.Name{Namespace: "default", Function: s})
	}
	if change != nil {
		change(rev)
	}
	if _, err := c.Publish(t.Context(), rev, catalog.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
}

// steps is a node whose functions append their name to what they get, unless a test says otherwise.
type steps struct {
	mu   sync.Mutex
	seen []faas.Invocation
	does map[string]func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error)
}

func (n *steps) Execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	n.mu.Lock()
	n.seen = append(n.seen, *inv)
	do := n.does[rev.Name.Function]
	n.mu.Unlock()
	if do != nil {
		return do(ctx, inv)
	}
	in := []byte{}
	if inv.Body != nil {
		var err error
		if in, err = io.ReadAll(inv.Body); err != nil {
			return nil, err
		}
	}
	inv.Report.Memory, inv.Report.CPU, inv.Report.Start = faas.Bytes(len(in)), time.Millisecond, faas.StartWarm
	return says(200, string(in)+" "+rev.Name.Function), nil
}

func (n *steps) Status() faas.NodeStatus { return faas.NodeStatus{} }

// ran are the functions that were called.
func (n *steps) ran() (names string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, inv := range n.seen {
		names += inv.Function.Name.Function
	}
	return names
}

func says(status int, body string) *faas.Result {
	return &faas.Result{Status: status, Header: map[string][]string{"Content-Type": {"text/x"}, "X-Own": {"1"}}, Body: faas.NewBytesBody([]byte(body))}
}

func invoke(t *testing.T, d *dispatch.Dispatcher, name string) (*faas.Invocation, *faas.Result, string, error) {
	t.Helper()
	inv := call("default/"+name, faas.Wait{})
	inv.Wait, inv.Path, inv.Query, inv.Kind, inv.Header = nil, "/p", "q=1", faas.KindHTTP, map[string][]string{"X-Who": {"me"}}
	res, err := d.Invoke(t.Context(), inv)
	if err != nil {
		return inv, nil, "", err
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	return inv, res, string(b), err
}

func TestASequenceHandsOnFromStepToStep(t *testing.T) {
	rec, n := &memo{}, &steps{}
	c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil, "default/c": nil})
	makeSequence(t, c, "inner", nil, "b", "c")
	makeSequence(t, c, "s", nil, "a", "inner", "a")
	d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: rec})
	inv, res, body, err := invoke(t, d, "s")
	if err != nil || res.Status != 200 || body != "in a b c a" {
		t.Fatalf("%q, %v, %v", body, res, err)
	}
	first, last := n.seen[0], n.seen[3]
	if first.Path != "/p" || first.Query != "q=1" || first.Header["X-Who"] == nil || first.Kind != faas.KindInvoke {
		t.Errorf("the first step got %+v", first)
	}
	if last.Path != "/" || last.Header["X-Who"] != nil || last.Header["X-Own"] != nil || fmt.Sprint(last.Header["Content-Type"]) != "[text/x]" || last.Kind != faas.KindHTTP {
		t.Errorf("the last step got %+v", last)
	}
	whole, err := rec.Get(t.Context(), "default", inv.ID)
	if err != nil || whole.Outcome != faas.OK || len(whole.Steps) != 3 || whole.Runtime != faas.RuntimeSequence || whole.Memory != 8 || whole.CPUMicros != 4000 || whole.Start != faas.StartWarm {
		t.Fatalf("%+v, %v", whole, err)
	}
	for i, want := range []string{"a", "inner", "a"} {
		step := whole.Steps[i]
		act, err := rec.Get(t.Context(), "default", step.ID)
		if err != nil || step.Function != want || act.Function != want || act.Cause != inv.ID || step.Outcome != faas.OK || step.Status != 200 {
			t.Errorf("step %d: %+v is %+v, %v", i, step, act, err)
		}
		if want == "inner" && len(act.Steps) != 2 {
			t.Errorf("the sequence within lists %+v", act.Steps)
		}
	}
	if n := len(rec.all()); n != 6 {
		t.Errorf("%d activations, want six", n)
	}
}

func TestAStepThatFailsEndsTheSequenceAndIsNamed(t *testing.T) {
	for _, test := range []struct {
		name  string
		b     func(context.Context, *faas.Invocation) (*faas.Result, error)
		code  faas.Code
		says  string // in the error
		body  string // else
		state int
	}{
		{"error", func(context.Context, *faas.Invocation) (*faas.Result, error) {
			return nil, &faas.Error{Code: faas.Crashed, Err: fmt.Errorf("out of memory"), Limit: "memory_bytes"}
		}, faas.Crashed, `step 2 of 3, "b": out of memory`, "", 0},
		{"half an answer", func(context.Context, *faas.Invocation) (*faas.Result, error) {
			return &faas.Result{Status: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{faas.Errorf(faas.Failed, "", "boom")}))}, nil
		}, faas.Failed, `step 2 of 3, "b": boom`, "", 0},
		{"status", func(context.Context, *faas.Invocation) (*faas.Result, error) { return says(404, "no"), nil }, faas.OK, "", "no", 404},
		{"error field", func(context.Context, *faas.Invocation) (*faas.Result, error) { return says(200, ` {"error":1}`), nil }, faas.OK, "", ` {"error":1}`, 200},
		{"too much", func(context.Context, *faas.Invocation) (*faas.Result, error) {
			return says(200, strings.Repeat("x", int(faas.DefaultLimits().Request)+1)), nil
		}, faas.TooLarge, `step 2 of 3, "b": its answer has more than 8MiB, so it can't be handed on to "c"`, "", 0},
		{"protocol", func(context.Context, *faas.Invocation) (*faas.Result, error) { return says(101, ""), nil }, faas.Failed, `step 2 of 3, "b": it wants to go on with another protocol`, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			rec, n := &memo{}, &steps{does: map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){"b": test.b}}
			c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil, "default/c": nil})
			makeSequence(t, c, "s", func(rev *faas.Revision) { rev.Sequence.ErrorField = true }, "a", "b", "c")
			d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: rec})
			inv, res, body, err := invoke(t, d, "s")
			if faas.CodeOf(err) != test.code || err != nil && !strings.Contains(err.Error(), test.says) || body != test.body || err == nil && res.Status != test.state {
				t.Errorf("%v, %.100q, %v", res, body, err)
			}
			whole, err := rec.Get(t.Context(), "default", inv.ID)
			if err != nil || whole.Outcome != test.code || len(whole.Steps) != 2 || n.ran() != "ab" || !strings.Contains(whole.Error, test.says) {
				t.Errorf("ran %s: %+v, %v", n.ran(), whole, err)
			}
			if test.code == faas.OK && (len(whole.Logs) != 1 || !strings.Contains(whole.Logs[0].Text, `step 2 of 3, "b"`)) {
				t.Errorf("the log does not say where it ended: %+v", whole.Logs)
			}
		})
	}
}

func TestAStepThatIsGoneIsToldBeforeAnythingRuns(t *testing.T) {
	n := &steps{}
	c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil})
	makeSequence(t, c, "s", nil, "a", "b")
	if err := c.Delete(t.Context(), faas.Name{Namespace: "default", Function: "b"}); err != nil {
		t.Fatal(err)
	}
	b := start(t, dispatch.Config{Catalog: c, Node: n})
	if _, _, _, err := invoke(t, b.Dispatcher, "s"); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), `step 2 of 2, "b"`) {
		t.Errorf("called: %v", err)
	}
	if _, err := b.Enqueue(t.Context(), call("default/s", faas.Wait{})); faas.CodeOf(err) != faas.NotFound || !strings.Contains(err.Error(), `step 2 of sequence "s"`) {
		t.Errorf("enqueued: %v", err)
	}
	if n.ran() != "" {
		t.Errorf("ran %s", n.ran())
	}
}

func TestALenientSequenceGoesAsFarAsItCan(t *testing.T) {
	n := &steps{does: map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){
		"b": func(context.Context, *faas.Invocation) (*faas.Result, error) {
			return nil, &faas.Error{Code: faas.Crashed, Err: errors.New("out of memory")}
		},
	}}
	c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil, "default/c": nil})
	lenient := func(rev *faas.Revision) { rev.Sequence.Lenient = true }
	makeSequence(t, c, "gone", lenient, "a", "c")
	makeSequence(t, c, "fails", lenient, "a", "b")
	if err := c.Delete(t.Context(), faas.Name{Namespace: "default", Function: "c"}); err != nil {
		t.Fatal(err)
	}
	d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: &memo{}})
	if _, res, body, err := invoke(t, d, "gone"); err != nil || res.Status < 400 || !strings.HasPrefix(body, `{"error":`) || n.ran() != "a" {
		t.Errorf("a step is gone: ran %s: %v, %q, %v", n.ran(), res, body, err)
	}
	if _, _, _, err := invoke(t, d, "fails"); faas.CodeOf(err) != faas.Crashed || faas.AsError(err).Message() != "out of memory" {
		t.Errorf("a step fails: %v", err)
	}
}

func TestTheTimeOfASequenceIsThatOfAllItsSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
			select {
			case <-time.After(4 * time.Second):
				return says(200, "x"), nil
			case <-ctx.Done():
				return nil, faas.Errorf(faas.Timeout, "run function", "the call ran past the deadline that its caller set")
			}
		}
		n := &steps{does: map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){"a": slow, "b": slow, "c": slow}}
		c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil, "default/c": nil})
		makeSequence(t, c, "s", func(rev *faas.Revision) { rev.Limits.Timeout = faas.Duration(10 * time.Second) }, "a", "b", "c")
		d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: &memo{}})
		begin := time.Now()
		_, _, _, err := invoke(t, d, "s")
		e := faas.AsError(err)
		if e == nil || e.Code != faas.Timeout || e.Limit != "timeout_ms" || !strings.Contains(e.Message(), `the sequence's timeout of 10s was over in step 3 of 3, "c"`) || time.Since(begin) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

// An attempt goes on where the one before it ended; the functions see the same IDs again.
func TestStepsThatHaveSucceededAreNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		n := &steps{}
		n.does = map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){"c": func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
			in, _ := io.ReadAll(inv.Body)
			if tries++; tries < 3 {
				return nil, faas.Errorf(faas.Failed, "", "not yet")
			}
			return says(200, string(in)+" c"), nil
		}}
		c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil, "default/c": nil})
		makeSequence(t, c, "inner", nil, "b", "c")
		makeSequence(t, c, "s", nil, "a", "inner", "a")
		b := start(t, dispatch.Config{Catalog: c, Node: n})
		id := b.enqueue(t, call("default/s", faas.Wait{}))
		time.Sleep(time.Minute)
		if n.ran() != "abccca" || b.stage(t, id) != faas.StageSucceeded {
			t.Fatalf("ran %s, and it is %s", n.ran(), b.stage(t, id))
		}
		whole, err := b.journal.Get(t.Context(), "default", id)
		if err != nil || string(whole.Answer.Body) != "in a b c a" || whole.Attempt != 3 || len(whole.Steps) != 3 || !whole.Steps[0].Kept || whole.Steps[1].Kept {
			t.Errorf("%+v, %v", whole, err)
		}
		if n.seen[2].ID != n.seen[3].ID || n.seen[2].ID == n.seen[1].ID || fmt.Sprint(n.seen[3].Header["Brasa-Attempt"]) != "[2]" || n.seen[3].Header["Brasa-Invocation-Id"][0] != string(n.seen[3].ID) {
			t.Errorf("c was called as %v and %v", n.seen[2], n.seen[3])
		}
		seen := map[faas.ID]int{}
		for _, a := range b.journal.all() {
			if seen[a.ID]++; seen[a.ID] > 1 {
				t.Errorf("two records of %s (%s)", a.ID, a.Function)
			}
		}
	})
}

func TestASequenceCountsForItsChain(t *testing.T) {
	n := &steps{}
	c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil})
	names := slices.Repeat([]string{"a"}, 10)
	makeSequence(t, c, "ten", nil, names...)
	d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: &memo{}, Chain: dispatch.ChainConfig{Calls: 8, Depth: 3}})
	if _, _, _, err := invoke(t, d, "ten"); faas.AsError(err) == nil || faas.AsError(err).Limit != "chain.calls" || n.ran() != "aaaaaaa" {
		t.Errorf("ran %s, %v", n.ran(), err)
	}
	// A function that calls the sequence which it is a step of goes round until the chain is too deep.
	n.does = map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){"b": func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		next := call("default/loop", faas.Wait{})
		next.Wait, next.Cause = nil, inv.ID
		return d.Invoke(ctx, next)
	}}
	makeSequence(t, c, "loop", nil, "b")
	if _, _, _, err := invoke(t, d, "loop"); err == nil || !strings.Contains(err.Error(), "b → loop → b") {
		t.Errorf("%v", err)
	}
}

func TestTheNextStepIsMadeReady(t *testing.T) {
	c := deployed(t, map[string]*faas.Async{"default/a": nil, "default/b": nil})
	makeSequence(t, c, "inner", nil, "b")
	makeSequence(t, c, "s", nil, "a", "inner")
	synctest.Test(t, func(t *testing.T) {
		n := &warmNode{}
		n.execute = func(_ context.Context, rev *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
			time.Sleep(time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			if rev.Name.Function == "a" && !slices.Equal(n.warmed, []string{"b"}) {
				t.Errorf("while a ran there was made ready %v, want b", n.warmed)
			}
			return says(200, "x"), nil
		}
		d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: &memo{}})
		if _, _, _, err := invoke(t, d, "s"); err != nil {
			t.Error(err)
		}
	})
}
