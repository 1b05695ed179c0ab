package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

func testWhole(t *testing.T, q queue.Queue) {
	in := Invocation("f", "")
	in.Function = faas.Ref{Name: Name("f"), Revision: "abc"}
	in.Subject, in.Cause, in.Kind, in.Method, in.Path, in.Query = "who", faas.NewID(time.Now()), faas.KindHTTP, "PUT", "/a/ü", "x=1&y"
	in.Header = map[string][]string{"X-Y": {"1", "\n2"}}
	in.Deadline = time.Now().Add(time.Hour).Round(time.Millisecond)
	in.Body = bytes.NewReader([]byte("{\"a\":\n\x00\xff}"))
	in.Wait = &faas.Wait{Key: "k\x00ü", Order: "o/p", Priority: faas.PriorityLow, OnSuccess: "p/g", OnFailure: "https://x/"}
	if id, err := q.Push(t.Context(), in); err != nil || id != in.ID {
		t.Fatal(id, err)
	}
	l := pull(t, q, "f", 1)[0]
	out := l.Invocation()
	if out.ID != in.ID || out.Function != in.Function || out.Subject != in.Subject || out.Cause != in.Cause || out.Kind != in.Kind ||
		out.Method != in.Method || out.Path != in.Path || out.Query != in.Query || fmt.Sprint(out.Header) != fmt.Sprint(in.Header) ||
		!out.Deadline.Equal(in.Deadline) || out.Attempt != 1 || out.Length != 9 || !reflect.DeepEqual(out.Wait, in.Wait) {
		t.Errorf("got  %+v %+v\nwant %+v %+v", out, out.Wait, in, in.Wait)
	}
	if b := body(t, out); b != "{\"a\":\n\x00\xff}" {
		t.Errorf("body %q", b)
	}
	done(t, l)
	bare := Invocation("f", "")
	bare.Body, bare.Length = nil, 0
	if _, err := q.Push(t.Context(), bare); err != nil {
		t.Fatal(err)
	}
	l = pull(t, q, "f", 1)[0]
	if b := body(t, l.Invocation()); b != "<none>" || l.Invocation().Wait == nil {
		t.Errorf("body %q, want none; %v", b, l.Invocation().Wait)
	}
	done(t, l)
	count(t, q, 0, 0, 0)
}

func testOrder(t *testing.T, q queue.Queue) {
	const n = 30
	for i := range n {
		push(t, q, "f", fmt.Sprint(i))
		push(t, q, fmt.Sprintf("other%d", i), "x")
	}
	for i := range n {
		l := pull(t, q, "f", 1)[0]
		if b := body(t, l.Invocation()); b != fmt.Sprint(i) {
			t.Fatalf("invocation %s came, want %d", b, i)
		}
		done(t, l)
		done(t, pull(t, q, fmt.Sprintf("other%d", n-1-i), 1)[0])
	}
	count(t, q, 0, 0, 0)
}

func testDue(t *testing.T, q queue.Queue) {
	names, more, err := q.Due(t.Context())
	if err != nil || len(names) != 0 {
		t.Fatalf("Due = %v, %v", names, err)
	}
	select {
	case <-more:
		t.Error("there is more though nothing was pushed")
	case <-time.After(10 * time.Millisecond):
	}
	id := push(t, q, "f", "x")
	<-more
	names, _, err = q.Due(t.Context())
	if err != nil || len(names) != 1 || names[0] != Name("f") {
		t.Errorf("Due = %v, %v", names, err)
	}
	l := pullID(t, q, "f", id)
	none(t, q, "f")
	done(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Pull(ctx, Name("f"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull with an ended context: %v", err)
	}
}

func testMax(t *testing.T, q queue.Queue) {
	for range 25 {
		push(t, q, "f", "x")
	}
	push(t, q, "g", "x")
	seen := map[faas.ID]bool{}
	var leases []queue.Lease
	for len(seen) < 25 {
		for _, l := range pull(t, q, "f", 10) {
			if seen[l.Invocation().ID] || l.Invocation().Function.Name != Name("f") {
				t.Fatalf("%+v was handed out", l.Invocation())
			}
			seen[l.Invocation().ID] = true
			leases = append(leases, l)
		}
	}
	none(t, q, "f")
	count(t, q, 1, 25, 0)
	for _, l := range leases {
		done(t, l)
	}
	count(t, q, 1, 0, 0)
}

func testTwice(t *testing.T, q queue.Queue) {
	inv := Invocation("f", "x")
	for range 2 {
		if id, err := q.Push(t.Context(), inv); err != nil || id != inv.ID {
			t.Fatal(id, err)
		}
	}
	count(t, q, 1, 0, 0)
	done(t, pull(t, q, "f", 1)[0])
	if _, err := q.Push(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	count(t, q, 0, 0, 0)
}

func testKey(t *testing.T, q queue.Queue) {
	const at = 8
	var mu sync.Mutex
	got := map[faas.ID]int{}
	var wg sync.WaitGroup
	for range at { // at once
		wg.Go(func() {
			inv := Invocation("f", "x")
			inv.Wait = &faas.Wait{Key: "k"}
			id, err := q.Push(t.Context(), inv)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			got[id]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d pushes at once with one key are %d invocations", at, len(got))
	}
	count(t, q, 1, 0, 0)
	other := pushWith(t, q, "g", "x", faas.Wait{Key: "k"}) // another function's keys are others
	third := pushWith(t, q, "f", "x", faas.Wait{Key: "l"})
	if got[other]+got[third] != 0 || other == third {
		t.Error("another function's key, or another key, is taken for the same")
	}
	l := pull(t, q, "f", 1)[0]
	done(t, l)
	if again := pushWith(t, q, "f", "x", faas.Wait{Key: "k"}); again != l.Invocation().ID {
		t.Errorf("a push with the key of one that is done is %s, want %s", again, l.Invocation().ID)
	}
	count(t, q, 2, 0, 0)
}

func testPriority(t *testing.T, q queue.Queue) {
	low := pushWith(t, q, "f", "x", faas.Wait{Priority: faas.PriorityLow})
	normal := push(t, q, "f", "x")
	high := pushWith(t, q, "f", "x", faas.Wait{Priority: faas.PriorityHigh})
	second := pushWith(t, q, "f", "x", faas.Wait{Priority: faas.PriorityHigh})
	leases := pull(t, q, "f", 3)
	for i, want := range []faas.ID{high, second, normal} {
		if i >= len(leases) || leases[i].Invocation().ID != want {
			t.Fatalf("the wrong ones came: %d of them, at %d", len(leases), i)
		}
		done(t, leases[i])
	}
	done(t, pullID(t, q, "f", low))
}

func testNotBefore(t *testing.T, q queue.Queue) {
	due := time.Now().Add(300 * time.Millisecond)
	id := pushWith(t, q, "f", "x", faas.Wait{NotBefore: due})
	far := pushWith(t, q, "f", "x", faas.Wait{NotBefore: time.Now().Add(1000 * time.Hour)})
	if time.Now().Before(due) {
		none(t, q, "f")
	}
	now := push(t, q, "f", "x")
	done(t, pullID(t, q, "f", now))
	w, err := q.Find(t.Context(), "default", id)
	if err != nil || w.Stage != faas.StageQueued || w.Due.Sub(due).Abs() > time.Millisecond {
		t.Errorf("Find = %+v, %v; want it due at %v", w, err, due)
	}
	l := pullID(t, q, "f", id)
	if time.Now().Before(due) || l.Invocation().Attempt != 1 {
		t.Errorf("it came %v too early, attempt %d", time.Until(due), l.Invocation().Attempt)
	}
	done(t, l)
	none(t, q, "f")
	if _, err := q.Cancel(t.Context(), "default", far); err != nil {
		t.Error(err)
	}
	count(t, q, 0, 0, 0)
}

func testRow(t *testing.T, q queue.Queue) {
	w := faas.Wait{Order: "row"}
	first, second, third := pushWith(t, q, "f", "x", w), pushWith(t, q, "f", "x", faas.Wait{Order: "row", Priority: faas.PriorityHigh}), pushWith(t, q, "f", "x", w)
	other, free := pushWith(t, q, "f", "x", faas.Wait{Order: "other"}), push(t, q, "f", "x")
	got := map[faas.ID]queue.Lease{}
	for len(got) < 3 {
		for _, l := range pull(t, q, "f", 10) {
			got[l.Invocation().ID] = l
		}
	}
	none(t, q, "f")
	for _, id := range []faas.ID{first, other, free} {
		if got[id] == nil {
			t.Fatalf("%s did not come: %v", id, got)
		}
	}
	done(t, got[other])
	done(t, got[free])
	// One that is tried again holds its place.
	if err := got[first].Retry(t.Context(), 200*time.Millisecond, errors.New("x")); err != nil {
		t.Fatal(err)
	}
	none(t, q, "f")
	l := pullID(t, q, "f", first)
	none(t, q, "f")
	done(t, l)
	for _, id := range []faas.ID{second, third} {
		l := pullID(t, q, "f", id)
		none(t, q, "f")
		done(t, l)
	}
	none(t, q, "f")
}

func testRowEnds(t *testing.T, q queue.Queue) {
	w := faas.Wait{Order: "row"}
	var all []faas.ID
	for range 4 {
		all = append(all, pushWith(t, q, "f", "x", w))
	}
	if err := pullID(t, q, "f", all[0]).Bury(t.Context(), errors.New("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Cancel(t.Context(), "default", all[1]); err != nil { // the head
		t.Fatal(err)
	}
	l := pullID(t, q, "f", all[2])
	if _, err := q.Cancel(t.Context(), "default", all[3]); err != nil { // one behind
		t.Fatal(err)
	}
	last := pushWith(t, q, "f", "x", w)
	none(t, q, "f")
	done(t, l)
	done(t, pullID(t, q, "f", last))
	count(t, q, 0, 0, 1)
	// A row whose first is not due yet waits for it.
	head := pushWith(t, q, "f", "x", faas.Wait{Order: "row", NotBefore: time.Now().Add(200 * time.Millisecond)})
	behind := pushWith(t, q, "f", "x", w)
	none(t, q, "f")
	done(t, pullID(t, q, "f", head))
	done(t, pullID(t, q, "f", behind))
}

func testRetry(t *testing.T, q queue.Queue) {
	const after = 200 * time.Millisecond
	id := push(t, q, "f", "body")
	l := pull(t, q, "f", 1)[0]
	_ = body(t, l.Invocation())
	put := time.Now()
	if err := l.Retry(t.Context(), after, errors.New("no\nluck")); err != nil {
		t.Fatal(err)
	}
	w, err := q.Find(t.Context(), "default", id)
	if err != nil || w.Stage != faas.StageRetrying || w.Attempt != 1 || w.Error != "no luck" || w.Due.Sub(put.Add(after)).Abs() > after/2 {
		t.Errorf("Find = %+v, %v", w, err)
	}
	second := push(t, q, "f", "x")
	done(t, pullID(t, q, "f", second)) // one that is put off does not hold up the next
	count(t, q, 1, 0, 0)
	for attempt := 2; attempt < 5; attempt++ {
		l = pull(t, q, "f", 1)[0]
		if since := time.Since(put); attempt == 2 && since < after-20*time.Millisecond {
			t.Errorf("it came again after %v, want %v", since, after)
		}
		inv := l.Invocation()
		if inv.ID != id || inv.Attempt != attempt || body(t, inv) != "body" {
			t.Errorf("attempt %d of %s came, want %d of %s", inv.Attempt, inv.ID, attempt, id)
		}
		if attempt == 4 {
			done(t, l)
		} else if err := l.Retry(t.Context(), 0, errors.New("again")); err != nil {
			t.Fatal(err)
		}
	}
	count(t, q, 0, 0, 0)
}

func testNoAttempt(t *testing.T, q queue.Queue) {
	id := push(t, q, "f", "x")
	for range 3 {
		l := pullID(t, q, "f", id)
		if a := l.Invocation().Attempt; a != 1 {
			t.Errorf("attempt %d, want 1", a)
		}
		if err := l.Retry(t.Context(), time.Millisecond, nil); err != nil {
			t.Fatal(err)
		}
	}
	if w, err := q.Find(t.Context(), "default", id); err != nil || w.Stage != faas.StageQueued || w.Attempt != 0 || w.Error != "" {
		t.Errorf("Find = %+v, %v", w, err)
	}
	if err := pullID(t, q, "f", id).Retry(t.Context(), 0, errors.New("x")); err != nil {
		t.Fatal(err)
	}
	l := pullID(t, q, "f", id)
	if a := l.Invocation().Attempt; a != 2 {
		t.Errorf("attempt %d, want 2", a)
	}
	done(t, l)
}
