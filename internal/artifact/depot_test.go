package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func noiseBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// countingObjects counts downloads and can damage or withhold them.
type countingObjects struct {
	store.Objects
	gets  atomic.Int64
	spoil atomic.Bool
	hold  chan struct{} // if set, Get waits for it
}

func (o *countingObjects) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o.gets.Add(1)
	if o.hold != nil {
		<-o.hold
	}
	r, err := o.Objects.Get(ctx, name)
	if err != nil || !o.spoil.Load() {
		return r, err
	}
	b, err := io.ReadAll(r)
	b[len(b)/2] ^= 1
	return io.NopCloser(bytes.NewReader(b)), err
}

func openDepot(t testing.TB, dir string, objects store.Objects, most faas.Bytes) *Depot {
	t.Helper()
	d, err := Open(Config{Objects: objects, Dir: dir, MaxCache: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		_ = RemoveTree(dir)
	})
	return d
}

func sample(n int) fstest.MapFS {
	return fstest.MapFS{
		"main.py":     {Data: fmt.Appendf(nil, "print(%d)", n), Mode: 0o600, ModTime: time.Now()},
		"bin/run":     {Data: noiseBytes(20_000), Mode: 0o4777},
		"empty":       {Mode: fs.ModeDir | 0o700},
		"lib/a/b.txt": {Data: []byte("b"), Mode: 0o644},
		"lib/link":    {Data: []byte("a/b.txt"), Mode: fs.ModeSymlink | 0o777},
	}
}

func putTree(t testing.TB, d *Depot, n int) faas.Digest {
	t.Helper()
	digest, _, err := d.PutTree(t.Context(), sample(n), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestBlobs(t *testing.T) {
	o := &countingObjects{Objects: store.MemoryObjects()}
	d := openDepot(t, t.TempDir(), o, 0)
	data := noiseBytes(3 << 20)
	digest, size, err := d.Put(t.Context(), bytes.NewReader(data), 4*faas.MiB)
	if err != nil || size != 3*faas.MiB {
		t.Fatalf("Put: %v, %v", size, err)
	}
	if again, _, err := d.Put(t.Context(), bytes.NewReader(data), 4*faas.MiB); err != nil || again != digest {
		t.Errorf("Put again: %v, %v", again, err)
	}
	read := func() ([]byte, error) {
		r, err := d.Get(t.Context(), digest)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if got, err := read(); err != nil || !bytes.Equal(got, data) {
		t.Errorf("Get: %d bytes, %v", len(got), err)
	}
	o.spoil.Store(true)
	if _, err := read(); faas.CodeOf(err) != faas.Unavailable {
		t.Errorf("Get of damaged bytes: %v, want Unavailable", err)
	}
	if _, _, err := d.Put(t.Context(), bytes.NewReader(data), 2*faas.MiB); faas.CodeOf(err) != faas.TooLarge {
		t.Errorf("Put of too much: %v", err)
	}
	if _, err := d.Get(t.Context(), faas.Digest("sha256:"+strings.Repeat("0", 64))); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("Get of nothing: %v", err)
	}
	if _, err := d.Get(t.Context(), "sha256:../../x"); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("Get of no digest: %v", err)
	}
	if left, _ := os.ReadDir(d.tmp()); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// The digest of a tree is part of every revision's ID; this one must never change.
func TestTreeDigestIsCanonical(t *testing.T) {
	d := openDepot(t, t.TempDir(), store.MemoryObjects(), 0)
	small := fstest.MapFS{"a": {Data: []byte("1"), Mode: 0o640}, "b/c": {Data: []byte("2"), Mode: 0o711, ModTime: time.Now()}}
	const want = "sha256:ff47e1b38c2003b045468068545dda823da9d6a0f44dcc555337b6fe885532e0"
	got, size, err := d.PutTree(t.Context(), small, Limits{})
	if err != nil || got != want || size != 2 {
		t.Errorf("PutTree = %s, %d, %v; want %s", got, size, err, want)
	}
	// The same tree from a real directory, made in another order with other modes.
	dir := t.TempDir()
	for _, f := range []struct {
		name, body string
		mode       fs.FileMode
	}{{"b/c", "2", 0o755}, {"a", "1", 0o600}} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f.name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.body), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := d.PutTree(t.Context(), os.DirFS(dir), Limits{}); err != nil || got != want {
		t.Errorf("PutTree of the directory = %s, %v; want %s", got, err, want)
	}
}

func TestTreeRefusals(t *testing.T) {
	d := openDepot(t, t.TempDir(), store.MemoryObjects(), 0)
	for why, f := range map[string]fstest.MapFS{
		"leads out": {"l": {Data: []byte("../x"), Mode: fs.ModeSymlink}},
		"absolute":  {"l": {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink}},
		"neither":   {"p": {Mode: fs.ModeNamedPipe}},
		"control":   {"a\nb": {}},
	} {
		if _, _, err := d.PutTree(t.Context(), f, Limits{}); faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for key, limits := range map[string]Limits{"code_bytes": {Bytes: 1000}, "code_entries": {Entries: 3}} {
		_, _, err := d.PutTree(t.Context(), sample(1), limits)
		if e, ok := errors.AsType[*faas.Error](err); !ok || e.Limit != key || e.Code != faas.TooLarge {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestTreeIsLaidOutReadOnly(t *testing.T) {
	d := openDepot(t, t.TempDir(), store.MemoryObjects(), 0)
	digest := putTree(t, d, 1)
	path, release, err := d.Tree(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	got := map[string]string{}
	err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(path, p)
		info, err := e.Info()
		if err != nil {
			return err
		}
		got[rel] = info.Mode().String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "map[.:dr-xr-xr-x bin:dr-xr-xr-x bin/run:-r-xr-xr-x empty:dr-xr-xr-x lib:dr-xr-xr-x lib/a:dr-xr-xr-x lib/a/b.txt:-r--r--r-- lib/link:Lrwxrwxrwx main.py:-r--r--r--]"
	if os.Geteuid() != 0 { // who could not move them otherwise
		want = strings.ReplaceAll(want, "dr-xr-xr-x", "drwxr-xr-x")
	}
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(path, "lib/link")); err != nil || string(b) != "b" {
		t.Errorf("through the link: %q, %v", b, err)
	}
}

func TestTreeSingleFlight(t *testing.T) {
	o := &countingObjects{Objects: store.MemoryObjects(), hold: make(chan struct{})}
	d := openDepot(t, t.TempDir(), o, 0)
	digest := putTree(t, d, 1)
	impatient, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	left := make(chan struct{})
	wg.Go(func() {
		defer close(left)
		if _, _, err := d.Tree(impatient, digest); faas.CodeOf(err) != faas.Canceled {
			t.Errorf("the one who left: %v, want Canceled", err)
		}
	})
	for range 10 {
		wg.Go(func() {
			_, release, err := d.Tree(t.Context(), digest)
			if err != nil {
				t.Error(err)
				return
			}
			release()
			release() // a second time is no harm
		})
	}
	cancel()
	<-left // before the tree is there, else it would be a toss which he gets
	close(o.hold)
	wg.Wait()
	if n := o.gets.Load(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	if refs := d.trees[digest].refs; refs != 0 {
		t.Errorf("%d references left", refs)
	}
}

func TestDamagedDownloadIsNotUsed(t *testing.T) {
	o := &countingObjects{Objects: store.MemoryObjects()}
	d := openDepot(t, t.TempDir(), o, 0)
	digest := putTree(t, d, 1)
	o.spoil.Store(true)
	if path, _, err := d.Tree(t.Context(), digest); err == nil {
		t.Errorf("a damaged tree was laid out at %s", path)
	}
	if _, err := os.Stat(d.path(code, digest)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is something at its path: %v", err)
	}
	o.spoil.Store(false)
	_, release, err := d.Tree(t.Context(), digest)
	if err != nil {
		t.Errorf("after the damage is mended: %v", err)
	} else {
		release()
	}
}

// What lies on the disk when the process starts may be half of a tree, by a power cut, or changed.
func TestTreesAreCheckedAfterARestart(t *testing.T) {
	dir, o := t.TempDir(), &countingObjects{Objects: store.MemoryObjects()}
	d := openDepot(t, dir, o, 0)
	digest := putTree(t, d, 1)
	lay := func(d *Depot) string {
		t.Helper()
		path, release, err := d.Tree(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		release()
		b, err := os.ReadFile(filepath.Join(path, "main.py"))
		if err != nil || string(b) != "print(1)" {
			t.Errorf("main.py is %q, %v", b, err)
		}
		return path
	}
	path := lay(d)
	lay(openDepot(t, dir, o, 0))
	if n := o.gets.Load(); n != 1 {
		t.Errorf("%d downloads after a restart with a good tree, want 1", n)
	}
	for _, damage := range []func() error{
		func() error { return os.Truncate(filepath.Join(path, "main.py"), 3) },
		func() error { return os.WriteFile(filepath.Join(path, "main.py"), []byte("print(2)"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(path, "more"), nil, 0o600) },
		func() error { return os.Remove(filepath.Join(path, "lib/a/b.txt")) },
		func() error { return os.Chmod(filepath.Join(path, "main.py"), 0o755) },
		func() error { return RemoveTree(path) },
	} {
		_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error { return os.Chmod(p, 0o777) })
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		before := o.gets.Load()
		lay(openDepot(t, dir, o, 0))
		if n := o.gets.Load() - before; n != 1 {
			t.Errorf("%d downloads after damage, want 1", n)
		}
	}
}

func TestCacheKeepsToItsSize(t *testing.T) {
	o := &countingObjects{Objects: store.MemoryObjects()}
	d := openDepot(t, t.TempDir(), o, 150*faas.KiB) // a tree takes up 20+3 blocks: three fit
	var digests []faas.Digest
	for i := range 6 {
		digests = append(digests, putTree(t, d, i))
	}
	use := func(i int) func() {
		t.Helper()
		_, release, err := d.Tree(t.Context(), digests[i])
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	held := use(0)
	for i := 1; i < 6; i++ {
		use(i)()
	}
	if _, err := os.Stat(d.path(code, digests[0])); err != nil {
		t.Errorf("a tree in use was removed: %v", err)
	}
	if d.bytes > int64(d.config.MaxCache) {
		t.Errorf("the cache has %d bytes, most is %d", d.bytes, d.config.MaxCache)
	}
	if _, err := os.Stat(d.path(code, digests[1])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the least recently used tree is still there: %v", err)
	}
	if _, err := os.Stat(d.path(code, digests[5])); err != nil {
		t.Errorf("the most recently used tree is gone: %v", err)
	}
	held()
	before := o.gets.Load()
	use(1)()
	if o.gets.Load() != before+1 {
		t.Error("a removed tree was not laid out again")
	}
	d.work.Wait()
	if left, _ := os.ReadDir(d.tmp()); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// What an earlier run has laid out counts too, and a tree that is not counted yet can be removed.
func TestTreesOfAnEarlierRunAreCounted(t *testing.T) {
	dir, o := t.TempDir(), store.MemoryObjects()
	d := openDepot(t, dir, o, faas.GiB)
	var digests []faas.Digest
	for i := range 6 {
		digest := putTree(t, d, i)
		_, release, err := d.Tree(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		release()
		digests = append(digests, digest)
	}
	d.work.Wait()
	least := d.bytes
	d = openDepot(t, dir, o, faas.GiB)
	d.work.Wait()
	if d.bytes < least || least == 0 || len(d.trees) != 6 {
		t.Errorf("%d bytes in %d trees after a restart, want %d or more in 6", d.bytes, len(d.trees), least)
	}
	d = openDepot(t, dir, o, 150*faas.KiB)
	d.work.Wait()
	if d.bytes > int64(d.config.MaxCache) || len(d.trees) < 2 || len(d.trees) == 6 {
		t.Errorf("%d bytes in %d trees, most is %d", d.bytes, len(d.trees), d.config.MaxCache)
	}
	for _, digest := range digests {
		d.mu.Lock()
		delete(d.trees, digest) // as if it were not counted yet
		d.mu.Unlock()
		if err := d.evict(digest); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.path(code, digest)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the tree is still there: %v", err)
		}
	}
}

func TestCollect(t *testing.T) {
	d := openDepot(t, t.TempDir(), store.MemoryObjects(), 0)
	live, dead, used, fresh1 := putTree(t, d, 1), putTree(t, d, 2), putTree(t, d, 3), putTree(t, d, 4)
	_, release, err := d.Tree(t.Context(), used)
	if err != nil {
		t.Fatal(err)
	}
	_, releaseDead, err := d.Tree(t.Context(), dead)
	if err != nil {
		t.Fatal(err)
	}
	releaseDead()
	isLive := func(g faas.Digest) bool { return g == live }
	there := func(g faas.Digest) bool {
		r, err := d.Get(t.Context(), g)
		if err != nil {
			return false
		}
		r.Close()
		return true
	}
	if err := d.Collect(t.Context(), isLive); err != nil || !there(dead) {
		t.Errorf("what was just put was collected: %v", err)
	}
	later := time.Now().Add(2 * fresh)
	d.recent[fresh1] = later // put again, while the collector was on its way
	if err := d.collect(t.Context(), isLive, later); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		digest faas.Digest
		want   bool
	}{"live": {live, true}, "dead": {dead, false}, "in use": {used, true}, "put again": {fresh1, true}} {
		if there(c.digest) != c.want {
			t.Errorf("%s: there is %v, want %v", name, !c.want, c.want)
		}
	}
	if _, err := os.Stat(d.path(code, dead)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dead tree is still laid out: %v", err)
	}
	release()
}

func BenchmarkTreeWarm(b *testing.B) {
	d := openDepot(b, b.TempDir(), store.MemoryObjects(), 0)
	digest := putTree(b, d, 1)
	for b.Loop() {
		_, release, err := d.Tree(b.Context(), digest)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}

func TestTreeSaysWhereItWas(t *testing.T) {
	dir, objects := t.TempDir(), store.MemoryObjects()
	d := openDepot(t, dir, objects, 0)
	digest := putTree(t, d, 1)
	want := func(d *Depot, want faas.From) {
		t.Helper()
		_, from, release, err := d.TreeFrom(t.Context(), digest)
		if err != nil || from != want {
			t.Errorf("it was %q, %v; want %q", from, err, want)
		}
		if err == nil {
			release()
		}
	}
	want(d, faas.FromStore)
	want(d, faas.FromNode)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDepot(t, dir, objects, 0)
	want(d, faas.FromDisk)
	want(d, faas.FromNode)
	if err := d.evict(digest); err != nil {
		t.Fatal(err)
	}
	want(d, faas.FromStore)
}
