// Package artifact keeps code by its content.
//
// A blob is bytes, a tree is a directory; each is named by the SHA-256 of its bytes, for a tree
// those of its canonical tar (sorted names, no times, no owners, modes 0644 and 0755). So the
// same code is stored once, a stored thing never changes, and whoever reads it knows that it is
// what was asked for. A Depot keeps them in the store's objects, and lays trees out on this
// machine's disk where a sandbox can mount them: read-only, checked, the least used removed first.
//
// Unpack opens what strangers send: it writes nowhere but below the directory it was given and
// stops at its limits.
//
// What the code means is decided by packages runtimes and deploy, what is still needed by catalog.
package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Depot is made of.
type Config struct {
	Objects  store.Objects // where everything is kept
	Dir      string        // where trees are laid out on this machine; made if absent
	MaxCache faas.Bytes    // of laid-out trees; those in use may exceed it. Default 4 GiB
	Logger   *slog.Logger
}

// Depot is safe for concurrent use.
type Depot struct {
	config Config
	work   sync.WaitGroup // layings-out that go on though their caller has left
	stop   context.CancelFunc
	ctx    context.Context // of the layings-out; ends at Close

	// gc lets many put and one collect: a blob that a put found to be there already must not be
	// collected before its revision is known.
	gc     sync.RWMutex
	recent map[faas.Digest]time.Time // guarded by mu; when it was last put

	mu      sync.Mutex
	trees   map[faas.Digest]*tree         // guarded by mu
	bytes   int64                         // guarded by mu; of trees
	putting map[faas.Digest]chan struct{} // guarded by mu; closed when the object is there, or is not
}

// fresh is how long a blob is safe from being collected after it was put: longer than any deploy.
const fresh = time.Hour

// Open makes the directory if need be and removes what a crash left there. It does not yet read
// the trees it finds; each is checked at its first use.
func Open(config Config) (*Depot, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.MaxCache = cmp.Or(config.MaxCache, 4*faas.GiB)
	d := &Depot{config: config, trees: map[faas.Digest]*tree{}, recent: map[faas.Digest]time.Time{}, putting: map[faas.Digest]chan struct{}{}}
	// The layings-out are shared by callers, so they outlive any one caller's context.
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := d.openCache(); err != nil {
		return nil, fmt.Errorf("open artifact cache: %w", err)
	}
	return d, nil
}

// Close waits for what is being laid out. Trees stay for the next start.
func (d *Depot) Close() error {
	d.stop()
	d.work.Wait()
	return nil
}

// Put stores a blob of at most most bytes and returns its digest and size.
func (d *Depot) Put(ctx context.Context, r io.Reader, most faas.Bytes) (faas.Digest, faas.Bytes, error) {
	const op = "store code"
	var size int64
	digest, err := d.put(ctx, func(w io.Writer) error {
		var err error
		size, err = io.Copy(w, io.LimitReader(contextReader{ctx, r}, int64(most)+1))
		if err == nil && size > int64(most) {
			return tooManyBytes(op, most)
		}
		return err
	})
	return digest, faas.Bytes(size), storeError(op, err)
}

// PutAs stores a blob if its digest is the one that is wanted, and returns the digest that it has.
func (d *Depot) PutAs(ctx context.Context, r io.Reader, want faas.Digest) (faas.Digest, error) {
	got, err := d.putIf(ctx, want, func(w io.Writer) error {
		_, err := io.Copy(w, contextReader{ctx, r})
		return err
	})
	return got, storeError("store blob", err)
}

// PutTree stores a directory and returns its digest and the sum of its files' sizes. Files,
// directories and symbolic links that stay inside are allowed; anything else is Invalid. A tree
// that others may be changing is to be given as the FS of an os.Root.
func (d *Depot) PutTree(ctx context.Context, tree fs.FS, limits Limits) (faas.Digest, faas.Bytes, error) {
	limits.applyDefaults()
	var size int64
	digest, err := d.put(ctx, func(w io.Writer) error {
		var err error
		size, err = writeTree(ctx, w, tree, limits, code)
		return err
	})
	return digest, faas.Bytes(size), storeError("store code", err)
}

// put spools what write gives, since its digest is its name, and stores it unless it is there.
// What is stored is compressed; the digest is of the bytes before that.
func (d *Depot) put(ctx context.Context, write func(io.Writer) error) (faas.Digest, error) {
	return d.putIf(ctx, "", write)
}

// putIf does not store what has another digest than the one that is wanted, if one is.
func (d *Depot) putIf(ctx context.Context, want faas.Digest, write func(io.Writer) error) (_ faas.Digest, err error) {
	spool, err := os.CreateTemp(d.tmp(), "put-*")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, spool.Close(), os.Remove(spool.Name())) }()
	packed := encoders.Get().(*zstd.Encoder)
	defer func() {
		packed.Reset(nil) // or it keeps the spool
		encoders.Put(packed)
	}()
	packed.Reset(spool)
	sum := sha256.New()
	if err := errors.Join(write(io.MultiWriter(packed, sum)), packed.Close()); err != nil {
		return "", err
	}
	digest := digestOf(sum)
	if want != "" && digest != want {
		return digest, nil
	}
	// One at a time: a second object of the same name would take the first away from whoever reads it.
	defer d.alone(digest)()
	d.gc.RLock()
	defer d.gc.RUnlock()
	d.mu.Lock()
	d.recent[digest] = time.Now()
	d.mu.Unlock()
	_, err = d.config.Objects.Stat(ctx, digest.Hex())
	if err == nil {
		return digest, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	_, err = d.config.Objects.Put(ctx, digest.Hex(), spool)
	return digest, err
}

// alone lets one caller at a time go on with a digest, until it calls what is returned.
func (d *Depot) alone(digest faas.Digest) (done func()) {
	d.mu.Lock()
	for d.putting[digest] != nil {
		wait := d.putting[digest]
		d.mu.Unlock()
		<-wait
		d.mu.Lock()
	}
	mine := make(chan struct{})
	d.putting[digest] = mine
	d.mu.Unlock()
	return func() {
		d.mu.Lock()
		delete(d.putting, digest)
		d.mu.Unlock()
		close(mine)
	}
}

func digestOf(sum hash.Hash) faas.Digest {
	return faas.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil)))
}

// Get opens a blob, or the canonical tar of a tree. Its last Read fails if the bytes are not
// those of the digest. The caller closes it.
func (d *Depot) Get(ctx context.Context, digest faas.Digest) (io.ReadCloser, error) {
	const op = "read code"
	if _, err := faas.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	packed, err := d.config.Objects.Get(ctx, digest.Hex())
	if errors.Is(err, store.ErrNotFound) {
		return nil, faas.Errorf(faas.NotFound, op, "there is no code with digest %s", digest).WithFix("deploy it again")
	}
	if err != nil {
		return nil, storeError(op, err)
	}
	plain := decoders.Get().(*zstd.Decoder)
	if err := plain.Reset(packed); err != nil {
		return nil, errors.Join(storeError(op, err), packed.Close())
	}
	return &checkedReader{packed: packed, plain: plain, sum: sha256.New(), want: digest}, nil
}

// Making one costs more than packing a small function does. Neither New nor Reset can fail with
// these options; with a concurrency of one they run on the caller's goroutine and own nothing
// that would have to be closed.
var (
	encoders = sync.Pool{New: func() any {
		e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		return e
	}}
	decoders = sync.Pool{New: func() any {
		d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		return d
	}}
)

// checkedReader compares the digest at the end.
type checkedReader struct {
	packed io.Closer
	plain  *zstd.Decoder
	sum    hash.Hash
	want   faas.Digest
}

func (r *checkedReader) Read(p []byte) (int, error) {
	if r.plain == nil {
		return 0, fs.ErrClosed
	}
	n, err := r.plain.Read(p)
	_, _ = r.sum.Write(p[:n]) // never fails
	if errors.Is(err, io.EOF) {
		if got := digestOf(r.sum); got != r.want {
			return n, damaged(r.want, "its digest is "+string(got))
		}
		return n, io.EOF
	}
	if err = storeError("read code", err); faas.CodeOf(err) == faas.Internal {
		return n, damaged(r.want, err.Error()) // what does not even decompress
	}
	return n, err
}

func (r *checkedReader) Close() error {
	if r.plain == nil {
		return nil
	}
	_ = r.plain.Reset(nil) // or it keeps what it read; it fails for want of a source, as is meant
	decoders.Put(r.plain)
	r.plain = nil
	return r.packed.Close()
}

func damaged(digest faas.Digest, how string) error {
	return faas.Errorf(faas.Unavailable, "read code", "the stored code %s is damaged: %s", digest, how).WithFix("deploy it again")
}

// Collect removes the blobs and trees of which live is false, except those put within the last
// hour, whose revision may be on its way, and trees in use.
func (d *Depot) Collect(ctx context.Context, live func(faas.Digest) bool) error {
	return d.collect(ctx, live, time.Now())
}

func (d *Depot) collect(ctx context.Context, live func(faas.Digest) bool, now time.Time) error {
	objects, err := d.config.Objects.List(ctx)
	if err != nil {
		return storeError("collect code", err)
	}
	d.mu.Lock()
	for digest, at := range d.recent {
		if now.Sub(at) > fresh {
			delete(d.recent, digest)
		}
	}
	d.mu.Unlock()
	var errs []error
	for _, o := range objects {
		digest, err := faas.ParseDigest("sha256:" + o.Name)
		if err != nil || live(digest) || now.Sub(o.Modified) <= fresh {
			continue
		}
		if err := d.collectOne(ctx, digest); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d *Depot) collectOne(ctx context.Context, digest faas.Digest) error {
	d.gc.Lock()
	defer d.gc.Unlock()
	d.mu.Lock()
	_, recent := d.recent[digest]
	t := d.trees[digest]
	used := t != nil && t.refs > 0
	d.mu.Unlock()
	if recent || used {
		return nil
	}
	if err := d.config.Objects.Delete(ctx, digest.Hex()); err != nil {
		return storeError("collect code", err)
	}
	return d.evict(digest)
}

// storeError makes of what the store or the disk answered the error that the caller may act upon.
func storeError(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	e := &faas.Error{Code: faas.CodeOf(err), Op: op, Err: err}
	switch {
	case errors.Is(err, store.ErrFull), isNoSpace(err):
		e.Code, e.Limit = faas.Unavailable, "store_bytes"
		e.Fix = "nothing was kept; the operator has to make room on the server's disk"
	case errors.Is(err, store.ErrCorrupt):
		e.Code, e.Fix = faas.Unavailable, "deploy it again"
	case errors.Is(err, store.ErrClosed):
		e.Code = faas.Unavailable
	}
	return e
}

// contextReader lets a long copy end with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (d *Depot) tmp() string { return filepath.Join(d.config.Dir, "tmp") }

// Has says whether a blob, tree or root is stored. One that is stays for an hour, whether or not
// anything names it.
func (d *Depot) Has(ctx context.Context, digest faas.Digest) (bool, error) {
	d.gc.RLock()
	defer d.gc.RUnlock()
	_, err := d.config.Objects.Stat(ctx, digest.Hex())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, storeError("look for code", err)
	}
	d.mu.Lock()
	d.recent[digest] = time.Now()
	d.mu.Unlock()
	return true, nil
}
