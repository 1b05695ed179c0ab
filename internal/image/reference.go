package image

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/brasa-dev/brasa/internal/faas"
)

// FromReference takes in an image by its name: from this server, if its registry's host is ours, else
// from the registry that the name begins with, or Docker Hub. A name with a digest is that very
// image; one with a tag, or without any (latest), is what the registry says it is now.
func (s *Store) FromReference(ctx context.Context, ref string, opt Options) (*Image, error) {
	opt, done := opt.quiet()
	defer done()
	r, err := name.ParseReference(strings.TrimSpace(ref), name.WeakValidation)
	if err != nil {
		return nil, bad("%.200q is not the name of an image: %w", ref, err).WithFix("name one such as ghcr.io/owner/name:tag or registry.example/name@sha256:…")
	}
	image, err := s.fromReference(ctx, r, opt)
	if err != nil {
		return nil, asError(err)
	}
	image.Reference = strings.TrimSpace(ref)
	return image, nil
}

func (s *Store) fromReference(ctx context.Context, r name.Reference, opt Options) (*Image, error) {
	host, repository := r.Context().RegistryStr(), r.Context().RepositoryStr()
	if s.config.Local != nil && (s.config.Local.Serves(host) || opt.Host != "" && strings.EqualFold(opt.Host, host)) {
		if ns, _, _ := strings.Cut(repository, "/"); ns != opt.Namespace {
			return nil, faas.Errorf(faas.NotFound, op, "the namespace %q has no image %.100q here", opt.Namespace, repository).
				WithFix("push it to the function's own namespace: docker push %s/%s/NAME", host, opt.Namespace)
		}
		return s.take(ctx, &pushed{local: s.config.Local, repository: repository, reference: r.Identifier()}, opt)
	}
	var last error
	for _, host := range append(slices.Clone(s.client.hosts[canonical(host)].Mirrors), host) {
		src, err := s.client.open(ctx, host, r)
		if err != nil {
			return nil, err
		}
		image, err := s.take(ctx, src, opt)
		if err == nil || src.answered || ctx.Err() != nil {
			return image, err
		}
		s.config.Logger.Debug("registry did not have an image", "registry", host, "image", r.String(), "cause", err)
		last = err
	}
	return nil, last
}

// pushed is an image in this server's own registry. That the namespace has the manifest means that it
// has all that is in it: the registry takes no other.
type pushed struct {
	local                 Local
	repository, reference string
}

func (p *pushed) manifest(ctx context.Context) (document, error) { return p.get(ctx, p.reference) }

func (p *pushed) get(ctx context.Context, reference string) (document, error) {
	b, kind, digest, err := p.local.Manifest(ctx, p.repository, reference)
	return document{digest: digest, kind: types.MediaType(kind), bytes: b}, err
}

func (p *pushed) document(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		doc, err := p.get(ctx, d.Digest.String())
		return doc.bytes, err
	}
	r, err := p.layer(ctx, 0, d)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	return readDocument(r)
}

func (p *pushed) layer(ctx context.Context, _ int, d v1.Descriptor) (io.ReadCloser, error) {
	return p.local.Blob(ctx, p.repository, faas.Digest(d.Digest.String()))
}

func (p *pushed) traits() traits { return traits{} }

// distant is an image in a registry.
type distant struct {
	ref      name.Reference
	puller   *remote.Puller
	answered bool // the registry has the image
}

// open makes ready to ask a host for an image. Nothing is sent yet.
func (c *client) open(ctx context.Context, host string, r name.Reference) (*distant, error) {
	var opts []name.Option
	if c.hosts[canonical(host)].Plain {
		opts = append(opts, name.Insecure)
	}
	registry, err := name.NewRegistry(host, opts...)
	if err != nil {
		return nil, bad("%q is not the name of a registry: %w", host, err)
	}
	repository := registry.Repo(r.Context().RepositoryStr())
	ref := name.Reference(repository.Tag(r.Identifier()))
	if _, ok := r.(name.Digest); ok {
		ref = repository.Digest(r.Identifier())
	}
	puller, err := remote.NewPuller(remote.WithContext(ctx), remote.WithAuth(c.auth(host)), remote.WithTransport(&carrier{c, c.transport(host)}),
		remote.WithJobs(fetchAtOnce), remote.WithUserAgent("brasa"))
	if err != nil {
		return nil, err
	}
	return &distant{ref: ref, puller: puller}, nil
}

func (d *distant) manifest(ctx context.Context) (document, error) {
	got, err := d.puller.Get(ctx, d.ref)
	if err != nil {
		return document{}, d.explain("read the image's manifest", err)
	}
	d.answered = true
	return document{digest: faas.Digest(got.Digest.String()), kind: got.MediaType, bytes: got.Manifest}, nil
}

func (d *distant) document(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.MediaType.IsImage() || desc.MediaType.IsIndex() {
		got, err := d.puller.Get(ctx, d.ref.Context().Digest(desc.Digest.String()))
		if err != nil {
			return nil, d.explain("read the image's manifest", err)
		}
		return got.Manifest, nil
	}
	r, err := d.layer(ctx, 0, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	b, err := readDocument(r)
	return b, d.explain("read the image's configuration", err)
}

func (d *distant) layer(ctx context.Context, _ int, desc v1.Descriptor) (io.ReadCloser, error) {
	l, err := d.puller.Layer(ctx, d.ref.Context().Digest(desc.Digest.String()))
	if err != nil {
		return nil, d.explain("fetch a layer of the image", err)
	}
	r, err := l.Compressed()
	return r, d.explain("fetch a layer of the image", err)
}

func (d *distant) traits() traits { return traits{distant: true} }

// explain says what a registry's refusal means.
func (d *distant) explain(what string, err error) error {
	refused, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return unreachable(what, err)
	}
	host := d.ref.Context().RegistryStr()
	switch refused.StatusCode {
	case http.StatusNotFound:
		return faas.Errorf(faas.NotFound, op, "the registry %s has no image %s", host, d.ref.String()).WithFix("check its name and tag, and that it was pushed")
	case http.StatusUnauthorized, http.StatusForbidden:
		return faas.Errorf(faas.Denied, op, "the registry %s does not give out %s: it does not exist, or needs credentials", host, d.ref.String()).
			WithFix("check its name; for a private image the operator sets the registry's credentials under images.registries")
	case http.StatusTooManyRequests:
		return faas.Errorf(faas.Unavailable, op, "the registry %s gives out no more images for now", host).WithFix("try again later, or have the operator set credentials or a mirror under images.registries")
	}
	return faas.Errorf(faas.Unavailable, op, "%s: the registry %s answered with status %d", what, host, refused.StatusCode).WithFix("try again later")
}

// carrier lets nothing cross the network unencrypted unless the operator said so, and takes no
// manifest that is larger than those of registries are.
type carrier struct {
	client *client
	next   http.RoundTripper
}

func (c *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !c.client.hosts[canonical(r.URL.Host)].Plain {
		return nil, faas.Errorf(faas.Denied, op, "the registry would be asked without encryption at %s", r.URL.Host).
			WithFix("the operator may list it under images.registries with plain: true")
	}
	resp, err := c.next.RoundTrip(r)
	if err == nil && strings.Contains(r.URL.Path, "/manifests/") {
		resp.Body = &shortBody{ReadCloser: resp.Body, left: maxDocument}
	}
	return resp, err
}

type shortBody struct {
	io.ReadCloser
	left int64
}

func (b *shortBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooMuch("image_packed_bytes", "a manifest of the image is larger than %s", faas.Bytes(maxDocument))
	}
	return n, err
}
