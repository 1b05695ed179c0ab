package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	fetchAtOnce = 3 // layers; the connection is shared by them, the waiting for each answer is not
	fetchTries  = 4 // of one layer
	fetchPause  = time.Second
)

// fetch opens the layers one after the other. Those of a distant source are brought to the disk
// first, a few at once, while the first of them are applied.
func (s *Store) fetch(ctx context.Context, src source, m *found, work string, opt Options) (*layers, error) {
	if !src.traits().distant {
		next := func(ctx context.Context, i int) (io.ReadCloser, error) { return src.layer(ctx, i, m.image.Layers[i]) }
		return &layers{next: next, stop: func() {}}, nil
	}
	total := int64(0)
	for _, l := range m.image.Layers {
		if l.Size < 0 {
			return nil, bad("the image has a layer of %d bytes", l.Size)
		}
		if total += l.Size; l.Size > int64(s.config.Limits.Packed) || total > int64(s.config.Limits.Packed) {
			return nil, tooMuch("image_packed_bytes", "the layers of the image are larger than %s together", s.config.Limits.Packed)
		}
	}
	d := &download{ctx: ctx, src: src, work: work, opt: opt, total: faas.Bytes(total), layers: m.image.Layers}
	return d.begin(), nil
}

// download brings layers to the disk.
type download struct {
	ctx    context.Context // of the taking-in that this is part of
	src    source
	work   string
	opt    Options
	total  faas.Bytes
	layers []v1.Descriptor
	said   progressSum
}

// fetched is one layer on the disk, or why it is not.
type fetched struct {
	path string
	err  error
}

func (d *download) begin() *layers {
	ctx, cancel := context.WithCancel(d.ctx)
	results := make([]chan fetched, len(d.layers))
	turns := make(chan struct{}, fetchAtOnce)
	ended := make(chan struct{}, len(d.layers))
	for i := range d.layers {
		results[i] = make(chan fetched, 1)
	}
	go func() {
		for i := range d.layers {
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				results[i] <- fetched{err: ctx.Err()}
				ended <- struct{}{}
				continue
			}
			go func() {
				path := filepath.Join(d.work, fmt.Sprint("layer-", i))
				err := d.one(ctx, i, path)
				<-turns
				results[i] <- fetched{path, err}
				ended <- struct{}{}
			}()
		}
	}()
	return &layers{
		next: func(ctx context.Context, i int) (io.ReadCloser, error) {
			select {
			case f := <-results[i]:
				if f.err != nil {
					return nil, f.err
				}
				file, err := os.Open(f.path)
				if err != nil {
					return nil, err
				}
				return file, os.Remove(f.path) // its room comes back when it is closed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		stop: func() {
			cancel()
			for range d.layers {
				<-ended
			}
		},
	}
}

// one fetches a layer, again if the connection breaks.
func (d *download) one(ctx context.Context, i int, path string) error {
	for try := 1; ; try++ {
		err := d.try(ctx, i, path)
		if err == nil || ctx.Err() != nil || try == fetchTries || faas.CodeOf(err) != faas.Unavailable && faas.CodeOf(err) != faas.Internal {
			return err
		}
		select {
		case <-time.After(fetchPause * time.Duration(try)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *download) try(ctx context.Context, i int, path string) (err error) {
	l := d.layers[i]
	r, err := d.src.layer(ctx, i, l)
	if err != nil {
		return err
	}
	defer r.Close() // only read
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	counted := &progressReader{r: r, d: d}
	n, err := io.Copy(f, io.LimitReader(counted, l.Size+1))
	if err != nil {
		d.said.add(-n)
		return unreachable("fetch a layer of the image", err)
	}
	if n != l.Size {
		d.said.add(-n)
		return faas.Errorf(faas.Unavailable, op, "the layer %s came with %d bytes instead of %d", short(faas.Digest(l.Digest.String())), n, l.Size).
			WithFix("try again; the registry or the way to it is at fault")
	}
	return nil
}
