package openwhisk

import (
	"context"
	"testing"
	"testing/synctest"
)

// A namespace has few requests served at once that need much memory; others do not wait for it.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		var held []func()
		for range atOnce {
			release, err := s.take(t.Context(), "a", atOnce)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, release)
		}
		other, err := s.take(t.Context(), "b", atOnce)
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithCancel(t.Context())
		var gone error
		go func() { _, gone = s.take(ctx, "a", atOnce) }()
		var late func()
		go func() { late, _ = s.take(t.Context(), "a", atOnce) }()
		synctest.Wait()
		if late != nil {
			t.Fatal("one more than there are places was served")
		}
		cancel()
		synctest.Wait()
		if gone == nil {
			t.Error("one who has gone is served")
		}
		held[0]()
		synctest.Wait()
		if late == nil {
			t.Fatal("a place is free and nobody has it")
		}
		late()
		for _, release := range held[1:] {
			release()
		}
		if len(s.all) != 0 {
			t.Errorf("%d are remembered for nothing", len(s.all))
		}
	})
}

// What several keep from being changed is changed when the last of them lets it go.
func TestLocks(t *testing.T) {
	var l locks
	p := path{namespace: "n", name: "a"}
	one, two := l.share(p), l.share(p)
	l.lock(path{namespace: "n", name: "b"})() // another's is free
	one()
	if l.all[p].TryLock() {
		t.Fatal("an entity can be changed that another keeps from it")
	}
	changed := make(chan bool)
	go func() {
		defer close(changed)
		defer l.lock(p)()
	}()
	two()
	<-changed
	if len(l.all) != 0 {
		t.Errorf("%d locks are left", len(l.all))
	}
}
