package openwhisk

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/brasa-dev/brasa/internal/faas"
)

// rejection is an answer that is an error.
type rejection struct {
	status  int
	message string
	allow   string // of a 405: the methods that there are
}

func (r *rejection) Error() string { return r.message }

// reject returns an error that is answered with the status and the message.
func reject(status int, format string, args ...any) *rejection {
	return &rejection{status: status, message: fmt.Sprintf(format, args...)}
}

// Rejections that many routes have.
var (
	errNotFound    = reject(http.StatusNotFound, "The requested resource does not exist.")
	errForbidden   = reject(http.StatusForbidden, "The supplied authentication is not authorized to access this resource.")
	errUnknown     = reject(http.StatusUnauthorized, "The supplied authentication is invalid.")
	errNotJSON     = reject(http.StatusBadRequest, "The request content was malformed: it is no JSON object.")
	errUnsupported = reject(http.StatusUnsupportedMediaType, "The request's content type is not application/json.")
)

func notAllowed(methods string) *rejection {
	return &rejection{status: http.StatusMethodNotAllowed, message: "HTTP method not allowed here; supported: " + methods, allow: methods}
}

func tooLarge(what string, actual, allowed int64) *rejection {
	return reject(http.StatusRequestEntityTooLarge, "%s is too large: %d bytes exceed the %d that are allowed", what, actual, allowed)
}

// asRejection is the answer to an error of another part of the server.
func asRejection(err error) *rejection {
	if r, ok := err.(*rejection); ok {
		return r
	}
	e := faas.AsError(err)
	status := http.StatusInternalServerError
	switch e.Code {
	case faas.Invalid:
		status = http.StatusBadRequest
	case faas.Unauthenticated:
		status = http.StatusUnauthorized
	case faas.Denied:
		status = http.StatusForbidden
	case faas.NotFound:
		status = http.StatusNotFound
	case faas.Conflict:
		status = http.StatusConflict
	case faas.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case faas.Overloaded:
		status = http.StatusTooManyRequests
	case faas.Unavailable:
		status = http.StatusServiceUnavailable
	case faas.Canceled:
		status = 499 // nobody is left to see it
	}
	message := e.Message()
	if e.Fix != "" {
		message += "; " + e.Fix
	}
	return &rejection{status: status, message: message}
}

// writeError answers with an error in the form that OpenWhisk's clients read: both of its fields must
// be there.
func writeError(w http.ResponseWriter, transaction string, r *rejection) {
	h := w.Header()
	if r.allow != "" {
		h.Set("Allow", r.allow)
	}
	if r.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="OpenWhisk"`)
	}
	writeJSON(w, r.status, map[string]string{"error": r.message, "code": transaction})
}

// answer answers with what a change came to. It is called when nothing is locked any more: what is large takes
// as long as its caller likes.
func (c *call) answer(v any, err error) error {
	if err == nil {
		writeJSON(c.w, http.StatusOK, v)
	}
	return err
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // not possible: all that is written was built here or read from JSON
		status, b = http.StatusInternalServerError, []byte(`{"error":"The answer could not be written.","code":""}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // an error means that nobody is left to hear of it
}
