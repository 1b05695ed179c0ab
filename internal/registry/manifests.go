package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxManifest is what the specification asks a registry to take at least.
const maxManifest = 4 << 20

// lookup finds a manifest by a tag or a digest. It is called with mu held.
func (r *repository) lookup(reference string) (faas.Digest, *manifest) {
	digest := faas.Digest(reference)
	if tagForm.MatchString(reference) {
		digest = r.tags[reference].Digest
	}
	return digest, r.manifests[digest]
}

func (r *Registry) manifestOf(uid, repo, full, reference string) (faas.Digest, *manifest, error) {
	r.mu.RLock()
	in := r.find(uid, repo)
	digest, m := in.lookup(reference)
	empty := len(in.manifests) == 0 && len(in.blobs) == 0
	r.mu.RUnlock()
	switch {
	case m != nil:
		return digest, m, nil
	case empty:
		return "", nil, fail(http.StatusNotFound, "NAME_UNKNOWN", "there is no repository %q", full)
	}
	return "", nil, fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "the repository %q has no image %.200q", full, reference)
}

func (r *Registry) getManifest(q *request) error {
	digest, m, err := r.manifestOf(q.uid, q.repo, q.full, q.what)
	if err != nil {
		return err
	}
	return r.send(q, digest, m.Size, m.MediaType, false)
}

// document is what of a manifest or an index is looked at.
type document struct {
	Schema      int               `json:"schemaVersion"`
	MediaType   string            `json:"mediaType"`
	Type        string            `json:"artifactType"`
	Config      *v1.Descriptor    `json:"config"`
	Layers      []v1.Descriptor   `json:"layers"`
	Manifests   []v1.Descriptor   `json:"manifests"`
	Subject     *v1.Descriptor    `json:"subject"`
	Annotations map[string]string `json:"annotations"`
}

func (r *Registry) putManifest(q *request) error {
	body, err := io.ReadAll(io.LimitReader(q.r.Body, maxManifest+1))
	if err != nil {
		return err
	}
	if len(body) > maxManifest {
		return fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a manifest may have no more than %s", faas.Bytes(maxManifest))
	}
	m, err := readManifest(q.r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	digest := digestOf(body)
	name := ""
	if tagForm.MatchString(q.what) {
		name = q.what
	} else if want, err := parseDigest(q.what); err != nil {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", "%.200q is neither a tag nor a digest", q.what)
	} else if want != digest {
		return fail(http.StatusBadRequest, "DIGEST_INVALID", "the manifest that came has the digest %s, not %s", digest, want)
	}
	ctx := q.r.Context()
	r.change.RLock()
	defer r.change.RUnlock()
	if err := r.whole(q, m); err != nil {
		return err
	}
	if err := r.admit(q, digest, name, m.Size); err != nil {
		return err
	}
	if _, err := r.cfg.Depot.PutAs(ctx, bytes.NewReader(body), digest); err != nil {
		return err
	}
	if err := r.write(ctx, kindManifest, q.uid, q.repo, digest.Hex(), m); err != nil {
		return err
	}
	if name != "" {
		if err := r.write(ctx, kindTag, q.uid, q.repo, name, tag{Digest: digest, At: time.Now().UTC()}); err != nil {
			return err
		}
	}
	if m.Subject != "" {
		q.w.Header().Set("OCI-Subject", string(m.Subject))
	}
	r.cfg.Logger.Info("image pushed", "repository", q.full, "tag", name, "digest", digest)
	return created(q, "manifests", digest)
}

// What of a manifest is kept in memory is bounded more tightly than the manifest is.
const (
	maxNamed       = 1000
	maxAnnotations = 16 << 10
	maxType        = 256
)

func annotated(m *manifest) (n int) {
	for k, v := range m.Annotations {
		n += len(k) + len(v)
	}
	return n
}

func digestOf(b []byte) faas.Digest {
	h, _, _ := v1.SHA256(bytes.NewReader(b)) // reading memory never fails
	return faas.Digest(h.String())
}

// readManifest checks a manifest's form and notes what it names.
func readManifest(contentType string, body []byte) (*manifest, error) {
	invalid := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", format, args...)
	}
	var doc document
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, invalid("the manifest is not JSON of its form: %v", err)
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = doc.MediaType
	}
	if doc.MediaType != "" && kind != doc.MediaType {
		return nil, invalid("the manifest was sent as %.100q and calls itself %.100q", kind, doc.MediaType)
	}
	if doc.Schema != 2 {
		return nil, invalid("the manifest has schema version %d; 2 is taken here", doc.Schema)
	}
	m := &manifest{MediaType: kind, Size: int64(len(body)), Type: doc.Type, At: time.Now().UTC()}
	if doc.Subject != nil { // else nobody is told of them but with the manifest itself
		m.Annotations = doc.Annotations
	}
	var named []v1.Descriptor
	switch t := types.MediaType(kind); {
	case t == types.OCIManifestSchema1 || t == types.DockerManifestSchema2:
		if doc.Config == nil || doc.Manifests != nil {
			return nil, invalid("the manifest names no configuration, or is an index at the same time")
		}
		if m.Type == "" {
			m.Type = string(doc.Config.MediaType)
		}
		named = append([]v1.Descriptor{*doc.Config}, doc.Layers...)
	case t.IsIndex():
		if doc.Config != nil || doc.Layers != nil {
			return nil, invalid("the index is a manifest at the same time")
		}
		named = doc.Manifests
	default:
		return nil, invalid("manifests of type %.100q are not kept here", kind)
	}
	if size := annotated(m); len(named) > maxNamed || size > maxAnnotations || len(m.Type) > maxType {
		return nil, fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the manifest names %d things and has %d bytes of annotations; %d and %d are kept here", len(named), size, maxNamed, maxAnnotations)
	}
	for _, d := range named {
		digest, err := faas.ParseDigest(d.Digest.String())
		if err != nil {
			return nil, invalid("the manifest names %.100q, which is no SHA-256", d.Digest.String())
		}
		switch {
		case types.MediaType(kind).IsIndex():
			m.Manifests = append(m.Manifests, digest)
		case d.MediaType.IsDistributable() || len(d.URLs) == 0:
			m.Blobs = append(m.Blobs, digest)
		}
	}
	if doc.Subject != nil {
		if m.Subject, err = faas.ParseDigest(doc.Subject.Digest.String()); err != nil {
			return nil, invalid("the manifest's subject is %.100q, which is no SHA-256", doc.Subject.Digest.String())
		}
	}
	return m, nil
}

// whole says whether the repository has all that a manifest names, and keeps it. It is called
// with change held.
func (r *Registry) whole(q *request, m *manifest) error {
	for _, d := range m.Blobs {
		if _, err := r.has(q, d); err != nil {
			return fail(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the manifest names the blob %s, which the repository does not have", d)
		}
		have, err := r.cfg.Depot.Has(q.r.Context(), d)
		if err != nil {
			return err
		}
		if !have {
			return fail(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the blob %s is lost; push it again", d)
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	repo := r.find(q.uid, q.repo)
	for _, d := range m.Manifests {
		if repo.manifests[d] == nil {
			return fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "the index names the image %s, which the repository does not have", d)
		}
	}
	return nil
}

// admit holds a new manifest against the namespace's limits.
func (r *Registry) admit(q *request, digest faas.Digest, name string, size int64) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	used := r.used(q.uid)
	repo := r.find(q.uid, q.repo)
	_, tagged := repo.tags[name]
	switch {
	case repo.manifests[digest] == nil && used.manifests >= r.cfg.Limits.Manifests:
		return over("registry_manifests", "the namespace has %d images, as many as it may; delete some", used.manifests)
	case repo.manifests[digest] == nil && used.bytes+size > int64(r.cfg.Limits.Bytes):
		return over("registry_bytes", "the images of the namespace would be larger than %s together; delete some", r.cfg.Limits.Bytes)
	case name != "" && !tagged && used.tags >= r.cfg.Limits.Tags:
		return over("registry_tags", "the namespace has %d tags, as many as it may; delete some", used.tags)
	}
	return nil
}

// deleteManifest removes a tag, or an image with all its tags.
func (r *Registry) deleteManifest(q *request) error {
	r.change.Lock()
	defer r.change.Unlock()
	digest, _, err := r.manifestOf(q.uid, q.repo, q.full, q.what)
	if err != nil {
		return err
	}
	if tagForm.MatchString(q.what) {
		if err := r.drop(q.r.Context(), kindTag, q.uid, q.repo, q.what); err != nil {
			return err
		}
	} else if err := r.dropManifest(q.r.Context(), q.uid, q.repo, digest); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) tags(q *request) error {
	r.mu.RLock()
	repo := r.find(q.uid, q.repo)
	names := make([]string, 0, len(repo.tags))
	for t, to := range repo.tags {
		if repo.manifests[to.Digest] != nil {
			names = append(names, t)
		}
	}
	unknown := len(repo.manifests) == 0 && len(repo.blobs) == 0
	r.mu.RUnlock()
	if unknown {
		return fail(http.StatusNotFound, "NAME_UNKNOWN", "there is no repository %q", q.full)
	}
	slices.Sort(names)
	names, err := page(q, names, "/v2/"+q.full+"/tags/list")
	if err != nil {
		return err
	}
	return answerJSON(q, map[string]any{"name": q.full, "tags": names})
}

// catalog lists the repositories of the namespaces that the caller may use.
func (r *Registry) catalog(q *request) error {
	names := []string{}
	for _, ns := range r.cfg.Namespaces() {
		if q.who.May(ns.Name) != nil {
			continue
		}
		r.mu.RLock()
		if s := r.spaces[ns.UID]; s != nil {
			for name, repo := range s.repos {
				if len(repo.manifests) > 0 {
					names = append(names, ns.Name+"/"+name)
				}
			}
		}
		r.mu.RUnlock()
	}
	slices.Sort(names)
	names, err := page(q, names, "/v2/_catalog")
	if err != nil {
		return err
	}
	return answerJSON(q, map[string]any{"repositories": names})
}

// referrers lists what says something about an image: signatures, lists of what is in it.
func (r *Registry) referrers(q *request) error {
	subject, err := parseDigest(q.what)
	if err != nil {
		return err
	}
	want := q.r.URL.Query().Get("artifactType")
	list := []map[string]any{}
	r.mu.RLock()
	for d, m := range r.find(q.uid, q.repo).manifests {
		if m.Subject != subject || want != "" && m.Type != want {
			continue
		}
		one := map[string]any{"mediaType": m.MediaType, "size": m.Size, "digest": d}
		if m.Type != "" {
			one["artifactType"] = m.Type
		}
		if len(m.Annotations) > 0 {
			one["annotations"] = m.Annotations
		}
		list = append(list, one)
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b map[string]any) int {
		return bytes.Compare([]byte(a["digest"].(faas.Digest)), []byte(b["digest"].(faas.Digest)))
	})
	if want != "" {
		q.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	q.w.Header().Set("Content-Type", string(types.OCIImageIndex))
	return answerJSON(q, map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": list})
}
