package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Serves says whether a registry's name in a reference means this server.
func (r *Registry) Serves(host string) bool { return r.hosts[strings.ToLower(host)] }

// Manifest returns the manifest or index that a tag or digest names in a repository.
func (r *Registry) Manifest(ctx context.Context, repository, reference string) (body []byte, mediaType string, digest faas.Digest, err error) {
	uid, repo, err := r.inside(repository)
	if err != nil {
		return nil, "", "", err
	}
	digest, m, err := r.manifestOf(uid, repo, repository, reference)
	if err != nil {
		return nil, "", "", native(err)
	}
	src, err := r.cfg.Depot.Get(ctx, digest)
	if err != nil {
		return nil, "", "", err
	}
	defer src.Close() // only read
	body, err = io.ReadAll(io.LimitReader(src, maxManifest+1))
	return body, m.MediaType, digest, err
}

// Blob opens a blob of a repository. The caller closes it.
func (r *Registry) Blob(ctx context.Context, repository string, digest faas.Digest) (io.ReadCloser, error) {
	uid, repo, err := r.inside(repository)
	if err != nil {
		return nil, err
	}
	if _, err := r.has(&request{uid: uid, repo: repo, full: repository}, digest); err != nil {
		return nil, native(err)
	}
	return r.cfg.Depot.Get(ctx, digest)
}

func (r *Registry) inside(repository string) (uid, repo string, err error) {
	namespace, repo, err := r.address(repository)
	if err != nil {
		return "", "", native(err)
	}
	uid, err = r.namespace(namespace)
	return uid, repo, err
}

// native puts a failure into the words of the rest of the server.
func native(err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return err
	}
	code := faas.Invalid
	if f.status == http.StatusNotFound {
		code = faas.NotFound
	}
	e := faas.Errorf(code, "look up image", "%s", f.message)
	if code == faas.NotFound {
		return e.WithFix("push it first")
	}
	return e
}
