package runtimes

import (
	"errors"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxLeft is how much a process can have left in its connection: twice what the kernel lets a
// socket hold by default, and a whole frame.
const maxLeft = 2 << 20

// errTalking is returned for an instance to which something is still on its way.
var errTalking = errors.New("the instance has not been told everything that was sent to it")

// Silent says that all that was sent has been taken by the socket and that no more is to come, so
// that what a process has not read by now is there to be seen. It is asked before the process is
// put back, between two calls: the rest of a request's body must not reach what the process is
// then.
func (c *Conn) Silent() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case c.uploads.Load() > 0 || !c.sender.empty():
		return errTalking
	}
	return nil
}

// Rewound says that the process has been put back, from outside, and waits: nothing that it said
// before may be taken for an answer of what it is now. What it has left in the connection is taken
// as what it is, late, and a process that was put back in the midst of a frame is lost, as is one
// that broke the protocol. No call may be under way or begin meanwhile.
func (c *Conn) Rewound() error {
	if err := c.takeOver(); err != nil {
		return err
	}
	err := c.drain()
	if err != nil {
		c.fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Of calls whose callers have gone, and which the process knows nothing of any more.
	for _, call := range c.calls {
		call.finish()
	}
	if c.err != nil {
		return c.err
	}
	clear(c.calls)
	c.wakeIdle()
	c.retire()
	return nil
}

// takeOver takes the leadership, from a keeper if there is one.
func (c *Conn) takeOver() error {
	for {
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return c.err
		}
		if !c.led {
			c.led = true
			c.mu.Unlock()
			return c.conn.SetReadDeadline(time.Time{})
		}
		if c.yield == nil {
			c.yield = make(chan struct{})
		}
		yield := c.yield
		c.mu.Unlock()
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // ends the keeper's read, after which it yields
		select {
		case <-yield:
		case <-c.done:
		}
	}
}

// drain takes what lies in the connection. The caller leads.
func (c *Conn) drain() error {
	for left := 0; ; {
		for {
			f, ok, err := c.frames.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if f.stream != 0 && f.typ != frameLog {
				continue // late, whichever call it was for
			}
			if err := c.take(f); err != nil {
				return err
			}
		}
		n, err := c.readNow(c.frames.room())
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		c.frames.filled(n)
		if left += n; left > maxLeft {
			return &protocolError{"it goes on talking after it was put back"}
		}
	}
	if c.frames.torn() {
		return &protocolError{"it was put back in the midst of a frame"}
	}
	return nil
}

// readNow reads what is there, and 0 bytes if nothing is. A connection without a descriptor holds
// nothing that nobody has read.
func (c *Conn) readNow(room []byte) (n int, err error) {
	if c.sender.raw == nil {
		return 0, nil
	}
	var failed error
	err = c.sender.raw.Read(func(fd uintptr) bool {
		for {
			if n, failed = syscall.Read(int(fd), room); failed != syscall.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed == syscall.EAGAIN:
		return 0, nil
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, faas.Errorf(faas.Crashed, "", "the process has exited")
	}
	return n, nil
}

// Unload says that the process has been put back to where it waited for its function: it may be
// given another one by Begin. It comes after Rewound. No call may be under way, and nobody may be
// in Load or Loaded.
func (c *Conn) Unload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = make(chan struct{})
	c.load, c.loadErr = Loaded{}, nil
	c.opts.Response = 0
}
