package runtimes

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
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
