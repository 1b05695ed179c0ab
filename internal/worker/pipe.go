package worker

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/runtimes"
)

// logPipe is what a sandbox writes to its descriptors 1 and 2, which no frame of the protocol
// marks with a call: a subprocess, a native library, an HTTP server.
//
// While exactly one call can be meant the text is that call's. To make that exact, the end of a
// call reads the pipe empty before it gives the sink away: everything that was written before
// the answer is in the pipe by then.
type logPipe struct {
	out, err *halfPipe

	mu     sync.RWMutex // held while a descriptor is used, written to close them
	closed bool         // guarded by mu
}

func newLogPipe() (*logPipe, error) {
	p := &logPipe{}
	var err error
	if p.out, err = newHalfPipe(runtimes.Stdout); err != nil {
		return nil, err
	}
	if p.err, err = newHalfPipe(runtimes.Stderr); err != nil {
		p.out.close()
		return nil, err
	}
	return p, nil
}

// aim sends what comes from now on to sink, after what is there now has gone where it belongs.
func (p *logPipe) aim(sink runtimes.LogSink) {
	out, err := p.written()
	p.out.aim(sink, out)
	p.err.aim(sink, err)
}

// skip drops lines of one text, which are not the function's own.
func (p *logPipe) skip(line string) {
	for _, h := range []*halfPipe{p.out, p.err} {
		h.mu.Lock()
		h.sink.Skip = line
		h.mu.Unlock()
	}
}

// written says which of the two has something in it. Mostly none has, so that one question for
// both spares two reads.
func (p *logPipe) written() (out, err bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return false, false
	}
	fds := [2]unix.PollFd{{Fd: int32(p.out.fd), Events: unix.POLLIN}, {Fd: int32(p.err.fd), Events: unix.POLLIN}}
	if _, e := unix.Poll(fds[:], 0); e != nil {
		return true, true
	}
	return fds[0].Revents&unix.POLLIN != 0, fds[1].Revents&unix.POLLIN != 0
}

// started closes our copies of the writing ends, which the sandbox has.
func (p *logPipe) started() {
	_ = p.out.w.Close()
	_ = p.err.w.Close()
}

func (p *logPipe) close() {
	p.started()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.out.close()
	p.err.close()
}

type halfPipe struct {
	r, w *os.File
	raw  syscall.RawConn
	fd   int // of r
	done chan struct{}

	mu   sync.Mutex          // held while reading, so that a piece goes to the sink of its time
	sink runtimes.LineWriter // guarded by mu
	buf  []byte              // guarded by mu
}

// pipe makes a pipe with one end for us and one for the sandbox. It is not os.Pipe, which makes
// both ends non-blocking: the sandbox's must block, as every program expects.
func pipe(weRead bool) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	our, their := fds[1], fds[0]
	if weRead {
		our, their = fds[0], fds[1]
	}
	if err := unix.SetNonblock(our, true); err != nil {
		_ = unix.Close(our)
		_ = unix.Close(their)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(our), "pipe"), os.NewFile(uintptr(their), "pipe"), nil
}

func newHalfPipe(stream string) (*halfPipe, error) {
	r, w, err := pipe(true)
	if err != nil {
		return nil, err
	}
	h := &halfPipe{r: r, w: w, buf: make([]byte, 4<<10), done: make(chan struct{})}
	h.sink.Stream = stream
	h.raw, err = r.SyscallConn()
	if err == nil {
		err = h.raw.Control(func(fd uintptr) { h.fd = int(fd) })
	}
	if err != nil {
		h.close()
		return nil, err
	}
	go h.read()
	return h, nil
}

// read moves what is written until the pipe's other ends are closed, or ours is.
func (h *halfPipe) read() {
	defer close(h.done)
	_ = h.raw.Read(func(fd uintptr) bool {
		// To the very end, since the poller tells of new text once only.
		for {
			if more, ended := h.move(int(fd)); ended || !more {
				return ended // false waits until there is more
			}
		}
	})
}

// move hands one piece to the sink.
func (h *halfPipe) move(fd int) (more, ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.moveLocked(fd)
}

func (h *halfPipe) moveLocked(fd int) (more, ended bool) {
	n, err := unix.Read(fd, h.buf)
	switch {
	case err == unix.EINTR:
		return true, false
	case err == unix.EAGAIN:
		return false, false
	case n <= 0:
		return false, true
	}
	_, _ = h.sink.Write(h.buf[:n]) // never fails
	return true, false
}

// pipeSize is the most that a pipe holds: 64 KiB unless a program enlarges it, as it may up to this
// (pipe(7)). So it is the most that can have been written before this moment; what a flooding
// process adds meanwhile need not be waited for.
const pipeSize = 1 << 20

// aim sends what comes from now on to sink. What is there now goes where it belongs; written says
// whether anything may be.
func (h *halfPipe) aim(sink runtimes.LogSink, written bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if written {
		_ = h.raw.Control(func(fd uintptr) {
			for range pipeSize / len(h.buf) {
				if more, _ := h.moveLocked(int(fd)); !more {
					break
				}
			}
		})
	}
	h.sink.Flush()
	h.sink.Sink = sink
}

// close ends the pipe after what is still in it was read: nobody has the other end any more.
func (h *halfPipe) close() {
	_ = h.w.Close()
	if h.raw != nil {
		_ = h.r.SetReadDeadline(time.Now().Add(time.Second)) // should anybody have it all the same
		<-h.done
		h.mu.Lock()
		h.sink.Flush()
		h.mu.Unlock()
	}
	_ = h.r.Close()
}
