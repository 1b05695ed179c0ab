package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

// A disk that fills up: pushes are refused in words, what was accepted can be settled, which makes
// room, and nothing of it is lost; also when the engine and the index meet the very end.
func TestFullDisk(t *testing.T) {
	dir := faulttest.SmallDisk(t, "96m")
	const minFree = 16 << 20
	sc := store.Config{Dir: filepath.Join(dir, "data"), MaxBytes: 1 << 30, MinFree: minFree}
	o := openOn(t, sc, Config{Partitions: 2})
	known := map[faas.ID]bool{}
	pushAll := func(body string, most int) (accepted int, refusal error) {
		for range most {
			inv := invocation("f", faas.Wait{})
			inv.Body = strings.NewReader(body)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			id, err := o.Push(ctx, inv)
			cancel()
			if err != nil {
				return accepted, err
			}
			known[id] = true
			accepted++
		}
		return accepted, nil
	}
	refused := func(err error) {
		t.Helper()
		e := faas.AsError(err)
		if e == nil || e.Code != faas.Overloaded || e.Limit != "disk_free_bytes" || e.Fix == "" {
			t.Fatalf("%+v, want Overloaded with a limit and what to do", e)
		}
	}
	if n, err := pushAll("x", 200); err != nil {
		t.Fatal(n, err)
	}
	ballast := filepath.Join(dir, "ballast")
	faulttest.Fill(t, ballast, minFree+4<<20)
	_, err := pushAll(strings.Repeat("x", 256<<10), 1000)
	refused(err)

	// Below what is kept free everything can be settled.
	settle := func(l Lease, f func(Lease) error) error {
		delete(known, l.Invocation().ID)
		return f(l)
	}
	for range 20 {
		must(t, settle(o.pull(t, "f"), func(l Lease) error { return l.Done(t.Context()) }))
	}
	retried := o.pull(t, "f")
	must(t, retried.Retry(t.Context(), time.Hour, errors.New("x")))
	if w, err := o.Find(t.Context(), "default", retried.Invocation().ID); err != nil || w.Stage != faas.StageRetrying || w.Attempt != 1 {
		t.Errorf("%+v, %v", w, err)
	}

	// At the very end what can't be written is said, and is written when there is room.
	var held []Lease
	for range 6 {
		held = append(held, o.pull(t, "f"))
	}
	faulttest.Fill(t, ballast, 0)
	_, err = pushAll("x", 1)
	refused(err)
	failed := 0
	for i, l := range held {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		switch {
		case i < 4:
			if settle(l, func(l Lease) error { return l.Done(ctx) }) != nil {
				failed++
			}
		case l.Bury(ctx, errors.New("no room")) != nil:
			failed++
		}
		cancel()
	}
	t.Logf("on a disk that is full to the last byte %d of %d settlements had to wait", failed, len(held))
	must(t, os.Remove(ballast))
	buried := func() int {
		dead, err := o.Buried(t.Context(), Filter{Namespace: "default"})
		must(t, err)
		return len(dead)
	}
	for deadline := time.Now().Add(60 * time.Second); o.depth(t, "f").Running > 0 || buried() < 2; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d settlements and %d of 2 burials are written with room again", o.depth(t, "f").Running, buried())
		}
	}
	if n, err := pushAll("y", 10); err != nil {
		t.Fatalf("with room again, %d: %v", n, err)
	}
	for range 2 {
		got := map[faas.ID]bool{}
		all, err := o.List(t.Context(), Filter{Namespace: "default"})
		must(t, err)
		for _, w := range all {
			got[w.ID] = true
		}
		dead, err := o.Buried(t.Context(), Filter{Namespace: "default"})
		must(t, err)
		for _, d := range dead {
			got[d.Invocation.ID] = true
		}
		for id := range known {
			if !got[id] {
				t.Errorf("%s was accepted and is gone", id)
			}
		}
		if extra := len(got) - len(known); extra != 0 {
			t.Errorf("%d are there that were settled or refused", extra)
		}
		o.stop(t)
		o = openOn(t, sc, Config{Partitions: 2})
	}
}
