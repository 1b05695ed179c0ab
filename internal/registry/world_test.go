package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// world is a registry that can be stopped and started again. Who sends a request is said by its
// password: the name of the namespace that it may use, or "admin".
type world struct {
	t       *testing.T
	records store.Store
	objects store.Objects
	dir     string
	limits  Limits

	mu         sync.Mutex
	namespaces []Namespace

	*Registry
	depot *artifact.Depot
	srv   *httptest.Server
	host  string
}

type whoKey struct{}

func newWorld(t *testing.T, limits Limits) *world {
	w := &world{t: t, records: store.Memory(), objects: store.MemoryObjects(), dir: t.TempDir(), limits: limits,
		namespaces: []Namespace{{"team", "uid-team"}, {"other", "uid-other"}}}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.depot, err = artifact.Open(artifact.Config{Objects: w.objects, Dir: filepath.Join(w.dir, "depot")}); err != nil {
		w.t.Fatal(err)
	}
	w.Registry, err = Open(w.t.Context(), Config{
		Store: w.records, Depot: w.depot, Dir: filepath.Join(w.dir, "uploads"), Limits: w.limits, Hosts: []string{"Registry.example:5000"},
		Caller: func(ctx context.Context) (auth.Identity, error) {
			who, _ := ctx.Value(whoKey{}).(string)
			switch who {
			case "":
				return auth.Identity{}, nil
			case "wrong":
				return auth.Identity{}, faas.Errorf(faas.Unauthenticated, "authenticate", "the key is not valid here")
			}
			return auth.Identity{KeyID: "k", Admin: who == "admin", Namespaces: []string{who}}, nil
		},
		Namespaces: func() []Namespace {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.namespaces
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), whoKey{}, password)))
	}))
	w.host = strings.TrimPrefix(w.srv.URL, "http://")
}

func (w *world) stop() {
	w.srv.Close()
	_ = w.depot.Close()
}

func as(who string) []crane.Option {
	return []crane.Option{crane.WithAuth(&authn.Basic{Username: "anybody", Password: who}), crane.Insecure}
}

// answer is what came back of a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// code returns the first error's code of an answer.
func (a answer) code() string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.body), &e) != nil || len(e.Errors) == 0 || e.Errors[0].Message == "" {
		return ""
	}
	return e.Errors[0].Code
}

func (w *world) do(who, method, path, body string, header ...string) answer {
	w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.srv.URL + path
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if who != "" {
		req.SetBasicAuth("anybody", who)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// expect fails unless an answer has a status and, of a refusal, a code.
func (w *world) expect(a answer, status int, code string) answer {
	w.t.Helper()
	if a.status != status || a.code() != code {
		w.t.Errorf("answered %d %q, want %d %q: %s", a.status, a.code(), status, code, a.body)
	}
	return a
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}

// upload sends a blob in one piece.
func (w *world) upload(who, repo, body string) answer {
	w.t.Helper()
	a := w.expect(w.do(who, "POST", "/v2/"+repo+"/blobs/uploads/", ""), 202, "")
	return w.do(who, "PUT", a.header.Get("Location")+"?digest="+sum(body), body, "Content-Type", "application/octet-stream")
}

func image(t *testing.T, layers ...int64) v1.Image {
	t.Helper()
	img := empty.Image
	for _, n := range layers {
		l, err := random.Layer(n, "application/vnd.oci.image.layer.v1.tar+gzip")
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return img
}
