package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// has says whether a repository has a blob, and keeps it for a while if so: a sender who finds it
// there does not send it again.
func (r *Registry) has(q *request, digest faas.Digest) (blob, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.find(q.uid, q.repo)
	b, known := repo.blobs[digest]
	if !known {
		return b, fail(http.StatusNotFound, "BLOB_UNKNOWN", "the repository %q has no blob %s", q.full, digest)
	}
	b.At = time.Now()
	repo.blobs[digest] = b
	return b, nil
}

// getBlob answers with a blob, or with a part of it.
func (r *Registry) getBlob(q *request) error {
	digest, err := parseDigest(q.what)
	if err != nil {
		return err
	}
	b, err := r.has(q, digest)
	if err != nil {
		return err
	}
	// That it is there is also what a sender relies on.
	if have, err := r.cfg.Depot.Has(q.r.Context(), digest); err != nil {
		return err
	} else if !have {
		return fail(http.StatusNotFound, "BLOB_UNKNOWN", "the blob %s is lost; push it again", digest)
	}
	return r.send(q, digest, b.Size, "application/octet-stream", true)
}

// send writes out what the depot has.
func (r *Registry) send(q *request, digest faas.Digest, size int64, mediaType string, parts bool) error {
	from, to, partial := int64(0), size, false
	if parts {
		var err error
		if from, to, partial, err = byteRange(q.r.Header.Get("Range"), size); err != nil {
			return err
		}
		q.w.Header().Set("Accept-Ranges", "bytes")
	}
	var body io.ReadCloser
	if q.r.Method != http.MethodHead {
		var err error
		if body, err = r.cfg.Depot.Get(q.r.Context(), digest); err != nil {
			return err
		}
		defer body.Close() // only read
		if _, err := io.CopyN(io.Discard, body, from); err != nil {
			return err
		}
	}
	h := q.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.FormatInt(to-from, 10))
	h.Set("Docker-Content-Digest", string(digest))
	h.Set("ETag", `"`+string(digest)+`"`)
	status := http.StatusOK
	if partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		status = http.StatusPartialContent
	}
	q.w.WriteHeader(status)
	if body == nil {
		return nil
	}
	src := io.Reader(body)
	if to < size {
		src = io.LimitReader(body, to-from)
	}
	if _, err := io.Copy(q.w, src); err != nil {
		if q.r.Context().Err() == nil && faas.CodeOf(err) == faas.Unavailable {
			r.cfg.Logger.Warn("blob not sent whole", "digest", digest, "cause", err)
		}
		panic(http.ErrAbortHandler) // too late for an answer: the connection breaks, so that nobody takes it for whole
	}
	return nil
}

// byteRange reads the one form of the header that clients go on with a download by.
func byteRange(header string, size int64) (from, to int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") || first == "" {
		return 0, size, false, nil // what is not understood is left out of account
	}
	from, err = strconv.ParseInt(first, 10, 64)
	to = size
	if err == nil && last != "" {
		if to, err = strconv.ParseInt(last, 10, 64); err == nil {
			to = min(to+1, size)
		}
	}
	if err != nil || from < 0 || to < from {
		return 0, size, false, nil
	}
	if from >= size {
		f := fail(http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID", "the blob has %d bytes", size)
		f.header = map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", size)}
		return 0, 0, false, f
	}
	return from, to, true, nil
}

// deleteBlob takes a blob from a repository, unless an image in it needs the blob.
func (r *Registry) deleteBlob(q *request) error {
	digest, err := parseDigest(q.what)
	if err != nil {
		return err
	}
	r.change.Lock()
	defer r.change.Unlock()
	if _, err := r.has(q, digest); err != nil {
		return err
	}
	r.mu.RLock()
	used := r.find(q.uid, q.repo).uses(digest)
	r.mu.RUnlock()
	if used {
		return fail(http.StatusForbidden, "DENIED", "the blob %s is part of an image; delete that first", digest)
	}
	if err := r.drop(q.r.Context(), kindBlob, q.uid, q.repo, digest.Hex()); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// uses says whether a manifest names a blob.
func (r *repository) uses(digest faas.Digest) bool {
	for _, m := range r.manifests {
		for _, d := range m.Blobs {
			if d == digest {
				return true
			}
		}
	}
	return false
}

// mount gives a repository a blob of another one that the caller may read too.
func (r *Registry) mount(q *request, digest faas.Digest, from string) (bool, error) {
	other := *q
	other.full = from
	if err := r.locate(&other); err != nil {
		return false, nil //nolint:nilerr // then the blob is to be sent, as the specification has it
	}
	r.change.RLock()
	defer r.change.RUnlock()
	b, err := r.has(&other, digest)
	if err != nil {
		return false, nil //nolint:nilerr // as above
	}
	if have, err := r.cfg.Depot.Has(q.r.Context(), digest); err != nil || !have {
		return false, err
	}
	if other.uid != q.uid {
		if err := r.room(q.uid, b.Size); err != nil {
			return false, err
		}
	}
	return true, r.link(q.r.Context(), q, digest, b.Size)
}

// link makes a blob that the depot has one of a repository's. It is called with change held.
func (r *Registry) link(ctx context.Context, q *request, digest faas.Digest, size int64) error {
	r.mu.RLock()
	_, have := r.find(q.uid, q.repo).blobs[digest]
	n := r.used(q.uid).blobs
	r.mu.RUnlock()
	if !have && n >= r.cfg.Limits.Blobs { // small ones count little, and each is a record in memory
		return over("registry_blobs", "the namespace has %d blobs, as many as it may; delete images, or wait an hour for blobs that no image names", n)
	}
	return r.write(ctx, kindBlob, q.uid, q.repo, digest.Hex(), blob{Size: size, At: time.Now().UTC()})
}

// room says whether a namespace may have so many bytes more.
func (r *Registry) room(uid string, more int64) error {
	r.mu.RLock()
	used := r.used(uid)
	r.mu.RUnlock()
	if used.bytes+more > int64(r.cfg.Limits.Bytes) {
		return over("registry_bytes", "the images of the namespace would be larger than %s together; delete some, or have the operator raise images.push.bytes", r.cfg.Limits.Bytes)
	}
	return nil
}
