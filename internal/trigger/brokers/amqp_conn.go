package brokers

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// amqpConn is a connection from which messages that no event can hold are taken out before the client
// makes room for them: it puts together whatever a broker announces. Such a message arrives without
// its body, and is known by its tag.
type amqpConn struct {
	screened

	tags map[uint16]uint64 // by channel, the tag of the message that is being delivered
	drop map[uint16]uint64 // by channel, bytes of a body that are to be dropped

	mu      sync.Mutex
	dropped map[uint64]uint64 // guarded by mu; sizes of messages without their body, by tag
}

const (
	amqpFrame = 131072 // bytes of a frame: what we ask for, and so the most that there are

	amqpFrameMethod, amqpFrameHeader, amqpFrameBody = 1, 2, 3
)

func newAMQPConn(raw net.Conn) *amqpConn {
	c := &amqpConn{screened: screened{Conn: raw, r: bufio.NewReaderSize(raw, 1<<16)}, tags: map[uint16]uint64{}, drop: map[uint16]uint64{}, dropped: map[uint64]uint64{}}
	c.next = c.frame
	return c
}

// frame reads the next frame: its head of seven bytes (kind, channel, size), and what there is to see
// of its payload.
func (c *amqpConn) frame() error {
	head := make([]byte, 7, 64)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return err
	}
	channel, size := binary.BigEndian.Uint16(head[1:]), binary.BigEndian.Uint32(head[3:])
	if size > amqpFrame {
		return refusal(fmt.Sprintf("what answers does not speak AMQP 0.9.1, or sends frames of more than %d bytes; see the scheme and the port in url", amqpFrame))
	}
	rest := int(size) + 1 // the end mark
	switch head[0] {
	case amqpFrameMethod:
		// basic.deliver is class 60, method 60: then the consumer's tag, with its length before it, and
		// the message's.
		seen, err := c.r.Peek(min(rest, 5+255+8))
		if err != nil {
			return err
		}
		if len(seen) > 5 && binary.BigEndian.Uint32(seen) == 60<<16|60 {
			if at := 5 + int(seen[4]); len(seen) >= at+8 {
				c.tags[channel] = binary.BigEndian.Uint64(seen[at:])
			}
		}
	case amqpFrameHeader:
		// Class and weight, of two bytes each, and the body's size.
		seen, err := c.r.Peek(min(rest, 12))
		if err != nil {
			return err
		}
		if len(seen) < 12 {
			break
		}
		if body := binary.BigEndian.Uint64(seen[4:]); body > uint64(trigger.MaxData) {
			c.drop[channel] = body
			c.mu.Lock()
			c.dropped[c.tags[channel]] = body
			c.mu.Unlock()
			head = append(head, seen[:4]...)
			head = append(head, make([]byte, 8)...) // a body of no bytes
			if _, err := c.r.Discard(12); err != nil {
				return err
			}
			rest -= 12
		}
	case amqpFrameBody:
		if left := c.drop[channel]; left > 0 {
			c.drop[channel] -= min(left, uint64(size))
			_, err := c.r.Discard(rest)
			return err
		}
	}
	c.ready, c.pass = head, rest
	return nil
}

// large returns the size of a message that came without its body, and forgets it.
func (c *amqpConn) large(tag uint64) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size, ok := c.dropped[tag]
	delete(c.dropped, tag)
	return size, ok
}
