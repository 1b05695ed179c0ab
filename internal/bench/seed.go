package bench

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// perNamespace is how many functions go into one namespace: the default limit of one.
const perNamespace = 1000

// batch is a number of functions like one that was deployed.
type batch struct {
	template string // a function of the default namespace
	prefix   string // of the names
	of       string // the measurement that calls them
	n        int
	same     bool // all have the template's code, else each has a file more that is its own
	laid     bool // the code is laid out on the disk, as the proof of a deploy leaves it
}

func (b *batch) name(i int) faas.Name {
	return faas.Name{Namespace: fmt.Sprintf("%s-%d", b.prefix, i/perNamespace), Function: fmt.Sprintf("%s-%d", b.prefix, i)}
}

// names returns the functions from first on, as they are called.
func (b *batch) names(first, n int) []string {
	out := make([]string, 0, n)
	for i := first; i < min(first+n, b.n); i++ {
		out = append(out, b.name(i).String())
	}
	return out
}

// seed writes functions into the data folder of a server that is stopped, with that server's own
// packages: what a deploy leaves there, without the proof, which would start a process for each.
func seed(ctx context.Context, dir string, batches ...*batch) (err error) {
	engine, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	documents, err := engine.Bucket(ctx, "catalog", 10)
	if err != nil {
		return err
	}
	secrets, err := engine.Bucket(ctx, "secrets", 1)
	if err != nil {
		return err
	}
	key, err := catalog.LoadKey(filepath.Join(dir, "secret.key"))
	if err != nil {
		return err
	}
	c, err := catalog.Open(ctx, catalog.Config{Store: documents, Secrets: secrets, Key: key})
	if err != nil {
		return err
	}
	objects, err := engine.Objects(ctx, "blobs")
	if err != nil {
		return err
	}
	depot, err := artifact.Open(artifact.Config{Objects: objects, Dir: filepath.Join(dir, "code")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, depot.Close()) }()
	for _, b := range batches {
		if err := b.seed(ctx, c, depot); err != nil {
			return fmt.Errorf("seed %s: %w", b.prefix, err)
		}
	}
	return nil
}

func (b *batch) seed(ctx context.Context, c *catalog.Catalog, depot *artifact.Depot) error {
	_, like, err := c.Resolve(faas.Ref{Name: faas.Name{Namespace: catalog.DefaultNamespace, Function: b.template}})
	if err != nil {
		return err
	}
	var code fstest.MapFS
	if !b.same {
		if code, err = readTree(ctx, depot, like.Code); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := 0; i < b.n; i += perNamespace {
		if _, err := c.CreateNamespace(ctx, b.name(i).Namespace); err != nil && faas.CodeOf(err) != faas.Conflict {
			return err
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 * runtime.NumCPU() {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := b.one(ctx, c, depot, like, code, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// one writes the ith function.
func (b *batch) one(ctx context.Context, c *catalog.Catalog, depot *artifact.Depot, like *faas.Revision, code fstest.MapFS, i int) error {
	rev := *like
	rev.ID, rev.Name = "", b.name(i)
	if !b.same {
		own := fstest.MapFS{"number.txt": {Data: fmt.Appendf(nil, "%s %d\n", b.prefix, i), Mode: 0o644}}
		for name, file := range code {
			own[name] = file
		}
		var err error
		if rev.Code, rev.CodeBytes, err = depot.PutTree(ctx, own, artifact.Limits{}); err != nil {
			return err
		}
	}
	if b.laid {
		_, release, err := depot.Tree(ctx, rev.Code)
		if err != nil {
			return err
		}
		release()
	}
	public := true
	_, err := c.Publish(ctx, &rev, catalog.PublishOptions{Public: &public})
	return err
}

// readTree reads stored code into memory.
func readTree(ctx context.Context, depot *artifact.Depot, digest faas.Digest) (fstest.MapFS, error) {
	r, err := depot.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	tree := fstest.MapFS{}
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err == io.EOF {
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
		name, f := filepath.Clean(h.Name), &fstest.MapFile{Mode: h.FileInfo().Mode()}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.Data, err = io.ReadAll(files); err != nil {
				return nil, err
			}
		case tar.TypeDir:
			f.Mode = fs.ModeDir | 0o755
		case tar.TypeSymlink:
			f.Data, f.Mode = []byte(h.Linkname), fs.ModeSymlink|0o777
		}
		tree[name] = f
	}
}
