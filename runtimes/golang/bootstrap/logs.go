package bootstrap

import (
	"bytes"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

// captured takes what the program writes to its stdout and stderr and sends it as lines. Go has
// no name for the call on whose behalf a goroutine runs, so lines are a call's only while no
// other is under way; else they are the instance's. A handler that serves several calls at once
// writes to ctx.Value("brasa.log"), an io.Writer.
type captured struct {
	link  *link
	mu    sync.Mutex
	pipes []*logPipe // guarded by mu
}

type logPipe struct {
	which byte
	fd    int
	file  *os.File
	part  []byte // of a line that has no end yet
}

// maxPart is how much of a line without an end is kept.
const maxPart = 32 << 10

// capture puts pipes in the places of descriptors 1 and 2, so that what loggers, child processes
// and the runtime write is taken too. A trace of a fatal error also goes to the first stderr,
// since nobody would read the pipe any more.
func capture(l *link) *captured {
	c := &captured{link: l}
	if fd, err := syscall.Dup(2); err == nil {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "stderr")
		_ = debug.SetCrashOutput(f, debug.CrashOptions{})
		_ = f.Close() // the runtime has its own copy
	}
	for _, which := range []int{1, 2} {
		var p [2]int
		if syscall.Pipe2(p[:], syscall.O_CLOEXEC) != nil {
			continue
		}
		if syscall.Dup3(p[1], which, 0) != nil {
			continue
		}
		_ = syscall.Close(p[1])
		_ = syscall.SetNonblock(p[0], true)
		pipe := &logPipe{which: byte(which), fd: p[0], file: os.NewFile(uintptr(p[0]), "log")}
		c.pipes = append(c.pipes, pipe)
		if raw, err := pipe.file.SyscallConn(); err == nil {
			go func() {
				_ = raw.Read(func(uintptr) bool {
					c.mu.Lock()
					c.drain(pipe)
					c.mu.Unlock()
					return false // wait for more
				})
			}()
		}
	}
	return c
}

// flush sends all that was written until now, lines without an end too.
func (c *captured) flush() {
	if c == nil { // nothing is captured
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pipes {
		c.drain(p)
		if len(p.part) > 0 {
			c.emit(p.which, p.part)
			p.part = p.part[:0]
		}
	}
}

// drain reads what is in the pipe. The caller holds mu.
func (c *captured) drain(p *logPipe) {
	var buf [16 << 10]byte
	for {
		n, err := syscall.Read(p.fd, buf[:])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		p.part = append(p.part, buf[:n]...)
		at := bytes.LastIndexByte(p.part, '\n') + 1
		if at == 0 && len(p.part) > maxPart {
			at = len(p.part)
		}
		if at > 0 {
			c.emit(p.which, p.part[:at])
			p.part = append(p.part[:0], p.part[at:]...)
		}
	}
}

// emit sends lines on behalf of the only call, or of the instance.
func (c *captured) emit(which byte, text []byte) {
	c.link.mu.Lock()
	var call *Call
	if len(c.link.calls) == 1 {
		for _, call = range c.link.calls {
		}
	}
	c.link.mu.Unlock()
	if call != nil {
		call.log(which, text)
		return
	}
	c.link.send(frame(typeLog, 0, append([]byte{which}, text...)))
}

// log sends lines of the call; the host drops what is over its limit, so it need not be sent.
func (c *Call) log(which byte, text []byte) {
	if c.logged.Add(int64(len(text))) <= c.link.spec.Log+64<<10 {
		c.link.send(frame(typeLog, c.stream, append([]byte{which}, text...)))
	}
}

// callLog is the log of one call as a writer; each Write is one or more lines.
type callLog struct{ call *Call }

// Write is io.Writer's.
func (w callLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxWhole)
		w.call.log(2, rest[:n])
		rest = rest[n:]
	}
	return len(p), nil
}
