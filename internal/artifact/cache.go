package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// tree is one directory below Dir/trees, or one that is on its way there.
//
// A tree comes into being in Dir/tmp and is renamed when its digest has been compared, so a
// process that dies leaves no half of one under its name. A power cut may, since nothing here is
// synced: that would put a flush of the disk on the way of a cold start. Instead a tree that was
// found on the disk is compared with its digest once more before its first use after a start,
// which also finds what was damaged or changed meanwhile; unless it can be seen that it was
// compared since the machine was started and is as it was then (compared.go).
type tree struct {
	digest faas.Digest
	kind   kind
	size   int64         // on the disk; guarded by Depot.mu
	refs   int           // callers that use it or wait for it; guarded by Depot.mu
	used   time.Time     // guarded by Depot.mu
	ready  chan struct{} // nil: found on the disk and not compared yet; guarded by Depot.mu. Closed: err is set
	from   faas.From     // good after ready, as is err
	err    error
}

func (d *Depot) path(k kind, digest faas.Digest) string {
	return filepath.Join(d.config.Dir, string(k), digest.Hex())
}

func (d *Depot) openCache() error {
	if err := RemoveTree(d.tmp()); err != nil {
		return err
	}
	kinds := []kind{code, roots}
	for _, dir := range []string{d.tmp(), filepath.Join(d.config.Dir, string(code)), filepath.Join(d.config.Dir, string(roots))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	d.work.Go(func() {
		for _, k := range kinds {
			if err := d.count(k); err != nil && d.ctx.Err() == nil {
				d.config.Logger.Warn("laid-out code not counted", "cause", err)
			}
		}
		d.shrink()
	})
	return nil
}

// count learns of the trees that are laid out already. There may be a hundred thousand, which
// nobody shall wait for: Tree finds those that are there whether or not they have been counted.
func (d *Depot) count(k kind) error {
	const some = 1000
	dir, err := os.Open(filepath.Join(d.config.Dir, string(k)))
	if err != nil {
		return err
	}
	defer dir.Close() // only read
	for d.ctx.Err() == nil {
		found, err := dir.ReadDir(some)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range found {
			digest, err := faas.ParseDigest("sha256:" + e.Name())
			if err != nil {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			size, err := diskUsage(d.path(k, digest))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			d.mu.Lock()
			_, gone := os.Lstat(d.path(k, digest))     // removed in the moment before the lock
			if d.trees[digest] == nil && gone == nil { // else it has been used, and counted, meanwhile
				d.trees[digest] = &tree{digest: digest, kind: k, size: size, used: info.ModTime()}
				d.bytes += size
			}
			d.mu.Unlock()
		}
	}
	return d.ctx.Err()
}

// Tree lays a tree out on this machine, unless it is, and returns its path. The directory and all
// below it is read-only, readable by everyone, and stays until release has been called as often
// as Tree; release may be called more than once. Callers that want the same tree at the same time
// wait for one laying-out.
func (d *Depot) Tree(ctx context.Context, digest faas.Digest) (path string, release func(), err error) {
	path, _, release, err = d.lend(ctx, digest, code)
	return path, release, err
}

// TreeFrom is Tree that says besides where the tree was.
func (d *Depot) TreeFrom(ctx context.Context, digest faas.Digest) (path string, from faas.From, release func(), err error) {
	return d.lend(ctx, digest, code)
}

func (d *Depot) lend(ctx context.Context, digest faas.Digest, k kind) (path string, from faas.From, release func(), err error) {
	if _, err := faas.ParseDigest(string(digest)); err != nil {
		return "", "", nil, err
	}
	d.mu.Lock()
	t := d.trees[digest]
	if t == nil {
		t = &tree{digest: digest, kind: k}
		d.trees[digest] = t
	}
	if t.kind != k {
		d.mu.Unlock()
		return "", "", nil, faas.Errorf(faas.Internal, "lay out code", "%s is laid out as one of %s and asked for as one of %s", digest, t.kind, k)
	}
	t.refs++
	first := t.ready == nil
	if first {
		t.ready = make(chan struct{})
	}
	ready := t.ready
	d.mu.Unlock()
	if first {
		if size, ok := wasCompared(d.path(k, digest)); ok {
			d.laid(t, size, faas.FromDisk, nil) // on the way of a call, which another goroutine would hold up
		} else {
			d.work.Go(func() { d.lay(t) })
		}
	}
	release = sync.OnceFunc(func() { d.release(t) })
	there := false
	if !first {
		select {
		case <-ready:
			there = true
		default:
		}
	}
	select {
	case <-ready:
	case <-ctx.Done():
		release()
		return "", "", nil, storeError("lay out code", ctx.Err())
	}
	if t.err != nil {
		release()
		return "", "", nil, t.err
	}
	if from = t.from; there {
		from = faas.FromNode
	}
	return d.path(k, digest), from, release, nil
}

func (d *Depot) release(t *tree) {
	d.mu.Lock()
	t.refs--
	t.used = time.Now()
	d.mu.Unlock()
	d.shrink()
}

// lay makes t ready, or fails it; then the next caller tries anew.
func (d *Depot) lay(t *tree) {
	size, from, err := d.layOut(t.digest, t.kind)
	d.laid(t, size, from, err)
}

// laid says to whoever waits for a tree that it is there, or why not.
func (d *Depot) laid(t *tree, size int64, from faas.From, err error) {
	d.mu.Lock()
	d.bytes += size - t.size
	t.size, t.from = size, from
	if err != nil {
		t.err = storeError("lay out code", err)
		delete(d.trees, t.digest)
	}
	d.mu.Unlock()
	close(t.ready)
	d.shrink()
}

func (d *Depot) layOut(digest faas.Digest, k kind) (int64, faas.From, error) {
	path := d.path(k, digest)
	switch got, err := digestOfDir(d.ctx, path, k); {
	case err == nil && got == digest:
		noteCompared(path)
		size, err := diskUsage(path)
		return size, faas.FromDisk, err
	case errors.Is(err, fs.ErrNotExist):
	case d.ctx.Err() != nil:
		return 0, "", d.ctx.Err()
	default:
		d.config.Logger.Warn("laid-out code replaced", "digest", digest, "found", got, "cause", err)
		if err := RemoveTree(path); err != nil {
			return 0, "", err
		}
	}
	r, err := d.Get(d.ctx, digest)
	if err != nil {
		return 0, "", err
	}
	defer r.Close() // only read
	work, err := os.MkdirTemp(d.tmp(), "tree-*")
	if err != nil {
		return 0, "", err
	}
	size, err := layUnder(d.ctx, work, r, k)
	if err == nil {
		err = os.Rename(work, path)
	}
	if err != nil {
		return 0, "", errors.Join(err, RemoveTree(work))
	}
	noteCompared(path)
	return size, faas.FromStore, nil
}

func layUnder(ctx context.Context, dir string, r io.Reader, k kind) (_ int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return layTree(ctx, r, root, k)
}

func digestOfDir(ctx context.Context, path string, k kind) (_ faas.Digest, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	sum := sha256.New()
	tree := root.FS()
	if k == roots {
		tree = rawFS{root}
	}
	if _, err := writeTree(ctx, sum, tree, Limits{Bytes: 1 << 62, Entries: 1 << 30}, k); err != nil {
		return "", err
	}
	return digestOf(sum), nil
}

// shrink removes the least recently used trees that nobody uses until the rest fits.
func (d *Depot) shrink() {
	for {
		d.mu.Lock()
		var oldest *tree
		if d.bytes > int64(d.config.MaxCache) {
			for _, t := range d.trees {
				if t.refs == 0 && (oldest == nil || t.used.Before(oldest.used)) {
					oldest = t
				}
			}
		}
		d.mu.Unlock()
		if oldest == nil {
			return
		}
		if err := d.evict(oldest.digest); err != nil {
			d.config.Logger.Warn("laid-out code not removed", "digest", oldest.digest, "cause", err)
			return
		}
	}
}

// evict removes a tree from this machine unless it is in use.
func (d *Depot) evict(digest faas.Digest) error {
	d.mu.Lock()
	t := d.trees[digest]
	if t != nil && t.refs > 0 {
		d.mu.Unlock()
		return nil
	}
	trash := filepath.Join(d.tmp(), fmt.Sprintf("evict-%s-%d", digest.Hex(), time.Now().UnixNano()))
	// Under the lock, so that nobody lays the same tree out in between.
	for i, k := range []kind{code, roots} { // one that has not been counted yet may be either
		if err := os.Rename(d.path(k, digest), fmt.Sprint(trash, "-", i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.mu.Unlock()
			return err
		}
	}
	if t != nil { // else it has not been counted yet
		delete(d.trees, digest)
		d.bytes -= t.size
	}
	d.mu.Unlock()
	return errors.Join(RemoveTree(trash+"-0"), RemoveTree(trash+"-1"))
}

func diskUsage(path string) (int64, error) {
	const block = 4096
	total := int64(0)
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		total += (info.Size() + block - 1) / block * block
		return nil
	})
	return total, err
}
