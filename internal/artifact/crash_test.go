package artifact

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

func TestMain(m *testing.M) { faulttest.Main(m, child) }

func openOn(fail func(error), dir string) (*store.Engine, *Depot) {
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 2 << 30, MinFree: 8 << 20})
	fail(err)
	o, err := e.Objects(context.Background(), "blobs")
	fail(err)
	d, err := Open(Config{Objects: o, Dir: filepath.Join(dir, "cache"), MaxCache: 8 * faas.MiB})
	fail(err)
	return e, d
}

// numbered is a tree of many files that all say the same number.
func numbered(n int) fstest.MapFS {
	f := fstest.MapFS{}
	for i := range 40 {
		f[fmt.Sprintf("d%d/f%d", i%7, i)] = &fstest.MapFile{Data: []byte(strings.Repeat(fmt.Sprintf("%9d\n", n), 1000)), Mode: 0o644}
	}
	return f
}

func child(c *faulttest.Child) {
	_, d := openOn(c.Must, c.Dir)
	c.Ready()
	ctx := context.Background()
	for i := 0; ; i++ {
		n := rand.IntN(1_000_000)
		digest, _, err := d.PutTree(ctx, numbered(n), Limits{})
		c.Must(err)
		fmt.Println("kept", digest, n)
		_, release, err := d.Tree(ctx, digest)
		c.Must(err)
		release()
	}
}

// Killed while it stores and lays out: what was acknowledged can be had whole, and nothing that
// is half there is ever handed out.
func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	dir := t.TempDir()
	kept := map[faas.Digest]int{}
	for range 8 {
		after := time.Duration(20+rand.IntN(150)) * time.Millisecond
		faulttest.Kill(t, dir, faulttest.Fault{After: after}, func(_, said string) {
			digest, n, _ := strings.Cut(said, " ")
			kept[faas.Digest(digest)], _ = strconv.Atoi(n)
		})
	}
	if len(kept) < 10 {
		t.Errorf("only %d were acknowledged: too few to tell", len(kept))
	}
	e, d := openOn(func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}, dir)
	defer e.Close()
	defer d.Close()
	if left, err := os.ReadDir(d.tmp()); err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	for digest, n := range kept {
		path, release, err := d.Tree(t.Context(), digest)
		if err != nil {
			t.Errorf("%s was acknowledged: %v", digest, err)
			continue
		}
		for name, f := range numbered(n) {
			if b, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(b) != string(f.Data) {
				t.Errorf("%s: %s has %d bytes, %v", digest, name, len(b), err)
			}
		}
		release()
	}
}

// A full disk is said in words, for a blob and for a tree, and leaves nothing half done.
func TestFullDisk(t *testing.T) {
	dir := faulttest.SmallDisk(t, "64m")
	e, d := openOn(func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}, filepath.Join(dir, "data"))
	defer e.Close()
	defer d.Close()
	first, _, err := d.PutTree(t.Context(), numbered(1), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	full := func(err error) {
		t.Helper()
		if e, ok := errors.AsType[*faas.Error](err); !ok || e.Code != faas.Unavailable || e.Limit != "store_bytes" {
			t.Errorf("%v, want Unavailable with limit store_bytes", err)
		}
	}
	big := fstest.MapFS{"f": {Data: noiseBytes(40 << 20)}}
	_, _, err = d.PutTree(t.Context(), big, Limits{})
	full(err)
	ballast := filepath.Join(dir, "ballast")
	faulttest.Fill(t, ballast, 0)
	_, _, err = d.Tree(t.Context(), first)
	full(err)
	if left, err := os.ReadDir(d.tmp()); err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	_, release, err := d.Tree(t.Context(), first)
	if err != nil {
		t.Fatalf("with room again: %v", err)
	}
	release()
}
