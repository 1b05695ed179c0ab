package image

import (
	"bytes"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/store"
)

func TestQuick(t *testing.T) {
	d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := New(Config{Depot: d, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	img, _ := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	l, _ := tarball.LayerFromReader(bytes.NewReader(make([]byte, 1024)))
	img, _ = mutate.AppendLayers(img, l)
	var b bytes.Buffer
	if err := tarball.Write(name.MustParseReference("a/b:c"), img, &b); err != nil {
		t.Fatal(err)
	}
	i, err := s.FromArchive(t.Context(), &b, Options{})
	t.Logf("%+v %v", i, err)
	p, rel, err := s.Root(t.Context(), i.Root)
	t.Log(p, err)
	rel()
}
