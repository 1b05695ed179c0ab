package api

import (
	"bytes"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

// callQuery are the parameters of a call by name, and of ad-hoc code.
type callQuery struct {
	raw      bool // the function's own bytes are the answer
	logs     bool // the envelope has what the function wrote
	revision faas.RevisionID
	timeout  time.Duration
	values   url.Values // all that was said
}

func parseCallQuery(r *http.Request) (callQuery, error) {
	var q callQuery
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, faas.Errorf(faas.Invalid, "read query", "the query is not well formed")
	}
	flag := func(name string) (on bool) {
		switch v := values.Get(name); v {
		case "", "false", "0":
			on = v == "" && values.Has(name) // ?raw alone means yes
		case "true", "1":
			on = true
		default:
			err = faas.Errorf(faas.Invalid, "read query", "%s is %.40q; it is true or false", name, v)
		}
		return on
	}
	q.values = values
	q.raw, q.logs = flag("raw"), flag("logs")
	if err != nil {
		return q, err
	}
	q.revision = faas.RevisionID(values.Get("revision"))
	if v := values.Get("timeout_ms"); v != "" {
		ms, err := strconv.ParseInt(v, 10, 64)
		if err != nil || ms < 1 || ms > int64(24*time.Hour/time.Millisecond) {
			return q, faas.Errorf(faas.Invalid, "read query", "timeout_ms is %.40q; it is a number of milliseconds, at least 1", v).WithLimit("timeout_ms")
		}
		q.timeout = time.Duration(ms) * time.Millisecond
	}
	return q, nil
}

// invocation makes the invocation that a request asks for. guarded says that the Authorization
// header was for us.
func invocation(r *http.Request, c Caller, kind faas.Kind, guarded bool) *faas.Invocation {
	inv := &faas.Invocation{
		ID: c.ID, Subject: c.Identity.Subject, Kind: kind, Method: http.MethodPost, Path: "/",
		Header: incoming(r, c.ID, guarded), Body: r.Body, Length: r.ContentLength,
	}
	inv.Timing.Begin = c.Begin
	if r.Body == http.NoBody || r.ContentLength == 0 {
		inv.Body, inv.Length = nil, 0
	}
	if cause, err := faas.ParseID(r.Header.Get(HeaderCause)); err == nil && c.Identity.KeyID != "" {
		inv.Cause = cause
	}
	return inv
}

// invoke calls a function by name.
func (s *Server) invoke(w http.ResponseWriter, r *http.Request, c Caller) error {
	name := faas.Name{Namespace: r.PathValue("namespace"), Function: r.PathValue("name")}
	if err := name.Validate(); err != nil {
		return err
	}
	q, err := parseCallQuery(r)
	if err != nil {
		return err
	}
	ref := faas.Ref{Name: name}
	if q.revision != "" {
		rev, err := s.cfg.Catalog.Revision(name, q.revision)
		if err != nil {
			return err
		}
		ref.Revision = rev.ID
	}
	p := preferencesOf(r)
	wait, err := waitOf(r, q.values, p.async)
	if err != nil {
		return err
	}
	inv := invocation(r, c, faas.KindInvoke, true)
	inv.Function = ref
	if t := p.deadline(q.timeout); t > 0 {
		inv.Deadline = c.Begin.Add(t)
	}
	functionHeaders(w.Header(), inv.ID, faas.OK)
	if p.async {
		inv.Wait = wait
		err := s.enqueue(w, r, inv, p, func(a *faas.Activation) error { return s.answerInvoke(w, r, a, q) })
		if err != nil {
			w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
		}
		return err
	}
	p.applied(w.Header())
	duplex(w)
	res, err := s.cfg.Dispatcher.Invoke(r.Context(), inv)
	if err != nil {
		w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
		return err
	}
	return s.answer(w, r, inv, res, q)
}

// answerInvoke gives the answer of a call that ended while its caller was willing to wait.
func (s *Server) answerInvoke(w http.ResponseWriter, r *http.Request, a *faas.Activation, q callQuery) error {
	if q.raw {
		return s.answerKept(w, r, &Record{ID: a.ID, Activation: a})
	}
	w.Header().Set(HeaderOutcome, a.Outcome.String())
	return s.replyKept(w, a, q.logs)
}

// answer gives a result back as the caller wants it. It closes the result's body.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, inv *faas.Invocation, res *faas.Result, q callQuery) error {
	var err error
	if q.raw {
		w.Header().Set(HeaderStart, string(inv.Report.Start))
		err = stream(w, r, res)
	} else {
		err = s.envelop(w, inv, res, q.logs)
	}
	if err != nil {
		w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
	}
	return err
}

// duplex lets a function answer while its input still arrives. HTTP/2 does so by itself.
func duplex(w http.ResponseWriter) {
	_ = http.NewResponseController(w).EnableFullDuplex()
}

// callParameters are those of every call by name or of ad-hoc code.
func callParameters() []*huma.Param {
	return []*huma.Param{
		query("raw", huma.TypeBoolean, "Answer with the function's own bytes, streamed"),
		query("logs", huma.TypeBoolean, "Have what the function wrote in the envelope"),
		query("timeout_ms", huma.TypeInteger, "Cut the call's deadline; it is the function's own at most"),
		headerParam(HeaderCause, "The id of the invocation that led to this one"),
	}
}

func (s *Server) callResponses() map[string]*huma.Response {
	ok := s.json(reflect.TypeFor[Answer[Reply]](), "The function's answer in the envelope; with raw=true its own bytes")
	ok.Content["*/*"] = &huma.MediaType{}
	head := func(doc string) *huma.Param {
		return &huma.Param{Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	ok.Headers = map[string]*huma.Param{
		HeaderInvocationID: head("Names the invocation and its activation"),
		HeaderOutcome:      head("ok, or the code of what went wrong"),
	}
	return map[string]*huma.Response{"200": ok}
}

func anyBody(doc string) *huma.RequestBody {
	return &huma.RequestBody{Description: doc, Content: map[string]*huma.MediaType{"*/*": {}}}
}

func (s *Server) callRoutes() {
	op := operation("invoke", http.MethodPost, aFunction+"/invoke", "Call a function and wait for its answer", "calls")
	op.Parameters = append(callParameters(), query("revision", huma.TypeString, "Pin a revision by its id or the first digits of it"))
	op.Parameters = append(op.Parameters, waitParameters(true)...)
	op.RequestBody = anyBody("What the function is called with")
	op.Responses = s.callResponses()
	op.Responses["202"] = s.json(reflect.TypeFor[Answer[Accepted]](), "Accepted; it is durable, and runs when it is its turn")
	s.raw(accessNamespace, op, s.invoke)

	op = operation("run", http.MethodPost, inNamespace+"/run", "Run ad-hoc code; nothing is deployed", "calls")
	op.Parameters = append(callParameters(), headerParam("Prefer", "wait=SECONDS cuts the call's deadline (RFC 7240)"))
	op.RequestBody = s.codeBody(reflect.TypeFor[RunSpec](), true)
	op.Responses = s.callResponses()
	s.raw(accessNamespace, op, s.run)

	for _, method := range functionMethods {
		op := operation("call-"+strings.ToLower(method), method, functionPrefix+"{namespace}/{name}/{path}", "Call a function at its own URL", "calls")
		op.Description = "Goes to the function as it is, and its answer comes back as it is, both streamed. The path, which may be empty and may have slashes, is what follows the function's name. A public function needs no key."
		op.Parameters = waitParameters(false)
		if method != http.MethodGet && method != http.MethodHead {
			op.RequestBody = anyBody("What the function is sent")
		}
		op.Responses = map[string]*huma.Response{"default": {Description: "The function's own answer, or the envelope with what went wrong", Content: map[string]*huma.MediaType{"*/*": {}}},
			"202": s.json(reflect.TypeFor[Answer[Accepted]](), "Accepted, if Prefer: respond-async was sent; else the function's own answer")}
		op.Responses["202"].Content["*/*"] = &huma.MediaType{}
		s.documented(accessFunction, &op)
	}
}

// run runs ad-hoc code.
func (s *Server) run(w http.ResponseWriter, r *http.Request, c Caller) error {
	q, err := parseCallQuery(r)
	if err != nil {
		return err
	}
	duplex(w)
	rev, up, err := s.stage(r)
	if err != nil {
		return err
	}
	defer up.Close()
	inv := invocation(r, c, faas.KindRun, true)
	inv.Function = faas.Ref{Name: rev.Name, Revision: rev.ID}
	inv.Timing.Begin = time.Now() // sending and preparing the code is not part of the call
	inv.Body, inv.Length = nil, 0
	for _, h := range []string{"Content-Type", "Content-Encoding"} { // of the form, not of the input
		delete(inv.Header, h)
	}
	switch {
	case up.input != nil:
		inv.Body, inv.Length = up.input, -1
		inv.Header["Content-Type"] = []string{up.input.contentType}
	case up.value != nil:
		inv.Body, inv.Length = bytes.NewReader(up.value), int64(len(up.value))
		inv.Header["Content-Type"] = []string{jsonType}
	}
	p := preferencesOf(r)
	p.async = false // code that is not kept has nothing that could run later
	p.applied(w.Header())
	if t := p.deadline(q.timeout); t > 0 {
		inv.Deadline = inv.Timing.Begin.Add(t)
	}
	functionHeaders(w.Header(), inv.ID, faas.OK)
	res, err := s.cfg.Dispatcher.InvokeRevision(r.Context(), rev, inv)
	if err != nil {
		w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
		return deploy.NameMissing(err)
	}
	return s.answer(w, r, inv, res, q)
}

// stage takes ad-hoc code and makes a revision of it. The upload is closed by the caller.
func (s *Server) stage(r *http.Request) (*faas.Revision, *upload, error) {
	release, err := s.uploads.take(r.Context(), r.PathValue("namespace"))
	if err != nil {
		return nil, nil, err
	}
	defer release()
	up, err := s.receive(r, true)
	if err != nil {
		return nil, nil, err
	}
	rev, err := s.cfg.Deployer.Stage(r.Context(), up.request(faas.Name{Namespace: r.PathValue("namespace")}, r.Host))
	if err != nil {
		up.Close()
		return nil, nil, err
	}
	return rev, up, nil
}
