package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/brasa-dev/brasa/internal/faas"
)

// source is where an image comes from.
type source interface {
	// manifest returns the image that was asked for: a manifest, or an index of several.
	manifest(ctx context.Context) (document, error)
	// document returns a manifest or configuration by its descriptor. Its bytes are not checked yet.
	document(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// layer opens a layer, of which i is the place in the manifest. Its bytes are not checked yet. The
	// caller closes it.
	layer(ctx context.Context, i int, d v1.Descriptor) (io.ReadCloser, error)
	traits() traits
}

// traits tell sources apart.
type traits struct {
	distant bool // a layer has to be fetched before it can be read at the disk's pace
	brought bool // the caller brought the image himself: having its manifest does not prove that he has the rest
	unnamed bool // layers have no digest of their own; that of their files is enough
}

// document is a manifest, an index or a configuration.
type document struct {
	digest faas.Digest
	kind   types.MediaType
	bytes  []byte
}

// found is the one image that a source has for this machine.
type found struct {
	digest faas.Digest // of the manifest
	image  v1.Manifest
	config v1.ConfigFile
}

// maxDocument is the most that a manifest, an index or a configuration may take up: what
// registries accept.
const maxDocument = 4 << 20

const maxNested = 4 // indexes in indexes

// find looks for this machine's image in a source.
func find(ctx context.Context, src source, opt Options) (*found, error) {
	doc, err := src.manifest(ctx)
	if err != nil {
		return nil, err
	}
	return resolve(ctx, src, doc, opt, 0)
}

func resolve(ctx context.Context, src source, doc document, opt Options, deep int) (*found, error) {
	var kind struct {
		MediaType types.MediaType `json:"mediaType"`
		Schema    int             `json:"schemaVersion"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
		Old       json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(doc.bytes, &kind); err != nil {
		return nil, bad("the manifest %s is not JSON: %w", short(doc.digest), err)
	}
	switch {
	case kind.Old != nil || kind.Schema == 1:
		return nil, bad("the image has a manifest of Docker's first schema, which nobody makes any more").WithFix("push it again with a newer client")
	case kind.Manifests != nil && kind.Layers != nil:
		// A document that is both means one image to one reader and another to the next.
		return nil, bad("the manifest %s is a manifest and an index at once", short(doc.digest))
	case kind.Manifests != nil:
		return resolveIndex(ctx, src, doc, opt, deep)
	}
	f := &found{digest: doc.digest}
	if err := json.Unmarshal(doc.bytes, &f.image); err != nil {
		return nil, bad("the manifest %s cannot be read: %w", short(doc.digest), err)
	}
	config, err := fetchDocument(ctx, src, f.image.Config, "configuration")
	if err != nil {
		return nil, err
	}
	if t := f.image.Config.MediaType; t != "" && !t.IsConfig() {
		return nil, bad("what %s names is no image but an artifact of type %q", short(doc.digest), t).WithFix("name an image that can be run")
	}
	if err := json.Unmarshal(config, &f.config); err != nil {
		return nil, bad("the image's configuration cannot be read: %w", err)
	}
	return f, f.check()
}

func resolveIndex(ctx context.Context, src source, doc document, opt Options, deep int) (*found, error) {
	if deep > maxNested {
		return nil, bad("the image's indexes lie more than %d deep in each other", maxNested)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(doc.bytes, &index); err != nil {
		return nil, bad("the index %s cannot be read: %w", short(doc.digest), err)
	}
	pick, err := choose(index.Manifests, opt, deep == 0 && doc.kind == layoutIndex)
	if err != nil {
		return nil, err
	}
	b, err := fetchDocument(ctx, src, pick, "manifest")
	if err != nil {
		return nil, err
	}
	return resolve(ctx, src, document{digest: faas.Digest(pick.Digest.String()), kind: pick.MediaType, bytes: b}, opt, deep+1)
}

// fetchDocument reads what a descriptor names and compares it with that.
func fetchDocument(ctx context.Context, src source, d v1.Descriptor, what string) ([]byte, error) {
	if d.Size > maxDocument {
		return nil, tooMuch("image_packed_bytes", "the image's %s has %d bytes, more than %s", what, d.Size, faas.Bytes(maxDocument))
	}
	digest, err := faas.ParseDigest(d.Digest.String())
	if err != nil {
		return nil, bad("the image's %s is named by %q, which is no SHA-256", what, d.Digest.String())
	}
	b, err := src.document(ctx, d)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	_, _ = sum.Write(b) // never fails
	if got := digestOf(sum); got != digest {
		return nil, bad("the image's %s is not what its digest says: the bytes that came have %s, not %s", what, got, digest).
			WithFix("get the image anew; it was changed or damaged on its way")
	}
	return b, nil
}

// readDocument reads at most what a document may have.
func readDocument(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxDocument {
		return nil, tooMuch("image_packed_bytes", "a document of the image is larger than %s", faas.Bytes(maxDocument))
	}
	return b, nil
}

// check says whether the image can be unpacked here at all.
func (f *found) check() error {
	if f.config.OS != "" && f.config.OS != "linux" || f.config.Architecture != "" && !ours("linux", f.config.Architecture, "") {
		return wrongPlatform([]string{f.config.OS + "/" + f.config.Architecture})
	}
	if n, m := len(f.image.Layers), len(f.config.RootFS.DiffIDs); n != m {
		return bad("the image has %d layers, and its configuration says %d", n, m)
	}
	if len(f.image.Layers) == 0 {
		return bad("the image has no layers, so there is no program in it")
	}
	for i, l := range f.image.Layers {
		if t := l.MediaType; t != "" && !t.IsLayer() {
			return bad("the image has a layer of type %q, which is no directory of files", t)
		}
		if strings.HasSuffix(string(l.MediaType), "encrypted") {
			return bad("the image is encrypted").WithFix("push it without encryption")
		}
		if _, err := faas.ParseDigest(l.Digest.String()); err != nil {
			return bad("layer %d of the image is named by %q, which is no SHA-256", i+1, l.Digest.String())
		}
		if _, err := faas.ParseDigest(f.config.RootFS.DiffIDs[i].String()); err != nil {
			return bad("the files of layer %d of the image are named by %q, which is no SHA-256", i+1, f.config.RootFS.DiffIDs[i].String())
		}
	}
	return nil
}
