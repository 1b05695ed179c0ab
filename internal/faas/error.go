package faas

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Code says what became of an operation and who can mend it.
type Code uint8

// Codes. The zero value is success.
const (
	OK Code = iota

	// The caller can mend these.
	Invalid         // the request is malformed or over a limit that the caller set out to break
	TooLarge        // code, body or argument over its limit
	NotFound        // no such thing, or none that the caller may know of
	Conflict        // it exists already, or moved since it was read
	Unauthenticated // no key, or one we don't know
	Denied          // a known key that may not do this
	Overloaded      // a quota or the queue is full; later it may work
	Canceled        // the caller went away

	// The function's owner can mend these.
	Failed  // it returned or threw an error, or an answer that breaks its contract
	Crashed // its process died: exit, signal, out of memory
	Timeout // it ran past its deadline

	// The platform's operator can mend these.
	Unavailable // cannot serve this now, or not on this kernel; the message says why
	Internal    // our defect
)

var codeNames = [...]string{
	OK: "ok", Invalid: "invalid", TooLarge: "too_large", NotFound: "not_found", Conflict: "conflict",
	Unauthenticated: "unauthenticated", Denied: "denied", Overloaded: "overloaded", Canceled: "canceled",
	Failed: "failed", Crashed: "crashed", Timeout: "timeout", Unavailable: "unavailable", Internal: "internal",
}

// String returns the code's name on the wire.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code(%d)", uint8(c))
}

// MarshalText writes the name.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name.
func (c *Code) UnmarshalText(b []byte) error {
	for i, n := range codeNames {
		if n == string(b) {
			*c = Code(i)
			return nil
		}
	}
	return fmt.Errorf("unknown code %q", clip(string(b)))
}

// Fault names who can mend the outcome: "caller", "function", "platform", or "" for success.
func (c Code) Fault() string {
	switch {
	case c == OK:
		return ""
	case c <= Canceled:
		return "caller"
	case c <= Timeout:
		return "function"
	default:
		return "platform"
	}
}

// Error is what crosses a package's boundary and is acted upon.
type Error struct {
	Code  Code
	Op    string        // what was being done, lower case, verb first: "deploy function"
	Err   error         // the cause; its text is the message
	Fix   string        // what to do next, a command where there is one; may be empty
	Limit string        // the key of the limit that was broken; may be empty
	Trace string        // the function's own stack trace; may be empty
	After time.Duration // when it may be worth to try again; 0: nobody knows
}

// Errorf makes an Error whose cause is formatted as by fmt.Errorf.
func Errorf(code Code, op, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Err: fmt.Errorf(format, args...)}
}

// WithFix returns e with its remedy set.
func (e *Error) WithFix(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// WithLimit returns e with the key of the limit set.
func (e *Error) WithLimit(key string) *Error {
	e.Limit = key
	return e
}

// WithAfter returns e with the time set after which it may be worth to try again.
func (e *Error) WithAfter(d time.Duration) *Error {
	e.After = d
	return e
}

// Error returns the cause's text with the operation in front.
func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Op + ": " + e.Code.String()
	case e.Op == "":
		return e.Err.Error()
	default:
		return e.Op + ": " + e.Err.Error()
	}
}

// Message returns the cause's text alone, which is what a person reads.
func (e *Error) Message() string {
	if e.Err == nil {
		return e.Code.String()
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the outermost Error in err's chain; OK for nil, Canceled and
// Timeout for the context's errors, Internal for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// Told is an error's text for those who do not run the server: without the address of the name server that
// was asked.
func Told(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.Server != "" {
		text = strings.ReplaceAll(text, " on "+e.Server, "")
	}
	return text
}

// AsError returns err as an *Error, wrapping it with CodeOf's code where it is none. It returns
// nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeOf(err), Err: err}
}
