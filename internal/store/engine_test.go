package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/store"
)

func TestTwoServersOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	_, err := store.Open(store.Config{Dir: dir})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second Open: %v, want ErrLocked with pid %d", err, os.Getpid())
	}
	if _, err := e.Bucket(t.Context(), "b", 1); err != nil {
		t.Errorf("the first one is no longer well: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestLayoutVersion(t *testing.T) {
	for content, want := range map[string]string{
		`{"layout":2,"max_bytes":1}`: "newer brasa (layout 2",
		`{"layout":0}`:               "not a version file",
		`nonsense`:                   "not a version file",
		``:                           "not a version file",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "version"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := store.Open(store.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
			if e != nil {
				_ = e.Close()
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
			t.Errorf("%q: the engine was started", content)
		}
	}
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "version")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("without its version file: %v", err)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	for i, most := range []int64{1 << 30, 0, 4 << 30, 256 << 20} { // the limit may change between starts
		e, err := store.Open(store.Config{Dir: dir, MaxBytes: most})
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		if i == 1 && e.MaxBytes() != 1<<30 {
			t.Errorf("the limit was not remembered: %d", e.MaxBytes())
		}
		b, err := e.Bucket(t.Context(), "catalog", 10)
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		o, err := e.Objects(t.Context(), "blobs")
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		records, err := b.List(t.Context(), "", "", 0)
		objects, err2 := o.List(t.Context())
		if err != nil || err2 != nil || len(records) != i || len(objects) != i {
			t.Errorf("start %d: %d records, %d objects, %v %v", i, len(records), len(objects), err, err2)
		}
		if _, err := b.Put(t.Context(), fmt.Sprint("k", i), []byte("v"), store.Absent); err != nil {
			t.Error(err)
		}
		if _, err := o.Put(t.Context(), fmt.Sprint("o", i), bytes.NewReader(make([]byte, 3<<20))); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"Put":    second(b.Put(t.Context(), "k", nil, store.Any)),
			"Get":    second(b.Get(t.Context(), "k")),
			"List":   second(b.List(t.Context(), "", "", 0)),
			"object": second(o.Stat(t.Context(), "o0")),
			"room":   e.Room(0),
		} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("%s after Close: %v, want ErrClosed", what, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestWatchEndsWithTheEngine(t *testing.T) {
	e := open(t, t.TempDir())
	b, err := e.Bucket(t.Context(), "b", 1)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := b.Watch(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	<-ch
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if r, ok := <-ch; ok {
		t.Errorf("the watch gave %+v after Close", r)
	}
}

// A bucket that is full refuses writes in words, keeps what it has, and can be emptied.
func TestFullBucket(t *testing.T) {
	e, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b, err := e.Bucket(t.Context(), "b", 1)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100<<10)
	n := 0
	for ; n < 1000; n++ {
		if _, err = b.Put(t.Context(), fmt.Sprint("k", n), value, store.Absent); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrFull) || n < 10 {
		t.Fatalf("after %d: %v, want ErrFull", n, err)
	}
	for range 100 { // to write over what is there takes no room, in the end
		if _, err := b.Put(t.Context(), "k0", value[:10], store.Any); err != nil && !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
	}
	if records, err := b.List(t.Context(), "", "", 0); err != nil || len(records) != n {
		t.Errorf("%d records, %v; %d were written", len(records), err, n)
	}
	for i := range n {
		if err := b.Delete(t.Context(), fmt.Sprint("k", i), store.Any); err != nil {
			t.Fatalf("delete from a full bucket: %v", err)
		}
	}
	if _, err := b.Put(t.Context(), "k", value, store.Absent); err != nil {
		t.Errorf("after it was emptied: %v", err)
	}
}

func TestFullObjects(t *testing.T) {
	e, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	o, err := e.Objects(t.Context(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // what a refused put left must not fill the store either
		if _, err := o.Put(t.Context(), "big", bytes.NewReader(make([]byte, 40<<20))); !errors.Is(err, store.ErrFull) {
			t.Fatalf("Put: %v, want ErrFull", err)
		}
		if _, err := o.Stat(t.Context(), "big"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Stat of what was refused: %v, want ErrNotFound", err)
		}
	}
	if _, err := o.Put(t.Context(), "fits", bytes.NewReader(make([]byte, 20<<20))); err != nil {
		t.Errorf("Put of what fits: %v", err)
	}
}

// A flipped bit in a block on the disk is noticed: the object does not come out whole and wrong.
func TestDamagedObject(t *testing.T) {
	t.Parallel() // it waits for a chunk that never comes
	dir := t.TempDir()
	e := open(t, dir)
	o, err := e.Objects(t.Context(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	mark := bytes.Repeat([]byte("a mark to be found "), 1000)
	if _, err := o.Put(t.Context(), "x", bytes.NewReader(mark)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "OBJ_blobs", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("blocks %v, %v", blocks, err)
	}
	b, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("to be found"))
	if at < 0 {
		t.Fatal("the object is not in the block")
	}
	b[at] ^= 1
	if err := os.WriteFile(blocks[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	o, err = e.Objects(t.Context(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.Get(t.Context(), "x")
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return // the engine has thrown it out, or a part of it
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err == nil {
		t.Errorf("a damaged object was read without an error, %d bytes", len(got))
	}
}
