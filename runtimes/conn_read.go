package runtimes

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

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
