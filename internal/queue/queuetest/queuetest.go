// Package queuetest holds every queue.Queue to what its interface promises.
package queuetest

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// Run holds the queues that open makes to the promises of queue.Queue; each is empty.
func Run(t *testing.T, open func(t *testing.T) queue.Queue) {
	for _, c := range []struct {
		name string
		test func(*testing.T, queue.Queue)
	}{
		{"an invocation comes out as it went in", testWhole},
		{"one function's invocations come in order", testOrder},
		{"due tells of a push", testDue},
		{"pull hands out at most what was asked for, each once, and of one function", testMax},
		{"a second push of an id changes nothing", testTwice},
		{"pushes with one key are one", testKey},
		{"a higher priority goes first", testPriority},
		{"what is not due waits", testNotBefore},
		{"of a row one runs at a time, in order", testRow},
		{"a row goes on after a burial and a cancellation", testRowEnds},
		{"retry hands it out again, later, with another attempt", testRetry},
		{"a retry that was no attempt is not counted", testNoAttempt},
		{"bury keeps it with the reason", testBury},
		{"redrive queues it anew", testRedrive},
		{"purge removes what was buried", testPurge},
		{"a lease is settled once", testSettled},
		{"what waits can be cancelled, what runs can't", testCancel},
		{"what waits is found and listed", testList},
		{"a paused function has none", testPause},
		{"depths count by function", testDepths},
		{"what has an owner is counted until it ends", testOwned},
		{"what is cleared is gone, and nothing else", testClear},
		{"what is dropped is gone", testDrop},
		{"what cannot wait is refused", testRefused},
		{"many push and pull at once and none is lost", testMany},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Name makes the full name of a function of the default namespace.
func Name(function string) faas.Name {
	return faas.Name{Namespace: "default", Function: function}
}

// Invocation makes an invocation of a function with a body.
func Invocation(function, body string) *faas.Invocation {
	return &faas.Invocation{
		ID: faas.NewID(time.Now()), Function: faas.Ref{Name: Name(function)},
		Kind: faas.KindInvoke, Method: "POST", Body: strings.NewReader(body), Length: int64(len(body)),
	}
}

func push(t *testing.T, q queue.Queue, function, body string) faas.ID {
	t.Helper()
	return pushWith(t, q, function, body, faas.Wait{})
}

// pushWith pushes; what is pushed after it has a greater ID.
func pushWith(t *testing.T, q queue.Queue, function, body string, w faas.Wait) faas.ID {
	t.Helper()
	inv := Invocation(function, body)
	inv.Wait = &w
	id, err := q.Push(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // IDs of one millisecond have no order
	return id
}

// Pull waits until at least one invocation of the function is due, and takes at most most.
func Pull(ctx context.Context, q queue.Queue, function string, most int) ([]queue.Lease, error) {
	for {
		_, more, err := q.Due(ctx)
		if err != nil {
			return nil, err
		}
		leases, err := q.Pull(ctx, Name(function), most)
		if err != nil || len(leases) > 0 {
			return leases, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func pull(t *testing.T, q queue.Queue, function string, most int) []queue.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	leases, err := Pull(ctx, q, function, most)
	if err != nil || len(leases) == 0 || len(leases) > most {
		t.Fatalf("Pull(%d) gave %d, %v", most, len(leases), err)
	}
	return leases
}

// pullID takes one invocation, which must be the one with the ID.
func pullID(t *testing.T, q queue.Queue, function string, id faas.ID) queue.Lease {
	t.Helper()
	l := pull(t, q, function, 1)[0]
	if got := l.Invocation().ID; got != id {
		t.Fatalf("%s came, want %s", got, id)
	}
	return l
}

// none holds that the function has nothing that is due now.
func none(t *testing.T, q queue.Queue, function string) {
	t.Helper()
	names, _, err := q.Due(t.Context())
	if err != nil || slices.Contains(names, Name(function)) {
		t.Errorf("Due = %v, %v; want it without %s", names, err, function)
	}
	leases, err := q.Pull(t.Context(), Name(function), 10)
	if err != nil || len(leases) > 0 {
		t.Fatalf("Pull of %s gave %d, %v; want none", function, len(leases), err)
	}
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

// count holds how much of the functions of the default namespace waits, runs and is dead.
func count(t *testing.T, q queue.Queue, waiting, running, dead int) {
	t.Helper()
	depths, err := q.Depths(t.Context(), "default")
	w, r, d := 0, 0, 0
	for _, x := range depths {
		w, r, d = w+x.Waiting, r+x.Running, d+x.Dead
	}
	if err != nil || w != waiting || r != running || d != dead {
		t.Errorf("%d wait, %d run, %d are dead, %v; want %d, %d, %d", w, r, d, err, waiting, running, dead)
	}
}

func done(t *testing.T, l queue.Lease) {
	t.Helper()
	if err := l.Done(t.Context()); err != nil {
		t.Errorf("Done: %v", err)
	}
}

// ids of invocations.
func ids(all []faas.Waiting) []faas.ID {
	var out []faas.ID
	for _, w := range all {
		out = append(out, w.ID)
	}
	return out
}
