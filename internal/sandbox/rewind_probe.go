package sandbox

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	featureRewind = "rewind"
	rewindFix     = "use Linux 6.11 or later with CONFIG_USERFAULTFD, CONFIG_CHECKPOINT_RESTORE and CONFIG_KCMP, and run as root"
)

// rewindFeature says whether used processes can be put back. many says that the server is root
// with a range of user ids.
func rewindFeature(many bool) Feature {
	x := Feature{Name: featureRewind, Lost: "a process that must be clean for each call is replaced after each call, which costs several times as much", Fix: rewindFix}
	x.Detail = rewindLack(many)
	if x.Detail == "" {
		x.Have, x.Detail = true, "by ptrace, userfaultfd and PAGEMAP_SCAN"
		x.Fix = ""
	}
	return x
}

// rewindLack says what is missing, "" if nothing. It tries each call in a way that has no effect.
func rewindLack(many bool) string {
	switch {
	case len(rewindBinary) == 0:
		return "no rewinder was built for " + runtime.GOARCH
	case !rewindShown:
		return "it has not been shown to work on " + runtime.GOARCH
	case !many || !capable(unix.CAP_SYS_PTRACE) || !capable(unix.CAP_SYS_ADMIN):
		// Having a confined process make system calls that its filter forbids takes
		// CAP_SYS_ADMIN in the first user namespace, which root of another one never has.
		return "needs root of the machine, to suspend system call filters"
	}
	const (
		procmapQuery = 0xc0686611
		pagemapScan  = 0xc0606610
		uffdAPI      = 0xc018aa3f
		writeAsync   = 1 << 15
	)
	// CONFIG_CHECKPOINT_RESTORE brings this file and the option to suspend filters.
	if _, err := os.Stat("/proc/self/timers"); err != nil {
		return "the kernel has no CONFIG_CHECKPOINT_RESTORE"
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 2, 0, 0, 0); errno != 0 {
		return "the kernel has no CONFIG_KCMP"
	}
	for _, f := range []struct {
		path, lack string
		request    uintptr
	}{
		{"/proc/self/maps", "the kernel has no PROCMAP_QUERY (Linux 6.11)", procmapQuery},
		{"/proc/self/pagemap", "the kernel has no PAGEMAP_SCAN (Linux 6.7)", pagemapScan},
	} {
		file, err := os.Open(f.path)
		if err != nil {
			return err.Error()
		}
		var argument [104]byte // of size 0, which is refused
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), f.request, uintptr(unsafe.Pointer(&argument)))
		file.Close()
		if errno == unix.ENOTTY {
			return f.lack
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1 /* UFFD_USER_MODE_ONLY */, 0, 0)
	if errno != 0 {
		return "userfaultfd: " + errno.Error()
	}
	defer closeFD(int(fd))
	api := struct{ api, features, ioctls uint64 }{api: 0xaa}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uffdAPI, uintptr(unsafe.Pointer(&api))); errno != 0 || api.features&writeAsync == 0 {
		return "userfaultfd cannot track writes (Linux 6.7)"
	}
	return ""
}

// canRewind returns an *UnsupportedError where nothing can be rewound.
func (h *Host) canRewind() error {
	for _, x := range h.features {
		if x.Name == featureRewind && !x.Have {
			return &UnsupportedError{Feature: x.Name, Why: x.Detail, Fix: x.Fix}
		}
	}
	return nil
}
