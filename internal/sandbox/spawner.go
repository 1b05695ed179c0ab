package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner is the host's end of one spawner process.
type spawner struct {
	cmd  *exec.Cmd
	sock *os.File // SEQPACKET, in the poller
	raw  syscall.RawConn

	send sync.Mutex // one message at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan<- spawned // guarded by mu
	alive   map[uint64]*life          // by request; guarded by mu
	dead    error                     // guarded by mu
	gone    chan struct{}             // closed when dead is set

	nests *pool[*nest]
}

// life is what is still to be told of a program. Each is called once, in this order, from the
// listener; they must not block.
type life struct {
	exited func(Exit) // the program has been reaped
	empty  func()     // and everything it has left behind
}

// nest is a set of namespaces with a pid 1, ready for one program.
type nest struct {
	slot  int32
	made  uint64 // the request that made it, as slots are used again
	pidfd int    // of pid 1: killing it kills all
}

// kill ends a nest that no program came to live in.
func (n *nest) kill() {
	unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0) // ESRCH: it is gone, as wanted
	unix.Close(n.pidfd)
}

// spawned is an answer and the pidfd that came with it.
type spawned struct {
	answer
	pidfd int
}

var errSpawnerGone = errors.New("the spawner process has ended")

// startSpawner starts a spawner in the root's namespaces and has it settle there.
func startSpawner(r *root, nests int, layout nestLayout) (*spawner, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "spawner")
	defer far.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	s := &spawner{
		sock:    os.NewFile(uintptr(pair[0]), "spawner socket"),
		waiting: map[uint64]chan<- spawned{},
		alive:   map[uint64]*life{},
		gone:    make(chan struct{}),
	}
	if s.raw, err = s.sock.SyscallConn(); err != nil {
		s.sock.Close()
		return nil, err
	}
	if err := r.do(func() error { return s.launch(far, layout.inProcess) }); err != nil {
		s.sock.Close()
		return nil, err
	}
	go s.listen()
	setup := &plan{cgroup: -1}
	if !layout.inProcess {
		setup.do("enter the root", opPivot, 0, 0, 0)
		// Without a bounding set only what is inheritable survives exec, as a zygote's have to.
		setup.do("make capabilities inheritable", opCaps, ^uint64(0), 0, 0)
		setup.do("drop bounding set", opDropBounding, 0, 0, 0)
	}
	if !layout.rootless { // there they count in the user namespace that is the sandbox's own
		planSameLimits(setup)
	}
	// Inherited by all that comes of it. The first touch of a huge page takes milliseconds,
	// and most programs here never need the rest of it.
	setup.steps = append(setup.steps, step{name: "do without huge pages", op: opPrctl, optional: true, a: unix.PR_SET_THP_DISABLE, b: 1})
	if _, err := s.call(kindSetup, nil, setup, nil); err != nil {
		s.close()
		return nil, fmt.Errorf("settle spawner: %w", err)
	}
	s.nests = newPool(nests, func() (*nest, error) { return s.makeNest(planNest(layout)) }, (*nest).kill)
	return s, nil
}

// launch runs on the root keeper's thread, whose mount namespace the child gets a copy of.
func (s *spawner) launch(far *os.File, inProcess bool) error {
	path, args := "/proc/self/exe", []string{stageSpawner}
	if !inProcess {
		program, err := spawnerProgram()
		if err != nil {
			return err
		}
		defer program.Close()
		path, args = "/proc/self/fd/"+strconv.Itoa(int(program.Fd())), []string{"brasa-spawner"}
	}
	s.cmd = &exec.Cmd{
		Path:       path,
		Args:       args,
		Env:        []string{},
		Dir:        at,
		ExtraFiles: []*os.File{far},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid: true, // a terminal's interrupt is for the server, which then ends it in order
			// Pid 1 of a pid namespace: the kernel ends all sandboxes with it.
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		},
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start spawner: %w", err)
	}
	// When the whole machine runs out of memory, sandboxes go before the server. Everyone may
	// raise this; a kernel that does not know it only chooses worse.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", s.cmd.Process.Pid), []byte("500"), 0)
	return nil
}

func spawnerProgram() (*os.File, error) { return programFile("brasa-spawner", spawnerBinary) }

// programFile returns an embedded program in a sealed memfd: nobody can write it, also not
// through /proc/<pid>/exe, and it has no name in any directory.
func programFile(name string, binary []byte) (*os.File, error) {
	if len(binary) == 0 {
		return nil, errors.New("no " + name + " was built for this architecture")
	}
	// MFD_EXEC is unknown before Linux 6.3, where every memfd may be executed.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(binary); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	return f, nil
}

func (s *spawner) makeNest(p *plan) (*nest, error) {
	got, err := s.call(kindNest, nil, p, nil)
	if err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	return &nest{slot: got.nest, made: got.id, pidfd: got.pidfd}, nil
}

// start runs a program in a nest, which it uses up. l is told of the end, also if that is the
// spawner's; it is not if start returns an error.
func (s *spawner) start(n *nest, p *plan, l *life) (*process, error) {
	got, err := s.call(kindStart, n, p, l)
	if err != nil {
		unix.Close(n.pidfd) // the spawner has killed it
		return nil, err
	}
	return &process{nest: n.pidfd, program: got.pidfd}, nil
}

// call makes one request; n is the nest that it is about, if it is about one.
func (s *spawner) call(kind uint32, n *nest, p *plan, l *life) (spawned, error) {
	if len(p.fds) >= maxFDs {
		return spawned{}, fmt.Errorf("%d descriptors, more than %d", len(p.fds), maxFDs)
	}
	head := requestHeader{kind: kind, cloneFlags: p.flags, cgroup: int32(p.cgroup), pid: p.pid}
	if n != nil {
		head.nest, head.made = n.slot, n.made
	}
	if p.copy {
		head.flags |= requestCopy
	}
	done := make(chan spawned, 1)
	s.mu.Lock()
	if s.dead != nil {
		s.mu.Unlock()
		return spawned{}, s.dead
	}
	s.next++
	head.id = s.next
	s.waiting[head.id] = done
	if l != nil {
		s.alive[head.id] = l
	}
	s.mu.Unlock()

	if err := s.write(head, p); err != nil {
		s.mu.Lock()
		delete(s.waiting, head.id)
		delete(s.alive, head.id)
		s.mu.Unlock()
		return spawned{}, err
	}
	var got spawned
	// Without a context: the answer takes a fraction of a millisecond, and a request that was sent must be
	// seen through, since a process may come of it.
	select {
	case got = <-done:
	case <-s.gone:
		select {
		case got = <-done:
		default:
			return spawned{}, errSpawnerGone // listen has forgotten l
		}
	}
	if got.errno != 0 {
		s.mu.Lock()
		delete(s.alive, head.id)
		s.mu.Unlock()
		return got, stepError(p.steps, got.step, got.errno)
	}
	return got, nil
}

func (s *spawner) write(head requestHeader, p *plan) error {
	message, err := encodeRequest(&head, p.steps)
	if err != nil {
		return err
	}
	fds := p.fds
	if len(message) > inlineRequest {
		fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("memfd_create: %w", err)
		}
		body := os.NewFile(uintptr(fd), "request")
		defer body.Close()
		if _, err := body.Write(message[requestHeaderSize:]); err != nil {
			return err
		}
		message = message[:requestHeaderSize]
		fds = append(fds[:len(fds):len(fds)], fd)
	}
	if err := sendMessage(&s.send, s.raw, message, fds); err != nil {
		return fmt.Errorf("ask the spawner: %w", err)
	}
	return nil
}

// sendMessage sends a message and descriptors on a socket in the poller, one at a time.
func sendMessage(turn *sync.Mutex, to syscall.RawConn, message []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	turn.Lock()
	defer turn.Unlock()
	var sent error
	err := to.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// listen hands answers and exits to those who wait for them, until the spawner is gone.
func (s *spawner) listen() {
	buffer, control := make([]byte, answerSize), make([]byte, unix.CmsgSpace(4))
	for {
		var n, cn int
		var failed error
		err := s.raw.Read(func(fd uintptr) bool {
			n, cn, _, _, failed = unix.Recvmsg(int(fd), buffer, control, unix.MSG_CMSG_CLOEXEC)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil || failed != nil || n == 0 {
			break
		}
		a, err := decodeAnswer(buffer[:n])
		if err != nil {
			break
		}
		s.hear(a, pidfdIn(control[:cn]))
	}
	s.sock.Close()
	s.cmd.Wait() // its pid namespace is empty when this returns: every sandbox is gone
	s.mu.Lock()
	s.dead = errSpawnerGone
	for id := range s.waiting {
		delete(s.alive, id) // start returns an error for these
	}
	orphans := slices.Collect(maps.Values(s.alive))
	s.alive = nil
	s.mu.Unlock()
	close(s.gone)
	for _, l := range orphans {
		if l.exited != nil {
			l.exited(Exit{Code: 128 + int(syscall.SIGKILL), Signal: syscall.SIGKILL})
		}
		l.empty()
	}
}

func (s *spawner) hear(a answer, pidfd int) {
	s.mu.Lock()
	switch a.kind {
	case kindDone:
		done := s.waiting[a.id]
		delete(s.waiting, a.id)
		s.mu.Unlock()
		if done != nil {
			done <- spawned{a, pidfd} // has room for one
		}
	case kindExited:
		l := s.alive[a.id]
		var exited func(Exit)
		if l != nil {
			exited, l.exited = l.exited, nil
		}
		s.mu.Unlock()
		if exited != nil {
			exited(a.exited())
		}
	case kindEmpty:
		l := s.alive[a.id]
		delete(s.alive, a.id)
		s.mu.Unlock()
		if l != nil {
			l.empty()
		}
	default:
		s.mu.Unlock()
	}
}

// close ends the spawner and waits until it and all its sandboxes are gone.
func (s *spawner) close() {
	s.cmd.Process.Kill()
	<-s.gone
}

func pidfdIn(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}

// pidOf returns the id of a pidfd's process in our pid namespace, 0 if it is gone.
func pidOf(pidfd int) int {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(value))
			return max(pid, 0)
		}
	}
	return 0
}
