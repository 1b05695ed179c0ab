package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Failure is an error made ready for print.
type Failure struct {
	Code    string   // a faas.Code's name, or "usage", "unreachable", "interrupted"
	What    string   // what was tried
	Because string   // why it did not work
	Fix     []string // what to do, one command or sentence each
	Limit   string   // the key of the limit that was broken
	Trace   string   // the function's own stack trace
	ID      string   // of the request or invocation
	Exit    int
}

// FailureJSON is a Failure as --json writes it.
type FailureJSON struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Hint      string `json:"hint,omitempty"`
	Limit     string `json:"limit,omitempty"`
	Docs      string `json:"docs"`
	Trace     string `json:"trace,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	Exit      int    `json:"exit"`
}

// JSON returns the failure as --json writes it.
func (f Failure) JSON() FailureJSON {
	return FailureJSON{
		Code: f.Code, Message: f.Because, Hint: strings.Join(f.Fix, "\n"), Limit: f.Limit,
		Docs: "brasa help " + f.Code, Trace: f.Trace, RequestID: f.ID, Exit: f.Exit,
	}
}

// identified is an error that knows the request or invocation it belongs to.
type identified interface {
	error
	RequestID() string
}

// Explain makes err ready for print. err is not nil.
func Explain(err error) Failure {
	f := Failure{Because: err.Error()}
	if t, ok := errors.AsType[*taskError](err); ok {
		f.What, f.Because = t.task, t.err.Error()
	}
	if id, ok := errors.AsType[identified](err); ok {
		f.ID = id.RequestID()
	}
	if u, ok := errors.AsType[*UsageError](err); ok {
		f.Code, f.Exit, f.Because = "usage", ExitUsage, u.Text
		f.addFix(u.Fix)
		return f
	}
	if u, ok := errors.AsType[*UnreachableError](err); ok {
		f.Code, f.Exit, f.Because = "unreachable", ExitUnreachable, u.Error()
		f.addFix(reach(u))
		return f
	}
	if e, ok := errors.AsType[*faas.Error](err); ok {
		f.Code, f.Exit, f.Because = e.Code.String(), ExitOf(e.Code), e.Message()
		f.Limit, f.Trace = e.Limit, e.Trace
		f.addFix(e.Fix)
		if f.What == "" {
			f.What = e.Op
		}
		return f
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		f.Code, f.Exit = faas.Timeout.String(), ExitTimeout
	case interrupted(err):
		f.Code, f.Exit, f.Because = "interrupted", ExitInterrupted, "interrupted"
	default:
		// What nobody gave a code came from this machine: a file, a directory, a flag's value.
		f.Code, f.Exit = "usage", ExitUsage
	}
	return f
}

// reach says what to do when no answer came.
func reach(u *UnreachableError) string {
	if u.Fix != "" {
		return u.Fix
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](u.Err); ok {
		return "if the certificate is the server's own, have it trusted by the environment: SSL_CERT_FILE=CERTIFICATE"
	}
	if errors.Is(u.Err, http.ErrSchemeMismatch) {
		return "it speaks no TLS; say so: --server " + strings.Replace(u.Server, "https://", "http://", 1)
	}
	return "start one with: brasa serve   (or brasa dev), or say where it is: --server URL"
}

func (f *Failure) addFix(fix string) {
	if fix = strings.TrimSpace(fix); fix != "" {
		f.Fix = append(f.Fix, strings.Split(fix, "\n")...)
	}
}

// lines draws the failure for a person.
func (f Failure) lines(s Styles, clean func(string) string) string {
	var b strings.Builder
	what, because := clean(f.What), clean(f.Because)
	if what == "" {
		what, because = because, ""
	}
	b.WriteString(s.Bad.Render("Error["+f.Code+"]") + " " + s.Strong.Render(what) + "\n")
	if because != "" {
		b.WriteString("  because " + indentRest(because, "          ") + "\n")
	}
	if f.Trace != "" && !strings.Contains(f.Because, strings.TrimSpace(f.Trace)) {
		b.WriteString(indent(strings.TrimRight(clean(f.Trace), "\n"), "    ") + "\n")
	}
	for _, fix := range f.Fix {
		b.WriteString("  " + s.Good.Render("fix:") + " " + clean(fix) + "\n")
	}
	if f.Limit != "" {
		b.WriteString("  limit: " + f.Limit + "\n")
	}
	if f.ID != "" {
		b.WriteString("  request: " + clean(f.ID) + "\n")
	}
	b.WriteString("  " + s.Faint.Render("docs: brasa help "+f.Code) + "\n")
	return b.String()
}

func indent(s, by string) string { return by + indentRest(s, by) }

func indentRest(s, by string) string { return strings.ReplaceAll(s, "\n", "\n"+by) }
