package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// entry is one of a layer. Its type is told by what is set; a name that ends with a slash is a
// directory.
type entry struct {
	name, body string
	link, hard string // targets
	mode       int64
	kind       byte
	size       int64 // of zeros, instead of body
	pax        map[string]string
	when       time.Time
}

// layerTar makes the tar of a layer.
func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Typeflag: tar.TypeReg, Size: int64(len(e.body)), PAXRecords: e.pax, ModTime: e.when, Uid: 1234, Gid: 5678, Uname: "someone"}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		switch {
		case e.kind != 0:
			h.Typeflag, h.Devmajor, h.Devminor = e.kind, 1, 3
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, e.hard
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if e.size > 0 {
			h.Size = e.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		src := io.Reader(strings.NewReader(e.body))
		if e.size > 0 {
			src = io.LimitReader(zeros{}, e.size)
		}
		if _, err := io.Copy(w, src); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// rawLayer is a layer of given bytes, whatever they are.
type rawLayer struct {
	packed []byte
	diffID v1.Hash
	kind   types.MediaType
	digest v1.Hash // instead of that of packed
}

func (l *rawLayer) Digest() (v1.Hash, error) {
	if l.digest.Hex != "" {
		return l.digest, nil
	}
	h, _, err := v1.SHA256(bytes.NewReader(l.packed))
	return h, err
}
func (l *rawLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
func (l *rawLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.packed)), nil
}
func (l *rawLayer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.packed)), nil
}
func (l *rawLayer) Size() (int64, error)                { return int64(len(l.packed)), nil }
func (l *rawLayer) MediaType() (types.MediaType, error) { return l.kind, nil }

// pack makes a layer of a tar: how is gzip, zstd or plain.
func pack(t testing.TB, plain []byte, how string) *rawLayer {
	t.Helper()
	diffID, _, err := v1.SHA256(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	l := &rawLayer{diffID: diffID}
	switch how {
	case "zstd":
		l.kind = types.OCILayerZStd
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	case "plain":
		l.kind = types.OCIUncompressedLayer
		b.Write(plain)
	default:
		l.kind = types.OCILayer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l.packed = b.Bytes()
	return l
}

// build makes an image of layers.
func build(t testing.TB, config *v1.ConfigFile, layers ...v1.Layer) v1.Image {
	t.Helper()
	if config == nil {
		config = &v1.ConfigFile{}
	}
	if config.Architecture == "" {
		config.OS, config.Architecture = "linux", runtime.GOARCH
	}
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "RUN step " + string(rune('a'+i))}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// of makes an image of layers of entries.
func of(t testing.TB, layers ...[]entry) v1.Image {
	t.Helper()
	var all []v1.Layer
	for _, l := range layers {
		all = append(all, pack(t, layerTar(t, l...), "gzip"))
	}
	return build(t, nil, all...)
}

// saveTar writes an image as docker save does.
func saveTar(t testing.TB, img v1.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tarball.Write(name.MustParseReference("registry.example/team/app:1"), img, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layoutOf makes an OCI layout directory of images. Names are given in the order of the images.
func layoutOf(t testing.TB, img v1.Image, more ...v1.Image) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{"oci-layout": {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for i, img := range append([]v1.Image{img}, more...) {
		d := addImage(t, out, img)
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": fmt.Sprint("v", i+1)}
		index.Manifests = append(index.Manifests, d)
	}
	out["index.json"] = &fstest.MapFile{Data: asJSON(t, index)}
	return out
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// addImage adds an image's blobs to a layout.
func addImage(t testing.TB, out fstest.MapFS, img v1.Image) v1.Descriptor {
	t.Helper()
	add := func(h v1.Hash, b []byte) { out["blobs/sha256/"+h.Hex] = &fstest.MapFile{Data: b} }
	m, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := v1.SHA256(bytes.NewReader(m))
	if err != nil {
		t.Fatal(err)
	}
	add(digest, m)
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	name, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	add(name, config)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		add(h, b)
	}
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: int64(len(m))}
}

// tarOf makes a tar of files.
func tarOf(t testing.TB, files fstest.MapFS) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(files); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newDepot(t testing.TB) *artifact.Depot {
	t.Helper()
	d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func newStore(t testing.TB, config Config) *Store {
	t.Helper()
	if config.Depot == nil {
		config.Depot = newDepot(t)
	}
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// take takes an image in as a docker save archive.
func take(t testing.TB, s *Store, img v1.Image) (*Image, error) {
	t.Helper()
	return s.FromArchive(t.Context(), bytes.NewReader(saveTar(t, img)), Options{})
}

// root lays an image's root out and opens it.
func root(t testing.TB, s *Store, i *Image) *os.Root {
	t.Helper()
	path, release, err := s.Root(t.Context(), i.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	r, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// listing describes all of a root: one line each, sorted by name.
func listing(t testing.TB, s *Store, i *Image) string {
	t.Helper()
	path, release, err := s.Root(t.Context(), i.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var b strings.Builder
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == path {
			return err
		}
		rel, _ := filepath.Rel(path, p)
		b.WriteString(rel)
		switch {
		case d.IsDir():
			b.WriteString("/")
		case d.Type() == os.ModeSymlink:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			b.WriteString(" -> " + to)
		default:
			body, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode()&0o111 != 0 {
				b.WriteString("*")
			}
			b.WriteString(" = " + string(body))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// leftovers fails if anything of what failed is still on the disk, or was written beside it.
func leftovers(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"tmp", "roots"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			t.Errorf("%s is left in %s", e.Name(), sub)
		}
	}
}

func limitOf(err error) string { return faas.AsError(err).Limit }
