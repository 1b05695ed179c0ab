package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The steps as the stand-in does them; spawner.c does the same in C.

func decodeSteps(body []byte) ([]step, error) {
	var steps []step
	n := binary.NativeEndian
	for len(body) > 0 {
		if len(body) < stepHeaderSize {
			return nil, unix.EBADMSG
		}
		size := int(n.Uint32(body[4:]))
		if size < stepHeaderSize || size > len(body) {
			return nil, unix.EBADMSG
		}
		s := step{op: opcode(n.Uint16(body)), optional: n.Uint16(body[2:])&stepOptional != 0, a: n.Uint64(body[8:]), b: n.Uint64(body[16:]), c: n.Uint64(body[24:])}
		s.raw = body[stepHeaderSize:size]
		if s.op != opSeccomp {
			s.text = strings.Split(string(s.raw), "\x00")
		}
		steps = append(steps, s)
		body = body[size:]
	}
	return steps, nil
}

func runSteps(steps []step, fds []int, err error) (errno, at int32) {
	if err != nil {
		return int32(unix.EBADMSG), -2
	}
	for i, s := range steps {
		if err := s.run(fds); err != nil && !s.optional {
			var no syscall.Errno
			if !errors.As(err, &no) {
				no = unix.EINVAL
			}
			return int32(no), int32(i)
		}
	}
	return 0, 0
}

func (s *step) fd(fds []int) int {
	if s.a < uint64(len(fds)) {
		return fds[s.a]
	}
	return -1
}

// run does one step on the calling thread. Ids and capabilities are set by raw calls: Go's own
// would change all threads, and the others are gone at exec anyway.
func (s *step) run(fds []int) error {
	raw := func(nr, a, b, c uintptr) error {
		if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
			return errno
		}
		return nil
	}
	switch s.op {
	case opWrite:
		_, err := unix.Write(s.fd(fds), []byte(s.text[0]))
		return err
	case opEnter:
		// A mount namespace can only be entered with a working directory of one's own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		return unix.Setns(fds[len(fds)-1], int(s.a))
	case opSetns:
		return unix.Setns(s.fd(fds), int(s.b))
	case opUnshare:
		return unix.Unshare(int(s.a))
	case opMount:
		return unix.Mount(s.text[0], s.text[1], s.text[2], uintptr(s.a), s.text[3])
	case opMoveMount:
		return unix.MoveMount(s.fd(fds), "", unix.AT_FDCWD, s.text[0], unix.MOVE_MOUNT_F_EMPTY_PATH)
	case opFile:
		return s.placeFile()
	case opMkdir:
		return unix.Mkdir(s.text[0], uint32(s.a))
	case opHostname:
		return unix.Sethostname([]byte(s.text[0]))
	case opRlimit:
		return syscall.Setrlimit(int(s.a), &syscall.Rlimit{Cur: s.b, Max: s.c})
	case opIDs:
		return errors.Join(raw(unix.SYS_SETGROUPS, 0, 0, 0), raw(unix.SYS_SETRESGID, uintptr(s.b), uintptr(s.b), uintptr(s.b)), raw(unix.SYS_SETRESUID, uintptr(s.a), uintptr(s.a), uintptr(s.a)))
	case opDropBounding:
		return dropBounding()
	case opDropCaps:
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
		return unix.Capset(&head, &data[0])
	case opPrctl:
		return unix.Prctl(int(s.a), uintptr(s.b), 0, 0, 0)
	case opChdir:
		return unix.Chdir(s.text[0])
	case opPivot:
		return enterRoot()
	case opFDs:
		return s.arrange(fds)
	case opSeccomp:
		prog := unix.SockFprog{Len: uint16(s.a), Filter: (*unix.SockFilter)(unsafe.Pointer(&s.raw[0]))} // laid out by encodeFilter
		return raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	case opExec:
		args, env := s.text[:s.a], s.text[s.a:s.a+s.b]
		return syscall.Exec(args[0], args, env)
	case opHold:
		hold()
	case opReplace:
		return overwrite(s.text[0], s.text[1])
	}
	return unix.ENOSYS
}

// hold is what pid 1 of a nest does for the rest of its life. The pipe's end tells the spawner
// that it is ready.
func hold() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for fd := range 3 {
		unix.Close(fd)
	}
	unix.Close(initSteps)
	unix.Close(reportFD)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			<-children
		}
	}
}

// enterRoot makes the working directory, which the spawner began in, the root.
func enterRoot() error {
	// A copy of the mount namespace made by clone without a user namespace is as shared as its
	// original; the tree is private already, what is above it need not be.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func (s *step) placeFile() error {
	fd, err := unix.Open(s.text[0], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, uint32(s.a))
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(s.text[2]))
	unix.Close(fd)
	if err == nil {
		err = unix.Mount(s.text[0], s.text[1], "", unix.MS_BIND, "")
	}
	unix.Unlink(s.text[0])
	return err
}

func dropBounding() error {
	for c := uintptr(0); c < 64; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) && c > 0 {
				return nil // past this kernel's last
			}
			return err
		}
	}
	return nil
}

// arrange puts the program's descriptors in place. Others are closed at exec rather than now:
// the Go runtime has its own among them and needs them until then.
func (s *step) arrange(fds []int) error {
	if s.b+s.a > uint64(len(fds)) {
		return unix.EINVAL
	}
	const high = 100
	if err := unix.Dup3(reportFD, high+64, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	reportFD = high + 64
	for i := range int(s.a) {
		if err := unix.Dup3(fds[int(s.b)+i], high+i, unix.O_CLOEXEC); err != nil {
			return err
		}
	}
	for i := range int(s.a) {
		if err := unix.Dup3(high+i, i, 0); err != nil {
			return err
		}
	}
	return unix.CloseRange(uint(s.a), ^uint(0)>>1&0xffffffff, unix.CLOSE_RANGE_CLOEXEC)
}
