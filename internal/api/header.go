package api

import (
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Headers that belong to one connection (RFC 9110, section 7.6.1) and never go through us, in
// either direction; and Proxy, which programs in the manner of CGI take for a setting.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Proxy": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// Headers that only the platform may say. They are dropped from what comes in and set anew.
func platforms(name string) bool {
	return strings.HasPrefix(name, "Brasa-") || strings.HasPrefix(name, "X-Forwarded-") ||
		name == "Forwarded" || name == "X-Real-Ip"
}

// incoming returns the headers that a function may see. guarded says that the Authorization
// header was for us; one that has the form of our keys is never handed on.
func incoming(r *http.Request, id faas.ID, guarded bool) http.Header {
	dropped := connectionOptions(r.Header)
	out := make(http.Header, len(r.Header)+6)
	for name, values := range r.Header {
		// Some programs read '_' and '-' as one, so neither form of a name of ours passes.
		canonical := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if hopByHop[canonical] || platforms(canonical) || dropped[canonical] {
			continue
		}
		switch canonical {
		case "Content-Length", "Expect", "Host":
			continue // said otherwise, or dealt with here
		case "Authorization":
			if guarded || name != canonical {
				continue
			}
			values = notOurs(values)
		}
		if len(values) > 0 {
			out[name] = values
		}
	}
	if upgrade := upgradeOf(r.Header); upgrade != "" {
		out["Connection"], out["Upgrade"] = []string{"Upgrade"}, []string{upgrade}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	out["Host"] = []string{r.Host}
	out["X-Forwarded-For"] = []string{host}
	out["X-Forwarded-Host"] = []string{r.Host}
	out["X-Forwarded-Proto"] = []string{proto}
	out[HeaderInvocationID] = []string{string(id)}
	return out
}

func notOurs(values []string) []string {
	kept := values[:0:0]
	for _, v := range values {
		if !auth.Holds(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// connectionOptions returns the headers that Connection names, which end with the connection too.
func connectionOptions(h http.Header) map[string]bool {
	var named map[string]bool
	for _, v := range h["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			if named == nil {
				named = map[string]bool{}
			}
			named[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(option))] = true
		}
	}
	return named
}

// upgradeOf returns the protocol that a request asks to change to, "" if it does not.
func upgradeOf(h http.Header) string {
	if !httpguts.HeaderValuesContainsToken(h["Connection"], "Upgrade") || len(h["Upgrade"]) != 1 {
		return ""
	}
	return h["Upgrade"][0]
}

// outgoing puts a function's headers into the answer. One that no parser would read the same way
// as another is the function's failure; those that are not its to say are left out.
func outgoing(to, from http.Header, upgrade bool) error {
	dropped := connectionOptions(from)
	for name, values := range from {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if !httpguts.ValidHeaderFieldName(name) {
			return badHeader(name)
		}
		if hopByHop[canonical] && (!upgrade || canonical != "Upgrade") || !hopByHop[canonical] && dropped[canonical] || strings.HasPrefix(canonical, "Brasa-") {
			continue
		}
		if canonical == "Content-Length" {
			continue // counted here
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return badHeader(name)
			}
			to.Add(canonical, v)
		}
	}
	if upgrade {
		to.Set("Connection", "Upgrade")
	}
	return nil
}

func badHeader(name string) error {
	return faas.Errorf(faas.Failed, "read answer", "the function's answer has a header %.80q that is not legal: its name or value has a line break or control character", name)
}
