package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Headers of calls whose caller does not wait. None of them ever reaches a function.
const (
	HeaderKey       = "Idempotency-Key" // which does reach it, since others read it too
	HeaderPriority  = "Brasa-Priority"
	HeaderOrder     = "Brasa-Order"
	HeaderNotBefore = "Brasa-Not-Before"
	HeaderDelay     = "Brasa-Delay"
	HeaderOnSuccess = "Brasa-On-Success"
	HeaderOnFailure = "Brasa-On-Failure"
	HeaderThen      = "Brasa-Then"
)

// waitWords are what a call may say about its waiting, each as a header or, for a call by name, as
// a parameter of the query.
var waitWords = []struct{ name, header, doc string }{
	{"key", HeaderKey, "Makes several requests one: a request of the same function with the same key within a day of the first is answered with the id of the first, and nothing else happens"},
	{"priority", HeaderPriority, "high, normal or low: which of the function's calls that wait go first"},
	{"order", HeaderOrder, "Calls of the function with the same word go one after the other"},
	{"not_before", HeaderNotBefore, "When it is due at the earliest (RFC 3339)"},
	{"delay", HeaderDelay, "How long it waits at least, such as 90s or 10m"},
	{"on_success", HeaderOnSuccess, "Where its answer goes, instead of where the function says: a function of the namespace, or a URL"},
	{"on_failure", HeaderOnFailure, "Where it is told that it was given up, instead of where the function says"},
	{"then", HeaderThen, "Functions that are called one after the other, each with the answer of the one before; a list with commas"},
}

// ours are the headers of answers, which somebody may send on; they say nothing about a request.
var ours = []string{HeaderRequestID, HeaderInvocationID, HeaderOutcome, HeaderStart, HeaderCause, HeaderCut, "Brasa-Attempt"}

// publicKeys begins what the keys of callers without a key of the namespace become, so that nobody
// outside can take a key before those who are inside.
const publicKeys = "public:"

const opWait = "read how the call waits"

// preferences are those of RFC 7240 that are understood.
type preferences struct {
	async bool          // not to wait for the answer
	wait  time.Duration // how long the caller is willing to wait; 0: not said
}

// preferencesOf reads the Prefer headers of a request. Of one that comes twice the first counts, and
// one that makes no sense is ignored, says the RFC.
func preferencesOf(r *http.Request) (p preferences) {
	seen := map[string]bool{}
	for _, v := range r.Header["Prefer"] {
		for one := range strings.SplitSeq(v, ",") {
			one, _, _ = strings.Cut(one, ";")
			name, value, _ := strings.Cut(strings.TrimSpace(one), "=")
			name, value = strings.ToLower(strings.TrimSpace(name)), strings.Trim(value, `" `)
			if seen[name] {
				continue
			}
			seen[name] = true
			switch name {
			case "respond-async":
				p.async = value == ""
			case "wait":
				if s, err := strconv.Atoi(value); err == nil && s >= 1 && s <= 86400 {
					p.wait = time.Duration(s) * time.Second
				}
			}
		}
	}
	return p
}

// deadline returns the shorter of what the caller is willing to wait and timeout. Who does not wait
// at all sets no time for the call by that.
func (p preferences) deadline(timeout time.Duration) time.Duration {
	if p.async || p.wait == 0 || timeout > 0 && timeout < p.wait {
		return timeout
	}
	return p.wait
}

// applied says which preferences were followed.
func (p preferences) applied(h http.Header) {
	var said []string
	if p.async {
		said = append(said, "respond-async")
	}
	if p.wait > 0 {
		said = append(said, "wait="+strconv.Itoa(int(p.wait/time.Second)))
	}
	if len(said) > 0 {
		h.Set("Preference-Applied", strings.Join(said, ", "))
	}
}

// waitOf reads how a call is to wait. query has the parameters that are ours, nil if none are.
// Of a call whose caller waits nothing may be said.
func waitOf(r *http.Request, query url.Values, async bool) (*faas.Wait, error) {
	said := map[string]string{}
	for _, word := range waitWords {
		var values []string
		if async || word.header != HeaderKey { // functions have keys of their own
			values = append(values, r.Header[word.header]...)
		}
		if values = append(values, query[word.name]...); len(values) == 0 {
			continue
		}
		if !async {
			return nil, faas.Errorf(faas.Invalid, opWait, "%s is for calls whose caller does not wait", word.name).
				WithFix("send the header Prefer: respond-async, or leave it out")
		}
		if len(values) > 1 {
			return nil, faas.Errorf(faas.Invalid, opWait, "%s comes %d times", word.name, len(values))
		}
		if said[word.name] = strings.TrimSpace(values[0]); said[word.name] == "" {
			return nil, faas.Errorf(faas.Invalid, opWait, "%s is empty", word.name)
		}
	}
	if !async {
		return nil, nil
	}
	for name := range r.Header {
		known := func(w struct{ name, header, doc string }) bool { return w.header == name }
		if strings.HasPrefix(name, "Brasa-") && !slices.Contains(ours, name) && !slices.ContainsFunc(waitWords, known) {
			return nil, faas.Errorf(faas.Invalid, opWait, "there is no header %.80q", name).WithFix("there are: %s", strings.Join(waitHeaders(), ", "))
		}
	}
	return readWait(said, time.Now())
}

// readWait makes a Wait of the words that were said.
func readWait(said map[string]string, now time.Time) (*faas.Wait, error) {
	w := &faas.Wait{
		Priority: faas.Priority(said["priority"]), Order: said["order"],
		OnSuccess: faas.Destination(said["on_success"]), OnFailure: faas.Destination(said["on_failure"]),
	}
	var err error
	if w.Key, err = idempotencyKey(said["key"]); err != nil {
		return nil, err
	}
	if strings.HasPrefix(w.Key, publicKeys) {
		return nil, faas.Errorf(faas.Invalid, opWait, "key begins with %q, as those of strangers do", publicKeys)
	}
	at, delay := said["not_before"], said["delay"]
	switch {
	case at != "" && delay != "":
		return nil, faas.Errorf(faas.Invalid, opWait, "not_before and delay are both given").WithFix("give one of them")
	case at != "":
		if w.NotBefore, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return nil, faas.Errorf(faas.Invalid, opWait, "not_before is %.40q; write a time as 2006-01-02T15:04:05Z", at)
		}
	case delay != "":
		d, err := time.ParseDuration(delay)
		if err != nil || d < 0 || d > faas.MaxDelay {
			return nil, faas.Errorf(faas.Invalid, opWait, "delay is %.40q; write a time span as 90s or 10m, at most %d days", delay, faas.MaxDelay/(24*time.Hour)).WithLimit("not_before")
		}
		w.NotBefore = now.Add(d)
	}
	if then := said["then"]; then != "" {
		for step := range strings.SplitSeq(then, ",") {
			w.Then = append(w.Then, faas.Destination(strings.TrimSpace(step)))
		}
	}
	return w, w.Validate(now)
}

// idempotencyKey reads the header as the IETF's draft has it, a string in quotes (RFC 8941), and as
// many send it, bare.
func idempotencyKey(s string) (string, error) {
	bad := func(why string) (string, error) {
		return "", faas.Errorf(faas.Invalid, opWait, "key %s", why).WithFix(`write it as Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`)
	}
	if !strings.HasPrefix(s, `"`) {
		if strings.ContainsAny(s, `",`) {
			return bad("has a quote or a comma and stands in no quotes")
		}
		return s, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && i == len(s)-1:
			if b.Len() == 0 {
				return bad("is empty")
			}
			return b.String(), nil
		case c == '"':
			return bad("goes on behind its closing quote")
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return bad("has a backslash before something else than a quote or a backslash")
			}
			b.WriteByte(s[i])
		case c < ' ' || c >= 0x7f:
			return bad("has characters in its quotes that are not ASCII")
		default:
			b.WriteByte(c)
		}
	}
	return bad("has no closing quote")
}

// Accepted says that a call will run.
type Accepted struct {
	ID       faas.ID    `json:"id" doc:"Of the call: that of an earlier one, if its key was known"`
	Function string     `json:"function"`
	Repeated bool       `json:"repeated" doc:"An earlier call had the same key; it is that one, and nothing was added"`
	Stage    faas.Stage `json:"stage" enum:"queued,running,retrying,succeeded,failed,dead,canceled" doc:"Where it stands: queued, unless it was repeated or waited for"`
	Due      time.Time  `json:"due,omitzero" doc:"When it is due, if that is later"`
	Location string     `json:"location" doc:"Where its status is; with /result behind it, its answer"`
}

// enqueue accepts a call whose caller does not wait. answered gives the answer of one that ended
// while the caller was willing to wait.
func (s *Server) enqueue(w http.ResponseWriter, r *http.Request, inv *faas.Invocation, p preferences, answered func(*faas.Activation) error) error {
	if upgradeOf(r.Header) != "" {
		return faas.Errorf(faas.Invalid, opWait, "a connection that changes its protocol needs a caller").WithFix("leave out Prefer: respond-async")
	}
	p.wait = min(p.wait, longestWait*time.Second)
	delete(inv.Header, "Prefer") // or who sends on what he got would not wait either
	id, err := s.cfg.Dispatcher.Enqueue(r.Context(), inv)
	if err != nil {
		return err
	}
	ns := inv.Function.Name.Namespace
	w.Header().Set(HeaderInvocationID, string(id))
	w.Header().Del(HeaderOutcome) // it has none yet
	p.applied(w.Header())
	out := Accepted{
		ID: id, Function: inv.Function.Name.Path(), Repeated: id != inv.ID, Stage: faas.StageQueued,
		Location: s.base(r) + "/v1/namespaces/" + url.PathEscape(ns) + "/activations/" + string(id),
	}
	if p.wait > 0 || out.Repeated { // of one that was there before it is not known where it stands
		rec, err := s.await(r.Context(), ns, id, p.wait)
		switch {
		case err == nil && rec.final() && rec.whole() && !out.Repeated:
			return answered(rec.Activation)
		case err == nil:
			out.Stage = rec.Stage
		case faas.CodeOf(err) != faas.NotFound: // its record may be gone before its key is
			s.cfg.Logger.Warn("status of accepted call not found", "invocation", id, "cause", err)
		}
	}
	if inv.Wait != nil && inv.Wait.NotBefore.After(time.Now()) && !out.Repeated {
		out.Due = inv.Wait.NotBefore.UTC()
	}
	w.Header().Set("Location", out.Location)
	writeJSON(w, http.StatusAccepted, Answer[Accepted]{OK: true, Data: out})
	return nil
}

// strangersMay says whether who has no key of the function's namespace may leave a call with it, and
// keeps what he says about its waiting apart from what insiders say.
func strangersMay(c Caller, rev *faas.Revision, w *faas.Wait) error {
	const op = "check access"
	code := faas.Denied
	if c.Identity.KeyID == "" {
		code = faas.Unauthenticated
	}
	if rev.Async == nil || !rev.Async.Public {
		return faas.Errorf(code, op, "who has no key of its namespace must wait for this function's answer").
			WithFix("leave out Prefer: respond-async, send a key, or have its owner deploy it with --async-public")
	}
	if w.Key != "" {
		w.Key = publicKeys + w.Key
	}
	other := *w
	other.Key = ""
	if other.Priority != "" || other.Order != "" || !other.NotBefore.IsZero() || other.OnSuccess != "" || other.OnFailure != "" || other.Then != nil {
		return faas.Errorf(code, op, "who has no key of the function's namespace may give an Idempotency-Key and nothing else of how the call waits")
	}
	return nil
}

// await returns the record of a call when it is final, or as it is when the time is up.
func (s *Server) await(ctx context.Context, namespace string, id faas.ID, most time.Duration) (*Record, error) {
	end := time.Now().Add(most)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, longestPause) {
		rec, err := s.record(ctx, namespace, id)
		left := time.Until(end)
		if err != nil || rec.final() || left <= 0 {
			return rec, err
		}
		select {
		case <-time.After(min(pause, left)):
		case <-s.drained:
			return rec, nil
		case <-ctx.Done():
			return rec, nil
		}
	}
}

// longestPause is between two looks at a call that is waited for. Who waits for one that takes long
// does not mind; a thousand who wait cost four thousand looks a second.
const longestPause = 250 * time.Millisecond

func waitHeaders() []string {
	var out []string
	for _, w := range waitWords {
		out = append(out, w.header)
	}
	return out
}

// waitParameters are those of every call that may be one whose caller does not wait.
func waitParameters(named bool) []*huma.Param {
	out := []*huma.Param{headerParam("Prefer", "wait=SECONDS cuts the call's deadline (RFC 7240). With respond-async the call is accepted and answered with 202; with both, that is answered after so many seconds if it has not ended before")}
	if !named { // there the function's own parameters are
		out[0] = headerParam("Prefer", "respond-async: the call is accepted and answered with 202; with wait=SECONDS beside it, after so many seconds if it has not ended before (RFC 7240)")
	}
	for _, w := range waitWords {
		out = append(out, headerParam(w.header, w.doc+". With Prefer: respond-async"))
		if named {
			out = append(out, query(w.name, huma.TypeString, "The same as the header "+w.header))
		}
	}
	return out
}
