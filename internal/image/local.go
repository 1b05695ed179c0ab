package image

import (
	"context"
	"io"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Local has the images that were pushed to this server. Its errors are those of package faas:
// NotFound for what the namespace does not have.
type Local interface {
	// Serves says whether a registry's name, with its port, means this server.
	Serves(host string) bool
	// Manifest returns the manifest or index that a tag or digest names in a repository, whose name
	// begins with its namespace.
	Manifest(ctx context.Context, repository, reference string) (body []byte, mediaType string, digest faas.Digest, err error)
	// Blob opens a blob of the repository. The caller closes it.
	Blob(ctx context.Context, repository string, digest faas.Digest) (io.ReadCloser, error)
}
