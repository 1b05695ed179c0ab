package queuetest

import (
	"errors"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

func testOwned(t *testing.T, q queue.Queue) {
	owned := func(want int) {
		t.Helper()
		if got := q.Owned("me"); got != want {
			t.Fatalf("%d are mine, want %d", got, want)
		}
	}
	var ids []faas.ID
	for i := range 5 {
		inv := Invocation("f", "x")
		if inv.Owner = "me"; i == 0 {
			inv.Owner = "you"
		}
		id, err := q.Push(t.Context(), inv)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		time.Sleep(2 * time.Millisecond) // IDs of one millisecond have no order
	}
	push(t, q, "f", "nobody's")
	owned(4)
	done(t, pullID(t, q, "f", ids[0]))
	l := pullID(t, q, "f", ids[1])
	owned(4)
	done(t, l)
	owned(3)
	if err := pullID(t, q, "f", ids[2]).Retry(t.Context(), time.Hour, errors.New("not now")); err != nil {
		t.Fatal(err)
	}
	owned(3)
	if err := pullID(t, q, "f", ids[3]).Bury(t.Context(), errors.New("never")); err != nil {
		t.Fatal(err)
	}
	owned(2)
	if _, err := q.Redrive(t.Context(), queue.Filter{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	owned(3)
	if _, err := q.Cancel(t.Context(), "default", ids[4]); err != nil {
		t.Fatal(err)
	}
	owned(2)
	if _, err := q.Clear(t.Context(), Name("f")); err != nil {
		t.Fatal(err)
	}
	owned(0)
}
