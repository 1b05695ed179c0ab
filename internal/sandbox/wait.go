package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Command is what a waiting sandbox is to run; its fields mean what those of Spec do.
type Command struct {
	Args                  []string
	Env                   []string
	Dir                   string
	Conn                  bool
	Stdin, Stdout, Stderr *os.File
}

// ErrTooLong is returned by Exec for a command that a waiting sandbox cannot be told. It waits on
// then. Start takes longer ones.
var ErrTooLong = errors.New("arguments and environment are too long for a waiting sandbox")

// Fits says whether a waiting sandbox can be told the command.
func (c *Command) Fits() bool {
	size := len(c.Dir) + 1
	for _, texts := range [][]string{c.Args, c.Env} {
		for _, t := range texts {
			size += len(t) + 1
		}
	}
	return size <= maxCommand && len(c.Args)+len(c.Env) <= maxStrings
}

// waiter is the host's end of a sandbox that waits for its program.
type waiter struct {
	file *os.File // SEQPACKET, in the poller
	raw  syscall.RawConn
	send sync.Mutex
}

func newWaiter() (w *waiter, far int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err = unix.SetNonblock(pair[0], true); err == nil {
		w = &waiter{file: os.NewFile(uintptr(pair[0]), "waiting")}
		if w.raw, err = w.file.SyscallConn(); err == nil {
			return w, pair[1], nil
		}
	}
	unix.Close(pair[0])
	unix.Close(pair[1])
	return nil, -1, err
}

// Exec has a sandbox that was started with Spec.Wait run its program, once. When it returns
// without an error the program has been executed; it is as confined as Start would have made it.
// Sandbox.Conn is there from then on if the command has one.
//
// After an error other than ErrTooLong the sandbox must be closed. What the kernel says of the
// program comes back as a *StepError, as from Start. ctx bounds the wait.
func (s *Sandbox) Exec(ctx context.Context, c Command) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if err := s.exec(ctx, &c); err != nil {
		return fmt.Errorf("start program in sandbox %s: %w", s.spec.Name, err)
	}
	return nil
}

func (s *Sandbox) exec(ctx context.Context, c *Command) error {
	if s.waiting == nil {
		return errors.New("it does not wait for a program")
	}
	if !c.Fits() {
		return ErrTooLong
	}
	spec := s.spec
	spec.Wait = false
	spec.Args, spec.Env, spec.Dir = c.Args, c.Env, c.Dir
	spec.Stdin, spec.Stdout, spec.Stderr = c.Stdin, c.Stdout, c.Stderr
	spec, err := spec.complete()
	if err != nil {
		return err
	}
	stdio, err := s.host.stdio(&spec)
	if err != nil {
		return err
	}
	fds := stdio[:]
	if c.Conn {
		conn, far, err := connection()
		if err != nil {
			return err
		}
		defer unix.Close(far)
		s.conn = conn // Close closes it
		fds = append(fds, far)
	}
	w := s.waiting
	s.waiting = nil
	defer w.file.Close()
	if err := sendMessage(&w.send, w.raw, encodeCommand(&spec, len(fds)), fds); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return errGone
		}
		return err
	}
	errno, err := w.answer(ctx)
	switch {
	case err != nil:
		return err
	case errno != 0:
		return &StepError{Step: "exec " + spec.Args[0], Err: syscall.Errno(errno)}
	}
	return nil
}

// answer waits until the program is executed, or for the reason why it isn't.
func (w *waiter) answer(ctx context.Context) (errno int32, err error) {
	stop := context.AfterFunc(ctx, func() { w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var text [4]byte
	n, err := w.file.Read(text[:])
	switch {
	case n == len(text):
		return int32(binary.NativeEndian.Uint32(text[:])), nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	}
	return 0, nil // the socket has closed, as it does at exec
}

// encodeCommand lays the command out as the waiting program reads it.
func encodeCommand(spec *Spec, fds int) []byte {
	b := make([]byte, commandHeaderSize, 4096)
	text := func(s string) { b = append(append(b, s...), 0) }
	text(spec.Dir)
	for _, a := range spec.Args {
		text(a)
	}
	for _, v := range spec.Env {
		text(v)
	}
	head := commandHeader{version: wireVersion, args: uint32(len(spec.Args)), env: uint32(len(spec.Env)), fds: uint32(fds), bytes: uint32(len(b) - commandHeaderSize)}
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&head)), commandHeaderSize)) // plain numbers, no pointers
	return b
}

// stdio returns the descriptors of a spec's first three files.
func (h *Host) stdio(spec *Spec) (fds [3]int, err error) {
	for i, f := range []*os.File{spec.Stdin, spec.Stdout, spec.Stderr} {
		if f == nil {
			f = h.devnull
		}
		// Not Fd, which would make the caller's descriptor blocking.
		conn, err := f.SyscallConn()
		if err != nil {
			return fds, err
		}
		if err := conn.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return fds, err
		}
	}
	return fds, nil
}

// closeConns closes our ends of what the sandbox's program has, or would have had.
func (s *Sandbox) closeConns() {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if s.waiting != nil {
		s.waiting.file.Close()
		s.waiting = nil
	}
	if s.conn != nil {
		s.conn.Close()
	}
}

// Waits says whether sandboxes can wait for their program here: whether Start takes Spec.Wait. It
// is known when Ready is closed.
func (h *Host) Waits() bool { return !h.standIn && len(waitBinary) > 0 }

// waitProgram returns the file of the waiting program. It is made once and stays open.
func (h *Host) waitProgram() (int, error) {
	h.waitOnce.Do(func() {
		if h.standIn {
			h.waitErr = &UnsupportedError{Feature: featureSpawner, Why: "only it can start what waits for a program"}
			return
		}
		h.waitFile, h.waitErr = programFile("brasa-wait", waitBinary)
	})
	if h.waitErr != nil {
		return -1, h.waitErr
	}
	return int(h.waitFile.Fd()), nil
}
