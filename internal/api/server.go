package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// maxHooks is how many bodies of web hooks are received at once, which wait in memory.
const maxHooks = 64

// Config says what a Server is made of.
type Config struct {
	Catalog    *catalog.Catalog
	Dispatcher *dispatch.Dispatcher
	Deployer   *deploy.Deployer
	Queue      queue.Queue // of calls whose callers do not wait, the dispatcher's own; nil: there are none
	Journal    *journal.Journal
	Triggers   *trigger.Manager // nil: triggers are kept and not run
	Builds     *install.Builds  // logs of what was installed and built; nil: none are kept
	Keys       *auth.Keys
	Subjects   *auth.Subjects                   // nil: there are none
	CheckKinds func(names []string) error       // says which kinds of OpenWhisk's actions there are not; nil: all names are taken
	Runtimes   func() []Runtime                 // what languages there are
	Doctor     func(ctx context.Context) Doctor // examines this host
	Nodes      func() []faas.NodeStatus         // the machines that run functions
	Ready      func() (ready bool, why string)  // whether calls can be taken; nil: always
	Version    Version
	// Dir is where code lies while it is sent. The files have no name there and are gone with
	// the process.
	Dir string
	// URL is what clients call this server, without a slash at its end; empty: what each request
	// calls it.
	URL string
	// MaxCode bounds what is sent as code. Default 256 MiB.
	MaxCode faas.Bytes
	// MaxImage bounds an archive that is sent as an image. Default 2 GiB.
	MaxImage faas.Bytes
	// MaxReply bounds a function's answer that is put into the envelope, which is held in memory.
	// Default 16 MiB.
	MaxReply faas.Bytes
	// MaxUploads bounds how many bring code at once, and so what their files take of the disk; one
	// namespace may take a quarter of it. Who comes on top waits a little. Default 64.
	MaxUploads int
	Logger     *slog.Logger
}

func (c *Config) applyDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Ready == nil {
		c.Ready = func() (bool, string) { return true, "" }
	}
	if c.Runtimes == nil {
		c.Runtimes = func() []Runtime { return []Runtime{} }
	}
	if c.Nodes == nil {
		c.Nodes = func() []faas.NodeStatus { return nil }
	}
	if c.Doctor == nil {
		c.Doctor = func(context.Context) Doctor { return Doctor{OK: true, Checks: []Check{}} }
	}
	if c.MaxCode == 0 {
		c.MaxCode = 256 * faas.MiB
	}
	if c.MaxImage == 0 {
		c.MaxImage = 2 * faas.GiB
	}
	if c.MaxReply == 0 {
		c.MaxReply = 16 * faas.MiB
	}
	if c.MaxUploads == 0 {
		c.MaxUploads = 64
	}
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	c.Version.API = "v1"
	c.URL = strings.TrimRight(c.URL, "/")
}

// Server answers the native API and the functions' own URLs. It is safe for concurrent use.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	huma     huma.API
	uploads  *places
	hooks    *places
	subjects sync.Mutex    // held while keys of subjects are made or deleted, and what namespaces keep of them
	drained  chan struct{} // closed when streams that have no end of their own are to end
	drain    func()        // closes drained, once
	document []byte        // the OpenAPI document as JSON
	yaml     []byte
}

// New returns a Server; nothing is started.
func New(cfg Config) (*Server, error) {
	cfg.applyDefaults()
	if cfg.Catalog == nil || cfg.Dispatcher == nil || cfg.Keys == nil {
		return nil, errors.New("make API server: catalog, dispatcher and keys are needed")
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), drained: make(chan struct{})}
	s.uploads = newPlaces(cfg.MaxUploads, faas.Errorf(faas.Overloaded, "receive code", "as many uploads are under way as may be").
		WithLimit("uploads").WithFix("send it again in a moment"))
	s.hooks = newPlaces(maxHooks, faas.Errorf(faas.Overloaded, "take web hook", "as many web hooks are being received as may be").
		WithLimit("web_hooks").WithFix("send it again in a moment"))
	s.drain = sync.OnceFunc(func() { close(s.drained) })
	s.huma = humago.New(s.mux, s.describe())
	s.routes()
	var err error
	if s.document, err = json.MarshalIndent(s.huma.OpenAPI(), "", " "); err != nil {
		return nil, fmt.Errorf("write OpenAPI document: %w", err)
	}
	if s.yaml, err = s.huma.OpenAPI().YAML(); err != nil {
		return nil, fmt.Errorf("write OpenAPI document: %w", err)
	}
	return s, nil
}

// Drain ends the streams that have no end of their own, such as logs that are followed. Calls go
// on to their end.
func (s *Server) Drain() { s.drain() }

// describe says what huma is to know before the first route.
func (s *Server) describe() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	// Types that are written as something else than their fields.
	registry.RegisterTypeAlias(reflect.TypeFor[faas.Name](), reflect.TypeFor[string]())
	registry.RegisterTypeAlias(reflect.TypeFor[faas.Timing](), reflect.TypeFor[Timing]())
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: strict}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Brasa", Version: s.cfg.Version.API,
				Description: "Functions as a service. Every answer is an envelope, save those that are a function's own bytes.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key": {Type: "http", Scheme: "bearer", Description: "An API key: Authorization: Bearer brasa_..."},
				},
			},
		},
		Formats:                      map[string]huma.Format{jsonType: format, "json": format},
		DefaultFormat:                jsonType,
		RejectUnknownQueryParameters: true,
	}
}

// ServeHTTP answers a request for anything of ours: /v1, /readyz, /healthz and the functions' own
// URLs. The latter are read before any router sees them, so that nothing cleans their paths.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if encoded := EncodedPath(r); strings.HasPrefix(encoded, functionPrefix) {
		s.serveFunction(w, r, encoded)
		return
	}
	// The router would redirect a path that is not clean. No path of ours needs cleaning, and
	// there is to be one way only to write each.
	if p := r.URL.Path; r.Method == http.MethodConnect || !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		NoRoute(w, r, s.cfg.Logger)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		if allowed := s.methods(r); len(allowed) > 0 {
			NoMethod(w, r, s.cfg.Logger, allowed)
		} else {
			NoRoute(w, r, s.cfg.Logger)
		}
		return
	}
	w.Header().Set(HeaderRequestID, string(CallerOf(r.Context()).ID))
	s.mux.ServeHTTP(w, r)
}

// methods returns those that the path of r has.
func (s *Server) methods(r *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := *r
		other.Method = m
		if _, pattern := s.mux.Handler(&other); pattern != "" {
			out = append(out, m)
		}
	}
	return out
}

// base returns what the client that sent r calls this server.
func (s *Server) base(r *http.Request) string {
	if s.cfg.URL != "" || r == nil {
		return s.cfg.URL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// Timing is faas.Timing as it is written.
type Timing struct {
	Begin   string           `json:"begin" format:"date-time" doc:"When the door took the request"`
	TotalUS int64            `json:"total_us" doc:"Until the last byte of the answer was handed over, in microseconds"`
	Phases  []faas.PhaseTime `json:"phases" doc:"Those that the invocation entered, in order"`
}

type requestKey struct{}

// init sets what huma keeps for the whole process. No other package of ours uses huma.
func init() {
	huma.DefaultArrayNullable = false
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return newError(nil, status, message, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		return newError(ctx, status, message, errs)
	}
}

// newError makes our envelope of what huma found wrong with a request.
func newError(ctx huma.Context, status int, message string, errs []error) *refusal {
	var caller Caller
	if ctx != nil {
		caller = CallerOf(ctx.Context())
	}
	var err error
	switch {
	case status == 0: // asked for its type only
		return &refusal{}
	case len(errs) > 0:
		err = invalid(errs)
	default:
		err = faas.Errorf(faas.Invalid, "read request", "%s", message)
	}
	switch status {
	case http.StatusRequestEntityTooLarge:
		err = faas.Errorf(faas.TooLarge, "read request", "the request's body is over %s", maxDocument).WithLimit("body_bytes")
	case http.StatusUnsupportedMediaType:
		e := faas.Errorf(faas.Invalid, "read request", "the body's content type is not one that this route takes").WithFix("send it as %s", jsonType)
		err = &protocolError{status: status, err: e}
	case http.StatusNotAcceptable:
		err = &protocolError{status: status, err: faas.Errorf(faas.Invalid, "write answer", "answers are %s", jsonType)}
	}
	out := refuse(slog.New(slog.DiscardHandler), caller.ID, err)
	if ctx != nil {
		for k, v := range out.header {
			for _, v := range v {
				ctx.SetHeader(k, v)
			}
		}
	}
	return out
}
