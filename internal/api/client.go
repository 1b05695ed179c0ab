package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Client speaks to a server. It is safe for concurrent use. Every error it returns is a
// *faas.Error: what the server answered has its code, fix, limit and trace and a *Remote as its
// cause; when no server answered the code is Unavailable and the cause an *Unreachable; when ctx
// ended first the code is Canceled or Timeout.
type Client struct {
	base string // without a slash at its end
	key  string
	http *http.Client
}

// Remote is the cause of an error that the server answered with.
type Remote struct {
	Text       string        // what happened
	ID         string        // of the request; may be empty
	Status     int           // of HTTP
	RetryAfter time.Duration // when to send it again; 0: not said
}

// Error returns the text.
func (r *Remote) Error() string { return r.Text }

// RequestID returns the id of the request that failed, which is the invocation's too.
func (r *Remote) RequestID() string { return r.ID }

// Unreachable is the cause of an error when no server answered.
type Unreachable struct {
	Server string
	Err    error
}

// Error names the server and the cause.
func (u *Unreachable) Error() string {
	return fmt.Sprintf("no server answers at %s: %v", u.Server, u.Err)
}

// Unwrap returns the cause.
func (u *Unreachable) Unwrap() error { return u.Err }

// NewClient returns a client of the server at an http or https URL. An empty server means
// DefaultServer; an empty key sends none. Nothing is sent yet.
func NewClient(server, key string) (*Client, error) {
	if server == "" {
		server = DefaultServer
	}
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, faas.Errorf(faas.Invalid, "read server address", "%q is not a server's address; write it as %s", server, DefaultServer)
	}
	key = strings.TrimSpace(key)
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, faas.Errorf(faas.Invalid, "read key", "the key has a space or control character in it")
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     60 * time.Second,
		// An upload that the server refuses anyway need not be sent: wait this long for its word.
		ExpectContinueTimeout: 2 * time.Second,
		// What a function answers is handed on as it is, compressed or not.
		DisableCompression: true,
	}
	return &Client{
		base: strings.TrimRight(u.String(), "/"),
		key:  key,
		http: &http.Client{
			Transport: transport,
			// No server of ours redirects, and a key must not follow one elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Server returns the address that the client speaks to.
func (c *Client) Server() string { return c.base }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one request before it is sent.
type request struct {
	op          string // for errors
	method      string
	path        []string // segments, escaped when the URL is made
	query       url.Values
	contentType string
	accept      string
	header      http.Header
	body        io.Reader // closed in any case if it is an io.Closer
	upload      bool      // ask before the body is sent
}

// send sends r and returns the answer's head, whatever its status.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var target strings.Builder
	target.WriteString(c.base)
	for _, p := range r.path {
		target.WriteByte('/')
		target.WriteString(url.PathEscape(p))
	}
	if q := r.query.Encode(); q != "" {
		target.WriteString("?" + q)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), r.body)
	if err != nil {
		if body, ok := r.body.(io.Closer); ok { // else the transport does it, whatever happens
			_ = body.Close()
		}
		return nil, &faas.Error{Code: faas.Invalid, Op: r.op, Err: err}
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if r.upload || large(r.body) {
		req.Header.Set("Expect", "100-continue")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, r.op, err)
	}
	return res, nil
}

// large says whether a body is worth asking whether it is wanted: a server that refuses it without reading
// would break the connection while it is sent, and its answer could be lost.
func large(body io.Reader) bool {
	const least = 256 << 10
	switch b := body.(type) {
	case nil:
		return false
	case interface{ Len() int }:
		return b.Len() > least
	case interface{ Stat() (fs.FileInfo, error) }:
		if i, err := b.Stat(); err == nil && i.Mode().IsRegular() {
			return i.Size() > least
		}
	}
	return true
}

// broken turns what the transport says into an error of ours.
func (c *Client) broken(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return &faas.Error{Code: faas.CodeOf(ctx.Err()), Op: op, Err: context.Cause(ctx)}
	}
	if e, ok := errors.AsType[*faas.Error](err); ok { // reading the body to be sent
		return e
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	e := &faas.Error{Code: faas.Unavailable, Op: op, Err: &Unreachable{Server: c.base, Err: err}}
	return e.WithFix("start a server with: brasa serve, or say where it is: --server URL")
}

// call sends r and decodes the data of the answer's envelope into out.
func call[T any](ctx context.Context, c *Client, r request) (T, error) {
	var out T
	res, err := c.send(ctx, r)
	if err != nil {
		return out, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return out, c.refused(r.op, res)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return out, c.broken(ctx, r.op, err)
	}
	var answer Answer[T]
	if err := json.Unmarshal(body, &answer); err != nil || !answer.OK {
		return out, foreign(r.op, res, body)
	}
	return answer.Data, nil
}

// mostFault bounds what is read of an answer that says what went wrong.
const mostFault = 1 << 20

// refused reads the envelope of an answer that did not succeed.
func (c *Client) refused(op string, res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, mostFault))
	var refusal Refusal
	if err := json.Unmarshal(body, &refusal); err != nil || refusal.Fault == nil {
		return foreign(op, res, body)
	}
	return refusal.Fault.asError(op, res)
}

func (f *Fault) asError(op string, res *http.Response) *faas.Error {
	remote := &Remote{Text: f.Message, ID: f.RequestID, Status: res.StatusCode}
	if s, err := time.ParseDuration(res.Header.Get("Retry-After") + "s"); err == nil {
		remote.RetryAfter = s
	}
	e := &faas.Error{Op: op, Err: remote, Fix: f.Hint, Limit: f.Limit, Trace: f.Trace}
	if e.Code.UnmarshalText([]byte(f.Code)) != nil || e.Code == faas.OK {
		e.Code = codeOfStatus(res.StatusCode) // a newer server may know codes that we don't
	}
	return e
}

// foreign is the error for an answer that no server of ours gives.
func foreign(op string, res *http.Response, body []byte) error {
	first, _, _ := bytes.Cut(bytes.TrimSpace(body), []byte("\n"))
	if len(first) > 120 {
		first = first[:120]
	}
	e := &faas.Error{Code: codeOfStatus(res.StatusCode), Op: op, Err: &Remote{
		Text:   fmt.Sprintf("%s answered %s without an envelope; is it a brasa server? It begins: %q", res.Request.URL.Host, res.Status, first),
		ID:     res.Header.Get(HeaderRequestID),
		Status: res.StatusCode,
	}}
	if bytes.HasSuffix(first, []byte("to an HTTPS server.")) { // as net/http says it
		return e.WithFix("it speaks TLS; say so: --server https://%s", res.Request.URL.Host)
	}
	return e
}

func jsonBody(v any) io.Reader {
	b, err := json.Marshal(v)
	if err != nil {
		// Wire types always marshal, except for raw JSON that the caller brought.
		return failingReader{faas.Errorf(faas.Invalid, "write request", "%w", err)}
	}
	return bytes.NewReader(b)
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
