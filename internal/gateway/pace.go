package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// body is a request's body that must come at a pace. A sender has a credit of time that it may
// keep us waiting, and earns more with what it sends; one that trickles is cut off, however
// often it sends a byte.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	credit  time.Duration // left; by the reader alone
	earns   time.Duration // for one byte
}

func newBody(b io.ReadCloser, w http.ResponseWriter, credit time.Duration, rate int) *body {
	return &body{ReadCloser: b, control: http.NewResponseController(w), credit: credit, earns: time.Second / time.Duration(rate)}
}

// Read waits as long as the credit allows.
func (b *body) Read(p []byte) (int, error) {
	if b.credit <= 0 {
		return 0, errSlow()
	}
	began := time.Now()
	// A connection that knows no deadlines is a test's.
	_ = b.control.SetReadDeadline(began.Add(b.credit))
	n, err := b.ReadCloser.Read(p)
	// The server goes on to read ahead, to notice that the caller goes away, for as long as the
	// call takes: that has no deadline.
	_ = b.control.SetReadDeadline(time.Time{})
	b.credit += time.Duration(n)*b.earns - time.Since(began)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.credit = 0
		return n, errSlow()
	}
	return n, err
}

func errSlow() error {
	return faas.Errorf(faas.Invalid, "read request", "the request's body came too slowly").
		WithLimit("body_rate").WithFix("send it faster; for an open conversation with a function use a WebSocket")
}

// answer is a ResponseWriter whose receiver must take each piece in time. It also knows whether
// the answer has begun.
type answer struct {
	http.ResponseWriter
	control  *http.ResponseController
	timeout  time.Duration
	began    bool
	hijacked bool
}

func newAnswer(w http.ResponseWriter, timeout time.Duration) *answer {
	return &answer{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout}
}

// Unwrap lets http.ResponseController reach what is not said here.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) pace() { _ = a.control.SetWriteDeadline(time.Now().Add(a.timeout)) }

// WriteHeader begins the answer.
func (a *answer) WriteHeader(status int) {
	a.began = true
	a.ResponseWriter.WriteHeader(status)
}

// Write gives a piece.
func (a *answer) Write(p []byte) (int, error) {
	a.began = true
	a.pace()
	return a.ResponseWriter.Write(p)
}

// FlushError sends what was written.
func (a *answer) FlushError() error {
	a.began = true
	a.pace()
	return a.control.Flush()
}

// Hijack hands the connection over; nobody paces it any more but the call's own deadline.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := a.control.Hijack()
	a.hijacked = err == nil
	return conn, rw, err
}

// end sees to it that what is still unsent when the handler returns goes out in time as well.
func (a *answer) end() {
	if !a.hijacked {
		a.pace()
	}
}
