package registry

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// upload is a blob that is on its way: a file that grows. Its name says all there is to know, so that
// it can be gone on with after a restart.
type upload struct {
	id, uid, repo string
	path          string
	busy          sync.Mutex // held by the one request that writes
	size          atomic.Int64
	last          atomic.Int64 // when it was last written to, in nanoseconds
}

// uploadPath is Dir/UID@REPOSITORY@ID, where a repository's slashes are at signs too.
func (r *Registry) uploadPath(uid, repo, id string) string {
	return filepath.Join(r.cfg.Dir, uid+"@"+strings.ReplaceAll(repo, "/", "@")+"@"+id)
}

// findUploads learns of the uploads that were under way when the server ended.
func (r *Registry) findUploads() error {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		part := strings.Split(e.Name(), "@")
		n := len(part)
		if n < 3 || !uploadForm.MatchString(part[n-1]) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		u := &upload{id: part[n-1], uid: part[0], repo: strings.Join(part[1:n-1], "/"), path: filepath.Join(r.cfg.Dir, e.Name())}
		u.size.Store(info.Size())
		u.last.Store(info.ModTime().UnixNano())
		r.uploads[u.id] = u
	}
	return nil
}

// begin answers POST: a new upload, a whole blob at once, or one mounted from another repository.
func (r *Registry) begin(q *request) error {
	values := q.r.URL.Query()
	if from := values.Get("mount"); from != "" {
		digest, err := parseDigest(from)
		if err != nil {
			return err
		}
		if done, err := r.mount(q, digest, values.Get("from")); err != nil {
			return err
		} else if done {
			return created(q, "blobs", digest)
		}
	}
	u, err := r.open(q)
	if err != nil {
		return err
	}
	if values.Get("digest") != "" {
		err := r.complete(q, u)
		if err != nil {
			r.forget(u) // nobody knows its name
		}
		return err
	}
	return accepted(q, u, http.StatusAccepted)
}

// open makes a new upload.
func (r *Registry) open(q *request) (*upload, error) {
	if err := r.room(q.uid, 0); err != nil {
		return nil, err
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	id := hex.EncodeToString(b[:])
	u := &upload{id: id, uid: q.uid, repo: q.repo, path: r.uploadPath(q.uid, q.repo, id)}
	u.last.Store(time.Now().UnixNano())
	r.mu.Lock()
	if n := r.used(q.uid).uploads; n >= r.cfg.Limits.Uploads {
		r.mu.Unlock()
		f := fail(http.StatusTooManyRequests, "TOOMANYREQUESTS", "the namespace has %d uploads under way, as many as it may; end one, or wait an hour", n)
		f.limit = "registry_uploads"
		return nil, f
	}
	r.uploads[id] = u
	r.mu.Unlock()
	f, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		r.forget(u)
		return nil, err
	}
	return u, nil
}

// forget ends an upload, whatever became of it.
func (r *Registry) forget(u *upload) {
	r.mu.Lock()
	delete(r.uploads, u.id)
	r.mu.Unlock()
	if err := os.Remove(u.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.cfg.Logger.Warn("upload not removed", "upload", u.id, "cause", err)
	}
}

// upload returns the upload that a path names, locked for the one request that may write to it.
func (r *Registry) upload(q *request) (*upload, error) {
	r.mu.RLock()
	u := r.uploads[q.what]
	r.mu.RUnlock()
	if u == nil || u.uid != q.uid || u.repo != q.repo {
		return nil, fail(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin a new one")
	}
	if !u.busy.TryLock() {
		return nil, fail(http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
	}
	return u, nil
}

func (r *Registry) uploadStatus(q *request) error {
	r.mu.RLock()
	u := r.uploads[q.what]
	r.mu.RUnlock()
	if u == nil || u.uid != q.uid || u.repo != q.repo {
		return fail(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin a new one")
	}
	return accepted(q, u, http.StatusNoContent)
}

func (r *Registry) cancel(q *request) error {
	u, err := r.upload(q)
	if err != nil {
		return err
	}
	defer u.busy.Unlock()
	r.forget(u)
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// patch takes a piece.
func (r *Registry) patch(q *request) error {
	u, err := r.upload(q)
	if err != nil {
		return err
	}
	defer u.busy.Unlock()
	if err := r.grow(q, u); err != nil {
		return err
	}
	return accepted(q, u, http.StatusAccepted)
}

// finish takes the last piece, if there is one, and makes the upload a blob.
func (r *Registry) finish(q *request) error {
	u, err := r.upload(q)
	if err != nil {
		return err
	}
	defer u.busy.Unlock()
	return r.complete(q, u)
}

// complete is called with the upload's busy held, or before anybody else knows of it.
func (r *Registry) complete(q *request, u *upload) error {
	digest, err := parseDigest(q.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	if err := r.grow(q, u); err != nil {
		return err
	}
	if err := r.room(q.uid, 0); err != nil { // the upload counts already
		r.forget(u)
		return err
	}
	f, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	size := u.size.Load()
	got, err := r.cfg.Depot.PutAs(q.r.Context(), io.LimitReader(f, size), digest)
	if err != nil {
		return err
	}
	if got != digest {
		r.forget(u)
		return fail(http.StatusBadRequest, "DIGEST_INVALID", "the bytes that came have the digest %s, not %s", got, digest)
	}
	r.change.RLock()
	defer r.change.RUnlock()
	err = r.link(q.r.Context(), q, digest, size)
	if f, ok := errors.AsType[*failure](err); ok && f.limit != "" {
		r.forget(u)
	}
	if err != nil {
		return err
	}
	r.forget(u)
	return created(q, "blobs", digest)
}

// grow appends the request's body. What came before it broke off stays: the sender asks how far it
// got, and goes on from there.
func (r *Registry) grow(q *request, u *upload) error {
	size := u.size.Load()
	want := int64(-1)
	if h := q.r.Header.Get("Content-Range"); h != "" {
		from, to, err := contentRange(h)
		if err != nil {
			return err
		}
		if from != size {
			f := fail(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "the upload has %d bytes, and the piece begins at %d", size, from)
			f.header = uploadHeader(q, u)
			return f
		}
		want = to - from + 1
	}
	if n := q.r.ContentLength; n > int64(r.cfg.Limits.Blob)-size {
		return r.tooLarge()
	} else if want >= 0 && n >= 0 && n != want {
		return fail(http.StatusBadRequest, "SIZE_INVALID", "the piece has %d bytes, and its range says %d", n, want)
	}
	if q.r.Body == nil || q.r.ContentLength == 0 {
		return nil
	}
	f, err := os.OpenFile(u.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.Seek(size, io.SeekStart); err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, &growing{r: r, u: u, body: q.r.Body}, make([]byte, 256<<10))
	}
	u.last.Store(time.Now().UnixNano())
	if end, e := f.Seek(0, io.SeekCurrent); e == nil {
		u.size.Store(end) // what was read and could not be written does not count
	}
	if got := u.size.Load() - size; err == nil && want >= 0 && got != want {
		u.size.Store(size) // more or less than was said: none of it
		err = errors.Join(fail(http.StatusBadRequest, "SIZE_INVALID", "the piece has %d bytes, and its range says %d", got, want), f.Truncate(size))
	}
	return errors.Join(err, f.Close())
}

func (r *Registry) tooLarge() error {
	f := fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a layer may have no more than %s; the operator may raise images.push.blob_bytes", r.cfg.Limits.Blob)
	f.limit = "registry_blob_bytes"
	return f
}

// growing counts what is read of a body, before it is written.
type growing struct {
	r     *Registry
	u     *upload
	body  io.Reader
	since int64 // since the namespace was last looked at
	asked bool
}

// roomEvery is how many bytes may come between two looks at what the namespace takes up.
const roomEvery = 4 << 20

func (g *growing) Read(p []byte) (int, error) {
	n, err := g.body.Read(p)
	if g.u.size.Load()+int64(n) > int64(g.r.cfg.Limits.Blob) {
		return 0, g.r.tooLarge()
	}
	if g.since += int64(n); g.since > roomEvery || !g.asked {
		g.since, g.asked = 0, true
		if err := g.r.room(g.u.uid, int64(n)); err != nil {
			return 0, err
		}
	}
	g.u.size.Add(int64(n))
	return n, err
}

func contentRange(h string) (from, to int64, err error) {
	first, last, ok := strings.Cut(strings.TrimPrefix(h, "bytes "), "-")
	if ok {
		last, _, _ = strings.Cut(last, "/")
		if from, err = strconv.ParseInt(first, 10, 64); err == nil {
			to, err = strconv.ParseInt(last, 10, 64)
		}
	}
	if !ok || err != nil || from < 0 || to < from {
		return 0, 0, fail(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "%.100q is not a range of bytes", h)
	}
	return from, to, nil
}

func uploadHeader(q *request, u *upload) map[string]string {
	return map[string]string{
		"Location":           "/v2/" + q.full + "/blobs/uploads/" + u.id,
		"Range":              fmt.Sprintf("0-%d", max(u.size.Load()-1, 0)),
		"Docker-Upload-UUID": u.id,
	}
}

func accepted(q *request, u *upload, status int) error {
	for k, v := range uploadHeader(q, u) {
		q.w.Header().Set(k, v)
	}
	q.w.Header().Set("Content-Length", "0")
	if status == http.StatusNoContent {
		q.w.Header().Del("Content-Length")
	}
	q.w.WriteHeader(status)
	return nil
}

func created(q *request, what string, digest faas.Digest) error {
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.full+"/"+what+"/"+string(digest))
	h.Set("Docker-Content-Digest", string(digest))
	h.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
	return nil
}
