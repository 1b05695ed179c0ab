package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/brasa-dev/brasa/internal/faas"
)

// openFiles finds out what kind of image files are. Newer versions of docker save write both; then
// the layout counts, since it has the image's own manifest.
func openFiles(f files, opt Options) (source, error) {
	index, err := readFile(f, "index.json")
	if err == nil {
		return &layout{files: f, index: index}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b, err := readFile(f, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("there is neither an index.json nor a manifest.json in it, so it holds no image").
			WithFix("save one with: docker save IMAGE; a directory must be an OCI layout")
	}
	if err != nil {
		return nil, err
	}
	return newSaved(f, b, opt)
}

func readFile(f files, name string) ([]byte, error) {
	r, _, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	b, err := readDocument(r)
	return b, damaged("the archive", err)
}

// layout is an OCI layout directory: an index, and blobs by digest.
type layout struct {
	files files
	index []byte
}

func (l *layout) manifest(context.Context) (document, error) {
	sum := sha256.New()
	_, _ = sum.Write(l.index) // never fails
	return document{digest: digestOf(sum), kind: layoutIndex, bytes: l.index}, nil
}

func (l *layout) open(d v1.Descriptor) (io.ReadCloser, error) {
	// The digest has been checked to be one; its letters make a file's name.
	r, _, err := l.files.open("blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("the layout lacks the blob %s", short(faas.Digest(d.Digest.String()))).
			WithFix("save the image whole, for this machine: docker save --platform %s IMAGE", machine())
	}
	return r, err
}

func (l *layout) document(_ context.Context, d v1.Descriptor) ([]byte, error) {
	r, err := l.open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	b, err := readDocument(r)
	return b, damaged("the layout", err)
}

func (l *layout) layer(_ context.Context, _ int, d v1.Descriptor) (io.ReadCloser, error) {
	return l.open(d)
}

func (l *layout) traits() traits { return traits{brought: true} }

// saved is what docker save writes: a list of images, each a configuration and layers by the names
// of files. It has no manifest, so one is made: of the configuration's digest, which covers what the
// layers hold.
type saved struct {
	files  files
	config []byte
	layers []string
	doc    document
}

// saves is the form of manifest.json.
type saves []struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func newSaved(f files, b []byte, opt Options) (*saved, error) {
	var all saves
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, bad("the archive's manifest.json cannot be read: %w", err)
	}
	var names []string
	pick := all[:0:0]
	for _, one := range all {
		names = append(names, one.RepoTags...)
		if opt.Name == "" || slices.ContainsFunc(one.RepoTags, func(n string) bool { return named(n, opt.Name) }) {
			pick = append(pick, one)
		}
	}
	switch {
	case len(pick) == 0 && len(all) > 0:
		return nil, faas.Errorf(faas.NotFound, op, "the archive has no image %.100q, but %s", opt.Name, list(names))
	case len(pick) == 0:
		return nil, bad("there is no image in it")
	case len(pick) > 1:
		return nil, bad("the archive holds %d images: %s", len(pick), list(names)).WithFix("name one of them, or save one image at a time")
	}
	config, err := readFile(f, pick[0].Config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("the archive lacks the image's configuration %.100q", pick[0].Config)
	}
	if err != nil {
		return nil, err
	}
	s := &saved{files: f, config: config, layers: pick[0].Layers}
	return s, s.describe()
}

// describe makes the manifest.
func (s *saved) describe() error {
	var config v1.ConfigFile
	if err := json.Unmarshal(s.config, &config); err != nil {
		return bad("the image's configuration cannot be read: %w", err)
	}
	if n, m := len(s.layers), len(config.RootFS.DiffIDs); n != m {
		return bad("the image has %d layers, and its configuration says %d", n, m)
	}
	sum := sha256.New()
	_, _ = sum.Write(s.config) // never fails
	hash, err := v1.NewHash(string(digestOf(sum)))
	if err != nil {
		return err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2, Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(s.config)), Digest: hash}}
	for _, id := range config.RootFS.DiffIDs {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.DockerUncompressedLayer, Digest: id})
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sum.Reset()
	_, _ = sum.Write(b) // never fails
	s.doc = document{digest: digestOf(sum), kind: types.DockerManifestSchema2, bytes: b}
	return nil
}

func (s *saved) manifest(context.Context) (document, error)              { return s.doc, nil }
func (s *saved) document(context.Context, v1.Descriptor) ([]byte, error) { return s.config, nil }
func (s *saved) traits() traits                                          { return traits{brought: true, unnamed: true} }

func (s *saved) layer(_ context.Context, i int, _ v1.Descriptor) (io.ReadCloser, error) {
	r, _, err := s.files.open(s.layers[i])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("the archive lacks the layer %.100q", s.layers[i]).WithFix("save the image whole with: docker save IMAGE")
	}
	return r, err
}
