// Package queuetest holds every queue.OldQueue to what its interface promises.
package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// Run holds the queues that open makes to the promises of queue.OldQueue; each is empty.
func Run(t *testing.T, open func(t *testing.T) queue.OldQueue) {
	for _, c := range []struct {
		name string
		test func(*testing.T, queue.OldQueue)
	}{
		{"an invocation comes out as it went in", testWhole},
		{"one function's invocations come in order", testOrder},
		{"pull waits for a push", testWait},
		{"pull hands out at most what was asked for, and each once", testMax},
		{"a second push of an id changes nothing", testTwice},
		{"retry hands it out again, later, with another attempt", testRetry},
		{"bury keeps it with the reason", testBury},
		{"a lease is settled once", testSettled},
		{"what cannot wait is refused", testRefused},
		{"many push and pull at once and none is lost", testMany},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Invocation makes an invocation of a function with a body.
func Invocation(function, body string) *faas.Invocation {
	return &faas.Invocation{
		ID: faas.NewID(time.Now()), Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: function}},
		Kind: faas.KindInvoke, Method: "POST", Body: strings.NewReader(body), Length: int64(len(body)),
	}
}

func push(t *testing.T, q queue.OldQueue, function, body string) faas.ID {
	t.Helper()
	inv := Invocation(function, body)
	if err := q.Push(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	return inv.ID
}

func pull(t *testing.T, q queue.OldQueue, most int) []queue.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	leases, err := q.Pull(ctx, most)
	if err != nil || len(leases) == 0 || len(leases) > most {
		t.Fatalf("Pull(%d) gave %d, %v", most, len(leases), err)
	}
	return leases
}

func body(t *testing.T, inv *faas.Invocation) string {
	t.Helper()
	if inv.Body == nil {
		return "<none>"
	}
	b, err := io.ReadAll(inv.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func depth(t *testing.T, q queue.OldQueue, want int) {
	t.Helper()
	if n, err := q.Depth(t.Context()); err != nil || n != want {
		t.Errorf("Depth = %d, %v; want %d", n, err, want)
	}
}

func done(t *testing.T, l queue.Lease) {
	t.Helper()
	if err := l.Done(t.Context()); err != nil {
		t.Errorf("Done: %v", err)
	}
}

func testWhole(t *testing.T, q queue.OldQueue) {
	in := Invocation("f", "")
	in.Function = faas.Ref{Name: faas.Name{Namespace: "n.s", Package: "p", Function: "f"}, Revision: "abc"}
	in.Subject, in.Cause, in.Kind, in.Method, in.Path, in.Query = "who", faas.NewID(time.Now()), faas.KindHTTP, "PUT", "/a/ü", "x=1&y"
	in.Header = map[string][]string{"X-Y": {"1", "\n2"}}
	in.Deadline = time.Now().Add(time.Hour).Round(time.Millisecond)
	in.Body = bytes.NewReader([]byte("{\"a\":\n\x00\xff}"))
	if err := q.Push(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	l := pull(t, q, 1)[0]
	out := l.Invocation()
	if out.ID != in.ID || out.Function != in.Function || out.Subject != in.Subject || out.Cause != in.Cause || out.Kind != in.Kind ||
		out.Method != in.Method || out.Path != in.Path || out.Query != in.Query || fmt.Sprint(out.Header) != fmt.Sprint(in.Header) ||
		!out.Deadline.Equal(in.Deadline) || out.Attempt != 1 || out.Length != 9 {
		t.Errorf("got  %+v\nwant %+v", out, in)
	}
	if b := body(t, out); b != "{\"a\":\n\x00\xff}" {
		t.Errorf("body %q", b)
	}
	done(t, l)
	bare := Invocation("f", "")
	bare.Body, bare.Length = nil, 0
	if err := q.Push(t.Context(), bare); err != nil {
		t.Fatal(err)
	}
	l = pull(t, q, 1)[0]
	if b := body(t, l.Invocation()); b != "<none>" {
		t.Errorf("body %q, want none", b)
	}
	done(t, l)
	depth(t, q, 0)
}

func testOrder(t *testing.T, q queue.OldQueue) {
	const n = 30
	for i := range n {
		push(t, q, "f", fmt.Sprint(i))
		push(t, q, fmt.Sprintf("other%d", i), "x")
	}
	next := 0
	for range 2 * n {
		l := pull(t, q, 1)[0]
		if l.Invocation().Function.Name.Function == "f" {
			if b := body(t, l.Invocation()); b != fmt.Sprint(next) {
				t.Fatalf("invocation %s came, want %d", b, next)
			}
			next++
		}
		done(t, l)
	}
	depth(t, q, 0)
}

func testWait(t *testing.T, q queue.OldQueue) {
	got := make(chan []queue.Lease)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		leases, _ := q.Pull(ctx, 1)
		got <- leases
	}()
	id := push(t, q, "f", "x")
	leases := <-got
	if len(leases) != 1 || leases[0].Invocation().ID != id {
		t.Fatalf("Pull gave %v", leases)
	}
	done(t, leases[0])
	cancel()
	if _, err := q.Pull(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull with an ended context: %v", err)
	}
}

func testMax(t *testing.T, q queue.OldQueue) {
	for i := range 25 {
		push(t, q, fmt.Sprintf("f%d", i), "x")
	}
	seen := map[faas.ID]bool{}
	var leases []queue.Lease
	for len(seen) < 25 {
		for _, l := range pull(t, q, 10) {
			if seen[l.Invocation().ID] {
				t.Fatalf("%s was handed out twice", l.Invocation().ID)
			}
			seen[l.Invocation().ID] = true
			leases = append(leases, l)
		}
	}
	depth(t, q, 25)
	for _, l := range leases {
		done(t, l)
	}
	depth(t, q, 0)
}

func testTwice(t *testing.T, q queue.OldQueue) {
	inv := Invocation("f", "x")
	for range 2 {
		if err := q.Push(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
	}
	depth(t, q, 1)
	done(t, pull(t, q, 1)[0])
	if err := q.Push(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	depth(t, q, 0)
}

func testRetry(t *testing.T, q queue.OldQueue) {
	const after = 200 * time.Millisecond
	id := push(t, q, "f", "body")
	l := pull(t, q, 1)[0]
	_ = body(t, l.Invocation())
	if err := l.Retry(t.Context(), after, nil); err != nil {
		t.Fatal(err)
	}
	put := time.Now()
	second := push(t, q, "f", "x")
	l = pull(t, q, 1)[0] // one that is put off does not hold up the next
	if l.Invocation().ID != second {
		t.Errorf("%s came, want %s", l.Invocation().ID, second)
	}
	done(t, l)
	depth(t, q, 1)
	for attempt := 2; attempt < 5; attempt++ {
		l = pull(t, q, 1)[0]
		if since := time.Since(put); attempt == 2 && since < after-20*time.Millisecond {
			t.Errorf("it came again after %v, want %v", since, after)
		}
		inv := l.Invocation()
		if inv.ID != id || inv.Attempt != attempt || body(t, inv) != "body" {
			t.Errorf("attempt %d of %s came, want %d of %s", inv.Attempt, inv.ID, attempt, id)
		}
		if attempt == 4 {
			done(t, l)
		} else if err := l.Retry(t.Context(), 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	depth(t, q, 0)
}

func testBury(t *testing.T, q queue.OldQueue) {
	var ids []faas.ID
	for i := range 3 {
		ids = append(ids, push(t, q, "f", fmt.Sprint("body ", i)))
		if err := pull(t, q, 1)[0].Bury(t.Context(), fmt.Errorf("reason %d\nof two lines", i)); err != nil {
			t.Fatal(err)
		}
	}
	depth(t, q, 0)
	for limit, want := range map[int]int{0: 3, 2: 2, 9: 3} {
		dead, err := q.Buried(t.Context(), limit)
		if err != nil || len(dead) != want {
			t.Fatalf("Buried(%d) = %d, %v", limit, len(dead), err)
		}
		for i, d := range dead {
			if d.Invocation.ID != ids[i] || body(t, d.Invocation) != fmt.Sprint("body ", i) || !strings.HasPrefix(d.Why, fmt.Sprintf("reason %d", i)) || d.At.IsZero() || d.Invocation.Attempt != 1 {
				t.Errorf("buried %d: %+v %+v", i, d, d.Invocation)
			}
		}
	}
}

func testSettled(t *testing.T, q queue.OldQueue) {
	push(t, q, "f", "x")
	l := pull(t, q, 1)[0]
	done(t, l)
	for op, err := range map[string]error{"Done": l.Done(t.Context()), "Retry": l.Retry(t.Context(), 0, nil), "Bury": l.Bury(t.Context(), errors.New("x"))} {
		if !errors.Is(err, queue.ErrSettled) {
			t.Errorf("%s of a settled lease: %v, want ErrSettled", op, err)
		}
	}
	depth(t, q, 0)
}

func testRefused(t *testing.T, q queue.OldQueue) {
	big := Invocation("f", "")
	big.Body = bytes.NewReader(make([]byte, queue.MaxBody+1))
	nameless, idless, heavy := Invocation("", "x"), Invocation("f", "x"), Invocation("f", "x")
	idless.ID = "x.y"
	heavy.Header = map[string][]string{"X": {strings.Repeat("x", 1<<20)}}
	for name, c := range map[string]struct {
		inv  *faas.Invocation
		code faas.Code
	}{"body": {big, faas.TooLarge}, "name": {nameless, faas.Invalid}, "id": {idless, faas.Invalid}, "header": {heavy, faas.TooLarge}} {
		if err := q.Push(t.Context(), c.inv); faas.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	depth(t, q, 0)
	full := Invocation("f", "")
	full.Body = bytes.NewReader(make([]byte, queue.MaxBody))
	if err := q.Push(t.Context(), full); err != nil {
		t.Errorf("the largest body: %v", err)
	}
	l := pull(t, q, 1)[0]
	if n := len(body(t, l.Invocation())); n != int(queue.MaxBody) {
		t.Errorf("the largest body came out with %d bytes", n)
	}
	done(t, l)
}

// testMany has every third invocation put off once; each is done once in the end.
func testMany(t *testing.T, q queue.OldQueue) {
	const pushers, each = 4, 50
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var mu sync.Mutex
	finished := map[faas.ID]int{}
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for i := range each {
				if err := q.Push(ctx, Invocation(fmt.Sprintf("f%d-%d", p, i%5), "x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for {
				leases, err := q.Pull(ctx, 8)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				for _, l := range leases {
					id := l.Invocation().ID
					if id[31] < '5' && l.Invocation().Attempt == 1 {
						if err := l.Retry(ctx, time.Millisecond, nil); err != nil {
							t.Error(err)
						}
						continue
					}
					if err := l.Done(ctx); err != nil {
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
	depth(t, q, 0)
}
