package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// body is a request's body that must come at a pace. A sender has a credit of time that it may
// keep us waiting, and earns more with what it sends; one that trickles is cut off, however
// often it sends a byte.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	earns   time.Duration // for one byte
	credit  atomic.Int64  // nanoseconds left
	begun   atomic.Bool   // something was asked for
	ended   atomic.Bool   // all has been read
	closed  atomic.Bool

	mu   sync.Mutex
	over bool // guarded by mu; the request is: the connection's deadline is the next one's
}

func newBody(b io.ReadCloser, w http.ResponseWriter, credit time.Duration, rate int) *body {
	out := &body{ReadCloser: b, control: http.NewResponseController(w), earns: time.Second / time.Duration(rate)}
	out.credit.Store(int64(credit))
	return out
}

// deadline sets when what is waited for must have come. Whoever still reads when the request is
// over must not set that of the next.
func (b *body) deadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		_ = b.control.SetReadDeadline(t) // a connection that knows no deadlines is a test's
	}
}

// Read waits as long as the credit allows.
func (b *body) Read(p []byte) (int, error) {
	credit := time.Duration(b.credit.Load())
	if credit <= 0 {
		return 0, errSlow()
	}
	began := time.Now()
	b.begun.Store(true)
	b.deadline(began.Add(credit))
	n, err := b.ReadCloser.Read(p)
	b.credit.Add(int64(time.Duration(n)*b.earns - time.Since(began)))
	switch {
	case err == io.EOF:
		// The server goes on to read ahead, to notice that the caller goes away, for as long as
		// the call takes: that has no deadline.
		b.ended.Store(true)
		b.deadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.credit.Store(0)
		return n, errSlow()
	}
	return n, err
}

// lingering is how long what is still under way is thrown away after the answer was given.
const lingering = 500 * time.Millisecond

// Close gives the rest up. The server looks for its end, to go on with the connection, and is
// not to be kept waiting for it.
func (b *body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.ended.Load() {
		return b.ReadCloser.Close()
	}
	b.deadline(time.Now().Add(min(max(time.Duration(b.credit.Load()), 0), lingering)))
	err := b.ReadCloser.Close()
	b.deadline(time.Time{})
	return err
}

// finish is called when the request has been answered. A sender that is still busy would find
// the connection reset before it has read the answer, so it is listened to for a moment.
func (b *body) finish() {
	if !b.ended.Load() && !b.closed.Load() {
		if b.begun.Load() && b.credit.Load() > 0 && b.control.Flush() == nil {
			b.deadline(time.Now().Add(lingering))
			_, _ = io.Copy(io.Discard, b.ReadCloser) // whatever ends it
		}
		b.deadline(time.Now()) // the server looks for the end as Close does
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
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
	set      *time.Time // when the deadline was set; of the connection, where that has one
	stream   bool       // of HTTP/2, see rest
	began    bool
	hijacked bool
}

// paceKey is where a connection's context has when its write deadline was set.
type paceKey struct{}

func newAnswer(w http.ResponseWriter, r *http.Request, timeout time.Duration) *answer {
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout}
	// The requests of a connection of HTTP/1 come one after the other, and share its deadline.
	if r.ProtoMajor == 1 {
		a.set, _ = r.Context().Value(paceKey{}).(*time.Time)
	}
	a.stream = r.ProtoMajor > 1
	if a.set == nil {
		a.set = new(time.Time)
	}
	if !a.stream {
		a.pace() // for what the server writes by itself, such as 100 Continue
	}
	return a
}

// Unwrap lets http.ResponseController reach what is not said here.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// pace gives what is written next its time. A deadline costs as much as a system call, so one that
// is nearly as late as it would be is left as it is.
func (a *answer) pace() {
	if now := time.Now(); now.Sub(*a.set) > a.timeout/8 {
		*a.set = now
		_ = a.control.SetWriteDeadline(now.Add(a.timeout))
	}
}

// rest takes the deadline away until more is written. The deadline of a connection counts while
// something is written to it; that of a stream of HTTP/2 ends the stream, whether or not something is.
func (a *answer) rest() {
	if a.stream {
		*a.set = time.Time{}
		_ = a.control.SetWriteDeadline(time.Time{})
	}
}

// WriteHeader begins the answer.
func (a *answer) WriteHeader(status int) {
	a.began = true
	a.ResponseWriter.WriteHeader(status)
}

// Write gives a piece.
func (a *answer) Write(p []byte) (int, error) {
	a.began = true
	a.pace()
	defer a.rest()
	return a.ResponseWriter.Write(p)
}

// FlushError sends what was written.
func (a *answer) FlushError() error {
	a.began = true
	a.pace()
	defer a.rest()
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
