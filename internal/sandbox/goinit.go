package sandbox

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The stand-in for the embedded spawner: this binary, run as the spawner (stageSpawner) and, for
// each sandbox, as its first process (stageInit), which turns into the program. It takes the
// same requests and runs the same steps; a Go program takes milliseconds to begin, though, and
// cannot share memory with its child.

const (
	stageSpawner = "brasa-sandbox-spawner"
	stageInit    = "brasa-sandbox-init"
)

func init() {
	// The main thread: death signals come when the thread that forked ends, and only this one
	// lives as long as the process.
	switch os.Args[0] {
	case stageSpawner:
		runtime.LockOSThread()
		os.Exit(standIn())
	case stageInit:
		runtime.LockOSThread()
		firstProcess()
	}
}

const standInSocket = 3

// standIn serves requests until the host is gone. It is pid 1 of its pid namespace.
func standIn() int {
	go func() { // the only child reaper; the loop below only starts
		for {
			var status unix.WaitStatus
			var use unix.Rusage
			pid, err := unix.Wait4(-1, &status, 0, &use)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				<-born // no child: wait for the next
				continue
			}
			ended(pid, status, use)
		}
	}()
	message := make([]byte, maxRequest)
	control := make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, cn, _, _, err := unix.Recvmsg(standInSocket, message, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(control[:cn]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		serveRequest(message[:n], fds)
		for _, fd := range fds {
			unix.Close(fd)
		}
		clear(message[:n])
	}
}

// born wakes the reaper when it has found no child.
var born = make(chan struct{}, 1)

// kept are the nests of the stand-in. The lock also keeps answers and exits in order: a program's
// end is told after the answer that names it.
var kept = struct {
	sync.Mutex
	nests map[int32]*keptNest
	next  int32
}{nests: map[int32]*keptNest{}}

type keptNest struct {
	pid, pidfd, program int
	id, made            uint64
}

// ended is what the spawner's function of that name is.
func ended(pid int, status unix.WaitStatus, use unix.Rusage) {
	kept.Lock()
	defer kept.Unlock()
	for slot, n := range kept.nests {
		switch pid {
		case n.program:
			unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
			n.program = -1
			send(answer{kind: kindExited, id: n.id, nest: slot, status: int32(status),
				userMicros: uint64(use.Utime.Nano() / 1000), systemMicros: uint64(use.Stime.Nano() / 1000), maxRSSKB: uint64(use.Maxrss)}, -1)
			return
		case n.pid:
			if n.program != 0 {
				send(answer{kind: kindEmpty, id: n.id, nest: slot}, -1)
			}
			unix.Close(n.pidfd)
			delete(kept.nests, slot)
			return
		}
	}
}

func send(a answer, fd int) {
	a.version = wireVersion
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&a)), answerSize) // plain numbers, no pointers
	if unix.Sendmsg(standInSocket, b, rights, nil, unix.MSG_NOSIGNAL) != nil {
		os.Exit(0)
	}
}

func serveRequest(message []byte, fds []int) {
	kept.Lock()
	defer kept.Unlock()
	a := answer{kind: kindDone, step: -2, errno: int32(unix.EBADMSG)}
	if len(message) < requestHeaderSize {
		send(a, -1)
		return
	}
	var head requestHeader
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&head)), requestHeaderSize), message)
	a.id = head.id
	body := message[requestHeaderSize:]
	if head.flags&requestByFD != 0 {
		body = make([]byte, head.bytes)
		if _, err := unix.Pread(fds[len(fds)-1], body, 0); err != nil {
			send(a, -1)
			return
		}
	}
	if head.kind == kindSetup {
		steps, err := decodeSteps(body)
		a.errno, a.step = runSteps(steps, fds, err)
		send(a, -1)
		return
	}
	pidfd := -1
	if head.kind == kindNest {
		pidfd = serveNest(&a, head, body)
		send(a, pidfd)
		return
	}
	pidfd = serveStart(&a, head, body, fds)
	send(a, pidfd)
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
}

func serveNest(a *answer, head requestHeader, body []byte) (pidfd int) {
	pid, pidfd, step, errno := spawnInit(head, body, nil)
	a.step, a.errno = step, errno
	if errno != 0 {
		return -1
	}
	for kept.nests[kept.next] != nil {
		kept.next = (kept.next + 1) % (1 << 20)
	}
	kept.nests[kept.next] = &keptNest{pid: pid, pidfd: pidfd, made: head.id}
	a.nest = kept.next
	return pidfd
}

func serveStart(a *answer, head requestHeader, body []byte, fds []int) (pidfd int) {
	n := kept.nests[head.nest]
	if n == nil || n.program != 0 || n.made != head.made {
		a.errno = int32(unix.ESRCH)
		return -1
	}
	// The thread's children are born into the nest; the nest itself is named by the last
	// descriptor.
	self, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err == nil {
		defer unix.Close(self)
		err = unix.Setns(n.pidfd, unix.CLONE_NEWPID)
	}
	if err != nil {
		a.errno, a.step = int32(unix.EPERM), -1
		unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
		return -1
	}
	pid, pidfd, step, errno := spawnInit(head, body, append(fds[:len(fds):len(fds)], n.pidfd))
	unix.Setns(self, unix.CLONE_NEWPID)
	a.nest, a.step, a.errno = head.nest, step, errno
	if errno != 0 {
		unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
		return -1
	}
	n.program, n.id = pid, head.id
	return pidfd
}

// spawnInit starts the second stage in new namespaces, gives it the steps through a memfd and
// hears through a pipe which one failed; the pipe closes at exec.
func spawnInit(head requestHeader, body []byte, fds []int) (pid, pidfd int, step, errno int32) {
	fail := func(err error) (int, int, int32, int32) {
		var no syscall.Errno
		if !errors.As(err, &no) {
			no = unix.EINVAL
		}
		return 0, -1, -1, int32(no)
	}
	mem, err := unix.MemfdCreate("steps", unix.MFD_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(mem)
	if _, err := unix.Pwrite(mem, body, 0); err != nil {
		return fail(err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fail(err)
	}
	defer unix.Close(pipe[0])
	files := []uintptr{0, 1, 2, uintptr(pipe[1]), uintptr(mem)}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	pidfd = -1
	attr := &syscall.SysProcAttr{Cloneflags: uintptr(head.cloneFlags), PidFD: &pidfd}
	if head.cgroup >= 0 {
		attr.UseCgroupFD, attr.CgroupFD = true, fds[head.cgroup]
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{stageInit, strconv.Itoa(len(fds))}, &syscall.ProcAttr{Files: files, Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Sys: attr})
	unix.Close(pipe[1])
	if err != nil {
		return fail(err)
	}
	select {
	case born <- struct{}{}:
	default:
	}
	var report [8]byte
	n, err := unix.Read(pipe[0], report[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(pipe[0], report[:])
	}
	if n == len(report) { // one short write to a pipe is read as one
		unix.Close(pidfd)
		return 0, -1, int32(binary.NativeEndian.Uint32(report[0:])), int32(binary.NativeEndian.Uint32(report[4:]))
	}
	return pid, pidfd, 0, 0
}

const (
	initReport = 3 // pipe to the spawner
	initSteps  = 4 // memfd
	initFDs    = 5 // the request's descriptors from here on
)

// firstProcess runs the steps and does not return.
func firstProcess() {
	defaultSignals()
	unix.CloseOnExec(initReport)
	body, err := io.ReadAll(os.NewFile(initSteps, "steps"))
	var steps []step
	if err == nil {
		steps, err = decodeSteps(body)
	}
	// Told rather than found out: the Go runtime opens descriptors of its own behind them.
	count, _ := strconv.Atoi(os.Args[1])
	fds := make([]int, count)
	for i := range fds {
		fds[i] = initFDs + i
	}
	errno, at := runSteps(steps, fds, err)
	if errno == 0 {
		errno = int32(unix.EINVAL) // the steps ended without exec
	}
	report := binary.NativeEndian.AppendUint32(nil, uint32(at))
	report = binary.NativeEndian.AppendUint32(report, uint32(errno))
	unix.Write(reportFD, report)
	os.Exit(127)
}

// reportFD is where the report pipe is, which arranging descriptors moves.
var reportFD = initReport

// defaultSignals undoes that a signal is ignored, which exec would hand on: whoever started the
// server may have ignored one that package os/signal does not know, such as those of the C
// library. Only ignored ones are touched, since the handlers of Go's runtime go at exec anyway.
func defaultSignals() {
	const last = 64
	var action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := uintptr(1); sig <= last; sig++ {
		// The layout is that of both architectures' kernels: struct sigaction in asm/signal.h
		// (amd64) and asm-generic/signal.h (arm64, whose restorer is unused).
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&action)), unsafe.Sizeof(action.mask), 0, 0)
		if errno == 0 && action.handler == 1 { // SIG_IGN
			action.handler = 0 // SIG_DFL
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
		}
	}
}
