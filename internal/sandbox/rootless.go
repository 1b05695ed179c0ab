package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An ordinary user's server becomes, once and at its start, root of a user namespace in which
// nobody else exists. What makes sandboxes then works as for root, except for what one user id
// and missing rights over the machine cannot give; Features says what.

// reexecMark is set in the environment of the second self, so that it is not made again.
const reexecMark = "BRASA_USER_NAMESPACE"

// NeedsReexec says whether main should call Reexec before anything else: the process has no
// power over mounts, and is not yet the second self.
func NeedsReexec() bool {
	return os.Geteuid() != 0 && os.Getenv(reexecMark) == ""
}

// Reexec runs this program again with args (without the program's name), as root of a new user
// and mount namespace, passes signals on to it, waits and returns its exit code. An error means
// that it could not be run; it is an *UnsupportedError where the kernel does not let ordinary
// users make namespaces.
func Reexec(args []string) (exitCode int, err error) {
	if f := userNamespaces(); !f.Have {
		return 0, &UnsupportedError{Feature: f.Name, Why: f.Detail, Fix: f.Fix}
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), reexecMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The death signal is tied to the thread that forks, so this goroutine keeps its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run again in a user namespace: %w", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			// SIGURG is the Go runtime's own, SIGCHLD tells of the child itself.
			if sig != syscall.SIGURG && sig != syscall.SIGCHLD {
				cmd.Process.Signal(sig)
			}
		case err := <-waited:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// mapsManyIDs says whether a range of user ids can be used here: in the first user namespace,
// or one that maps them.
func mapsManyIDs(uidMap string, base, count int) bool {
	text, err := os.ReadFile(uidMap)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(f[0], 10, 64)
		size, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil && first <= int64(base) && int64(base)+int64(count) <= first+size {
			return true
		}
	}
	return false
}

// hostUser returns the user outside of our user namespace that id is inside, so that the root of
// one ordinary user's namespace is told from that of another's. Unless the map names one it is id.
func hostUser(uidMap string, id int) int {
	text, err := os.ReadFile(uidMap)
	if err != nil {
		return id
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, size int
		if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 && inside <= id && id < inside+size {
			return outside + id - inside
		}
	}
	return id
}
