package bootstrap

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
)

// body is a request's body: whole, or a stream that grants the host credit as it is read.
type body struct {
	call *Call
	mu   sync.Mutex
	more *sync.Cond
	data []byte // guarded by mu
	err  error  // after data; guarded by mu
	owed int    // guarded by mu
}

func newBody(c *Call, data []byte, streamed bool) *body {
	b := &body{call: c, data: data}
	b.more = sync.NewCond(&b.mu)
	if !streamed {
		b.err = io.EOF
	}
	return b
}

// put adds bytes or the end; only the first end counts, save that a cancel drops what is there.
func (b *body) put(p []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.data = append(b.data, p...)
		b.err = err
		if err == context.Canceled {
			b.data = nil
		}
	}
	b.more.Broadcast()
}

// Read is io.Reader's.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 && b.err == nil {
		b.more.Wait()
	}
	if len(b.data) == 0 {
		return 0, b.err
	}
	n := copy(p, b.data)
	if b.data = b.data[n:]; len(b.data) == 0 {
		b.data = nil
	}
	if b.err == nil {
		if b.owed += n; b.owed >= initialWindow/4 {
			b.call.link.send(frame(typeWindow, b.call.stream, binary.BigEndian.AppendUint32(nil, uint32(b.owed))))
			b.owed = 0
		}
	}
	return n, nil
}

// Close is io.Closer's.
func (b *body) Close() error { return nil }
