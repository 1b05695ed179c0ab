// Package storetest holds every store.Store and store.Objects to what their interfaces promise.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/store"
)

// Run holds the stores that open makes to the promises of store.Store; each is empty.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"get returns what was put", testPutGet},
		{"put refuses a version that has passed", testConflict},
		{"put expecting absence makes a key once, and again after its deletion", testAbsent},
		{"delete refuses a version that has passed", testDelete},
		{"versions grow across keys", testVersions},
		{"bad keys and values are refused", testRefusals},
		{"any byte that a key may have comes back", testKeys},
		{"list is sorted, paged and bounded by its prefix", testList},
		{"put keeps no reference to the value", testAlias},
		{"of many writers one wins each version", testRace},
		{"watch delivers what is there, a mark, then changes", testWatch},
		{"watch from a version leaves out what is older", testWatchFrom},
		{"watch loses nothing to a slow reader", testWatchSlow},
		{"watch ends with its context", testWatchEnd},
		{"a context that has ended is obeyed", testContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func put(t *testing.T, s store.Store, key, value string, expect store.Version) store.Version {
	t.Helper()
	v, err := s.Put(t.Context(), key, []byte(value), expect)
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	return v
}

func testPutGet(t *testing.T, s store.Store) {
	if _, err := s.Get(t.Context(), "a/b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of nothing: %v, want ErrNotFound", err)
	}
	for _, value := range []string{"one", "", strings.Repeat("x", 1<<20)} {
		v := put(t, s, "a/b", value, store.Any)
		r, err := s.Get(t.Context(), "a/b")
		if err != nil || string(r.Value) != value || r.Version != v || r.Key != "a/b" || r.Deleted {
			t.Errorf("Get after Put of %d bytes: %d bytes, version %d, key %q, %v; want version %d", len(value), len(r.Value), r.Version, r.Key, err, v)
		}
	}
}

func testConflict(t *testing.T, s store.Store) {
	v1 := put(t, s, "k", "1", store.Absent)
	v2 := put(t, s, "k", "2", v1)
	for _, expect := range []store.Version{v1, v2 + 1, store.Absent} {
		if _, err := s.Put(t.Context(), "k", []byte("3"), expect); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Put expecting %d at %d: %v, want ErrConflict", expect, v2, err)
		}
	}
	if _, err := s.Put(t.Context(), "other", nil, v2); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put expecting a version of an absent key: %v, want ErrConflict", err)
	}
	if r, err := s.Get(t.Context(), "k"); err != nil || string(r.Value) != "2" {
		t.Errorf("after refused writes: %q, %v; want 2", r.Value, err)
	}
}

func testAbsent(t *testing.T, s store.Store) {
	v := put(t, s, "k", "1", store.Absent)
	if err := s.Delete(t.Context(), "k", v); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "k", []byte("x"), v); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put expecting the version before the deletion: %v, want ErrConflict", err)
	}
	v2 := put(t, s, "k", "2", store.Absent)
	if v2 <= v {
		t.Errorf("a key made again has version %d after %d", v2, v)
	}
}

func testDelete(t *testing.T, s store.Store) {
	v1 := put(t, s, "k", "1", store.Absent)
	v2 := put(t, s, "k", "2", v1)
	if err := s.Delete(t.Context(), "k", v1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Delete of an old version: %v, want ErrConflict", err)
	}
	if err := s.Delete(t.Context(), "k", v2); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get after Delete: %v, want ErrNotFound", err)
	}
	for _, expect := range []store.Version{store.Any, v2} {
		if err := s.Delete(t.Context(), "k", expect); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("second Delete: %v, want ErrNotFound", err)
		}
	}
	put(t, s, "k", "3", store.Any)
	if err := s.Delete(t.Context(), "k", store.Any); err != nil {
		t.Errorf("Delete of any version: %v", err)
	}
}

func testVersions(t *testing.T, s store.Store) {
	var last store.Version
	for i := range 20 {
		v := put(t, s, fmt.Sprintf("k%d", i%3), "x", store.Any)
		if v <= last {
			t.Fatalf("version %d after %d", v, last)
		}
		last = v
	}
}

func testRefusals(t *testing.T, s store.Store) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", "\xff", strings.Repeat("k", store.MaxKey+1), strings.Repeat("a/", 16) + "a"} {
		if _, err := s.Put(t.Context(), key, nil, store.Any); !errors.Is(err, store.ErrKey) {
			t.Errorf("Put(%.20q): %v, want ErrKey", key, err)
		}
		if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrKey) {
			t.Errorf("Get(%.20q): %v, want ErrKey", key, err)
		}
		if err := s.Delete(t.Context(), key, store.Any); !errors.Is(err, store.ErrKey) {
			t.Errorf("Delete(%.20q): %v, want ErrKey", key, err)
		}
	}
	if _, err := s.Put(t.Context(), "k", make([]byte, store.MaxValue+1), store.Any); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Put of too much: %v, want ErrTooLarge", err)
	}
	put(t, s, "k", strings.Repeat("x", store.MaxValue), store.Any)
}

func testKeys(t *testing.T, s store.Store) {
	keys := []string{"a.b", "a/b", "a*", ">", "a b", "a=2eb", "ä/ö\n", "=", "..", "A", "a", "$KV", "x/*/y", "é/e\u0301", strings.Repeat("k", store.MaxKey), strings.Repeat("ü", store.MaxKey/2)}
	for i := range keys {
		put(t, s, keys[i], fmt.Sprint(i), store.Absent)
	}
	for i, k := range keys {
		if r, err := s.Get(t.Context(), k); err != nil || string(r.Value) != fmt.Sprint(i) || r.Key != k {
			t.Errorf("Get(%q) = %q %q, %v; want %d", k, r.Key, r.Value, err, i)
		}
	}
	records, err := s.List(t.Context(), "", "", 0)
	slices.Sort(keys)
	if got := keysOf(records); err != nil || !slices.Equal(got, keys) {
		t.Errorf("List: %q, %v; want %q", got, err, keys)
	}
}

func keysOf(records []store.Record) []string {
	out := []string{}
	for _, r := range records {
		out = append(out, r.Key)
	}
	return out
}

func testList(t *testing.T, s store.Store) {
	for _, k := range []string{"f/b/2", "f/a/1", "f/a/10", "g/a", "f/ab", "f", "f/a/2"} {
		put(t, s, k, k, store.Any)
	}
	put(t, s, "f/a/gone", "", store.Any)
	if err := s.Delete(t.Context(), "f/a/gone", store.Any); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"f/a/", "", 0, "f/a/1 f/a/10 f/a/2"},
		{"f/a", "", 0, "f/a/1 f/a/10 f/a/2 f/ab"},
		{"f/", "f/a/10", 2, "f/a/2 f/ab"},
		{"", "", 3, "f f/a/1 f/a/10"},
		{"f/a/1", "", 0, "f/a/1 f/a/10"},
		{"zzz/", "", 0, ""},
	} {
		records, err := s.List(t.Context(), c.prefix, c.after, c.limit)
		if got := strings.Join(keysOf(records), " "); err != nil || got != c.want {
			t.Errorf("List(%q, %q, %d) = %q, %v; want %q", c.prefix, c.after, c.limit, got, err, c.want)
		}
		for _, r := range records {
			if string(r.Value) != r.Key || r.Version == 0 {
				t.Errorf("List has %q with value %q version %d", r.Key, r.Value, r.Version)
			}
		}
	}
}

func testAlias(t *testing.T, s store.Store) {
	value := []byte("before")
	if _, err := s.Put(t.Context(), "k", value, store.Any); err != nil {
		t.Fatal(err)
	}
	copy(value, "AFTER!")
	if r, err := s.Get(t.Context(), "k"); err != nil || !bytes.Equal(r.Value, []byte("before")) {
		t.Errorf("Get = %q, %v", r.Value, err)
	}
}

// testRace counts by compare-and-set from many goroutines: an update that is lost, or a version
// that two writers won, makes the sum wrong.
func testRace(t *testing.T, s store.Store) {
	const writers, rounds = 8, 20
	put(t, s, "n", "0", store.Absent)
	var conflicts atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				r, err := s.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				_, _ = fmt.Sscan(string(r.Value), &n)
				switch _, err = s.Put(t.Context(), "n", fmt.Append(nil, n+1), r.Version); {
				case err == nil:
					done++
				case errors.Is(err, store.ErrConflict):
					conflicts.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if r, err := s.Get(t.Context(), "n"); err != nil || string(r.Value) != fmt.Sprint(writers*rounds) {
		t.Errorf("counted to %q, %v; want %d (%d conflicts)", r.Value, err, writers*rounds, conflicts.Load())
	}
}

func next(t *testing.T, ch <-chan store.Record) store.Record {
	t.Helper()
	select {
	case r, ok := <-ch:
		if !ok {
			t.Fatal("the watch ended")
		}
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came from the watch")
	}
	return store.Record{}
}

func testWatch(t *testing.T, s store.Store) {
	put(t, s, "w/1", "a", store.Any)
	put(t, s, "other", "x", store.Any)
	v2 := put(t, s, "w/2", "b", store.Any)
	ch, err := s.Watch(t.Context(), "w/", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"w/1 a", "w/2 b", " "} {
		if r := next(t, ch); r.Key+" "+string(r.Value) != want {
			t.Errorf("watch gave %q %q, want %q", r.Key, r.Value, want)
		}
	}
	put(t, s, "wide", "x", store.Any)
	v3 := put(t, s, "w/1", "c", store.Any)
	if r := next(t, ch); r.Key != "w/1" || string(r.Value) != "c" || r.Version != v3 {
		t.Errorf("watch gave %+v", r)
	}
	if err := s.Delete(t.Context(), "w/2", v2); err != nil {
		t.Fatal(err)
	}
	if r := next(t, ch); r.Key != "w/2" || !r.Deleted || r.Version <= v3 {
		t.Errorf("watch gave %+v, want the deletion of w/2", r)
	}
	empty, err := s.Watch(t.Context(), "none/", 0)
	if err != nil {
		t.Fatal(err)
	}
	if r := next(t, empty); r.Key != "" {
		t.Errorf("a watch on nothing gave %+v, want the mark", r)
	}
}

func testWatchFrom(t *testing.T, s store.Store) {
	put(t, s, "w/1", "a", store.Any)
	v2 := put(t, s, "w/2", "b", store.Any)
	put(t, s, "w/3", "c", store.Any)
	ch, err := s.Watch(t.Context(), "w/", v2)
	if err != nil {
		t.Fatal(err)
	}
	if r := next(t, ch); r.Key != "w/3" {
		t.Errorf("watch gave %+v, want w/3", r)
	}
	if r := next(t, ch); r.Key != "" {
		t.Errorf("watch gave %+v, want the mark", r)
	}
	put(t, s, "w/1", "d", store.Any)
	if r := next(t, ch); r.Key != "w/1" || string(r.Value) != "d" {
		t.Errorf("watch gave %+v, want w/1", r)
	}
	last, err := s.Watch(t.Context(), "w/", 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if r := next(t, last); r.Key != "" {
		t.Errorf("a watch from beyond gave %+v, want the mark", r)
	}
}

func testWatchSlow(t *testing.T, s store.Store) {
	const n = 1000
	ch, err := s.Watch(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if r := next(t, ch); r.Key != "" {
		t.Fatalf("watch gave %+v, want the mark", r)
	}
	for i := range n {
		put(t, s, fmt.Sprintf("k/%d", i), "x", store.Any)
	}
	seen := map[string]bool{}
	var last store.Version
	for range n {
		r := next(t, ch)
		if seen[r.Key] || r.Version <= last {
			t.Fatalf("watch gave %q at version %d after version %d, seen before: %v", r.Key, r.Version, last, seen[r.Key])
		}
		seen[r.Key], last = true, r.Version
	}
}

func testWatchEnd(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 600 { // more than any buffer on the way
		put(t, s, fmt.Sprintf("k/%d", i), "x", store.Any)
	}
	ch, err := s.Watch(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	next(t, ch)
	cancel()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the channel is open after its context ended")
		}
	}
}

func testContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Put(ctx, "k", nil, store.Any); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.List(ctx, "", "", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("List: %v", err)
	}
}
