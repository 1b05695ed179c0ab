package runtimes

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Options adjust a Conn. Their zero is usable.
type Options struct {
	// Log takes the lines that belong to no call: those written while loading, between calls,
	// or by what a finished call left running. Nil drops them.
	Log LogSink
	// Response is the largest body of an answer; 0 means what Load was told, and no limit
	// before that.
	Response faas.Bytes
}

// Conn is the host's end of the conversation with an instance that speaks frames. Its methods
// may be called from several goroutines.
//
// One goroutine at a time reads, for all: the leader. A call that finds nobody reading leads until
// it has its answer, so that a call alone passes through no other goroutine: each hand-over costs
// more than all the rest of the way, as it wakes a processor. A keeper, a goroutine that does
// nothing else, reads while there are calls without a leader, and when there has been no call for
// a while, so that the end of an idle instance and what it says are noticed.
type Conn struct {
	conn   net.Conn
	opts   Options // Response is set by Load, before the first call
	action *Spec   // of a function with a contract other than Brasa's; set by Load, before the first call
	sender *sender
	read   sync.WaitGroup // who leads
	frames decoder        // the leader's
	heads  answers        // the leader's

	hello  chan Hello    // one value
	loaded chan struct{} // closed when the load has ended, well or not
	done   chan struct{} // closed when the connection is over

	mu    sync.Mutex
	calls map[uint32]*call // not yet ended by the instance; guarded by mu
	last  uint32           // stream of the newest call; guarded by mu
	empty chan struct{}    // closed when calls becomes empty; guarded by mu; nil: nobody waits
	err   error            // why it is over; guarded by mu
	load  Loaded           // fixed when loaded is closed
	led   bool             // somebody leads; guarded by mu
	terms uint64           // how many calls have led; guarded by mu
	rest  *time.Timer      // after which a keeper reads; guarded by mu; nil: no call has led
	yield chan struct{}    // closed when the leadership is given up; guarded by mu; nil: nobody waits for that
	// rests says that rest is under way, seen is what terms was at its begin; guarded by mu.
	rests bool
	seen  uint64
	// why the code could not be loaded; guarded by mu, fixed when loaded is closed
	loadErr *faas.Error

	// To interrupt a leader's read.
	breaking sync.Mutex
	broken   bool          // it was interrupted; guarded by breaking
	term     atomic.Uint64 // that may be interrupted

	uploads atomic.Int32 // bodies of requests that are being sent
}

// NewConn begins the conversation over c, which it owns from now on.
func NewConn(c net.Conn, opts Options) *Conn {
	conn := &Conn{
		conn: c, opts: opts, calls: make(map[uint32]*call), last: ^uint32(0),
		hello: make(chan Hello, 1), loaded: make(chan struct{}), done: make(chan struct{}),
	}
	conn.sender = newSender(c, conn.fail)
	conn.frames.init()
	conn.led = true
	conn.read.Go(conn.keep)
	return conn
}

// Done is closed when the connection is over, for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection is over: nil before Done, net.ErrClosed after Close, io.EOF when
// the instance went away, else what it did against the protocol.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Active counts the calls that the instance has not ended, among them those whose caller has
// gone. An instance with a concurrency of one takes no new call while there is one.
func (c *Conn) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// Idle waits until no call is active. It returns ctx's error if that comes first.
func (c *Conn) Idle(ctx context.Context) error {
	c.mu.Lock()
	if len(c.calls) == 0 || c.err != nil {
		c.mu.Unlock()
		return nil
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	empty := c.empty
	c.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the conversation; calls in flight get Crashed. It waits until nothing of it runs.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.read.Wait()
	c.sender.idle.Wait()
	return nil
}

// Hello waits until the runtime has booted.
func (c *Conn) Hello(ctx context.Context) (Hello, error) {
	select {
	case h := <-c.hello:
		c.hello <- h // for whoever asks again
		if h.Protocol != Protocol {
			return h, faas.Errorf(faas.Internal, "boot runtime", "bootstrap speaks protocol %d, want %d", h.Protocol, Protocol)
		}
		return h, nil
	case <-c.done:
		return Hello{}, c.lost("boot runtime", "the runtime exited before it was ready")
	case <-ctx.Done():
		return Hello{}, ended(ctx, "boot runtime", "the runtime was not ready in time")
	}
}

// Load gives the instance its function and waits until the code has run to its handler. It may
// be called once, and not after Begin. If the code fails the error is Failed, with the function's
// trace.
func (c *Conn) Load(ctx context.Context, spec Spec) (Loaded, error) {
	if err := c.Begin(spec); err != nil {
		return Loaded{}, err
	}
	return c.Loaded(ctx)
}

// Begin gives the instance its function and does not wait for it to be loaded: a call may follow
// at once, and is run as soon as the code is there. It may be called once. What became of the
// load is told by Loaded, and by each RoundTrip if it failed.
func (c *Conn) Begin(spec Spec) error {
	const op = "load function"
	if c.opts.Response == 0 {
		c.opts.Response = spec.Response
	}
	if spec.Contract != faas.ContractNative {
		c.action = &Spec{Namespace: spec.Namespace, Function: spec.Function}
	}
	type loadJSON struct {
		Protocol int `json:"protocol"`
		Spec
	}
	b, err := json.Marshal(loadJSON{Protocol, spec})
	if err != nil {
		return &faas.Error{Code: faas.Internal, Op: op, Err: err}
	}
	if len(b) > MaxPayload {
		return faas.Errorf(faas.TooLarge, op, "environment and secrets are %s; at most %s fit", faas.Bytes(len(b)), faas.Bytes(MaxPayload))
	}
	if err := c.sender.send(appendFrame(nil, frameLoad, 0, b)); err != nil {
		return c.lost(op, "the instance exited before its code was loaded")
	}
	return nil
}

// env is what a call finds in its environment, where its function's contract has such a thing.
func (c *Conn) env(inv *faas.Invocation) map[string]string {
	if c.action == nil {
		return nil
	}
	return ActionEnv(c.action.Namespace, c.action.Function, inv)
}

// Loaded waits until the load that was begun has ended and says how long it took. It may be
// called more than once. After the first answer of a call it does not wait, for an instance says
// that it has loaded before it answers.
func (c *Conn) Loaded(ctx context.Context) (Loaded, error) {
	const op = "load function"
	select {
	case <-c.loaded: // first, whatever else has ended
		return c.load, c.loadFailure()
	default:
	}
	select {
	case <-c.loaded:
		return c.load, c.loadFailure()
	case <-c.done:
		select {
		case <-c.loaded: // it said why before it went
			return c.load, c.loadFailure()
		default:
		}
		return Loaded{}, c.lost(op, "the process exited while its code was loading")
	case <-ctx.Done():
		return Loaded{}, ended(ctx, op, "the code was not loaded in time")
	}
}

// loadFailure returns the failure of the load, nil if there is none so far. Each who asks gets an
// error of his own, for he may add to it. The caller holds mu, or knows that the load has ended.
func (c *Conn) loadFailure() error {
	if c.loadErr == nil {
		return nil
	}
	e := *c.loadErr
	return &e
}

// loadEnded notes what became of the load. Calls that came with it share its failure.
func (c *Conn) loadEnded(l Loaded, failure *faas.Error) error {
	select {
	case <-c.loaded:
		return &protocolError{"a second LOADED"}
	default:
	}
	c.mu.Lock()
	c.load, c.loadErr = l, failure
	close(c.loaded)
	var calls map[uint32]*call
	if failure != nil {
		calls, c.calls = c.calls, map[uint32]*call{}
		c.wakeIdle()
	}
	c.mu.Unlock()
	for _, call := range calls {
		call.fail(c.loadFailure())
	}
	return nil
}

// lost makes the error of one who waited for an instance that is gone.
func (c *Conn) lost(op, what string) error {
	err := c.Err()
	if _, broke := err.(*protocolError); broke {
		return &faas.Error{Code: faas.Crashed, Op: op, Err: err}
	}
	return faas.Errorf(faas.Crashed, op, "%s", what)
}

// ended makes the error of one whose context ended.
func ended(ctx context.Context, op, late string) error {
	if e, ok := context.Cause(ctx).(*faas.Error); ok {
		return e
	}
	if ctx.Err() == context.DeadlineExceeded {
		return faas.Errorf(faas.Timeout, op, "%s", late)
	}
	return faas.Errorf(faas.Canceled, op, "the caller went away")
}

// fail ends the conversation for the reason given; only the first counts.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls := c.calls
	c.calls = nil
	c.wakeIdle()
	if c.rest != nil {
		c.rest.Stop()
	}
	c.mu.Unlock()

	_ = c.conn.Close() // an error here has nobody to act on it
	c.sender.fail(err)
	close(c.done)
	for _, call := range calls {
		call.fail(c.lost("", "the process exited without an answer"))
	}
}

// wakeIdle lets those in Idle go on. The caller holds mu.
func (c *Conn) wakeIdle() {
	if c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// restTime is how long there must have been no call before a keeper reads. Calls that follow each
// other faster than that never meet one.
const restTime = 20 * time.Millisecond

// keep reads as long as there is a call, and before the first one or after a rest until the next
// one has ended. The leadership was taken for it.
func (c *Conn) keep() {
	for {
		ended, err := c.advance()
		if errors.Is(err, os.ErrDeadlineExceeded) { // somebody wants to take over
			_ = c.conn.SetReadDeadline(time.Time{}) // before it is known that it is not somebody new
			if c.yields() {
				return
			}
			continue
		}
		if err != nil {
			c.fail(err)
			return
		}
		if !ended {
			continue
		}
		c.mu.Lock()
		if len(c.calls) == 0 && c.err == nil {
			c.retire()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// lead reads for everybody until the call has its answer or ctx ends. The leadership was taken
// by begin.
func (c *Conn) lead(ctx context.Context, cl *call) (reply, bool) {
	defer c.read.Done()
	stop := context.AfterFunc(ctx, func() { c.interrupt(cl.term) })
	var r reply
	got := false
	for !got && ctx.Err() == nil {
		if _, err := c.advance(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.fail(err) // answers the call
		}
		select {
		case r = <-cl.head:
			got = true
		default:
		}
	}
	if !stop() {
		c.forgive() // the interruption was for this call alone
	}
	c.mu.Lock()
	switch {
	case c.err != nil:
	case len(c.calls) > 0: // others', or what this one leaves behind
		c.read.Go(c.keep)
	default:
		c.retire()
	}
	c.mu.Unlock()
	return r, got
}

// yields gives the leadership up if somebody waits for it.
func (c *Conn) yields() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yield == nil || c.err != nil {
		return false
	}
	c.retire()
	return true
}

// retire ends a leadership that nobody needs to take over. The caller holds mu.
func (c *Conn) retire() {
	c.led = false
	if c.yield != nil {
		close(c.yield)
		c.yield = nil
	}
	if c.rests {
		return // looks at terms when it ends
	}
	c.rests, c.seen = true, c.terms
	if c.rest == nil {
		c.rest = time.AfterFunc(restTime, c.rested)
	} else {
		c.rest.Reset(restTime)
	}
}

// rested makes a keeper read if there was no call for a while.
func (c *Conn) rested() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rests = false
	switch {
	case c.led || c.err != nil: // who leads will retire
	case c.terms == c.seen:
		c.led = true
		c.read.Go(c.keep)
	default:
		c.rests, c.seen = true, c.terms
		c.rest.Reset(restTime)
	}
}

// interrupt ends the read of a leader whose context has ended, if it leads still.
func (c *Conn) interrupt(term uint64) {
	c.breaking.Lock()
	defer c.breaking.Unlock()
	if c.term.Load() == term {
		c.broken = true
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // fails on a closed one, which ends the read too
	}
}

// forgive makes reading possible again. An interruption that comes later does nothing.
func (c *Conn) forgive() {
	c.breaking.Lock()
	defer c.breaking.Unlock()
	c.term.Store(0)
	if c.broken {
		c.broken = false
		_ = c.conn.SetReadDeadline(time.Time{})
	}
}

// advance takes the frames that are there, and reads only if there are none. It never waits for
// a call: what a call's reader has not taken lies in the call, bounded by its window. It says
// whether the instance has ended a call.
func (c *Conn) advance() (ended bool, err error) {
	for taken := false; ; {
		f, ok, err := c.frames.next()
		if err != nil {
			return ended, err
		}
		if ok {
			if err := c.take(f); err != nil {
				return ended, err
			}
			taken = true
			ended = ended || f.typ == frameResult || f.typ == frameEnd
			continue
		}
		if taken {
			return ended, nil
		}
		n, err := c.conn.Read(c.frames.room())
		c.frames.filled(n)
		if n == 0 && err != nil {
			if err == io.EOF && c.frames.torn() {
				err = io.ErrUnexpectedEOF
			}
			return false, err
		}
	}
}

// take handles one frame; an error ends the connection.
func (c *Conn) take(f frame) error {
	if f.stream == 0 {
		return c.takeOwn(f)
	}
	c.mu.Lock()
	call := c.calls[f.stream]
	c.mu.Unlock()
	switch f.typ {
	case frameLog:
		// A line of a call that is over, or never was, must not reach another call.
		sink := c.opts.Log
		if call != nil {
			sink = call.sink()
		}
		return takeLog(f.payload, sink)
	case frameResult, frameHeadOf, frameData, frameEnd, frameWindow:
		if call == nil {
			return nil // late: its caller has its answer already
		}
	default:
		return &protocolError{fmt.Sprintf("frame type %d on stream %d", f.typ, f.stream)}
	}
	return call.take(f, &c.heads)
}

// forget drops a call that the instance has ended. It comes before the caller learns of the end,
// so that an instance whose answer was read is not counted as active.
func (c *Conn) forget(stream uint32) {
	c.mu.Lock()
	delete(c.calls, stream)
	if len(c.calls) == 0 {
		c.wakeIdle()
	}
	c.mu.Unlock()
}

// takeOwn handles a frame of the instance itself.
func (c *Conn) takeOwn(f frame) error {
	switch f.typ {
	case frameLog:
		return takeLog(f.payload, c.opts.Log)
	case frameHello:
		var h Hello
		if err := json.Unmarshal(f.payload, &h); err != nil {
			return &protocolError{"HELLO: " + err.Error()}
		}
		h.Runtime, h.Version = clip(h.Runtime), clip(h.Version)
		select {
		case c.hello <- h:
			return nil
		default:
			return &protocolError{"a second HELLO"}
		}
	case frameLoaded, frameLoadFailed:
		var loaded Loaded
		if f.typ == frameLoadFailed {
			var ft fault
			if err := json.Unmarshal(f.payload, &ft); err != nil {
				return &protocolError{"LOAD_FAILED: " + err.Error()}
			}
			return c.loadEnded(loaded, ft.toError("load function"))
		}
		if err := json.Unmarshal(f.payload, &loaded); err != nil {
			return &protocolError{"LOADED: " + err.Error()}
		}
		loaded.DependencyUS, loaded.CodeUS = max(loaded.DependencyUS, 0), max(loaded.CodeUS, 0)
		return c.loadEnded(loaded, nil)
	}
	return &protocolError{fmt.Sprintf("frame type %d on stream 0", f.typ)}
}

func takeLog(payload []byte, sink LogSink) error {
	if len(payload) == 0 {
		return &protocolError{"LOG without a stream"}
	}
	stream := Stdout
	if payload[0] == 2 {
		stream = Stderr
	}
	emitLines(sink, stream, payload[1:])
	return nil
}

// credit reads the payload of WINDOW.
func credit(payload []byte) (uint32, error) {
	if len(payload) != 4 {
		return 0, &protocolError{"WINDOW that is not four bytes"}
	}
	return binary.BigEndian.Uint32(payload), nil
}
