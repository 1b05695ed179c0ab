// Package registry keeps images that are pushed to this server: the dialect of the OCI distribution
// specification, version 1.1, under /v2/.
//
// A repository's name begins with its namespace, and whoever has a key of that namespace may push to
// it and pull from it. Blobs and manifests are kept by digest in the depot; which repository has which
// of them, and what its tags point at, is a small record each, and all of them are held in memory too.
// A blob is a repository's only after it was sent to it or mounted from another that the sender may
// read: knowing a digest is no way to what it names. An upload is a file that grows, so it can be gone
// on with after a restart; its digest is compared when it is whole.
//
// go-containerregistry's registry package is not used: it keeps manifests in memory only, knows no
// repository's own blobs, and calls itself little-proven; its client is what the tests push with.
//
// How a pushed image becomes a root is decided by package image.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Registry is made of. Zero of a limit means its default.
type Config struct {
	Store store.Store // records
	Depot *artifact.Depot
	Dir   string // uploads under way; made if absent
	// Caller says who sent the request of a context; nobody is no error, a key that is not taken is.
	Caller func(ctx context.Context) (auth.Identity, error)
	// Namespaces returns all there are.
	Namespaces func() []Namespace
	// Hosts are the names of this server, with ports, as they stand in references.
	Hosts  []string
	Limits Limits
	Logger *slog.Logger
}

// Namespace is one to push to. UID is what it is called for good: one that is deleted and made again is
// another.
type Namespace struct{ Name, UID string }

// Limits bound what a namespace may push. Zero means the default.
type Limits struct {
	Bytes     faas.Bytes    `koanf:"bytes"`      // of all blobs and uploads of one namespace; key registry_bytes. Default 20 GiB
	Blob      faas.Bytes    `koanf:"blob_bytes"` // of one; key registry_blob_bytes. Default 2 GiB
	Blobs     int           `koanf:"blobs"`      // of one namespace, in each repository; key registry_blobs. Default 30,000
	Manifests int           `koanf:"manifests"`  // of one namespace; key registry_manifests. Default 2,000
	Tags      int           `koanf:"tags"`       // of one namespace; key registry_tags. Default 5,000
	Uploads   int           `koanf:"uploads"`    // of one namespace at once; key registry_uploads. Default 50
	Untagged  time.Duration `koanf:"untagged"`   // how long an image stays that no tag points at. Default 7 days
}

func (l *Limits) applyDefaults() {
	l.Bytes = cmp.Or(l.Bytes, 20*faas.GiB)
	l.Blob = cmp.Or(l.Blob, 2*faas.GiB)
	l.Blobs = cmp.Or(l.Blobs, 30_000)
	l.Manifests = cmp.Or(l.Manifests, 2000)
	l.Tags = cmp.Or(l.Tags, 5000)
	l.Uploads = cmp.Or(l.Uploads, 50)
	l.Untagged = cmp.Or(l.Untagged, 7*24*time.Hour)
}

// Registry is safe for concurrent use.
type Registry struct {
	cfg   Config
	hosts map[string]bool

	// change lets many add and one remove: what an addition found to be there stays until it is named.
	change sync.RWMutex

	mu      sync.RWMutex
	spaces  map[string]*space  // guarded by mu; by namespace's UID
	uploads map[string]*upload // guarded by mu; by ID
}

// Open reads the records, and finds the uploads that were under way.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	cfg.Limits.applyDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{cfg: cfg, hosts: map[string]bool{}, spaces: map[string]*space{}, uploads: map[string]*upload{}}
	for _, h := range cfg.Hosts {
		r.hosts[strings.ToLower(h)] = true
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if err := r.findUploads(); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	return r, nil
}

const collectEvery = 10 * time.Minute

// Run removes what nothing names any more, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		if err := r.Collect(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("unused images not removed", "cause", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// failure is a refusal in the words of the specification.
type failure struct {
	status  int
	code    string
	message string
	limit   string
	header  map[string]string
}

func (f *failure) Error() string { return f.message }

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func over(key, format string, args ...any) *failure {
	f := fail(http.StatusForbidden, "DENIED", format, args...)
	f.limit = key
	return f
}

// refusal puts an error into the words of the specification.
func refusal(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	e := faas.AsError(err)
	message := e.Message()
	if e.Fix != "" {
		message += "; " + e.Fix
	}
	f := &failure{message: message, limit: e.Limit}
	switch e.Code {
	case faas.Unauthenticated:
		f.status, f.code = http.StatusUnauthorized, "UNAUTHORIZED"
	case faas.Denied:
		f.status, f.code = http.StatusForbidden, "DENIED"
	case faas.NotFound:
		f.status, f.code = http.StatusNotFound, "NAME_UNKNOWN"
	case faas.Invalid:
		f.status, f.code = http.StatusBadRequest, "UNSUPPORTED"
	case faas.TooLarge:
		f.status, f.code = http.StatusRequestEntityTooLarge, "SIZE_INVALID"
	case faas.Overloaded:
		f.status, f.code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case faas.Unavailable:
		f.status, f.code = http.StatusServiceUnavailable, "UNAVAILABLE"
	default:
		f.status, f.code, f.message = http.StatusInternalServerError, "UNKNOWN", "the server failed to answer; its log says why"
	}
	return f
}
