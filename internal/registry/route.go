package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// request is one request, as its path has it.
type request struct {
	w    http.ResponseWriter
	r    *http.Request
	who  auth.Identity
	full string // the repository's name, its namespace in front
	uid  string // the namespace's
	repo string // the name without the namespace
	what string // digest, tag or upload, from the path
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	uploadForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

const maxName = 180 // so that it fits the name of a file, with two IDs, and of a record

// ServeHTTP answers what is asked below /v2/.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := r.serve(w, req); err != nil {
		r.refuse(w, req, err)
	}
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) error {
	who, err := r.cfg.Caller(req.Context())
	if err != nil {
		return err
	}
	if who.KeyID == "" {
		return faas.Errorf(faas.Unauthenticated, "authenticate", "the request carries no key").
			WithFix("log in with any user name and a key as the password: docker login %s", req.Host)
	}
	q := &request{w: w, r: req, who: who}
	rest := strings.TrimPrefix(strings.TrimPrefix(req.URL.Path, "/v2"), "/")
	switch rest {
	case "":
		return only(q, methods{http.MethodGet: ok, http.MethodHead: ok})
	case "_catalog":
		return only(q, methods{http.MethodGet: r.catalog})
	}
	m, err := r.place(q, strings.Split(rest, "/"))
	if err != nil {
		return err
	}
	return only(q, m)
}

type methods map[string]func(*request) error

func only(q *request, m methods) error {
	f, known := m[q.r.Method]
	if !known {
		return fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not done here", q.r.Method)
	}
	return f(q)
}

func ok(q *request) error { return answerJSON(q, struct{}{}) }

// place finds out what a path names, from its end: a repository may be called like a part of it.
func (r *Registry) place(q *request, part []string) (methods, error) {
	n := len(part)
	at := func(i int) string { // counted from the end
		if i > n {
			return ""
		}
		return part[n-i]
	}
	var m methods
	name := part
	switch {
	case at(2) == "tags" && at(1) == "list":
		name, m = part[:n-2], methods{http.MethodGet: r.tags}
	case at(2) == "manifests":
		name, m = part[:n-2], methods{http.MethodGet: r.getManifest, http.MethodHead: r.getManifest, http.MethodPut: r.putManifest, http.MethodDelete: r.deleteManifest}
	case at(2) == "referrers":
		name, m = part[:n-2], methods{http.MethodGet: r.referrers}
	case at(2) == "blobs" && at(1) == "uploads":
		name, m = part[:n-2], methods{http.MethodPost: r.begin}
	case at(3) == "blobs" && at(2) == "uploads" && at(1) == "":
		name, m = part[:n-3], methods{http.MethodPost: r.begin}
	case at(3) == "blobs" && at(2) == "uploads":
		name, m = part[:n-3], methods{http.MethodGet: r.uploadStatus, http.MethodPatch: r.patch, http.MethodPut: r.finish, http.MethodDelete: r.cancel}
	case at(2) == "blobs":
		name, m = part[:n-2], methods{http.MethodGet: r.getBlob, http.MethodHead: r.getBlob, http.MethodDelete: r.deleteBlob}
	default:
		return nil, fail(http.StatusNotFound, "UNSUPPORTED", "there is nothing at this path")
	}
	q.what = at(1)
	q.full = strings.Join(name, "/")
	return m, r.locate(q)
}

// locate finds the repository's namespace. One that the caller may not use does not exist for it.
func (r *Registry) locate(q *request) (err error) {
	q.uid, q.repo, err = r.address(q.full)
	if err != nil {
		return err
	}
	namespace, _, _ := strings.Cut(q.full, "/")
	if err := q.who.May(namespace); err != nil {
		return err
	}
	q.uid, err = r.namespace(namespace)
	return err
}

// address takes a repository's full name apart.
func (r *Registry) address(full string) (namespace, repo string, err error) {
	if len(full) > maxName || !nameForm.MatchString(full) {
		return "", "", fail(http.StatusBadRequest, "NAME_INVALID", "%.200q is not the name of a repository: lower-case letters and digits, divided by dots, dashes, underscores and slashes", full)
	}
	namespace, repo, found := strings.Cut(full, "/")
	if !found {
		return "", "", fail(http.StatusNotFound, "NAME_UNKNOWN", "the repository %.200q has no namespace; push to NAMESPACE/%s", full, full)
	}
	return namespace, repo, nil
}

func parseDigest(s string) (faas.Digest, error) {
	d, err := faas.ParseDigest(s)
	if err != nil {
		return "", fail(http.StatusBadRequest, "DIGEST_INVALID", "%.100q is not a digest of the form sha256:…, which is what is kept here", s)
	}
	return d, nil
}

func answerJSON(q *request, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := q.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method != http.MethodHead {
		_, _ = q.w.Write(b) // whoever asked has left
	}
	return nil
}

// refuse answers with an error as the specification has it.
func (r *Registry) refuse(w http.ResponseWriter, req *http.Request, err error) {
	f := refusal(err)
	if f.status >= http.StatusInternalServerError && req.Context().Err() == nil {
		r.cfg.Logger.Warn("registry failed", "method", req.Method, "path", req.URL.Path, "cause", err)
	}
	h := w.Header()
	for k, v := range f.header {
		h.Set(k, v)
	}
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="Brasa"`)
	}
	type one struct {
		Code    string            `json:"code"`
		Message string            `json:"message"`
		Detail  map[string]string `json:"detail,omitempty"`
	}
	e := one{Code: f.code, Message: f.message}
	if f.limit != "" {
		e.Detail = map[string]string{"limit": f.limit}
	}
	b, _ := json.Marshal(map[string][]one{"errors": {e}}) // strings always marshal
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(f.status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(b) // whoever asked has left
	}
}

// page cuts a sorted list as the caller asked, and says where it goes on.
func page(q *request, all []string, path string) ([]string, error) {
	values := q.r.URL.Query()
	if last := values.Get("last"); last != "" {
		i := 0
		for i < len(all) && all[i] <= last {
			i++
		}
		all = all[i:]
	}
	if values.Get("n") == "" {
		return all, nil
	}
	n, err := strconv.Atoi(values.Get("n"))
	if err != nil || n < 0 {
		return nil, fail(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n=%.20q is not a number", values.Get("n"))
	}
	if n < len(all) {
		all = all[:n]
		if n > 0 {
			q.w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d&last=%s>; rel="next"`, path, n, all[n-1]))
		}
	}
	return all, nil
}
