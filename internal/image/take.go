package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// take makes sure that the root of a source's image is in the depot, and describes the image.
func (s *Store) take(ctx context.Context, src source, opt Options) (*Image, error) {
	m, err := find(ctx, src, opt)
	if err != nil {
		return nil, asError(err)
	}
	if n := len(m.image.Layers); n > s.config.Limits.Layers {
		return nil, tooMuch("image_layers", "the image has %d layers, more than %d", n, s.config.Limits.Layers)
	}
	image, own, err := s.once(ctx, m, func(ctx context.Context) (*Image, error) { return s.make(ctx, src, m, opt) })
	if err != nil {
		return nil, asError(err)
	}
	if !own && src.traits().brought {
		// The root is there, and whoever knows the manifest of somebody else's image could name it.
		if err := s.prove(ctx, src, m); err != nil {
			return nil, asError(err)
		}
	}
	out := *image
	out.Cached = !own
	return &out, nil
}

// flight is one image that is being unpacked, which others wait for that want the same.
type flight struct {
	done  chan struct{} // closed: image and err are set
	image *Image
	err   error
}

// once returns the image of a manifest that is there, waits for one that is on its way, or makes it.
// own says that this call made it.
func (s *Store) once(ctx context.Context, m *found, make func(context.Context) (*Image, error)) (_ *Image, own bool, err error) {
	for {
		image, err := s.known(ctx, m.digest)
		if image != nil || err != nil {
			return image, false, err
		}
		f, first := s.join(m.digest)
		if first {
			f.image, f.err = make(ctx)
			s.mu.Lock()
			delete(s.flights, m.digest)
			s.mu.Unlock()
			close(f.done)
			return f.image, true, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		if f.err == nil {
			return f.image, false, nil
		}
		// What failed for another may work with this source: that one may have been damaged, or its
		// caller has left.
	}
}

func (s *Store) join(manifest faas.Digest) (f *flight, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[manifest]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	s.flights[manifest] = f
	return f, true
}

// prove compares all layers with their digests, as unpacking them would.
func (s *Store) prove(ctx context.Context, src source, m *found) error {
	for i, d := range m.image.Layers {
		r, err := src.layer(ctx, i, d)
		if err != nil {
			return err
		}
		digest := faas.Digest(d.Digest.String())
		if src.traits().unnamed {
			digest = ""
		}
		err = checkLayer(ctx, r, s.config.Limits, digest, faas.Digest(m.config.RootFS.DiffIDs[i].String()))
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// make unpacks an image and stores its root.
func (s *Store) make(ctx context.Context, src source, m *found, opt Options) (_ *Image, err error) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	work, err := s.config.Depot.WorkDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	image := m.describe()
	if err := s.unpack(ctx, src, m, image, work, opt); err != nil {
		return nil, err
	}
	opt.progress(Progress{Step: "store", Layers: len(image.Layers), Total: image.Bytes})
	if image.Root, image.Bytes, err = s.config.Depot.PutRoot(ctx, root); err != nil {
		return nil, err
	}
	return image, s.remember(image)
}

// unpack applies the layers, the lowest first, while those above it are fetched.
func (s *Store) unpack(ctx context.Context, src source, m *found, image *Image, work string, opt Options) (err error) {
	layers, err := s.fetch(ctx, src, m, work, opt)
	if err != nil {
		return err
	}
	defer layers.stop()
	a, err := newApplier(ctx, filepath.Join(work, "root"), s.config.Limits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	created := m.created()
	for i, l := range m.image.Layers {
		r, err := layers.next(ctx, i)
		if err != nil {
			return err
		}
		digest := faas.Digest(l.Digest.String())
		if src.traits().unnamed {
			digest = ""
		}
		layer, err := a.applyLayer(r, digest, faas.Digest(m.config.RootFS.DiffIDs[i].String()))
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		layer.Created = created[i]
		image.Layers = append(image.Layers, layer)
		if image.Packed += layer.Packed; image.Packed > s.config.Limits.Packed {
			return tooMuch("image_packed_bytes", "the layers of the image are larger than %s together", s.config.Limits.Packed)
		}
		opt.progress(Progress{Step: "unpack", Layer: i + 1, Layers: len(m.image.Layers), Bytes: faas.Bytes(a.bytes)})
	}
	image.Notes = a.notes()
	return nil
}

// recordPath is where it is kept what became of a manifest.
func (s *Store) recordPath(manifest faas.Digest) string {
	return filepath.Join(s.config.Dir, "roots", manifest.Hex()+".json")
}

// remember keeps what became of an image. The file's time is when it was last used.
func (s *Store) remember(image *Image) error {
	b, err := json.Marshal(image)
	if err != nil {
		return err
	}
	return store.WriteFile(s.recordPath(image.Manifest), b, 0o600)
}

// known returns what became of an image before, or nil if it is to be made.
func (s *Store) known(ctx context.Context, manifest faas.Digest) (*Image, error) {
	path := s.recordPath(manifest)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	image := new(Image)
	if err := json.Unmarshal(b, image); err != nil || image.Manifest != manifest {
		s.config.Logger.Warn("record of an image not readable; it is made again", "manifest", manifest, "cause", err)
		return nil, os.Remove(path)
	}
	have, err := s.config.Depot.Has(ctx, image.Root)
	if err != nil || !have {
		return nil, err
	}
	now := time.Now()
	return image, os.Chtimes(path, now, now)
}

// recent is how long the root of an image is kept that nobody runs: the next deploy of it is quick.
const recent = 24 * time.Hour

// Live adds to the digests that revisions name the roots that are kept for a next use, and forgets
// the images of which neither is true any more.
func (s *Store) Live(live map[faas.Digest]bool) error { return s.live(live, time.Now()) }

func (s *Store) live(live map[faas.Digest]bool, now time.Time) error {
	dir := filepath.Join(s.config.Dir, "roots")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if err := keep(filepath.Join(dir, e.Name()), live, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keep looks at one record.
func keep(path string, live map[faas.Digest]bool, now time.Time) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var image Image
	if err := json.Unmarshal(b, &image); err != nil {
		return os.Remove(path) // known would do the same
	}
	switch {
	case now.Sub(info.ModTime()) <= recent:
		live[image.Root] = true
	case !live[image.Root]:
		return os.Remove(path)
	}
	return nil
}

// layers are those of one image, on their way.
type layers struct {
	next func(ctx context.Context, i int) (io.ReadCloser, error)
	stop func()
}
