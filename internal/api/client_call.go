package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// Code is what is deployed or run: an archive, one file of source, or an executable.
type Code struct {
	Reader   io.Reader // read once, streamed
	Filename string    // decides, with the content, what it is

	// Image is an archive with the image that is the function's root, nil if it comes from elsewhere
	// or there is none. Reader may be nil then, and also if the spec names an image.
	Image     io.Reader
	ImageFile string // what the person calls it
}

// Deploy sends code and makes it the function's active revision.
func (c *Client) Deploy(ctx context.Context, namespace, name string, spec Spec, code Code) (*Outcome, error) {
	form := newForm(spec)
	form.code = code
	contentType, body := form.start()
	defer func() { // code is not read any more when Deploy returns
		_ = body.Close()
		<-form.written
	}()
	return call[*Outcome](ctx, c, request{
		op: "deploy function", method: http.MethodPut, path: c.ns(namespace, "functions", name),
		contentType: contentType, body: body, upload: true,
	})
}

// DeployFollowed deploys like Deploy and calls told with what happens meanwhile.
func (c *Client) DeployFollowed(ctx context.Context, namespace, name string, spec Spec, code Code, told func(DeployEvent)) (*Outcome, error) {
	form := newForm(spec)
	form.code = code
	contentType, body := form.start()
	defer func() { // code is not read any more when it returns
		_ = body.Close()
		<-form.written
	}()
	r := request{
		op: "deploy function", method: http.MethodPut, path: c.ns(namespace, "functions", name),
		contentType: contentType, body: body, upload: true, accept: "application/x-ndjson",
	}
	res, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, c.refused(r.op, res)
	}
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, c.broken(ctx, r.op, unexpected(err))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue // the server's sign of life
		}
		var e DeployEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, foreign(r.op, res, line)
		}
		switch {
		case e.Fault != nil:
			return nil, e.Fault.asError(r.op, res)
		case e.Outcome != nil:
			return e.Outcome, nil
		}
		told(e)
	}
}

// Builds lists what was installed and built in the last week, newest first.
func (c *Client) Builds(ctx context.Context, namespace string) ([]install.BuildInfo, error) {
	b, err := call[Builds](ctx, c, request{op: "list builds", method: http.MethodGet, path: c.ns(namespace, "builds")})
	return b.Builds, err
}

// BuildLog asks for all that was written during a build, given by its id or the first digits of it.
// The caller closes it.
func (c *Client) BuildLog(ctx context.Context, namespace, id string) (io.ReadCloser, error) {
	r := request{op: "read build log", method: http.MethodGet, path: c.ns(namespace, "builds", id, "log")}
	res, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer func() { _ = res.Body.Close() }()
		return nil, c.refused(r.op, res)
	}
	return res.Body, nil
}

// CallOptions say how a function is called. The zero value is a plain call.
type CallOptions struct {
	ContentType string        // of the input; empty: application/json
	Revision    string        // pin one by its id; empty: the active one
	Timeout     time.Duration // cut the call's deadline; 0: the function's own
	Cause       faas.ID       // the invocation that led to this one
	Header      http.Header   // more headers that the function sees
}

func (o CallOptions) request(op, method string, path []string, raw bool) request {
	r := request{op: op, method: method, path: path, query: url.Values{}, header: http.Header{}, contentType: o.ContentType}
	for k, v := range o.Header {
		r.header[textproto.CanonicalMIMEHeaderKey(k)] = v
	}
	if r.contentType == "" {
		r.contentType = jsonType
	}
	if raw {
		r.query.Set("raw", "true")
	}
	if o.Revision != "" {
		r.query.Set("revision", o.Revision)
	}
	if o.Timeout > 0 {
		r.query.Set("timeout_ms", strconv.FormatInt(max(o.Timeout.Milliseconds(), 1), 10))
	}
	if o.Cause != "" {
		r.header.Set(HeaderCause, string(o.Cause))
	}
	return r
}

// Invoke calls a function and waits for its whole answer. input may be nil.
func (c *Client) Invoke(ctx context.Context, namespace, name string, opts CallOptions, input io.Reader) (*Reply, error) {
	r := opts.request("invoke function", http.MethodPost, c.ns(namespace, "functions", name, "invoke"), false)
	r.body = input
	return call[*Reply](ctx, c, r)
}

// Stream is a function's answer as it arrives. Whoever gets it closes it; closing early tells
// the function that the caller went away.
type Stream struct {
	ID          faas.ID
	Start       faas.Start
	Status      int
	ContentType string
	Header      http.Header
	body        io.ReadCloser
	broken      func(error) error
}

// Read returns what the function wrote, as soon as it did. An answer that breaks off in the
// middle ends with a *faas.Error.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF {
		err = s.broken(err)
	}
	return n, err
}

// Close ends the answer.
func (s *Stream) Close() error { return s.body.Close() }

// InvokeRaw calls a function and returns its own bytes, streamed.
func (c *Client) InvokeRaw(ctx context.Context, namespace, name string, opts CallOptions, input io.Reader) (*Stream, error) {
	r := opts.request("invoke function", http.MethodPost, c.ns(namespace, "functions", name, "invoke"), true)
	r.body = input
	return c.stream(ctx, r)
}

// Run runs ad-hoc code with an input and waits for its whole answer. input may be nil; a Read of
// it that is under way when the answer comes, as of a terminal, is not waited for.
func (c *Client) Run(ctx context.Context, namespace string, spec Spec, code Code, opts CallOptions, input io.Reader) (*Reply, error) {
	return call[*Reply](ctx, c, c.run(namespace, spec, code, opts, input, false))
}

// RunRaw runs ad-hoc code and returns its own bytes, streamed.
func (c *Client) RunRaw(ctx context.Context, namespace string, spec Spec, code Code, opts CallOptions, input io.Reader) (*Stream, error) {
	return c.stream(ctx, c.run(namespace, spec, code, opts, input, true))
}

func (c *Client) run(namespace string, spec Spec, code Code, opts CallOptions, input io.Reader, raw bool) request {
	r := opts.request("run code", http.MethodPost, c.ns(namespace, "run"), raw)
	form := newForm(spec)
	form.code, form.input, form.inputType = code, input, r.contentType
	contentType, body := form.start()
	r.contentType, r.body, r.upload = contentType, body, true
	return r
}

func (c *Client) stream(ctx context.Context, r request) (*Stream, error) {
	res, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	s := &Stream{
		ID: faas.ID(res.Header.Get(HeaderInvocationID)), Start: faas.Start(res.Header.Get(HeaderStart)),
		Status: res.StatusCode, ContentType: res.Header.Get("Content-Type"), Header: res.Header, body: res.Body,
	}
	// A function may set any status; only the outcome says whether the platform refused.
	if outcome := res.Header.Get(HeaderOutcome); outcome != "ok" {
		defer func() { _ = res.Body.Close() }()
		return nil, c.refused(r.op, res)
	}
	s.broken = func(err error) error {
		if ctx.Err() != nil {
			return &faas.Error{Code: faas.CodeOf(ctx.Err()), Op: r.op, Err: context.Cause(ctx)}
		}
		e := &faas.Error{Code: faas.Failed, Op: r.op, Err: &Remote{Text: "the answer broke off in the middle: " + err.Error(), ID: string(s.ID), Status: s.Status}}
		return e.WithFix("see what happened with: brasa inv get %s", s.ID)
	}
	return s, nil
}

// Query says which activations or log lines are asked for. Zero values ask for all.
type Query struct {
	Function string
	Outcome  string // a code's name, or "error" for everything but ok
	Since    time.Time
	Until    time.Time
	Limit    int // at most this many calls; 0: the server's default
	Cursor   string
}

func (q Query) values() url.Values {
	v := url.Values{}
	set := func(k, s string) {
		if s != "" {
			v.Set(k, s)
		}
	}
	set("function", q.Function)
	set("outcome", q.Outcome)
	set("cursor", q.Cursor)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Activations lists what happened, newest first.
func (c *Client) Activations(ctx context.Context, namespace string, q Query) (Activations, error) {
	return call[Activations](ctx, c, request{op: "list activations", method: http.MethodGet, path: c.ns(namespace, "activations"), query: q.values()})
}

// Activation asks for one, with its logs.
func (c *Client) Activation(ctx context.Context, namespace, id string) (*faas.Activation, error) {
	return call[*faas.Activation](ctx, c, request{op: "look up activation", method: http.MethodGet, path: c.ns(namespace, "activations", id)})
}

// ActivationLogs asks for the lines of one call.
func (c *Client) ActivationLogs(ctx context.Context, namespace, id string) (Logs, error) {
	return call[Logs](ctx, c, request{op: "read logs", method: http.MethodGet, path: c.ns(namespace, "activations", id, "logs")})
}

// Logs returns the lines of the newest calls that fit q, oldest line first.
func (c *Client) Logs(ctx context.Context, namespace string, q Query) (Logs, error) {
	return call[Logs](ctx, c, request{op: "read logs", method: http.MethodGet, path: c.ns(namespace, "logs"), query: q.values()})
}

// Follow yields lines as calls end, those of the newest calls first if q asks for a Limit or
// Since, until ctx ends or the caller stops. It yields an error at most once, as the last thing;
// the end of ctx is none.
func (c *Client) Follow(ctx context.Context, namespace string, q Query) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		r := request{op: "follow logs", method: http.MethodGet, path: c.ns(namespace, "logs"), query: q.values(), accept: "application/x-ndjson"}
		r.query.Set("follow", "true")
		res, err := c.send(ctx, r)
		if err == nil {
			defer func() { _ = res.Body.Close() }()
			if res.StatusCode != http.StatusOK {
				err = c.refused(r.op, res)
			}
		}
		if err != nil {
			if ctx.Err() == nil {
				yield(LogEntry{}, err)
			}
			return
		}
		lines := bufio.NewReader(res.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				if ctx.Err() == nil {
					yield(LogEntry{}, c.broken(ctx, r.op, unexpected(err)))
				}
				return
			}
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue // the server's sign of life
			}
			var entry struct {
				LogEntry
				Fault *Fault `json:"error"`
			}
			if err := json.Unmarshal(line, &entry); err != nil {
				yield(LogEntry{}, foreign(r.op, res, line))
				return
			}
			if entry.Fault != nil {
				yield(LogEntry{}, entry.Fault.asError(r.op, res))
				return
			}
			if !yield(entry.LogEntry, nil) {
				return
			}
		}
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Client) document(ctx context.Context, name string) ([]byte, error) {
	const op = "fetch document"
	res, err := c.send(ctx, request{op: op, method: http.MethodGet, path: []string{"v1", name}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, c.refused(op, res)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, c.broken(ctx, op, err)
	}
	return b, nil
}
