package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Dial connects to an address inside the sandbox.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// HTTPConn is the host's end of the conversation with a process that is an HTTP server. It is a
// reverse proxy: requests and answers stream, and a WebSocket or other upgrade passes.
type HTTPConn struct {
	address   string
	dial      Dial
	response  int64
	health    string
	upstream  string
	transport *http.Transport
}

// HTTPConfig is what an HTTPConn needs of a process.
type HTTPConfig struct {
	Dial     Dial
	Port     int        // 0: Port
	Response faas.Bytes // of an answer's body; 0: the default
	// Health is a path that is answered with 200 when the server is ready; empty: it is when it
	// takes connections.
	Health string
	// Upstream is the address in the sandbox of a second server to which the first one passes calls
	// on, and which is waited for too; empty: there is none.
	Upstream string
}

// HTTPConfigOf returns how the server of a revision is spoken to.
func HTTPConfigOf(rev *faas.Revision, dial Dial) HTTPConfig {
	c := HTTPConfig{Dial: dial, Port: imagePort(rev), Response: rev.Limits.Response}
	if rev.Runtime == OpenFaaS {
		c.Health, c.Upstream = watchdogHealth, watchdogUpstream(rev)
	}
	return c
}

const watchdogHealth = "/_/health"

// watchdogUpstream is where the program listens that a watchdog of OpenFaaS passes calls on to. The
// watchdog is up before that, and would answer the first calls with an error.
func watchdogUpstream(rev *faas.Revision) string {
	variable := func(name string) string {
		if v := rev.Env[name]; v != "" || rev.Image == nil {
			return v
		}
		return lastVariable(rev.Image.Env, name)
	}
	u, err := url.Parse(orElse(variable("upstream_url"), variable("http_upstream_url")))
	if err != nil || u.Scheme != "http" || variable("mode") != "http" {
		return ""
	}
	if host := u.Hostname(); host != "localhost" && host != "127.0.0.1" {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", orElse(u.Port(), "80"))
}

// NewHTTPConn returns the connection; nothing is dialed yet.
func NewHTTPConn(cfg HTTPConfig) *HTTPConn {
	if cfg.Port == 0 {
		cfg.Port = Port
	}
	if cfg.Response <= 0 {
		cfg.Response = faas.DefaultLimits().Response
	}
	h := &HTTPConn{address: fmt.Sprintf("127.0.0.1:%d", cfg.Port), dial: cfg.Dial, response: int64(cfg.Response), health: cfg.Health, upstream: cfg.Upstream}
	h.transport = &http.Transport{
		DialContext:            h.dial,
		DisableCompression:     true, // bytes pass as they are
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	return h
}

// readyEvery is how often a server that does not listen yet is tried: seldom enough to cost it
// nothing, often enough to add little to a cold start.
const readyEvery = 2 * time.Millisecond

// Ready waits until the server takes connections and says that it is ready, if it can say so. Exited
// ends the wait when the process does.
func (h *HTTPConn) Ready(ctx context.Context, exited <-chan struct{}) error {
	const op = "start server"
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	heard := "did not listen on port " + h.address[strings.LastIndexByte(h.address, ':')+1:] + ", which $PORT says,"
	for listens := false; ; {
		if !listens {
			listens = h.listens(ctx, h.address)
		}
		if listens {
			var well bool
			if well, heard = h.healthy(ctx); well {
				return nil
			}
		}
		select {
		case <-exited:
			return faas.Errorf(faas.Crashed, op, "the process exited before it listened")
		case <-ctx.Done():
			return ended(ctx, op, fmt.Sprintf("the server %s in time", heard))
		case <-tick.C:
		}
	}
}

func (h *HTTPConn) listens(ctx context.Context, address string) bool {
	c, err := h.dial(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close() // it was only tried
	return true
}

// healthy asks a server that listens whether it is ready; what it lacks is told else.
func (h *HTTPConn) healthy(ctx context.Context) (well bool, lacks string) {
	if h.health != "" {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.address+h.health, nil)
		if err != nil {
			return false, err.Error()
		}
		lacks = "did not answer at " + h.health
		res, err := h.transport.RoundTrip(r)
		if err != nil {
			return false, lacks
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxHeaderBytes)) // so that the connection can be used again
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return false, fmt.Sprintf("answered at %s with status %d and not with 200", h.health, res.StatusCode)
		}
	}
	if h.upstream != "" && !h.listens(ctx, h.upstream) {
		return false, "has no function that listens at " + h.upstream
	}
	return true, ""
}

// Close closes idle connections. Calls in flight go on until their context ends.
func (h *HTTPConn) Close() error {
	h.transport.CloseIdleConnections()
	return nil
}

// RoundTrip passes an invocation on as a request and returns at the head of its answer. If the
// server upgrades the connection the result has status 101, and its Body is an
// io.ReadWriteCloser.
func (h *HTTPConn) RoundTrip(ctx context.Context, inv *faas.Invocation, _ LogSink) (*faas.Result, error) {
	const op = "call function"
	// Of its own, so that closing the body ends the exchange.
	ctx, cancel := context.WithCancel(ctx)
	r := h.request(ctx, inv)
	if inv.Header["Upgrade"] != nil {
		res, err := h.upgrade(ctx, cancel, r, inv)
		if err != nil || res.Status != http.StatusSwitchingProtocols {
			cancel()
		}
		return res, err
	}
	answer, err := h.transport.RoundTrip(r)
	if err != nil {
		defer cancel()
		return nil, h.exchangeError(ctx, op, err)
	}
	res, err := h.result(answer)
	if err != nil {
		answer.Body.Close()
		cancel()
		return nil, withOp(err, op)
	}
	res.Body = &proxied{ReadCloser: answer.Body, cancel: cancel, limit: h.response, left: h.response, ctx: ctx}
	return res, nil
}

// request makes the request of an invocation. Headers were cleaned at the door.
func (h *HTTPConn) request(ctx context.Context, inv *faas.Invocation) *http.Request {
	// The path stays as the caller has encoded it: %2F is not a slash.
	path := orElse(inv.Path, "/")
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path // net/http will encode the lone percent sign
	}
	r := &http.Request{
		Method: orElse(inv.Method, "POST"), URL: &url.URL{Scheme: "http", Host: h.address, Path: plain, RawPath: path, RawQuery: inv.Query},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, len(inv.Header)+3), Host: h.address,
	}
	for k, v := range inv.Header {
		if k == "Host" {
			r.Host = first(v)
			continue
		}
		if !hopHeaders[k] {
			r.Header[k] = v
		}
	}
	r.Header.Set("Brasa-Invocation-Id", string(inv.ID))
	if !inv.Deadline.IsZero() {
		r.Header.Set("Brasa-Deadline-Ms", fmt.Sprint(inv.Deadline.UnixMilli()))
	}
	if _, told := r.Header["User-Agent"]; !told {
		r.Header["User-Agent"] = nil // else Go's own would be sent as the caller's
	}
	if inv.Body != nil && inv.Length != 0 {
		r.Body, r.ContentLength = io.NopCloser(inv.Body), inv.Length
	}
	return r.WithContext(ctx)
}

// result checks the head of an answer.
func (h *HTTPConn) result(answer *http.Response) (*faas.Result, error) {
	if err := checkStatus(answer.StatusCode); err != nil {
		return nil, err
	}
	header, err := checkHeader(answer.Header)
	if err != nil {
		return nil, err
	}
	if answer.ContentLength > h.response {
		return nil, overLimit(h.response)
	}
	return &faas.Result{Status: answer.StatusCode, Header: header}, nil
}

func (h *HTTPConn) exchangeError(ctx context.Context, op string, err error) error {
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	switch {
	case ctx.Err() != nil:
		return ended(ctx, op, "the server did not answer before its deadline")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isNetError(err):
		return faas.Errorf(faas.Crashed, op, "the server closed the connection without an answer")
	}
	return faas.Errorf(faas.Failed, op, "the server's answer cannot be read: %v", err)
}

func isNetError(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// upgrade passes a request on that asks for another protocol. http.Transport would do, but it
// keeps the connection's deadline and headers to itself; the exchange is short.
func (h *HTTPConn) upgrade(ctx context.Context, cancel context.CancelFunc, r *http.Request, inv *faas.Invocation) (*faas.Result, error) {
	const op = "upgrade connection"
	conn, err := h.dial(ctx, "tcp", h.address)
	if err != nil {
		return nil, h.exchangeError(ctx, op, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, inv.Header["Upgrade"]
	if err := r.Write(conn); err != nil {
		stop()
		_ = conn.Close()
		return nil, h.exchangeError(ctx, op, err)
	}
	br := bufio.NewReader(&headLimit{r: conn, left: maxHeaderBytes})
	answer, err := http.ReadResponse(br, r)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, h.exchangeError(ctx, op, err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		// It would rather not: an answer like any other, whose connection is not used again.
		res, err := h.result(answer)
		if err != nil {
			_ = conn.Close()
			return nil, withOp(err, op)
		}
		body, err := io.ReadAll(io.LimitReader(answer.Body, min(h.response, maxHeaderBytes)))
		_ = conn.Close()
		if err != nil {
			return nil, h.exchangeError(ctx, op, err)
		}
		res.Body = faas.NewBytesBody(body)
		return res, nil
	}
	header, err := checkHeader(answer.Header)
	if err != nil {
		_ = conn.Close()
		return nil, withOp(err, op)
	}
	header["Upgrade"], header["Connection"] = answer.Header["Upgrade"], []string{"Upgrade"}
	early, _ := br.Peek(br.Buffered()) // what came right behind the head
	return &faas.Result{Status: http.StatusSwitchingProtocols, Header: header, Body: &tunnel{Conn: conn, early: bytes.NewReader(bytes.Clone(early)), stop: stop, cancel: cancel}}, nil
}

// headLimit bounds what is read before an upgrade; it reads no more than the head needs, for the
// server says nothing else until then.
type headLimit struct {
	r    io.Reader
	left int
}

// Read is io.Reader's.
func (h *headLimit) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, faas.Errorf(faas.Failed, "", "the server's answer to an upgrade has a head that is too large")
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// tunnel is an upgraded connection.
type tunnel struct {
	net.Conn
	early  *bytes.Reader
	stop   func() bool
	cancel context.CancelFunc
}

// Read is io.Reader's.
func (t *tunnel) Read(p []byte) (int, error) {
	if t.early.Len() > 0 {
		return t.early.Read(p)
	}
	return t.Conn.Read(p)
}

// Close is io.Closer's.
func (t *tunnel) Close() error {
	t.stop()
	defer t.cancel()
	return t.Conn.Close()
}

// proxied is the body of an answer, bounded.
type proxied struct {
	io.ReadCloser
	cancel      context.CancelFunc
	ctx         context.Context
	limit, left int64
	once        sync.Once
}

// Read is io.Reader's.
func (b *proxied) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.limit > 0 {
		if b.left -= int64(n); b.left < 0 {
			return 0, withOp(overLimit(b.limit), "stream answer")
		}
	}
	if err != nil && err != io.EOF {
		if b.ctx.Err() != nil {
			err = ended(b.ctx, "stream answer", "the server did not end its answer before its deadline")
		} else {
			err = faas.Errorf(faas.Crashed, "stream answer", "the server broke off in the middle of its answer")
		}
	}
	return n, err
}

// Close is io.Closer's.
func (b *proxied) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.cancel)
	return err
}
