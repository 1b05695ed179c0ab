package dispatch_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// node answers as a test says.
type node struct {
	execute func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error)
}

func (n *node) Execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	return n.execute(ctx, rev, inv)
}
func (n *node) Status() faas.NodeStatus { return faas.NodeStatus{} }

type records struct {
	mu   sync.Mutex
	list []*faas.Activation
}

func (r *records) Record(a *faas.Activation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, a)
}

func (r *records) only(t *testing.T) *faas.Activation {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) != 1 {
		t.Fatalf("%d activations, want one", len(r.list))
	}
	return r.list[0]
}

func publish(t *testing.T, limits faas.Limits) *catalog.Catalog {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	c, err := catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	rev := &faas.Revision{
		Name: faas.Name{Namespace: "default", Function: "hello"}, Runtime: "python", Entry: "hello.py",
		Code: "sha256:" + faas.Digest(strings.Repeat("0", 64)), Limits: limits.Fill(faas.DefaultLimits()), Network: faas.NetworkNone,
	}
	rev.ID = rev.Digest()
	if _, err := c.Publish(t.Context(), rev, catalog.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func hello() *faas.Invocation {
	return &faas.Invocation{Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: "hello"}}, Kind: faas.KindInvoke, Method: "POST"}
}

func answer(body io.ReadCloser) func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
	return func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
		return &faas.Result{Status: 200, Header: map[string][]string{}, Body: body}, nil
	}
}

func TestACallThatIsReadToItsEndIsRecordedAsOK(t *testing.T) {
	var rec records
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, Node: &node{answer(faas.NewBytesBody([]byte("hi")))}})
	inv := hello()
	res, err := d.Invoke(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, res.Body); err != nil || out.String() != "hi" {
		t.Fatalf("body %q, %v", out.String(), err)
	}
	if len(rec.list) != 0 {
		t.Error("recorded before the body was closed")
	}
	res.Body.Close()
	res.Body.Close()
	a := rec.only(t)
	if a.Outcome != faas.OK || a.ID != inv.ID || a.Function != "hello" || a.Namespace != "default" || a.Status != 200 {
		t.Errorf("activation %+v", a)
	}
	if a.Timing.Total <= 0 {
		t.Error("no total time")
	}
}

func TestACallerThatGoesAwayIsRecordedAsCanceled(t *testing.T) {
	var rec records
	r, w := io.Pipe()
	defer w.Close()
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, Node: &node{answer(r)}})
	res, err := d.Invoke(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if a := rec.only(t); a.Outcome != faas.Canceled || a.Fault != "caller" {
		t.Errorf("outcome %v, fault %q; want canceled by the caller", a.Outcome, a.Fault)
	}
}

func TestAnAnswerThatFailsInTheMiddleIsTheFunctionsFault(t *testing.T) {
	var rec records
	body := io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{faas.Errorf(faas.Failed, "", "boom")}))
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, Node: &node{answer(body)}})
	res, err := d.Invoke(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); faas.CodeOf(err) != faas.Failed {
		t.Errorf("read: %v, want the function's failure", err)
	}
	res.Body.Close()
	if a := rec.only(t); a.Outcome != faas.Failed || a.Fault != "function" || a.Error != "boom" {
		t.Errorf("activation %+v", a)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAFunctionThatDoesNotExistSaysHowToMakeIt(t *testing.T) {
	var rec records
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, Node: &node{}})
	inv := hello()
	inv.Function.Name.Function = "pay"
	_, err := d.Invoke(t.Context(), inv)
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Code != faas.NotFound || !strings.Contains(e.Fix, "brasa deploy") {
		t.Errorf("error %v with fix %q, want not found and the command that deploys", err, e.Fix)
	}
	if len(rec.list) != 0 {
		t.Error("an activation of no function")
	}
}

func TestABodyOverTheLimitIsRefused(t *testing.T) {
	for _, length := range []int64{-1, 11} {
		var rec records
		d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{Request: 10}), Recorder: &rec, Node: &node{
			func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
				_, err := io.ReadAll(inv.Body)
				if err == nil {
					err = errors.New("the whole body came through")
				}
				return nil, err
			}}})
		inv := hello()
		inv.Body, inv.Length = strings.NewReader("eleven char"), length
		_, err := d.Invoke(t.Context(), inv)
		e := faas.AsError(err)
		if e.Code != faas.TooLarge || e.Limit != "request_bytes" {
			t.Errorf("length %d: %v (limit %q), want too large by request_bytes", length, err, e.Limit)
		}
		rec.only(t)
	}
}

func TestABodyAtTheLimitPasses(t *testing.T) {
	var rec records
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{Request: 10}), Recorder: &rec, Node: &node{
		func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			b, err := io.ReadAll(inv.Body)
			return &faas.Result{Status: 200, Body: faas.NewBytesBody(b)}, err
		}}})
	inv := hello()
	inv.Body, inv.Length = strings.NewReader("ten bytes!"), -1
	res, err := d.Invoke(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(b) != "ten bytes!" || rec.only(t).Request != 10 {
		t.Errorf("got %q, recorded %d bytes", b, rec.only(t).Request)
	}
}

func TestTheDeadlineIsTheFunctionsTimeout(t *testing.T) {
	// The catalog works with real goroutines, so only the call runs in the bubble.
	c := publish(t, faas.Limits{Timeout: faas.Duration(3 * time.Second)})
	synctest.Test(t, func(t *testing.T) {
		var rec records
		d := dispatch.New(dispatch.Config{Catalog: c, Recorder: &rec, Node: &node{
			func(ctx context.Context, _ *faas.Revision, _ *faas.Invocation) (*faas.Result, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}})
		began := time.Now()
		_, err := d.Invoke(t.Context(), hello())
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("ended after %v, want 3s", took)
		}
		if faas.CodeOf(err) != faas.Timeout {
			t.Errorf("error %v, want a timeout", err)
		}
		if a := rec.only(t); a.Outcome != faas.Timeout || a.Timing.Total != 3*time.Second {
			t.Errorf("activation %v after %v", a.Outcome, a.Timing.Total)
		}
	})
}

func TestMoreCallsThanMayWaitAreRefused(t *testing.T) {
	var rec records
	started, end := make(chan struct{}), make(chan struct{})
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, MaxWaiting: 1, Node: &node{
		func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			close(started)
			<-end
			return &faas.Result{Status: 200, Body: faas.NewBytesBody(nil)}, nil
		}}})
	first := make(chan error, 1)
	go func() {
		res, err := d.Invoke(context.Background(), hello())
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			err = res.Body.Close()
		}
		first <- err
	}()
	<-started
	_, err := d.Invoke(t.Context(), hello())
	if e := faas.AsError(err); e == nil || e.Code != faas.Overloaded || e.Limit != "max_waiting" || e.Fix == "" {
		t.Errorf("second call: %+v, want overloaded by max_waiting with a remedy", e)
	}
	close(end)
	if err := <-first; err != nil {
		t.Errorf("first call: %v", err)
	}
}

func TestDrainWaitsForCallsAndRefusesNewOnes(t *testing.T) {
	var rec records
	d := dispatch.New(dispatch.Config{Catalog: publish(t, faas.Limits{}), Recorder: &rec, Node: &node{answer(faas.NewBytesBody(nil))}})
	res, err := d.Invoke(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	entered := make(chan struct{})
	go func() { close(entered); drained <- d.Drain(context.Background()) }()
	<-entered
	for {
		// A new call is refused as soon as the drain has begun.
		r, err := d.Invoke(t.Context(), hello())
		if err != nil {
			if faas.CodeOf(err) != faas.Unavailable {
				t.Fatalf("call while draining: %v", err)
			}
			break
		}
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a call in flight", err)
	default:
	}
	res.Body.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
