package runtimes

import (
	"context"
	"errors"
	"sync"
)

// answerBody is the streamed body of an answer.
type answerBody struct {
	call *call
	stop func() bool

	mu     sync.Mutex
	chunks [][]byte      // not yet read; guarded by mu
	held   int           // bytes in chunks; guarded by mu
	total  int64         // bytes received; guarded by mu
	owed   uint32        // bytes read for which no credit was given back; guarded by mu
	err    error         // after chunks; guarded by mu
	closed bool          // guarded by mu
	more   chan struct{} // has a value when something happened
}

func newAnswerBody(cl *call) *answerBody {
	return &answerBody{call: cl, more: make(chan struct{}, 1)}
}

// watch ends the body with ctx.
func (b *answerBody) watch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		if b.fail(ended(ctx, "stream answer", "the function did not end its answer before its deadline")) {
			b.call.cancel()
		}
	})
	b.mu.Lock()
	b.stop = stop
	over := b.err != nil
	b.mu.Unlock()
	if over {
		stop()
	}
}

// put adds a frame's bytes. Its error ends the connection.
func (b *answerBody) put(f frame) error {
	p := f.payload
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.err != nil {
		return nil // the call is canceled; what was under way is dropped
	}
	if b.held+len(p)+int(b.owed) > InitialWindow {
		return &protocolError{"more DATA than its window allows"}
	}
	b.total += int64(len(p))
	if b.call.limit > 0 && b.total > b.call.limit {
		b.err = withOp(overLimit(b.call.limit), "stream answer")
		b.call.cancel()
		b.signal()
		return nil
	}
	b.held += len(p)
	// Small frames share a chunk, else an instance could make us keep a slice for every byte.
	if k := len(b.chunks) - 1; k >= 0 && cap(b.chunks[k])-len(b.chunks[k]) >= len(p) {
		b.chunks[k] = append(b.chunks[k], p...)
	} else {
		if !f.owned {
			p = append(make([]byte, 0, max(len(p), 4<<10)), p...)
		}
		if len(p) > 0 {
			b.chunks = append(b.chunks, p)
		}
	}
	b.signal()
	return nil
}

// fail ends the body after what has come; io.EOF is a good end. It returns false if it had
// ended already.
func (b *answerBody) fail(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return false
	}
	b.err = err
	b.signal()
	return true
}

func (b *answerBody) signal() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// Read returns what has come, or waits. It is for one goroutine at a time.
func (b *answerBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err, credit := b.get(p)
		if credit > 0 {
			_ = b.call.conn.sender.send(appendCredit(nil, b.call.stream, credit)) // if it is gone, fail comes
		}
		if n > 0 {
			return n, nil
		}
		if err != nil {
			b.release()
			return 0, err
		}
		<-b.more
	}
}

// get copies what there is and says how much credit to give back.
func (b *answerBody) get(p []byte) (n int, err error, credit uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errors.New("read of a closed body"), 0
	}
	for n < len(p) && len(b.chunks) > 0 {
		k := copy(p[n:], b.chunks[0])
		n += k
		if k == len(b.chunks[0]) {
			b.chunks[0] = nil
			b.chunks = b.chunks[1:]
		} else {
			b.chunks[0] = b.chunks[0][k:]
		}
	}
	b.held -= n
	if b.err != nil { // ended: no credit needed
		if n == 0 {
			err = b.err
		}
		return n, err, 0
	}
	b.owed += uint32(n)
	// A quarter of the window: few frames, and the instance never runs dry meanwhile.
	if b.owed >= InitialWindow/4 {
		credit, b.owed = b.owed, 0
	}
	return n, nil, credit
}

// Close says that no more is wanted; if the answer has not ended the function is told.
func (b *answerBody) Close() error {
	b.mu.Lock()
	early := b.err == nil && !b.closed
	b.closed = true
	b.chunks = nil
	b.signal()
	b.mu.Unlock()
	if early {
		b.call.cancel()
	}
	b.release()
	return nil
}

func (b *answerBody) release() {
	b.call.finish()
	b.mu.Lock()
	stop := b.stop
	b.mu.Unlock()
	if stop != nil {
		stop()
	}
}
