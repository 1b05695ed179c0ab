package faas

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a call may say about its waiting, and a function about such calls.
const (
	MaxWaitWord    = 255                  // bytes of a key or an order
	MaxDestination = 2048                 // bytes
	MaxDelay       = 366 * 24 * time.Hour // how far ahead an invocation may be due
	MaxRetries     = 100
	MaxBackoff     = Duration(24 * time.Hour)
	MaxMaxAge      = Duration(366 * 24 * time.Hour)
)

const opWait = "read how the call waits"

// Validate says which part of it, if any, makes no sense at the time now. The error names the part
// by the word that w's JSON has for it.
func (w *Wait) Validate(now time.Time) error {
	for _, s := range []struct{ name, value string }{{"key", w.Key}, {"order", w.Order}} {
		if err := validateWord(s.name, s.value); err != nil {
			return err
		}
	}
	switch w.Priority {
	case "", PriorityHigh, PriorityNormal, PriorityLow:
	default:
		return Errorf(Invalid, opWait, "priority is %q; it is %s, %s or %s", clip(string(w.Priority)), PriorityHigh, PriorityNormal, PriorityLow)
	}
	if w.NotBefore.Sub(now) > MaxDelay {
		return Errorf(Invalid, opWait, "not_before is over %d days ahead", MaxDelay/(24*time.Hour)).WithLimit("not_before")
	}
	if err := w.OnSuccess.validate("on_success"); err != nil {
		return err
	}
	return w.OnFailure.validate("on_failure")
}

// validateWord checks a key or an order: a line of text that can be shown. None is legal.
func validateWord(name, s string) error {
	switch {
	case len(s) > MaxWaitWord:
		return Errorf(Invalid, opWait, "%s has %d bytes; at most %d", name, len(s), MaxWaitWord).WithLimit(name)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return Errorf(Invalid, opWait, "%s has characters that cannot be shown in a line of text", name)
	case strings.TrimSpace(s) != s:
		return Errorf(Invalid, opWait, "%s begins or ends with a space", name)
	}
	return nil
}

// Hook returns the URL of a destination that is a web hook, and whether it is one.
func (d Destination) Hook() (*url.URL, bool) {
	if !strings.Contains(string(d), "://") {
		return nil, false
	}
	u, err := url.Parse(string(d))
	return u, err == nil
}

// Target returns the function of a destination that is one, in a namespace.
func (d Destination) Target(namespace string) (Name, error) {
	p, f, packaged := strings.Cut(string(d), "/")
	if !packaged {
		p, f = "", p
	}
	n := Name{Namespace: namespace, Package: p, Function: f}
	if packaged && p == "" {
		return n, ValidateName("package", p)
	}
	return n, n.Validate()
}

// validate says whether it has the form of a destination. That the function exists, and that the
// URL's host may be reached, is for others to say.
func (d Destination) validate(name string) error {
	bad := func(why string) error {
		return Errorf(Invalid, opWait, "%s %s", name, why).WithFix("name a function of the same namespace, or a URL such as https://example.com/hook")
	}
	if d == "" {
		return nil
	}
	if len(d) > MaxDestination {
		return bad("is too long")
	}
	if !strings.Contains(string(d), "://") {
		if _, err := d.Target("_"); err != nil {
			return bad("is neither a function's name nor a URL: " + AsError(err).Message())
		}
		return nil
	}
	u, ok := d.Hook()
	switch {
	case !ok || u.Host == "" || u.Hostname() == "" || strings.ContainsFunc(string(d), func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return bad("is not a URL as they are written")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("has a scheme that is neither https nor http")
	case u.User != nil:
		return bad("has a name or password in its URL, which everybody would see who may look at the call")
	case !plainHost(u.Hostname()):
		return bad("has a host that some read as an address, and that is not written as one")
	case !plainPort(u.Port()):
		return bad("has a port that is no port")
	case u.Fragment != "":
		return bad("has a fragment (#…), which is not sent")
	}
	return nil
}

// plainHost says whether a host is a name or an address as they are usually written. "2130706433",
// "127.1" and "0x7f.1" are addresses to some programs and names to others.
func plainHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	last := strings.ToLower(host[strings.LastIndexByte(host, '.')+1:])
	if rest, hex := strings.CutPrefix(last, "0x"); hex && strings.Trim(rest, "0123456789abcdef") == "" {
		return false
	}
	return strings.Trim(last, "0123456789") != ""
}

func plainPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// Fill replaces what is zero by what def says; either may be nil. It returns nil if nothing is said.
func (a *Async) Fill(def *Async) *Async {
	out := Async{}
	for _, from := range []*Async{a, def} {
		if from == nil {
			continue
		}
		if out.Retries == nil {
			out.Retries = from.Retries
		}
		fill(&out.Backoff, from.Backoff)
		fill(&out.BackoffMost, from.BackoffMost)
		fill(&out.MaxAge, from.MaxAge)
		fill(&out.OnSuccess, from.OnSuccess)
		fill(&out.OnFailure, from.OnFailure)
		fill(&out.Public, from.Public)
	}
	if out == (Async{}) {
		return nil
	}
	return &out
}

// Validate says which part of a function's policy, if any, makes no sense.
func (a *Async) Validate() error {
	const op = "read policy of async calls"
	bad := func(key, format string, args ...any) error {
		return Errorf(Invalid, op, "async."+key+" "+format, args...).WithLimit("async." + key)
	}
	if a.Retries != nil && (*a.Retries < 0 || *a.Retries > MaxRetries) {
		return bad("retries", "is %d; it must be from 0 to %d", *a.Retries, MaxRetries)
	}
	for _, d := range []struct {
		key       string
		got, most Duration
	}{{"backoff_ms", a.Backoff, MaxBackoff}, {"backoff_most_ms", a.BackoffMost, MaxBackoff}, {"max_age_ms", a.MaxAge, MaxMaxAge}} {
		if d.got < 0 || d.got > d.most {
			return bad(d.key, "is %s; it must be from 1ms to %s, or 0 for the default", d.got, d.most)
		}
	}
	if a.Backoff != 0 && a.BackoffMost != 0 && a.BackoffMost < a.Backoff {
		return bad("backoff_most_ms", "is %s, which is less than the first back-off of %s", a.BackoffMost, a.Backoff)
	}
	if err := a.OnSuccess.validate("async.on_success"); err != nil {
		return err
	}
	return a.OnFailure.validate("async.on_failure")
}
