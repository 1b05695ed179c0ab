package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Rewind puts a used process back, from outside and without its help, to the state it had when
// it was armed: memory, registers, threads. What the kernel holds besides (open files, timers,
// signal handlers, files in /tmp and so on) is compared, and a process in which any of it
// differs is not repaired but killed.
//
// The work is done by the rewinder (spawner/rewind.c), a resident program that holds threads
// with ptrace, which is bound to one thread of one process and so no matter for Go. Between two
// operations nothing is traced.

// Rewound says what a rewind did.
type Rewound struct {
	Pages int           // written back or given back, of 4 KiB
	Took  time.Duration // as the caller saw it
}

// NotRewindableError is returned by Arm when the program holds something that could not be put
// back, or is not at rest. It goes on as it was.
type NotRewindableError struct{ Why string }

func (e *NotRewindableError) Error() string { return "process cannot be rewound: " + e.Why }

// ChangedError is returned by Rewind when something has changed that is not put back, or when
// putting back did not work out. The program is dead or dying: close the sandbox and start another.
type ChangedError struct{ What string }

func (e *ChangedError) Error() string { return "process cannot be rewound, it has changed: " + e.What }

var errNotArmed = errors.New("sandbox is not armed")

// armed is where a sandbox's snapshot is.
type armed struct {
	mu     sync.Mutex // held through an operation
	in     *rewinder  // nil if not armed; guarded by mu
	handle uint32     // guarded by mu
	holds  int64      // bytes, if nothing were shared; guarded by mu
}

// restPatience is how long Arm waits for a program to come to rest. The rewinder looks only for
// moments, since others want it meanwhile.
const restPatience = 500 * time.Millisecond

// Arm takes a snapshot of the program, to which Rewind will go back. The program must be at rest:
// every thread waiting, in its event loop, for its connection or for another thread. Arm gives it
// half a second to come to rest. An armed sandbox can be armed anew, from the state it has then.
//
// What could not be put back is refused with a *NotRewindableError, and the program goes on as it was:
// child processes, files in /tmp or /dev/shm, files open for writing, network connections, shared
// memory, timers, IPC objects. A host that cannot rewind at all returns an *UnsupportedError.
//
// A snapshot holds a copy of the program's own memory; contents that snapshots have in common are
// kept once. It is given up by Close.
func (s *Sandbox) Arm(ctx context.Context) error {
	s.armed.mu.Lock()
	defer s.armed.mu.Unlock()
	if err := s.host.canRewind(); err != nil {
		return err
	}
	pidfd, err := s.proc.dupProgram()
	if err != nil {
		return fmt.Errorf("arm sandbox %s: %w", s.spec.Name, err)
	}
	defer closeFD(pidfd)
	s.armed.drop()
	in, err := s.host.rewinders.pick()
	if err != nil {
		return fmt.Errorf("arm sandbox %s: %w", s.spec.Name, err)
	}
	request := rewindRequest{op: rewindArm, pid: int32(s.proc.hostPID()), nest: int32(s.proc.nestPID())}
	fds := []int{pidfd}
	if s.group != nil {
		if counter := s.group.dupPIDs(); counter >= 0 {
			defer closeFD(counter)
			fds = append(fds, counter)
		}
	}
	a, err := in.call(ctx, request, fds)
	for until := time.Now().Add(restPatience); err == nil && a.status == rewindBusy && time.Now().Before(until); {
		select {
		case <-time.After(restPatience / 100):
			a, err = in.call(ctx, request, fds)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("arm sandbox %s: %w", s.spec.Name, err)
	}
	switch a.status {
	case rewindOK:
		s.armed.in, s.armed.handle, s.armed.holds = in, a.handle, int64(a.snapshot)
		in.armed.Add(1)
		return nil
	case rewindUnable:
		return &UnsupportedError{Feature: featureRewind, Why: a.reason(), Fix: rewindFix}
	}
	return &NotRewindableError{Why: a.reason()}
}

// Rewind puts the program back to where it was when it was armed, every thread in the system
// call it then waited in. What the program has not yet said when Rewind is called remains unsaid:
// call it when the answer has been read to its last byte, and nothing more is to come.
//
// After any error the program is dead or dying, because none ever goes on half put back; the
// usual one is a *ChangedError. It takes some hundred microseconds and a bit less than one for
// each page that was written to. It gives up after a twentieth of a second of waiting for a thread
// that stays in the kernel, a tenth of work, and two seconds in all, most of which can only be waiting for a CPU.
func (s *Sandbox) Rewind(ctx context.Context) (Rewound, error) {
	begin := time.Now()
	s.armed.mu.Lock()
	defer s.armed.mu.Unlock()
	in := s.armed.in
	if in == nil {
		s.Kill()
		return Rewound{}, fmt.Errorf("rewind sandbox %s: %w", s.spec.Name, errNotArmed)
	}
	a, err := in.call(ctx, rewindRequest{op: rewindBack, handle: s.armed.handle}, nil)
	if err != nil {
		s.Kill()
		s.armed.drop()
		return Rewound{}, fmt.Errorf("rewind sandbox %s: %w", s.spec.Name, err)
	}
	if a.status != rewindOK {
		s.Kill()
		s.armed.drop()
		return Rewound{}, &ChangedError{What: a.reason()}
	}
	r := Rewound{Pages: int(a.pages), Took: time.Since(begin)}
	if rewindTrace != nil {
		rewindTrace(a)
	}
	return r, nil
}

// SnapshotMemory returns how much memory the snapshots of all armed sandboxes take, in bytes. It is
// in none of the sandboxes' own figures.
func (h *Host) SnapshotMemory() int64 { return h.rewinders.memory() }

// rewindTrace is told of each rewind by tests that measure.
var rewindTrace func(rewindAnswer)

// drop gives up the snapshot. Its caller holds mu.
func (a *armed) drop() {
	if a.in == nil {
		return
	}
	a.in.forget(a.handle)
	a.in.armed.Add(-1)
	a.in, a.handle, a.holds = nil, 0, 0
}

// disarm gives up the snapshot, if there is one.
func (s *Sandbox) disarm() {
	s.armed.mu.Lock()
	defer s.armed.mu.Unlock()
	s.armed.drop()
}
