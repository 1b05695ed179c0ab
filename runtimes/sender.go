package runtimes

import (
	"context"
	"io"
	"sync"
	"syscall"
)

// sender writes frames to an instance. A frame that the socket takes at once costs one system
// call on the caller's goroutine. What the socket does not take, because the instance does not
// read, is kept and written by a goroutine of its own, so that no caller ever hangs on an
// instance: a call can still end, and another can still be canceled.
//
// What is kept is bounded by the callers: whole bodies by the calls in flight, streamed bodies
// by room, the rest by being small.
type sender struct {
	conn io.Writer
	raw  syscall.RawConn // nil: conn has no descriptor, every write goes through drain

	mu       sync.Mutex
	kept     []byte // guarded by mu
	draining bool   // guarded by mu; a goroutine runs drain
	err      error  // guarded by mu
	idle     sync.WaitGroup
	taken    chan struct{} // closed when kept has been written or writing failed; guarded by mu; nil: nobody waits

	attempt []byte // what try writes; guarded by mu
	wrote   int    // what it wrote; guarded by mu
	try     func(fd uintptr) bool
	failed  func(error) // called once, without mu
}

func newSender(conn io.Writer, failed func(error)) *sender {
	s := &sender{conn: conn, failed: failed}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	// Made once: a closure per write would be an allocation per call.
	s.try = func(fd uintptr) bool {
		for {
			n, err := syscall.Write(int(fd), s.attempt)
			if err == syscall.EINTR {
				continue
			}
			// An error is left to drain's Write, which reports it as package net does.
			s.wrote = max(n, 0)
			return true // also for EAGAIN: RawConn must not wait for us
		}
	}
	return s
}

// send writes whole frames, which it does not keep. It does not block.
func (s *sender) send(frames []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if !s.draining && s.raw != nil {
		s.attempt, s.wrote = frames, 0
		err := s.raw.Write(s.try)
		s.attempt = nil
		if err == nil && s.wrote == len(frames) {
			return nil
		}
		frames = frames[s.wrote:]
	}
	s.kept = append(s.kept, frames...)
	if !s.draining {
		s.draining = true
		s.idle.Go(s.drain)
	}
	return nil
}

// drain writes what is kept until nothing is.
func (s *sender) drain() {
	for {
		s.mu.Lock()
		b := s.kept
		s.kept = nil
		if len(b) == 0 || s.err != nil {
			s.draining = false
			s.wake()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if _, err := s.conn.Write(b); err != nil {
			s.fail(err)
			s.failed(err)
		}
	}
}

// room waits until the socket has taken all that was sent, so that a long body is never kept
// here in more than one piece. It ends early with ctx.
func (s *sender) room(ctx context.Context) error {
	s.mu.Lock()
	if s.err != nil || !s.draining {
		defer s.mu.Unlock()
		return s.err
	}
	if s.taken == nil {
		s.taken = make(chan struct{})
	}
	taken := s.taken
	s.mu.Unlock()
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// empty says whether the socket has taken all that was sent.
func (s *sender) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.draining && len(s.kept) == 0
}

// fail makes every later send return err.
func (s *sender) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.kept = nil
	s.wake()
}

// wake lets those in room go on. The caller holds mu.
func (s *sender) wake() {
	if s.taken != nil {
		close(s.taken)
		s.taken = nil
	}
}
