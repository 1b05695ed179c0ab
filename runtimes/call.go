package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/brasa-dev/brasa/internal/faas"
)

// call is one call in flight. The leader writes to it, its caller reads.
type call struct {
	conn   *Conn
	stream uint32
	term   uint64 // of its leadership; 0: somebody else leads
	logs   LogSink
	limit  int64       // of the answer's body; 0: none
	head   chan reply  // one value: the answer's head, or why there is none
	credit chan uint32 // credit for the request's body; nil: it is not streamed

	body atomic.Pointer[answerBody] // set with HEAD, before head gets its value
	gone atomic.Bool                // its caller has gone: its lines are the instance's
	end  sync.Once
	over chan struct{} // closed when nobody needs the call any more; nil: the request is not streamed
}

type reply struct {
	answer
	body io.ReadCloser
	err  error
}

// frames are the buffers in which calls are put together; what is larger than a whole body and
// its meta is not kept.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// RoundTrip gives an invocation to the instance and returns at the head of its answer; the
// answer's body streams. What the call writes goes to logs until the instance has ended it.
//
// A body of known length up to MaxWhole is read before the call begins. Any other is read while
// the call runs, until its end or until Result.Body has ended or is closed; one Read may still
// be under way then.
//
// When ctx ends, or Result.Body is closed early, the instance is told and nobody waits for it:
// see Active. The error is Timeout or Canceled by ctx, Failed with the function's trace if it
// returned an error or broke its contract, Crashed if its process is gone.
func (c *Conn) RoundTrip(ctx context.Context, inv *faas.Invocation, logs LogSink) (*faas.Result, error) {
	const op = "call function"
	if logs == nil {
		logs = LogFunc(func(faas.LogLine) {})
	}
	cl := &call{conn: c, logs: logs, limit: int64(c.opts.Response), head: make(chan reply, 1)}
	body := "none"
	switch {
	case inv.Body == nil || inv.Length == 0:
	case inv.Length > 0 && inv.Length <= MaxWhole:
		body = "whole"
	default:
		body = "stream"
		cl.credit, cl.over = make(chan uint32, 1), make(chan struct{})
	}

	buf := frames.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= MaxWhole+4<<10 {
			*buf = (*buf)[:0]
			frames.Put(buf)
		}
	}()
	b := appendCallMeta(beginFrame((*buf)[:0], frameCall, 0), inv, body, c.env(inv))
	*buf = b
	if len(b)-frameHead > MaxMeta {
		return nil, faas.Errorf(faas.TooLarge, op, "headers and query are %s; at most %s fit", faas.Bytes(len(b)), faas.Bytes(MaxMeta))
	}
	if body == "whole" {
		n := len(b)
		if cap(b)-n < int(inv.Length) {
			b = append(make([]byte, 0, n+int(inv.Length)), b...)
		}
		b = b[:n+int(inv.Length)]
		*buf = b
		if _, err := io.ReadFull(inv.Body, b[n:]); err != nil {
			return nil, readError(ctx, err)
		}
	}
	if err := c.begin(cl); err != nil {
		return nil, err
	}
	b[5], b[6], b[7], b[8] = byte(cl.stream>>24), byte(cl.stream>>16), byte(cl.stream>>8), byte(cl.stream)
	if err := c.sender.send(endFrame(b, 0)); err != nil {
		// Who leads sees the same end and answers the call.
		cl.fail(c.lost(op, "the process exited without an answer"))
	}
	if body == "stream" {
		c.uploads.Add(1)
		go func() {
			defer c.uploads.Add(-1)
			cl.upload(ctx, inv.Body)
		}() // ends with the call: over is closed, or the next Read returns
	}

	r, got := cl.wait(ctx)
	if !got {
		cl.cancel()
		return nil, ended(ctx, op, "the function did not answer before its deadline")
	}
	if r.err != nil {
		cl.finish()
		return nil, withOp(r.err, op)
	}
	if sb, ok := r.body.(*answerBody); ok {
		sb.watch(ctx)
	} else {
		cl.finish()
	}
	return &faas.Result{Status: r.status, Header: r.header, Body: r.body}, nil
}

// wait returns the answer's head, false if ctx ended before it came.
func (cl *call) wait(ctx context.Context) (reply, bool) {
	if cl.term > 0 {
		return cl.conn.lead(ctx, cl)
	}
	select {
	case r := <-cl.head:
		return r, true
	case <-ctx.Done():
		return reply{}, false
	}
}

// begin gives the call its stream, and the leadership if nobody has it.
func (c *Conn) begin(cl *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.loadErr != nil:
		return c.loadFailure()
	case c.err != nil:
		return faas.Errorf(faas.Crashed, "call function", "the process has exited")
	}
	c.last += 2 // begins at 1; wraps after two billion calls, a day at full speed
	for c.calls[c.last] != nil {
		c.last += 2
	}
	cl.stream = c.last
	c.calls[cl.stream] = cl
	if !c.led {
		c.led = true
		c.terms++
		cl.term = c.terms
		c.term.Store(cl.term)
		c.read.Add(1)
	}
	return nil
}

// take handles a frame for the call, for the leader. An error ends the connection,
// and with it the call, which must not be forgotten before.
func (cl *call) take(f frame, heads *answers) error {
	body := cl.body.Load()
	switch f.typ {
	case frameWindow:
		n, err := credit(f.payload)
		if err == nil && cl.credit != nil {
			cl.grant(n)
		}
		return err
	case frameResult:
		if body != nil {
			return &protocolError{"RESULT after HEAD"}
		}
		meta, rest, err := splitMeta(f.payload)
		if err != nil {
			return err
		}
		r := cl.whole(heads, meta, rest)
		cl.conn.forget(cl.stream)
		cl.reply(r)
		return nil
	case frameHeadOf:
		if body != nil {
			return &protocolError{"a second HEAD"}
		}
		meta, _, err := splitMeta(f.payload)
		if err != nil {
			return err
		}
		body = newAnswerBody(cl)
		cl.body.Store(body)
		a, err := heads.read(meta)
		if err != nil {
			if _, ours := errors.AsType[*faas.Error](err); !ours {
				return &protocolError{"HEAD: " + err.Error()}
			}
			cl.reply(reply{err: err})
			body.fail(err)
			cl.cancel()
			return nil
		}
		if bodiless(a.status) { // what it streams has no place to go
			body.fail(io.EOF)
			cl.cancel()
		}
		cl.reply(reply{answer: a, body: body})
		return nil
	case frameData:
		if body == nil {
			return &protocolError{"DATA before HEAD"}
		}
		return body.put(f)
	default: // END
		if body == nil {
			return &protocolError{"END before HEAD"}
		}
		var m struct {
			Error *fault `json:"error"`
		}
		if len(f.payload) > 0 {
			if err := json.Unmarshal(f.payload, &m); err != nil {
				return &protocolError{"END: " + err.Error()}
			}
		}
		cl.conn.forget(cl.stream)
		if m.Error != nil {
			body.fail(m.Error.toError("stream answer"))
		} else {
			body.fail(io.EOF)
		}
		return nil
	}
}

// whole makes the reply of a RESULT.
func (cl *call) whole(heads *answers, meta, body []byte) reply {
	a, err := heads.read(meta)
	if err != nil {
		if _, ours := errors.AsType[*faas.Error](err); !ours {
			err = faas.Errorf(faas.Failed, "", "the answer's head cannot be read: %v", err)
		}
		return reply{err: err}
	}
	if cl.limit > 0 && int64(len(body)) > cl.limit {
		return reply{err: overLimit(cl.limit)}
	}
	if bodiless(a.status) {
		body = nil
	}
	return reply{answer: a, body: faas.NewBytesBody(body)}
}

// reply hands the caller its answer; only the first one counts.
func (cl *call) reply(r reply) {
	select {
	case cl.head <- r:
	default:
	}
}

// fail ends a call whose connection is gone.
func (cl *call) fail(err error) {
	cl.reply(reply{err: err})
	if body := cl.body.Load(); body != nil {
		body.fail(err)
	}
	cl.finish()
}

// cancel tells the instance that nobody waits any more.
func (cl *call) cancel() {
	cl.gone.Store(true)
	cl.finish()
	_ = cl.conn.sender.send(appendFrame(nil, frameCancel, cl.stream, nil)) // if it is gone, so is the call
}

// sink takes the call's log lines while its caller is there.
func (cl *call) sink() LogSink {
	if cl.gone.Load() {
		return cl.conn.opts.Log
	}
	return cl.logs
}

// finish lets the upload end.
func (cl *call) finish() {
	if cl.over != nil {
		cl.end.Do(func() { close(cl.over) })
	}
}

// grant adds credit for the request's body. The channel holds the sum of what was not taken.
func (cl *call) grant(n uint32) {
	const most = 1 << 30 // an instance that grants more gains nothing
	for {
		select {
		case cl.credit <- min(n, most):
			return
		case old := <-cl.credit:
			n = min(n, most) + old
		}
	}
}

// upload sends the request's body as the instance gives credit.
func (cl *call) upload(ctx context.Context, body io.Reader) {
	buf := make([]byte, frameHead+bodyChunk)
	room := uint32(InitialWindow)
	for {
		for room == 0 {
			select {
			case n := <-cl.credit:
				room += n
			case <-cl.over:
				return
			}
		}
		n, err := body.Read(buf[frameHead : frameHead+min(bodyChunk, int(room))])
		select {
		case <-cl.over:
			return
		default:
		}
		room -= uint32(n)
		out := buf[:frameHead+n]
		if n > 0 {
			beginFrame(out[:0], frameBody, cl.stream)
			endFrame(out, 0)
		} else {
			out = out[:0]
		}
		if err == io.EOF {
			out = appendFrame(out, frameBodyEnd, cl.stream, nil)
		}
		if cl.conn.sender.room(ctx) != nil || cl.conn.sender.send(out) != nil {
			return // the caller learns it from ctx or from who leads
		}
		switch {
		case err == io.EOF:
			return
		case err != nil:
			cl.reply(reply{err: readError(ctx, err)})
			cl.cancel()
			return
		}
	}
}

// readError makes the error of a request's body that cannot be read.
func readError(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		return ended(ctx, "read request", "the request's body did not arrive in time")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return faas.Errorf(faas.Canceled, "read request", "the request's body ended before its length")
	}
	if _, network := errors.AsType[net.Error](err); network {
		return &faas.Error{Code: faas.Canceled, Op: "read request", Err: err}
	}
	// What is left is a body that is not encoded as it must be, such as a chunk without a length.
	return &faas.Error{Code: faas.Invalid, Op: "read request", Err: err}
}

// overLimit is the error of an answer that is too large.
func overLimit(limit int64) *faas.Error {
	return faas.Errorf(faas.Failed, "", "the answer is larger than response_bytes allows, %s", faas.Bytes(limit)).WithLimit("response_bytes")
}

func withOp(err error, op string) error {
	if e, ok := err.(*faas.Error); ok && e.Op == "" {
		e.Op = op
	}
	return err
}
