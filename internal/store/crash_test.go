package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

// A child writes to the store in a loop, and says what was acknowledged.
func TestMain(m *testing.M) { faulttest.Main(m, child) }

func child(c *faulttest.Child) {
	ctx := context.Background()
	e, err := store.Open(store.Config{Dir: c.Dir, MaxBytes: 1 << 30})
	c.Must(err)
	b, err := e.Bucket(ctx, "b", 3)
	c.Must(err)
	o, err := e.Objects(ctx, "o")
	c.Must(err)
	c.Ready()
	r, err := b.Get(ctx, "n")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		c.Must(err)
	}
	n, _ := strconv.Atoi(string(r.Value))
	version := r.Version
	fmt.Println("n", n) // the last child may have written it without the time to say so
	go func() {
		for i := n * 10; ; i++ {
			name := fmt.Sprint("o", i%5)
			_, err := o.Put(ctx, name, strings.NewReader(strings.Repeat(fmt.Sprintf("%8d", i), 1<<18)))
			c.Must(err)
			fmt.Println(name, i)
		}
	}()
	for {
		n++
		version, err = b.Put(ctx, "n", fmt.Append(nil, n), version)
		c.Must(err)
		fmt.Println("n", n)
		_, err = b.Put(ctx, "gone", nil, store.Absent)
		if !errors.Is(err, store.ErrConflict) {
			c.Must(err)
		}
		c.Must(b.Delete(ctx, "gone", store.Any))
		_, err = b.Put(ctx, fmt.Sprintf("k/%d", n), fmt.Append(nil, n), store.Absent)
		if !errors.Is(err, store.ErrConflict) { // it may be there from before the crash
			c.Must(err)
		}
		fmt.Println("k", n)
	}
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	dir := t.TempDir()
	acked, keys := map[string]int{}, map[string]bool{}
	for i := 0; i < 10 || i < 60 && acked["n"] < 50; i++ { // more where the machine is slow
		after := time.Duration(rand.IntN(250)) * time.Millisecond
		faulttest.Kill(t, dir, faulttest.Fault{After: after}, func(kind, n string) {
			acked[kind], _ = strconv.Atoi(n)
			if kind == "k" {
				keys["k/"+n] = true
			}
		})
		lookAfterCrash(t, dir, i, acked, keys)
	}
	if acked["n"] < 50 || acked["o0"] == 0 {
		t.Errorf("too few to tell: %v", acked)
	}
}

func lookAfterCrash(t *testing.T, dir string, crash int, acked map[string]int, keys map[string]bool) {
	t.Helper()
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatalf("crash %d: %v", crash, err)
	}
	defer e.Close()
	b, err := e.Bucket(t.Context(), "b", 3)
	if err != nil {
		t.Fatalf("crash %d: %v", crash, err)
	}
	o, err := e.Objects(t.Context(), "o")
	if err != nil {
		t.Fatalf("crash %d: %v", crash, err)
	}
	if acked["n"] > 0 {
		r, err := b.Get(t.Context(), "n")
		if n, _ := strconv.Atoi(string(r.Value)); err != nil || n < acked["n"] || n > acked["n"]+1 {
			t.Errorf("crash %d: n is %q, %v; %d was acknowledged", crash, r.Value, err, acked["n"])
		}
	}
	records, err := b.List(t.Context(), "k/", "", 0)
	if err != nil {
		t.Errorf("crash %d: %v", crash, err)
	}
	found := map[string]bool{}
	for _, r := range records {
		found[r.Key] = true
		if r.Key != "k/"+string(r.Value) {
			t.Errorf("crash %d: %q holds %q", crash, r.Key, r.Value)
		}
	}
	for key := range keys {
		if !found[key] {
			t.Errorf("crash %d: %s was acknowledged and is gone", crash, key)
		}
	}
	for i := range 5 {
		name := fmt.Sprint("o", i)
		in, err := o.Get(t.Context(), name)
		if err != nil {
			if acked[name] > 0 || !errors.Is(err, store.ErrNotFound) {
				t.Errorf("crash %d: %s: %v; %d was acknowledged", crash, name, err, acked[name])
			}
			continue
		}
		data, err := io.ReadAll(in)
		in.Close()
		if err != nil || len(data) != 8<<18 || !bytes.Equal(data, bytes.Repeat(data[:8], 1<<18)) {
			t.Errorf("crash %d: %s has %d bytes, %v: it is not whole", crash, name, len(data), err)
		}
	}
}

// A disk that fills up: writes are refused in words, what was acknowledged stays, and when there
// is room again the same process goes on.
func TestFullDisk(t *testing.T) {
	dir := faulttest.SmallDisk(t, "96m")
	for _, c := range []struct {
		name    string
		minFree int64
	}{
		{"kept free", 16 << 20},
		{"met in earnest", 1}, // the engine itself runs into the end of the disk
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
			fillDisk(t, data, filepath.Join(dir, "ballast"), c.minFree)
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func fillDisk(t *testing.T, dir, ballast string, minFree int64) {
	reopen := func() (*store.Engine, store.Store, store.Objects) {
		e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30, MinFree: minFree})
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.Bucket(t.Context(), "b", 1)
		if err != nil {
			t.Fatal(err)
		}
		o, err := e.Objects(t.Context(), "o")
		if err != nil {
			t.Fatal(err)
		}
		return e, b, o
	}
	e, b, o := reopen()
	if err := os.WriteFile(ballast, make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	acked, refusals := 0, 0
	for i := 0; refusals < 5 && i < 5000; i++ {
		_, err := b.Put(t.Context(), fmt.Sprintf("k/%d", i), make([]byte, 64<<10), store.Absent)
		switch {
		case err == nil && refusals == 0:
			acked++
		case err == nil:
			acked++ // a smaller rest may fit
		case errors.Is(err, store.ErrFull):
			refusals++
		default:
			t.Fatalf("write %d: %v, want ErrFull", i, err)
		}
	}
	if refusals == 0 || acked == 0 {
		t.Fatalf("%d acknowledged, %d refused", acked, refusals)
	}
	if _, err := o.Put(t.Context(), "x", bytes.NewReader(make([]byte, 60<<20))); !errors.Is(err, store.ErrFull) {
		t.Errorf("object: %v, want ErrFull", err)
	}
	check := func(b store.Store, when string) {
		t.Helper()
		records, err := b.List(t.Context(), "k/", "", 0)
		if err != nil || len(records) < acked || len(records) > acked+refusals {
			t.Errorf("%s: %d records, %v; %d were acknowledged", when, len(records), err, acked)
		}
		for _, r := range records {
			if len(r.Value) != 64<<10 {
				t.Errorf("%s: %q has %d bytes", when, r.Key, len(r.Value))
			}
		}
	}
	check(b, "while full")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	time.Sleep(150 * time.Millisecond) // the look at the disk is that old
	if _, err := b.Put(t.Context(), "after", []byte("x"), store.Absent); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, b, _ = reopen()
	defer e.Close()
	check(b, "after a restart")
}
