package storetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/brasa-dev/brasa/internal/store"
)

// RunObjects holds the objects that open makes to the promises of store.Objects; each is empty.
func RunObjects(t *testing.T, open func(t *testing.T) store.Objects) {
	t.Run("get returns what was put", func(t *testing.T) {
		o := open(t)
		for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 5 << 20} {
			want := noise(size)
			if n, err := o.Put(t.Context(), "x", bytes.NewReader(want)); err != nil || n != int64(size) {
				t.Fatalf("Put of %d bytes: %d, %v", size, n, err)
			}
			if got := read(t, o, "x"); !bytes.Equal(got, want) {
				t.Errorf("Get of %d bytes gave %d others", size, len(got))
			}
			if s, err := o.Stat(t.Context(), "x"); err != nil || s.Size != int64(size) || s.Name != "x" || s.Modified.IsZero() {
				t.Errorf("Stat = %+v, %v", s, err)
			}
		}
	})
	t.Run("what is absent is not found", func(t *testing.T) {
		o := open(t)
		if _, err := o.Get(t.Context(), "x"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get: %v, want ErrNotFound", err)
		}
		if _, err := o.Stat(t.Context(), "x"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Stat: %v, want ErrNotFound", err)
		}
		if err := o.Delete(t.Context(), "x"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := o.Put(t.Context(), "", bytes.NewReader(nil)); !errors.Is(err, store.ErrKey) {
			t.Errorf("Put without name: %v, want ErrKey", err)
		}
	})
	t.Run("a put that fails changes nothing", func(t *testing.T) {
		o := open(t)
		broken := func() io.Reader {
			return io.MultiReader(bytes.NewReader(noise(3<<20)), brokenReader{})
		}
		if _, err := o.Put(t.Context(), "x", broken()); !errors.Is(err, errBroken) {
			t.Errorf("Put of a broken reader: %v", err)
		}
		if _, err := o.Get(t.Context(), "x"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get after a broken put: %v, want ErrNotFound", err)
		}
		if _, err := o.Put(t.Context(), "x", bytes.NewReader([]byte("old"))); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Put(t.Context(), "x", broken()); !errors.Is(err, errBroken) {
			t.Errorf("Put of a broken reader: %v", err)
		}
		if got := read(t, o, "x"); string(got) != "old" {
			t.Errorf("Get after a broken put = %q, want old", got)
		}
	})
	t.Run("list shows what is there", func(t *testing.T) {
		o := open(t)
		if all, err := o.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("List of nothing = %v, %v", all, err)
		}
		for _, name := range []string{"b", "a/x y", "c"} {
			if _, err := o.Put(t.Context(), name, bytes.NewReader([]byte(name))); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Delete(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		all, err := o.List(t.Context())
		if err != nil || len(all) != 2 || all[0].Name != "a/x y" || all[0].Size != 5 || all[1].Name != "c" {
			t.Errorf("List = %+v, %v", all, err)
		}
		if _, err := o.Get(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get after Delete: %v, want ErrNotFound", err)
		}
	})
	t.Run("a reader that is closed early leaves nothing behind", func(t *testing.T) {
		o := open(t)
		if _, err := o.Put(t.Context(), "x", bytes.NewReader(noise(20<<20))); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			r, err := o.Get(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func read(t *testing.T, o store.Objects, name string) []byte {
	t.Helper()
	r, err := o.Get(t.Context(), name)
	if err != nil {
		t.Fatalf("Get(%q): %v", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %q: %v", name, err)
	}
	return b
}

var errBroken = errors.New("broken on purpose")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }
