package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

func buryAll(t *testing.T, q queue.Queue, function string, n int) []faas.ID {
	t.Helper()
	var out []faas.ID
	for i := range n {
		out = append(out, push(t, q, function, fmt.Sprint("body ", i)))
		if err := pull(t, q, function, 1)[0].Bury(t.Context(), fmt.Errorf("reason %d\nof two lines", i)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func testBury(t *testing.T, q queue.Queue) {
	all := buryAll(t, q, "f", 3)
	other := buryAll(t, q, "g", 1)
	count(t, q, 0, 0, 4)
	for _, c := range []struct {
		filter queue.Filter
		want   []faas.ID
	}{
		{queue.Filter{Namespace: "default"}, append(slices.Clone(all), other...)},
		{queue.Filter{Namespace: "default", Function: "f"}, all},
		{queue.Filter{Namespace: "default", Function: "f", Limit: 2}, all[:2]},
		{queue.Filter{Namespace: "default", Function: "f", After: all[0], Limit: 9}, all[1:]},
		{queue.Filter{Namespace: "default", ID: all[1]}, all[1:2]},
		{queue.Filter{Namespace: "default", Function: "g", ID: all[1]}, nil},
		{queue.Filter{Namespace: "other"}, nil},
	} {
		dead, err := q.Buried(t.Context(), c.filter)
		if err != nil || len(dead) != len(c.want) {
			t.Fatalf("Buried(%+v) = %d, %v; want %d", c.filter, len(dead), err, len(c.want))
		}
		for i, d := range dead {
			n := max(slices.Index(all, d.Invocation.ID), 0)
			if d.Invocation.ID != c.want[i] || body(t, d.Invocation) != fmt.Sprint("body ", n) || d.Why != fmt.Sprintf("reason %d of two lines", n) || d.At.IsZero() || d.Invocation.Attempt != 1 {
				t.Errorf("buried %d: %+v %+v", i, d, d.Invocation)
			}
		}
	}
	if _, err := q.Find(t.Context(), "default", all[0]); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("Find of one that is buried: %v", err)
	}
}

func testRedrive(t *testing.T, q queue.Queue) {
	all := buryAll(t, q, "f", 3)
	for _, c := range []struct {
		filter queue.Filter
		want   int
	}{
		{queue.Filter{Namespace: "default", ID: all[1]}, 1}, {queue.Filter{Namespace: "default", ID: all[1]}, 0},
		{queue.Filter{Namespace: "other"}, 0}, {queue.Filter{Namespace: "default", Function: "f"}, 2},
	} {
		if n, err := q.Redrive(t.Context(), c.filter); err != nil || n != c.want {
			t.Errorf("Redrive(%+v) = %d, %v; want %d", c.filter, n, err, c.want)
		}
	}
	count(t, q, 3, 0, 0)
	for _, i := range []int{1, 0, 2} {
		l := pullID(t, q, "f", all[i])
		if inv := l.Invocation(); inv.Attempt != 1 || body(t, inv) != fmt.Sprint("body ", i) {
			t.Errorf("%+v", inv)
		}
		if i == 0 { // what is given up again is there again
			if err := l.Bury(t.Context(), errors.New("second")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		done(t, l)
	}
	dead, err := q.Buried(t.Context(), queue.Filter{Namespace: "default"})
	if err != nil || len(dead) != 1 || dead[0].Invocation.ID != all[0] || dead[0].Why != "second" {
		t.Errorf("Buried = %+v, %v", dead, err)
	}
	count(t, q, 0, 0, 1)
}

func testPurge(t *testing.T, q queue.Queue) {
	all := buryAll(t, q, "f", 4)
	_ = buryAll(t, q, "g", 1)
	for _, c := range []struct {
		filter queue.Filter
		want   int
	}{
		{queue.Filter{Namespace: "default", ID: all[2]}, 1}, {queue.Filter{Namespace: "other"}, 0},
		{queue.Filter{Namespace: "default", Function: "f", Limit: 2}, 2}, {queue.Filter{Namespace: "default", Function: "f"}, 1},
	} {
		if n, err := q.Purge(t.Context(), c.filter); err != nil || n != c.want {
			t.Errorf("Purge(%+v) = %d, %v; want %d", c.filter, n, err, c.want)
		}
	}
	count(t, q, 0, 0, 1)
}

func testSettled(t *testing.T, q queue.Queue) {
	push(t, q, "f", "x")
	l := pull(t, q, "f", 1)[0]
	done(t, l)
	for op, err := range map[string]error{"Done": l.Done(t.Context()), "Retry": l.Retry(t.Context(), 0, nil), "Bury": l.Bury(t.Context(), errors.New("x"))} {
		if !errors.Is(err, queue.ErrSettled) {
			t.Errorf("%s of a settled lease: %v, want ErrSettled", op, err)
		}
	}
	count(t, q, 0, 0, 0)
}

func testCancel(t *testing.T, q queue.Queue) {
	running, waiting, behind := push(t, q, "f", "0"), push(t, q, "f", "1"), push(t, q, "f", "2")
	l := pullID(t, q, "f", running)
	if _, err := q.Cancel(t.Context(), "default", running); faas.CodeOf(err) != faas.Conflict {
		t.Errorf("Cancel of one that runs: %v", err)
	}
	if _, err := q.Cancel(t.Context(), "other", waiting); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("Cancel from another namespace: %v", err)
	}
	inv, err := q.Cancel(t.Context(), "default", waiting)
	if err != nil || inv.ID != waiting || body(t, inv) != "1" {
		t.Fatalf("Cancel = %+v, %v", inv, err)
	}
	if _, err := q.Cancel(t.Context(), "default", waiting); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("Cancel again: %v", err)
	}
	count(t, q, 1, 1, 0)
	done(t, pullID(t, q, "f", behind))
	// One that is to be tried again waits.
	if err := l.Retry(t.Context(), time.Hour, errors.New("x")); err != nil {
		t.Fatal(err)
	}
	if inv, err := q.Cancel(t.Context(), "default", running); err != nil || inv.Attempt != 1 || body(t, inv) != "0" {
		t.Errorf("Cancel of one that is put off = %+v, %v", inv, err)
	}
	none(t, q, "f")
	count(t, q, 0, 0, 0)
}

func testList(t *testing.T, q queue.Queue) {
	a := pushWith(t, q, "f", "x", faas.Wait{Key: "k", Order: "o", Priority: faas.PriorityHigh})
	b := push(t, q, "f", "x")
	c := pushWith(t, q, "g", "x", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
	d := push(t, q, "f", "x")
	la, lb := pullID(t, q, "f", a), pullID(t, q, "f", b)
	if err := lb.Retry(t.Context(), time.Hour, errors.New("x")); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		filter queue.Filter
		want   []faas.ID
	}{
		{queue.Filter{Namespace: "default"}, []faas.ID{a, b, c, d}},
		{queue.Filter{Namespace: "other"}, nil},
		{queue.Filter{Namespace: "default", Function: "f"}, []faas.ID{a, b, d}},
		{queue.Filter{Namespace: "default", Limit: 2}, []faas.ID{a, b}},
		{queue.Filter{Namespace: "default", Limit: 2, After: b}, []faas.ID{c, d}},
		{queue.Filter{Namespace: "default", ID: c}, []faas.ID{c}},
		{queue.Filter{Namespace: "default", Stage: faas.StageRunning}, []faas.ID{a}},
		{queue.Filter{Namespace: "default", Stage: faas.StageRetrying}, []faas.ID{b}},
		{queue.Filter{Namespace: "default", Stage: faas.StageQueued}, []faas.ID{c, d}},
		{queue.Filter{Namespace: "default", Stage: faas.StageDead}, nil},
	} {
		got, err := q.List(t.Context(), x.filter)
		if err != nil || !slices.Equal(ids(got), x.want) {
			t.Errorf("List(%+v) = %v, %v; want %v", x.filter, ids(got), err, x.want)
		}
	}
	w, err := q.Find(t.Context(), "default", a)
	if err != nil || w.Function != Name("f") || w.Stage != faas.StageRunning || w.Priority != faas.PriorityHigh || w.Key != "k" || w.Order != "o" || w.Attempt != 1 || time.Since(w.Queued).Abs() > time.Minute {
		t.Errorf("Find = %+v, %v", w, err)
	}
	for _, x := range []struct {
		ns string
		id faas.ID
	}{{"other", a}, {"default", faas.NewID(time.Now())}} {
		if w, err := q.Find(t.Context(), x.ns, x.id); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("Find(%s, %s) = %+v, %v", x.ns, x.id, w, err)
		}
	}
	done(t, la)
}

func testPause(t *testing.T, q queue.Queue) {
	a, b := push(t, q, "f", "x"), push(t, q, "f", "x")
	l := pullID(t, q, "f", a)
	for range 2 { // the second changes nothing
		if err := q.Pause(t.Context(), Name("f"), true); err != nil {
			t.Fatal(err)
		}
	}
	none(t, q, "f")
	done(t, l) // what was handed out goes on
	push(t, q, "g", "x")
	done(t, pull(t, q, "g", 1)[0])
	depths, err := q.Depths(t.Context(), "default")
	if err != nil || len(depths) != 1 || !depths[0].Paused || depths[0].Waiting != 1 {
		t.Errorf("Depths = %+v, %v", depths, err)
	}
	_, more, err := q.Due(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Pause(t.Context(), Name("f"), false); err != nil {
		t.Fatal(err)
	}
	<-more
	done(t, pullID(t, q, "f", b))
	if depths, err := q.Depths(t.Context(), "default"); err != nil || len(depths) != 0 {
		t.Errorf("Depths = %+v, %v; want none", depths, err)
	}
}

func testDepths(t *testing.T, q queue.Queue) {
	before := time.Now().Add(-time.Second)
	for range 3 {
		push(t, q, "f", "x")
	}
	_ = buryAll(t, q, "g", 2)
	if _, err := q.Push(t.Context(), &faas.Invocation{ID: faas.NewID(time.Now()), Function: faas.Ref{Name: faas.Name{Namespace: "other", Package: "p", Function: "h"}}}); err != nil {
		t.Fatal(err)
	}
	l := pull(t, q, "f", 1)[0]
	for ns, want := range map[string][]queue.Depth{
		"default": {{Function: Name("f"), Waiting: 2, Running: 1}, {Function: Name("g"), Dead: 2}},
		"":        {{Function: Name("f"), Waiting: 2, Running: 1}, {Function: Name("g"), Dead: 2}, {Function: faas.Name{Namespace: "other", Package: "p", Function: "h"}, Waiting: 1}},
		"third":   nil,
	} {
		got, err := q.Depths(t.Context(), ns)
		for i := range got {
			if waits := got[i].Waiting > 0; waits == got[i].Oldest.IsZero() || waits && got[i].Oldest.Before(before) {
				t.Errorf("%+v", got[i])
			}
			got[i].Oldest = time.Time{}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Depths(%q) = %+v, %v; want %+v", ns, got, err, want)
		}
	}
	done(t, l)
}

func testClear(t *testing.T, q queue.Queue) {
	_ = buryAll(t, q, "f", 1)
	running := pullID(t, q, "f", pushWith(t, q, "f", "x", faas.Wait{Order: "o"}))
	key := faas.Wait{Key: "k"}
	was := pushWith(t, q, "f", "x", key)
	pushWith(t, q, "f", "x", faas.Wait{Order: "o"})
	pushWith(t, q, "f", "x", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
	push(t, q, "g", "x")
	if err := q.Pause(t.Context(), Name("f"), true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 0} {
		if n, err := q.Clear(t.Context(), Name("f")); err != nil || n != want {
			t.Errorf("Clear = %d, %v; want %d", n, err, want)
		}
	}
	count(t, q, 1, 1, 1)
	if now := pushWith(t, q, "f", "x", key); now != was {
		t.Error("the key of a call that was cleared is forgotten, so that it could be made twice")
	}
	done(t, running)
	later := pushWith(t, q, "f", "x", faas.Wait{Order: "o"})
	none(t, q, "f") // still paused
	if err := q.Pause(t.Context(), Name("f"), false); err != nil {
		t.Fatal(err)
	}
	done(t, pullID(t, q, "f", later))
}

func testDrop(t *testing.T, q queue.Queue) {
	_ = buryAll(t, q, "f", 1)
	_ = buryAll(t, q, "g", 1)
	key := faas.Wait{Key: "k", Order: "o"}
	was := pushWith(t, q, "f", "x", key)
	pushWith(t, q, "f", "x", faas.Wait{Order: "o"})
	pushWith(t, q, "f", "x", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
	kept := push(t, q, "g", "x")
	if err := q.Pause(t.Context(), Name("f"), true); err != nil {
		t.Fatal(err)
	}
	if err := q.Drop(t.Context(), Name("f")); err != nil {
		t.Fatal(err)
	}
	count(t, q, 1, 0, 1)
	none(t, q, "f")
	// A new function of that name begins from nothing.
	now := pushWith(t, q, "f", "x", key)
	if now == was {
		t.Error("the key of a function that was dropped is still known")
	}
	done(t, pullID(t, q, "f", now))
	running := pullID(t, q, "g", kept)
	push(t, q, "g", "x")
	if err := q.Drop(t.Context(), faas.Name{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	count(t, q, 0, 1, 0) // whoever holds it must end it
	done(t, running)
	count(t, q, 0, 0, 0)
}

func testRefused(t *testing.T, q queue.Queue) {
	big := Invocation("f", "")
	big.Body = bytes.NewReader(make([]byte, queue.MaxBody+1))
	nameless, idless, heavy := Invocation("", "x"), Invocation("f", "x"), Invocation("f", "x")
	idless.ID = "x.y"
	heavy.Header = map[string][]string{"X": {strings.Repeat("x", 1<<20)}}
	key, row, priority := Invocation("f", "x"), Invocation("f", "x"), Invocation("f", "x")
	key.Wait, row.Wait, priority.Wait = &faas.Wait{Key: strings.Repeat("k", 1000)}, &faas.Wait{Order: strings.Repeat("k", 1000)}, &faas.Wait{Priority: "urgent"}
	for name, c := range map[string]struct {
		inv  *faas.Invocation
		code faas.Code
	}{
		"body": {big, faas.TooLarge}, "name": {nameless, faas.Invalid}, "id": {idless, faas.Invalid}, "header": {heavy, faas.TooLarge},
		"key": {key, faas.Invalid}, "row": {row, faas.Invalid}, "priority": {priority, faas.Invalid},
	} {
		if _, err := q.Push(t.Context(), c.inv); faas.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	count(t, q, 0, 0, 0)
	full := Invocation("f", "")
	full.Body = bytes.NewReader(make([]byte, queue.MaxBody))
	if _, err := q.Push(t.Context(), full); err != nil {
		t.Errorf("the largest body: %v", err)
	}
	l := pull(t, q, "f", 1)[0]
	if n := len(body(t, l.Invocation())); n != int(queue.MaxBody) {
		t.Errorf("the largest body came out with %d bytes", n)
	}
	done(t, l)
}

// testMany has every third invocation put off once; each is done once in the end.
func testMany(t *testing.T, q queue.Queue) {
	const pushers, each = 4, 50
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var mu sync.Mutex
	finished := map[faas.ID]int{}
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for i := range each {
				inv := Invocation(fmt.Sprintf("f%d", p), "x")
				if i%4 == 0 {
					inv.Wait = &faas.Wait{Order: "row"}
				}
				if _, err := q.Push(ctx, inv); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for p := range 2 * pushers {
		wg.Go(func() {
			for {
				leases, err := Pull(ctx, q, fmt.Sprintf("f%d", p%pushers), 8)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				for _, l := range leases {
					id := l.Invocation().ID
					if id[31] < '5' && l.Invocation().Attempt == 1 {
						if err := l.Retry(ctx, time.Millisecond, errors.New("x")); err != nil {
							t.Error(err)
						}
						continue
					}
					if err := l.Done(context.WithoutCancel(ctx)); err != nil {
						t.Error(err)
					}
					mu.Lock()
					finished[id]++
					if len(finished) == pushers*each {
						cancel()
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(finished) != pushers*each {
		t.Errorf("%d of %d finished", len(finished), pushers*each)
	}
	for id, n := range finished {
		if n != 1 {
			t.Errorf("%s was done %d times", id, n)
		}
	}
	count(t, q, 0, 0, 0)
}
