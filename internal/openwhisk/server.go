package openwhisk

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// Config says what a Server is made of.
type Config struct {
	Catalog    *catalog.Catalog
	Dispatcher *dispatch.Dispatcher
	Deployer   *deploy.Deployer
	Depot      *artifact.Depot // where actions' code lies
	Journal    *journal.Journal
	Triggers   *trigger.Manager
	Subjects   *auth.Subjects
	APIs       store.Store // for descriptions of APIs of the gateway; nil: there are none
	Limits     Limits
	// Ready says why this machine can't run a language, as a deploy names it; nil: it can run all.
	Ready func(language string) error
	// Sealed keeps the packages that a namespace shares from being read by others, who may call what is
	// in them all the same.
	Sealed bool
	// APIHost is the address that functions and clients are told, such as http://127.0.0.1:8080.
	APIHost string
	// Inside is the address that functions call; nil, and empty: APIHost.
	Inside  func() string
	Version string // of the server
	Logger  *slog.Logger
}

// Server answers the API of OpenWhisk. It is safe for concurrent use.
type Server struct {
	cfg       Config
	throttle  throttle
	apis      apis
	metas     sync.Map     // what calls need of origins, by revision
	metaCount atomic.Int64 // of these, about
	locks     locks        // of entities that are being changed
	slots     slots        // of requests that need much memory, or much time of processors
	system    system       // the packages that the server brings
	touched   atomic.Int64 // when an entity was last changed, in ms since 1970
}

// New returns a Server; nothing is started.
func New(cfg Config) *Server {
	cfg.Limits.applyDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, apis: apis{store: cfg.APIs}}
	if cfg.Dispatcher != nil {
		s.throttle.queued = func(namespace string) int { return cfg.Dispatcher.InFlight(faas.NativeName(namespace)) }
		cfg.Dispatcher.Register(faas.ContractOpenWhisk, s.answerBuiltin)
	}
	if cfg.Triggers != nil {
		cfg.Triggers.Register(dialect, s.firedBySource)
	}
	return s
}

// Serves says whether a path, as it stood on the wire, is of this dialect.
func Serves(path string) bool {
	return path == "/" || path == "/ping" || path == "/api" || strings.HasPrefix(path, "/api/")
}

// call is a request on its way.
type call struct {
	ctx         context.Context
	w           http.ResponseWriter
	r           *http.Request
	query       url.Values
	transaction string
	who         auth.Subject // who asks; zero on routes without authentication
	rest        []string     // what follows in the path, decoded
	slash       bool         // the path ends with a slash
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{ctx: r.Context(), w: w, r: r, query: r.URL.Query(), transaction: transactionOf(r)}
	w.Header().Set("X-Request-ID", c.transaction)
	if err := s.route(c); err != nil {
		rejected := asRejection(err)
		if rejected.status >= http.StatusInternalServerError {
			s.cfg.Logger.Error("request failed", "transaction", c.transaction, "path", r.URL.Path, "cause", err)
		}
		if rejected.status == http.StatusRequestEntityTooLarge {
			// Most clients read the answer when they have sent all: a connection that ends before leaves
			// them without one.
			_, _ = io.CopyN(io.Discard, r.Body, int64(maxDrain))
		}
		writeError(w, c.transaction, rejected)
	}
}

// maxDrain is how much is read of a request that is too large.
const maxDrain = 2 * maxBody

const (
	base           = "/api/v1"
	systemPrefix   = "sid_" // of transactions that the system begins by itself
	maxTransaction = 128
)

// transactionOf is the ID of the request: what the caller calls it, where that is reasonable.
func transactionOf(r *http.Request) string {
	id := r.Header.Get("X-Request-ID")
	if id == "" || len(id) > maxTransaction || strings.HasPrefix(id, systemPrefix) || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return string(faas.NewID(now()))
	}
	return id
}

// authenticate finds out who asks: Basic, with a UUID and a key.
func (s *Server) authenticate(c *call) error {
	user, key, ok := basic(c.r.Header.Get("Authorization"))
	if !ok {
		return errUnknown
	}
	who, err := s.cfg.Subjects.Authenticate(user, key, cmp.Or(faas.InstanceOf(c.ctx), c.r.RemoteAddr))
	if err != nil {
		if faas.CodeOf(err) == faas.Unauthenticated {
			return errUnknown
		}
		return err
	}
	c.who = who
	return nil
}

func basic(header string) (user, password string, ok bool) {
	scheme, encoded, _ := strings.Cut(strings.TrimSpace(header), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain), ":")
}

// body reads the request's body of at most most bytes.
func (c *call) body(most faas.Bytes) ([]byte, error) {
	if n := c.r.ContentLength; n > int64(most) {
		return nil, tooLarge("The request", n, int64(most))
	}
	b, err := io.ReadAll(io.LimitReader(c.r.Body, int64(most)+1))
	if err != nil {
		if _, ok := errors.AsType[*faas.Error](err); ok {
			return nil, err
		}
		return nil, reject(http.StatusBadRequest, "The request's content could not be read: %v", err)
	}
	if int64(len(b)) > int64(most) {
		return nil, tooLarge("The request", int64(len(b)), int64(most))
	}
	return b, nil
}
