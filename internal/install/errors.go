package install

import (
	"fmt"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// failed adds to an error what the tool wrote last.
func (b *build) failed(log *Tail, e *faas.Error) error {
	out := *e
	if out.Op == "" {
		out.Op = op
	}
	if out.Trace == "" {
		out.Trace = log.Lines(20)
	}
	return &out
}

// explain says why a tool ended with a failure.
func (b *build) explain(log *Tail, step JobStep, x sandbox.Exit) error {
	text := log.String()
	if x, ok := b.eco.(Explainer); ok {
		if e := x.Explain(b.m, text); e != nil {
			return b.failed(log, e)
		}
	}
	if e := b.unreachable(text); e != nil {
		return b.failed(log, e)
	}
	what := fmt.Sprintf("%s failed", b.job.Tool)
	if step.Name != "" {
		what += " to " + step.Name
	}
	if x.Signal != 0 {
		return b.failed(log, faas.Errorf(faas.Failed, op, "%s: it was ended by a signal (%s)", what, x))
	}
	last := lastLine([]byte(text))
	if last == "" {
		return b.failed(log, faas.Errorf(faas.Failed, op, "%s: %s", what, x))
	}
	return b.failed(log, faas.Errorf(faas.Failed, op, "%s: %s", what, last))
}

// unreachable recognizes what tools of all kinds write when there is no way to a registry.
func (b *build) unreachable(text string) *faas.Error {
	low := strings.ToLower(text)
	for _, sign := range []string{
		"temporary failure in name resolution", "name or service not known", "network is unreachable", "no route to host",
		"connection refused", "connection timed out", "could not resolve host", "eai_again", "enotfound", "econnrefused", "enetunreach",
		"etimedout", "dns error", "no such host", "i/o timeout", "failed to establish a new connection", "connecttimeout", "connection reset by peer",
		"connection broken by", "error sending request", "operation timed out", "could not reach host",
	} {
		if strings.Contains(low, sign) {
			e := faas.Errorf(faas.Unavailable, op, "%s cannot reach its registry: %s", b.job.Tool, lineWith(text, sign))
			if b.job.Origin != "" {
				return e.WithFix("see that %s answers; a registry on a private network is reached if its range is listed in egress.allow", b.job.Origin)
			}
			return e.WithFix("let the server reach the registry, or name a mirror that it reaches with the keys registries.*")
		}
	}
	for _, sign := range []string{"certificate verify failed", "self signed certificate", "self-signed certificate", "unable to get local issuer certificate", "x509:", "unable_to_verify_leaf_signature", "invalid peer certificate"} {
		if strings.Contains(low, sign) {
			return faas.Errorf(faas.Unavailable, op, "%s does not trust its registry's certificate: %s", b.job.Tool, lineWith(text, sign)).
				WithFix("name the file of the certificates that it is signed by with the key registries.ca")
		}
	}
	return nil
}

// lineWith returns the first line that has a text in it, whatever its case.
func lineWith(text, sign string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(strings.ToLower(line), sign) {
			return clip(strings.TrimSpace(line), 240)
		}
	}
	return ""
}

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// refused says of a finished layer why it is not kept, in words of dependencies.
func (b *build) refused(err error) error {
	e := *faas.AsError(err)
	e.Op = op
	switch e.Limit {
	case "code_bytes":
		e.Err = fmt.Errorf("the packages take more than %s", b.i.cfg.Limits.Bytes)
		e.Limit, e.Fix = "install_bytes", "name fewer or smaller packages, or have the operator raise install.bytes"
	case "code_entries":
		e.Err = fmt.Errorf("the packages have more than %d files and directories", b.i.cfg.Limits.Entries)
		e.Limit, e.Fix = "install_entries", "name fewer packages, or have the operator raise install.entries"
	default:
		if e.Code == faas.Invalid {
			e.Err = fmt.Errorf("the installed packages cannot be kept: %s", strings.ReplaceAll(e.Message(), "the code has", "they have"))
		}
	}
	return &e
}
