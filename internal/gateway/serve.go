package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// ServeHTTP takes a request in and hands it to the dialect that its path names.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.inFlight.Add(1)
	defer g.inFlight.Done()
	if instance := faas.InstanceOf(r.Context()); instance != "" { // of the connection, which outlives what is asked by it
		r = r.WithContext(faas.WithInstance(r.Context(), instance))
	}
	begin := time.Now()
	c := api.Caller{ID: faas.NewID(begin), Begin: begin}
	answer := newAnswer(w, r, g.cfg.WriteTimeout)
	defer answer.end()
	path := api.EncodedPath(r)
	refused := g.identify(r, path, &c)
	r = r.WithContext(api.WithCaller(r.Context(), c))
	defer g.survive(answer, r, c.ID)
	if r.Body != nil && r.Body != http.NoBody {
		b := newBody(r.Body, w, g.cfg.BodyCredit, g.cfg.BodyRate)
		r.Body = b
		defer func() {
			if !answer.hijacked {
				b.finish()
			}
		}()
	}
	switch {
	case refused != nil:
		api.WriteError(answer, r, g.cfg.Logger, refused)
	case native(path):
		g.cfg.API.ServeHTTP(answer, r)
	case registry(path) && g.cfg.Registry != nil:
		g.cfg.Registry.ServeHTTP(answer, r)
	case openwhisk.Serves(path) && g.cfg.OpenWhisk != nil:
		g.cfg.OpenWhisk.ServeHTTP(answer, r)
	default:
		api.NoRoute(answer, r, g.cfg.Logger)
	}
}

// native says whether a path, as it stood on the wire, belongs to the native dialect.
func native(path string) bool {
	return strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/f/") || path == "/readyz" || path == "/healthz"
}

// registry says whether a path belongs to the registry of images.
func registry(path string) bool { return path == "/v2" || strings.HasPrefix(path, "/v2/") }

// identify finds out who sends r. To the registry a key also comes as the password that its clients
// ask for. A function's own URL may carry an Authorization header that is
// meant for the function; it is looked at only if it has the form of our keys.
func (g *Gateway) identify(r *http.Request, path string, c *api.Caller) error {
	headers := r.Header["Authorization"]
	switch {
	case openwhisk.Serves(path): // its keys are of another kind
		return nil
	case len(headers) == 0:
		return nil
	case len(headers) > 1:
		// Which of them counts would differ between us and whoever looked before.
		return faas.Errorf(faas.Invalid, "authenticate", "the request has %d Authorization headers", len(headers)).WithFix("send one")
	case strings.HasPrefix(path, "/f/") && !auth.Holds(headers[0]):
		return nil
	}
	header := headers[0]
	if registry(path) {
		header = auth.FromBasic(header)
	}
	// An instance's address is another's one day, which must not wait for what this one has guessed.
	c.Identity, c.Refused = g.cfg.Keys.Authenticate(r.Context(), header, cmp.Or(faas.InstanceOf(r.Context()), r.RemoteAddr))
	return nil
}

// survive turns a panic of whoever handled r into an answer and a line in the log.
func (g *Gateway) survive(w *answer, r *http.Request, id faas.ID) {
	p := recover()
	switch {
	case p == nil:
		return
	case p == http.ErrAbortHandler: // asked for: the connection breaks
		panic(p)
	}
	g.cfg.Logger.Error("request panicked", "request", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.began || w.hijacked {
		panic(http.ErrAbortHandler)
	}
	for name := range w.Header() { // of an answer that is not given
		w.Header().Del(name)
	}
	api.WriteError(w, r, g.cfg.Logger, faas.Errorf(faas.Internal, "handle request", "panic: %v", p))
}
