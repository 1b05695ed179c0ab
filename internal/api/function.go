package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// functionMethods are those of a function's own URL that stand in the OpenAPI document. Others
// reach the function as well, save CONNECT, which asks for a tunnel, and TRACE, which would show
// a script what the browser hides from it.
var functionMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// serveFunction answers a request for a function's own URL.
func (s *Server) serveFunction(w http.ResponseWriter, r *http.Request, encoded string) {
	c := CallerOf(r.Context())
	w.Header().Set(HeaderRequestID, string(c.ID))
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		NoMethod(w, r, s.cfg.Logger, functionMethods)
		return
	}
	if err := s.callFunction(w, r, c, encoded); err != nil {
		WriteError(w, r, s.cfg.Logger, err)
	}
}

func (s *Server) callFunction(w http.ResponseWriter, r *http.Request, c Caller, encoded string) error {
	t, err := parseTarget(encoded)
	if err != nil {
		return err
	}
	name := faas.Name{Namespace: t.namespace, Function: t.name}
	fn, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: name})
	public := err == nil && fn.Public
	if !public {
		// Before anything is said of the function, so that nobody learns which exist.
		if refused := s.allow(c, accessFunction, t.namespace); refused != nil {
			return refused
		}
	}
	if err != nil {
		return err
	}
	inv := invocation(r, c, faas.KindHTTP, !public)
	inv.Function = faas.Ref{Name: name}
	inv.Method, inv.Path, inv.Query = r.Method, t.path, printable(r.URL.RawQuery)
	functionHeaders(w.Header(), inv.ID, faas.OK)
	p := preferencesOf(r)
	wait, err := waitOf(r, nil, p.async)
	if err != nil {
		return err
	}
	if p.async {
		return s.enqueueFunction(w, r, c, inv, rev, wait, p)
	}
	duplex(w)
	res, err := s.cfg.Dispatcher.Invoke(r.Context(), inv)
	if err == nil {
		w.Header().Set(HeaderStart, string(inv.Report.Start))
		if res.Status == http.StatusSwitchingProtocols {
			err = upgrade(w, r, res)
		} else {
			err = stream(w, r, res)
		}
	}
	if err != nil {
		w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
		if s.allow(c, accessFunction, t.namespace) != nil {
			err = forStrangers(err)
		}
	}
	return err
}

// enqueueFunction accepts a request for a function's own URL whose caller does not wait.
func (s *Server) enqueueFunction(w http.ResponseWriter, r *http.Request, c Caller, inv *faas.Invocation, rev *faas.Revision, wait *faas.Wait, p preferences) error {
	stranger := s.allow(c, accessFunction, inv.Function.Name.Namespace) != nil
	err := error(nil)
	if stranger {
		err = strangersMay(c, rev, wait)
	}
	if err == nil {
		inv.Wait = wait
		err = s.enqueue(w, r, inv, p, func(a *faas.Activation) error { return s.answerKept(w, r, &Record{ID: a.ID, Activation: a}) })
	}
	if err != nil {
		w.Header().Set(HeaderOutcome, faas.CodeOf(err).String())
		if stranger {
			err = forStrangers(err)
		}
	}
	return err
}

// forStrangers takes the function's own words out of an error: its message and trace may hold
// lines of its source or values that are nobody's business. Its owner finds them in the
// activation.
func forStrangers(err error) error {
	e := faas.AsError(err)
	if e.Code.Fault() != "function" {
		return err
	}
	plain := faas.Errorf(e.Code, "", "the function failed").WithLimit(e.Limit)
	switch e.Code {
	case faas.Crashed:
		plain.Err = errors.New("the function's process ended without an answer")
	case faas.Timeout:
		plain.Err = errors.New("the function took too long")
	}
	return plain.WithFix("its owner finds the reason with: brasa inv get ID, the id being that of this request")
}

// upgrade takes the connection over and joins it to the function's. It closes the body. It
// returns an error only while nothing has been written.
func upgrade(w http.ResponseWriter, r *http.Request, res *faas.Result) error {
	defer func() { _ = res.Body.Close() }()
	function, ok := res.Body.(io.ReadWriter)
	if !ok || upgradeOf(r.Header) == "" {
		return faas.Errorf(faas.Failed, "read answer", "the function changed to another protocol without being asked")
	}
	head := http.Header{}
	if err := outgoing(head, res.Header, true); err != nil {
		return err
	}
	for k, v := range w.Header() { // our own
		head[k] = v
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e := faas.Errorf(faas.Invalid, "change protocol", "this connection can't change to another protocol").WithFix("use HTTP/1.1")
		return &protocolError{status: http.StatusNotImplemented, err: e}
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{}) // the call's own deadline counts from here on
	if err := writeHead(buffered.Writer, head); err != nil {
		return nil
	}
	join(conn, buffered.Reader, function, res.Body)
	return nil
}

func writeHead(w *bufio.Writer, head http.Header) error {
	_, _ = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", http.StatusSwitchingProtocols, http.StatusText(http.StatusSwitchingProtocols))
	_ = head.Write(w) // the writer keeps the first error and Flush returns it
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// join copies both ways until either side ends, then ends the other.
func join(caller net.Conn, from io.Reader, function io.ReadWriter, body io.Closer) {
	end := sync.OnceFunc(func() {
		_ = caller.Close()
		_ = body.Close()
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		_, _ = io.Copy(function, from)
	}()
	_, _ = io.Copy(caller, function)
	end()
	<-done
}
