package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRewinders is how many there are at most. A rewind takes half a millisecond of one of them;
// two keep up with two cores of functions.
const maxRewinders = 2

// rewinderPatience is how long an answer may take: many times what the rewinder gives itself.
// One that does not answer is ended, and with it goes what it held.
const rewinderPatience = 10 * time.Second

var errRewinderGone = errors.New("the rewinder process has ended")

// rewinders are the resident programs that rewind, started when the first is needed.
type rewinders struct {
	mu     sync.Mutex
	all    []*rewinder // guarded by mu
	closed bool        // guarded by mu
}

// rewinder is the host's end of one of them.
type rewinder struct {
	cmd   *exec.Cmd
	sock  *os.File // SEQPACKET, in the poller
	raw   syscall.RawConn
	turn  chan struct{} // holds one token; who has it may talk
	gone  chan struct{} // closed when it has ended
	armed atomic.Int64
	next  uint64 // guarded by turn

	ending sync.Once
}

// pick returns the rewinder with the fewest snapshots, and starts one while there are fewer than
// there may be.
func (r *rewinders) pick() (*rewinder, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	alive := r.all[:0]
	for _, w := range r.all {
		select {
		case <-w.gone:
		default:
			alive = append(alive, w)
		}
	}
	r.all = alive
	var best *rewinder
	for _, w := range r.all {
		if best == nil || w.armed.Load() < best.armed.Load() {
			best = w
		}
	}
	if best == nil || best.armed.Load() > 0 && len(r.all) < min(maxRewinders, runtime.NumCPU()) {
		w, err := startRewinder()
		if err != nil {
			return best, ifNil(best, err)
		}
		r.all = append(r.all, w)
		best = w
	}
	return best, nil
}

// ifNil returns err unless there is a rewinder to go on with.
func ifNil(w *rewinder, err error) error {
	if w != nil {
		return nil
	}
	return err
}

// memory returns what they hold together, in bytes, as the kernel counts it: that is mostly pages of
// snapshots, those that several have in common once.
func (r *rewinders) memory() (sum int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.all {
		select {
		case <-w.gone: // its number may be another's
			continue
		default:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.cmd.Process.Pid))
		if err != nil {
			continue
		}
		var size, resident int64
		if _, err := fmt.Sscan(string(b), &size, &resident); err == nil {
			sum += resident * int64(os.Getpagesize())
		}
	}
	return sum
}

// close ends them. The sandboxes are gone by then.
func (r *rewinders) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, w := range r.all {
		w.end()
	}
	r.all = nil
}

func startRewinder() (*rewinder, error) {
	program, err := programFile("brasa-rewinder", rewindBinary)
	if err != nil {
		return nil, fmt.Errorf("start rewinder: %w", err)
	}
	defer program.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "rewinder")
	defer far.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	w := &rewinder{sock: os.NewFile(uintptr(pair[0]), "rewinder socket"), turn: make(chan struct{}, 1), gone: make(chan struct{})}
	if w.raw, err = w.sock.SyscallConn(); err != nil {
		w.sock.Close()
		return nil, err
	}
	w.cmd = &exec.Cmd{
		Path:        "/proc/self/fd/" + strconv.Itoa(int(program.Fd())),
		Args:        []string{"brasa-rewinder"},
		Env:         []string{},
		Dir:         "/",
		ExtraFiles:  []*os.File{far},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := w.cmd.Start(); err != nil {
		w.sock.Close()
		return nil, fmt.Errorf("start rewinder: %w", err)
	}
	go func() { // ends with the process
		_ = w.cmd.Wait()
		close(w.gone)
	}()
	w.turn <- struct{}{}
	return w, nil
}

// end kills the rewinder and waits for it. What it holds at that moment dies with it.
func (w *rewinder) end() {
	w.ending.Do(func() {
		_ = w.cmd.Process.Kill()
		<-w.gone
		w.sock.Close()
	})
}

// call asks and waits for the answer. ctx ends only the wait for a turn: an operation that has
// begun is seen through, and the rewinder bounds how long it takes.
func (w *rewinder) call(ctx context.Context, q rewindRequest, fds []int) (rewindAnswer, error) {
	select {
	case <-w.turn:
	case <-w.gone:
		return rewindAnswer{}, errRewinderGone
	case <-ctx.Done():
		return rewindAnswer{}, ctx.Err()
	}
	defer func() { w.turn <- struct{}{} }()
	w.next++
	q.id = w.next
	if err := w.send(q, fds); err != nil {
		go w.end()
		return rewindAnswer{}, err
	}
	a, err := w.receive()
	if err == nil && a.id != q.id {
		err = fmt.Errorf("answer to %d, want %d", a.id, q.id)
	}
	if err != nil {
		go w.end()
		return a, fmt.Errorf("ask the rewinder: %w", err)
	}
	return a, nil
}

func (w *rewinder) send(q rewindRequest, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	message := q.encode()
	var sent error
	err := w.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("ask the rewinder: %w", err)
	}
	return nil
}

func (w *rewinder) receive() (rewindAnswer, error) {
	if err := w.sock.SetReadDeadline(time.Now().Add(rewinderPatience)); err != nil {
		return rewindAnswer{}, err
	}
	buffer := make([]byte, rewindAnswerSize)
	var n int
	var failed error
	err := w.raw.Read(func(fd uintptr) bool {
		n, _, _, _, failed = unix.Recvmsg(int(fd), buffer, nil, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err = errors.Join(err, failed); err != nil {
		return rewindAnswer{}, err
	}
	if n == 0 {
		return rewindAnswer{}, errRewinderGone
	}
	return decodeRewindAnswer(buffer[:n])
}

// forget has a snapshot given up; there is no answer.
func (w *rewinder) forget(handle uint32) {
	select {
	case <-w.turn:
	case <-w.gone:
		return
	}
	defer func() { w.turn <- struct{}{} }()
	if w.send(rewindRequest{op: rewindDrop, handle: handle}, nil) != nil {
		go w.end()
	}
}

// dupProgram returns a descriptor of its own for the program's pidfd.
func (p *process) dupProgram() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.program < 0 {
		return -1, os.ErrClosed
	}
	return unix.FcntlInt(uintptr(p.program), unix.F_DUPFD_CLOEXEC, 0)
}

// dupPIDs returns a descriptor of the file that counts the group's tasks, -1 if there is none.
func (g *cgroup) dupPIDs() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut || g.files.pids < 0 {
		return -1
	}
	fd, err := unix.FcntlInt(uintptr(g.files.pids), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

func closeFD(fd int) { _ = unix.Close(fd) }
