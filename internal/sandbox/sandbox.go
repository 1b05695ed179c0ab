package sandbox

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sandbox is one confined process tree. Its methods may be called from several goroutines.
type Sandbox struct {
	host  *Host
	spec  Spec
	uid   int
	conn  net.Conn // nil unless Spec.Conn, or until Exec
	group *cgroup  // nil where there are no cgroups
	net   *netns
	base  *base        // nil unless Spec.Root
	heard net.Listener // nil unless Spec.Listen
	proc  *process
	watch *memoryWatch // nil where the kernel limits memory
	steps []Step

	exit Exit // written before done is closed
	done chan struct{}

	empty chan struct{} // closed when every process is gone

	adopting sync.Mutex // held by Adopt and Exec; guards spec, but for Name, adopted and waiting
	adopted  []Step
	waiting  *waiter // nil unless Spec.Wait, and after Exec

	armed armed

	closing sync.Once
	closed  chan struct{}
}

// Exit says how a sandbox's first process ended.
type Exit struct {
	Code   int            // exit status; 128 + signal when a signal ended it
	Signal syscall.Signal // 0 if it exited by itself
	OOM    bool           // the kernel, or the memory watch, killed for memory
	Usage  Usage          // of the whole tree, at its end
}

// String says it in words: "exit status 3", "killed (out of memory)".
func (e Exit) String() string {
	switch {
	case e.OOM:
		return "killed (out of memory)"
	case e.Signal != 0:
		return e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Usage is what a process tree has used.
type Usage struct {
	CPU        time.Duration
	Memory     int64 // bytes now, with page cache and tmpfs
	MemoryPeak int64 // the most it has been since the start or ResetPeak
	PIDs       int   // processes and threads now
}

// Step is one part of starting a sandbox and how long it took.
type Step struct {
	Name string
	Took time.Duration
}

// Name returns the name the sandbox was started with.
func (s *Sandbox) Name() string { return s.spec.Name }

// UID returns the user id of the sandbox on the host; 0 where it has none of its own.
func (s *Sandbox) UID() int { return s.uid }

// Conn returns the host's end of the connection to descriptor 3, or nil if Spec.Conn was
// false, or Command.Conn where Exec has started the program. Close closes it.
func (s *Sandbox) Conn() net.Conn { return s.conn }

// Listener takes the connections that the sandbox makes to Spec.Listen; nil if that is empty. Close
// closes it.
func (s *Sandbox) Listener() net.Listener { return s.heard }

// PID returns the first process's id in the host's pid namespace, 0 if it was gone before the
// first call.
func (s *Sandbox) PID() int { return s.proc.hostPID() }

// Done is closed when the program has ended and been reaped. What it has left behind is being
// killed then; Close returns when that is gone.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Exit returns how the first process ended. It blocks until Done.
func (s *Sandbox) Exit() Exit {
	<-s.done
	return s.exit
}

// Steps returns what Start did and how long each part took.
func (s *Sandbox) Steps() []Step { return s.steps }

// Usage returns what the tree has used so far. It costs a few microseconds. After Done it
// returns what it was at the end.
func (s *Sandbox) Usage() (Usage, error) {
	select {
	case <-s.done:
		return s.exit.Usage, nil
	default:
	}
	if s.group == nil {
		return s.watch.usage(), nil
	}
	return s.group.usage()
}

// CPU returns Usage.CPU alone, for a fraction of the cost.
func (s *Sandbox) CPU() (time.Duration, error) {
	select {
	case <-s.done:
		return s.exit.Usage.CPU, nil
	default:
	}
	if s.group == nil {
		return s.watch.usage().CPU, nil
	}
	return s.group.cpu()
}

// ResetPeak makes Usage.MemoryPeak start again from now. It is an error where the kernel
// cannot (cgroup v2 before Linux 6.12).
func (s *Sandbox) ResetPeak() error {
	if s.group == nil {
		s.watch.resetPeak()
		return nil
	}
	return s.group.resetPeak()
}

// Processes returns the ids, in the host's pid namespace, of the tree's processes.
func (s *Sandbox) Processes() ([]int, error) {
	if s.group == nil {
		return s.watch.processes()
	}
	return s.group.processes()
}

// Dial connects to a literal IP address and port, or "localhost:port", from inside the
// sandbox's network namespace. Networks are those of net.Dial that begin with tcp or udp.
func (s *Sandbox) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.net.dial(ctx, network, address)
}

// Kill kills every process of the sandbox now. It does not wait; Done tells when they are gone.
func (s *Sandbox) Kill() { s.proc.kill() }

// Close kills what still runs, waits until it is gone and gives back what the sandbox held. It
// may be called more than once, also at the same time; each call returns when all is done.
func (s *Sandbox) Close() error {
	s.closing.Do(func() {
		s.Kill()
		<-s.done
		<-s.empty
		s.disarm()
		s.closeConns()
		s.host.release(s)
		close(s.closed)
	})
	<-s.closed
	return nil
}

// finish runs once, when the program has been reaped.
func (s *Sandbox) finish(e Exit) {
	if s.group != nil {
		if u, err := s.group.usage(); err == nil {
			e.Usage = u
		}
		e.OOM = s.group.oomKills() > 0
		s.group.stopOOMNotice()
	} else if s.watch != nil {
		u := s.watch.usage()
		e.Usage.MemoryPeak = max(e.Usage.MemoryPeak, u.MemoryPeak)
		e.OOM = s.watch.tripped()
		s.watch.stop()
	}
	s.exit = e
	close(s.done)
}

// process is a sandbox's first process, as the host holds it.
type process struct {
	mu      sync.RWMutex // held while a descriptor is used, written to close them
	nest    int          // pidfd of pid 1 of its pid namespace; -1 after close
	program int          // pidfd of the program itself; -1 after close
	pid     atomic.Int64 // 0 until asked
}

// kill ends pid 1, and with it the kernel ends every process of the namespace.
func (p *process) kill() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.nest >= 0 {
		unix.PidfdSendSignal(p.nest, unix.SIGKILL, nil, 0) // ESRCH: it is gone, as wanted
	}
}

// visit calls do with the pidfd of pid 1, which stays open meanwhile.
func (p *process) visit(do func(nest int) error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.nest < 0 {
		return errGone
	}
	return do(p.nest)
}

func (p *process) hostPID() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.pid.Load() == 0 && p.program >= 0 {
		p.pid.Store(int64(pidOf(p.program)))
	}
	return int(p.pid.Load())
}

// nestPID returns the id of pid 1 of the sandbox's namespace in the host's, 0 if it is gone.
func (p *process) nestPID() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.nest < 0 {
		return 0
	}
	return pidOf(p.nest)
}

func (p *process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nest >= 0 {
		unix.Close(p.nest)
		unix.Close(p.program)
		p.nest, p.program = -1, -1
	}
}
