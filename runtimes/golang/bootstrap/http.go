package bootstrap

import (
	"context"
	"net/http"
	"net/url"
)

// HTTP makes a Handler of a function of net/http's form.
func HTTP(f func(http.ResponseWriter, *http.Request)) Handler {
	return func(ctx context.Context, c *Call) (any, error) {
		target := &url.URL{Path: c.Path, RawQuery: c.Query}
		r := (&http.Request{
			Method: c.Method, URL: target, RequestURI: target.RequestURI(), Header: http.Header{},
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: c.body, ContentLength: c.Length,
		}).WithContext(ctx)
		for k, v := range c.Header {
			r.Header[http.CanonicalHeaderKey(k)] = v
		}
		r.Host = r.Header.Get("Host")
		if c.BodyForm == "none" {
			r.Body, r.ContentLength = http.NoBody, 0
		}
		w := &writer{call: c, header: http.Header{}}
		f(w, r)
		return w.finish()
	}
}

// writer is an http.ResponseWriter that keeps a short answer until its end, so that it goes in
// one frame, and streams a longer one or one that is flushed.
type writer struct {
	call   *Call
	header http.Header
	status int
	body   []byte
	err    error
}

// Header is http.ResponseWriter's.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader is http.ResponseWriter's.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx is for servers to send
		w.status = status
		w.header = w.header.Clone()
	}
}

// Write is http.ResponseWriter's.
func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.status == 0 {
		if w.header.Get("Content-Type") == "" {
			w.header.Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	if !w.call.headed && len(w.body)+len(p) <= maxWhole {
		w.body = append(w.body, p...)
		return len(p), nil
	}
	w.Flush()
	if w.err == nil {
		w.err = w.call.write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush is http.Flusher's.
func (w *writer) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.call.headed {
		w.call.head(w.status, w.header)
	}
	if w.err == nil {
		w.err = w.call.write(w.body)
	}
	w.body = nil
}

func (w *writer) finish() (any, error) {
	w.WriteHeader(http.StatusOK)
	if w.err != nil {
		return nil, w.err
	}
	if w.call.headed {
		return finished{}, nil
	}
	return finished{w.status, w.header, w.body}, nil
}
