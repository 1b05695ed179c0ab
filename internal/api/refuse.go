package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// refusal is a Refusal on its way out, with what the headers need.
type refusal struct {
	Refusal
	status int
	header http.Header
}

// Error returns the message.
func (r *refusal) Error() string { return r.Fault.Message }

// GetStatus returns the status of HTTP.
func (r *refusal) GetStatus() int { return r.status }

// GetHeaders returns the headers that go with the answer.
func (r *refusal) GetHeaders() http.Header { return r.header }

// protocolError is a mistake in the use of HTTP that has a status of its own.
type protocolError struct {
	status int
	header http.Header
	err    *faas.Error
}

func (p *protocolError) Error() string { return p.err.Error() }
func (p *protocolError) Unwrap() error { return p.err }

// refuse makes the envelope for err. What is our own fault is told to the log, not to the caller:
// paths and the like are none of his business.
func refuse(log *slog.Logger, id faas.ID, err error) *refusal {
	e := faas.AsError(err)
	r := &refusal{status: StatusOf(e.Code), header: http.Header{}}
	r.Fault = &Fault{
		Code: e.Code.String(), Message: e.Message(), Hint: e.Fix, Limit: e.Limit, Trace: e.Trace,
		Docs: "brasa help " + e.Code.String(), RequestID: string(id),
	}
	switch e.Code {
	case faas.Internal:
		log.Error("request failed", "request", id, "error", err)
		r.Fault.Message = "the server met an error of its own; its log has the details under this request id"
	case faas.Unauthenticated:
		r.header.Set("WWW-Authenticate", `Bearer realm="brasa"`)
	case faas.Overloaded:
		r.header.Set("Retry-After", "1")
		if e.Limit == "failed_attempts" {
			r.header.Set("Retry-After", "3") // in which an address may try once more
		}
		if e.After > time.Second {
			r.header.Set("Retry-After", strconv.Itoa(int((e.After+time.Second-1)/time.Second)))
		}
	case faas.Unavailable:
		r.header.Set("Retry-After", "5")
	}
	if p, ok := errors.AsType[*protocolError](err); ok {
		r.status = p.status
		for k, v := range p.header {
			r.header[k] = v
		}
	}
	return r
}

// WriteError answers a request with the envelope for err. Nothing may have been written yet.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	c := CallerOf(r.Context())
	out := refuse(log, c.ID, err)
	h := w.Header()
	for k, v := range out.header {
		h[k] = v
	}
	h.Set(HeaderRequestID, string(c.ID))
	writeJSON(w, out.status, out.Refusal)
}

// writeJSON answers with v. The answer is whole or the connection is broken.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // no wire type can fail to encode
	}
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String())) // an error means that nobody is left to hear of it
}

// noRoute is the error for a path that leads nowhere.
func noRoute(r *http.Request) error {
	return faas.Errorf(faas.NotFound, "find route", "there is nothing at %.120q", r.URL.EscapedPath()).
		WithFix("the API is described at /v1/openapi.json; functions are called at /f/NAMESPACE/NAME")
}

// NoRoute answers a request for a path that leads nowhere.
func NoRoute(w http.ResponseWriter, r *http.Request, log *slog.Logger) {
	WriteError(w, r, log, noRoute(r))
}

// NoMethod answers a request with a method that the path does not have.
func NoMethod(w http.ResponseWriter, r *http.Request, log *slog.Logger, allowed []string) {
	err := faas.Errorf(faas.Invalid, "find route", "%.20q is not a method of %.120q", r.Method, r.URL.EscapedPath()).
		WithFix("use %s", strings.Join(allowed, " or "))
	WriteError(w, r, log, &protocolError{status: http.StatusMethodNotAllowed, header: http.Header{"Allow": {strings.Join(allowed, ", ")}}, err: err})
}
