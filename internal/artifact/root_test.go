package artifact

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// rootWorld is a depot that can be opened again.
type rootWorld struct {
	t       *testing.T
	objects store.Objects
	dir     string
	cache   faas.Bytes
	*Depot
}

func openRoots(t *testing.T, cache faas.Bytes) *rootWorld {
	w := &rootWorld{t: t, objects: store.MemoryObjects(), dir: t.TempDir(), cache: cache}
	w.open()
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (w *rootWorld) open() {
	w.t.Helper()
	d, err := Open(Config{Objects: w.objects, Dir: w.dir, MaxCache: w.cache})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Depot = d
}

// put stores a root of a few files and links.
func (w *rootWorld) put(body string) faas.Digest {
	w.t.Helper()
	dir, err := w.WorkDir()
	if err != nil {
		w.t.Fatal(err)
	}
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "usr/bin/tool"), []byte(body), 0o755))
	must(os.Chtimes(filepath.Join(dir, "usr/bin/tool"), time.Time{}, time.Unix(1_600_000_000, 999)))
	must(os.Link(filepath.Join(dir, "usr/bin/tool"), filepath.Join(dir, "usr/bin/other")))
	must(os.Symlink("/usr/bin", filepath.Join(dir, "bin")))
	must(os.Symlink("../../../etc", filepath.Join(dir, "up")))
	digest, size, err := w.PutRoot(w.t.Context(), dir)
	must(err)
	if size != faas.Bytes(len(body)) {
		w.t.Errorf("its files have %d bytes, want %d: a file of two names is one", size, len(body))
	}
	return digest
}

func (w *rootWorld) path(digest faas.Digest) string {
	w.t.Helper()
	p, release, err := w.Root(w.t.Context(), digest)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(release)
	return p
}

// A root that is unpacked here, one that is laid out from the store, and one that is stored again from
// that are the same.
func TestRootKeepsItsDigest(t *testing.T) {
	w := openRoots(t, 0)
	digest := w.put("one")
	first, err := os.Stat(filepath.Join(w.path(digest), "usr/bin/tool"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.evict(digest); err != nil { // it is in use
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(filepath.Join(w.dir, "roots", digest.Hex())); err != nil {
		t.Fatal(err)
	}
	w.open()
	p := w.path(digest)
	second, err := os.Stat(filepath.Join(p, "usr/bin/tool"))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(first, second) || !first.ModTime().Equal(second.ModTime()) && first.ModTime().Truncate(time.Second) != second.ModTime() || first.Mode() != second.Mode() {
		t.Errorf("%v %v, laid out again %v %v", first.Mode(), first.ModTime(), second.Mode(), second.ModTime())
	}
	got, err := digestOfDir(t.Context(), p, roots)
	if err != nil || got != digest {
		t.Errorf("what is laid out has %s, %v; want %s", got, err, digest)
	}
	if again := w.put("one"); again != digest {
		t.Errorf("stored again it is %s, want %s", again, digest)
	}
	if w.put("two") == digest {
		t.Error("another root has the same digest")
	}
}

// A root is not code, nor code a root, whatever is laid out already.
func TestRootsAndCodeAreApart(t *testing.T) {
	w := openRoots(t, 0)
	root := w.put("one")
	tree, _, err := w.PutTree(t.Context(), fstest.MapFS{"main.py": {Data: []byte("x")}}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := w.Tree(t.Context(), root); err == nil {
			t.Error("a root was laid out as code")
		}
		if _, _, err := w.Root(t.Context(), tree); err == nil {
			t.Error("code was laid out as a root")
		}
		if err := w.Close(); err != nil { // the second time nothing is known of either
			t.Fatal(err)
		}
		if err := RemoveTree(filepath.Join(w.dir, "roots")); err != nil {
			t.Fatal(err)
		}
		w.open()
	}
	// Code may not have what a root may.
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.PutTree(t.Context(), os.DirFS(dir), Limits{}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("code with an absolute link: %v", err)
	}
}

// What is neither file nor directory nor link is no part of a root.
func TestRootsOfStrangeThings(t *testing.T) {
	w := openRoots(t, 0)
	dir, err := w.WorkDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.PutRoot(t.Context(), dir); faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("with a pipe: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.PutRoot(ctx, dir); err == nil {
		t.Error("it was stored after its caller had left")
	}
}

// Roots count against the room for what is laid out, and those not in use go first.
func TestRootsAreEvicted(t *testing.T) {
	w := openRoots(t, 1) // nothing fits that is not in use
	one := w.put("one")
	if _, err := os.Stat(filepath.Join(w.dir, "roots", one.Hex())); err == nil {
		t.Error("a root that nobody uses is still laid out")
	}
	p, release, err := w.Root(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	two := w.put("two")
	if _, err := os.Stat(p); err != nil {
		t.Errorf("a root in use is gone: %v", err)
	}
	release()
	if _, err := os.Stat(p); err == nil {
		t.Error("after its use it is still laid out")
	}
	// Collected are those that nobody names.
	if err := w.collect(t.Context(), func(d faas.Digest) bool { return d == two }, time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[faas.Digest]bool{one: false, two: true} {
		have, err := w.Has(t.Context(), digest)
		if err != nil || have != want {
			t.Errorf("%s is there: %t, %v", digest, have, err)
		}
	}
}

// Many put the same blob at once, and whoever reads it meanwhile gets all of it.
func TestPutAs(t *testing.T) {
	w := openRoots(t, 0)
	body := strings.Repeat("many", 1000)
	digest, _, err := w.Put(t.Context(), strings.NewReader("other"), 100)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.PutAs(t.Context(), strings.NewReader(body), digest)
	if err != nil || got == digest {
		t.Fatalf("with another digest: %s, %v", got, err)
	}
	if have, err := w.Has(t.Context(), got); err != nil || have {
		t.Errorf("what has another digest than was said was stored: %v", err)
	}
	ended := make(chan error, 8)
	for range cap(ended) {
		go func() {
			_, err := w.PutAs(t.Context(), strings.NewReader(body), got)
			ended <- err
		}()
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if have, err := w.Has(t.Context(), got); err != nil || !have {
		t.Errorf("it is not there: %v", err)
	}
}
