package brokers

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"
)

// screened is a connection to a server that a tenant named, whose frames are looked at before the client
// makes room for them, and to which writes do not last for ever.
type screened struct {
	net.Conn
	r *bufio.Reader
	// next reads on to where there is something to give, in ready and pass; if there is none in this frame it
	// is called again. It runs in Read alone.
	next func() error

	ready []byte // what Read gives next
	pass  int    // bytes of r that Read gives after it

	seen  sync.Mutex
	cause error // guarded by seen; why reading ended
}

// refusal is why something that a broker has sent is not read.
type refusal string

func (r refusal) Error() string { return string(r) }

// Read implements net.Conn.
func (c *screened) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.ready) == 0 && c.pass == 0 {
		if err := c.next(); err != nil {
			c.seen.Lock()
			c.cause = err
			c.seen.Unlock()
			return 0, err
		}
	}
	if len(c.ready) > 0 {
		n := copy(p, c.ready)
		c.ready = c.ready[n:]
		return n, nil
	}
	n, err := c.r.Read(p[:min(len(p), c.pass)])
	c.pass -= n
	return n, err
}

// refused is why what was read was refused; nil if it was not, or the other side ended it.
func (c *screened) refused() error {
	c.seen.Lock()
	defer c.seen.Unlock()
	if r, ok := errors.AsType[refusal](c.cause); ok {
		return r
	}
	return nil
}

// Write implements net.Conn. A broker that takes nothing does not hold us up for ever.
func (c *screened) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(brokerConnect)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
