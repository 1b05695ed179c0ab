package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Claim is what a sandbox that stands ready lacks: the code it is to run and the bounds it is to
// keep. A zero field leaves what is.
type Claim struct {
	Hostname string
	// Mounts are added. One whose target another mount of the sandbox has already takes its
	// place. In a sandbox with Spec.Root there is a place only for targets that it was started with.
	Mounts []Mount
	Drop   []string // targets of mounts that go
	Tmp    int64
	Memory int64
	CPU    int
	PIDs   int
}

// Adopt gives a running sandbox what it lacks, from outside: nothing in the sandbox takes part,
// and its program sees the result when Adopt returns. Only what differs from what is there is
// changed. It takes a tenth of a millisecond, mostly for a mount.
//
// After an error the sandbox is neither one thing nor the other and must be closed. The error is
// an *UnsupportedError where this host can never do what was asked: raise the bound of processes
// without a control group that counts them. ctx bounds the wait; ending it is an error too.
func (s *Sandbox) Adopt(ctx context.Context, c Claim) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	s.adopted = nil
	if err := s.adopt(ctx, c); err != nil {
		return fmt.Errorf("adopt sandbox %s: %w", s.spec.Name, err)
	}
	return nil
}

// Adopted returns what the last Adopt did and how long each part took.
func (s *Sandbox) Adopted() []Step {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	return slices.Clone(s.adopted)
}

func (s *Sandbox) adopt(ctx context.Context, c Claim) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	mark := time.Now()
	step := func(name string) {
		now := time.Now()
		s.adopted = append(s.adopted, Step{name, now.Sub(mark)})
		mark = now
	}
	next, err := s.spec.claimed(c)
	if err != nil {
		return err
	}
	mounts, err := checkMounts(c.Mounts)
	if err != nil {
		return err
	}
	fds := make([]int, 0, len(mounts))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, m := range mounts {
		fd, err := s.host.prepareMount(m, s.uid, s.spec.Root == "")
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	step("mounts")

	pid := 0
	if next.PIDs != s.spec.PIDs && !s.counted() {
		pid = s.PID()
	}
	err = s.proc.visit(func(nest int) error {
		wait := func() error { return nil }
		if inside := s.errands(&next, mounts, fds); len(inside) > 0 {
			namespaces := unix.CLONE_NEWNS
			if next.Hostname != s.spec.Hostname {
				namespaces |= unix.CLONE_NEWUTS
			}
			wait = s.host.visitors.send(ctx, nest, namespaces, func() error { return runTasks(inside) })
		}
		// The limits are set while the errand is under way.
		err := s.rebound(&next, pid)
		step("cgroup")
		err = errors.Join(err, wait())
		step("inside")
		return err
	})
	if err != nil {
		return err
	}
	s.spec = next
	select {
	case <-s.done:
		return errGone
	default:
	}
	return ctx.Err()
}

// claimed returns the spec with the claim's changes, or says what is wrong with them.
func (s Spec) claimed(c Claim) (Spec, error) {
	if c.Hostname != "" {
		if !hostnameForm.MatchString(c.Hostname) {
			return s, fmt.Errorf("hostname %q: not a host name", c.Hostname)
		}
		s.Hostname = c.Hostname
	}
	if c.Tmp > 0 {
		s.Tmp = c.Tmp
	}
	if c.Memory > 0 {
		s.Memory = max(c.Memory, minMemory)
	}
	if c.CPU > 0 {
		s.CPU = c.CPU
	}
	if c.PIDs > 0 {
		s.PIDs = c.PIDs
	}
	mounts, err := checkMounts(c.Mounts)
	if err != nil {
		return s, err
	}
	s.Mounts = slices.DeleteFunc(slices.Clone(s.Mounts), func(m Mount) bool { return slices.Contains(c.Drop, m.Target) })
	for _, m := range mounts {
		if i := slices.IndexFunc(s.Mounts, func(old Mount) bool { return old.Target == m.Target }); i >= 0 {
			s.Mounts[i] = m
		} else {
			s.Mounts = append(s.Mounts, m)
		}
	}
	return s, nil
}

// counted says whether a control group limits the sandbox's processes.
func (s *Sandbox) counted() bool { return s.group != nil && s.group.layout.has["pids"] }

// rebound sets what the kernel, or the watch in its place, allows the sandbox. pid is that of the
// program, where the bound of processes is its own.
func (s *Sandbox) rebound(next *Spec, pid int) error {
	if s.group != nil {
		if err := s.group.limit(next.Memory, next.CPU, next.PIDs); err != nil {
			return fmt.Errorf("limit cgroup: %w", err)
		}
	}
	if s.watch != nil {
		s.watch.setLimit(next.Memory)
	}
	if s.counted() || next.PIDs == s.spec.PIDs {
		return nil
	}
	if next.PIDs > s.spec.PIDs {
		return &UnsupportedError{Feature: featurePIDs, Why: "the bound of a process that runs can only be lowered", Fix: "run as root, or as a systemd unit with Delegate=yes"}
	}
	if pid == 0 { // which would mean ourselves
		return errGone
	}
	limit := unix.Rlimit{Cur: uint64(next.PIDs), Max: uint64(next.PIDs)}
	if err := unix.Prlimit(pid, unix.RLIMIT_NPROC, &limit, nil); err != nil {
		return fmt.Errorf("limit processes: %w", err)
	}
	return nil
}

// task is one thing done within a sandbox's namespaces, on a visitor's thread.
type task struct {
	name string
	run  func() error
}

func runTasks(all []task) error {
	for _, t := range all {
		if err := t.run(); err != nil {
			return &StepError{Step: t.name, Err: err}
		}
	}
	return nil
}

// errands returns what is to be done inside, from what is there to next. Paths are the sandbox's
// own and may hold what its program has put there: only below /tmp, where no link is followed.
func (s *Sandbox) errands(next *Spec, mounts []Mount, fds []int) (all []task) {
	do := func(name string, run func() error) { all = append(all, task{name, run}) }
	resize := func(target string, flags uintptr, was, size int64) {
		if was != size {
			do("resize "+target, func() error {
				return unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|flags, tmpfsOptions(size))
			})
		}
	}
	resize("/tmp", 0, s.spec.Tmp, next.Tmp)
	resize("/dev/shm", unix.MS_NOEXEC, s.spec.Memory/2, next.Memory/2)
	if next.Hostname != s.spec.Hostname {
		do("set hostname", func() error { return unix.Sethostname([]byte(next.Hostname)) })
		do("write /etc/hosts", func() error { return overwrite("/etc/hosts", hostsFile(next.Hostname)) })
	}
	for _, old := range s.spec.Mounts {
		if !slices.ContainsFunc(next.Mounts, func(m Mount) bool { return m.Target == old.Target }) {
			do("unmount "+old.Target, func() error { return unmount(old.Target) })
		}
	}
	for i, m := range mounts {
		if slices.ContainsFunc(s.spec.Mounts, func(old Mount) bool { return old.Target == m.Target }) {
			do("unmount "+m.Target, func() error { return unmount(m.Target) })
		}
		do("mount "+m.Target, func() error { return attach(fds[i], m.Target) })
	}
	return all
}

// overwrite replaces a file's content in place: it is bound where it is seen.
func overwrite(name, content string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, []byte(content))
	if err == nil {
		err = unix.Ftruncate(fd, int64(n))
	}
	return errors.Join(err, unix.Close(fd))
}

// attach moves a detached mount to its place in the namespace of the calling thread.
func attach(mount int, target string) error {
	rest, ok := strings.CutPrefix(target, "/tmp/")
	if !ok {
		return unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	dir, err := walkTmp(rest, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.MoveMount(mount, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// unmount takes a mount away; who uses it keeps it. The working directory of the calling thread
// may change.
func unmount(target string) error {
	if rest, ok := strings.CutPrefix(path.Dir(target)+"/", "/tmp/"); ok {
		dir, err := walkTmp(rest, false)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if err := unix.Fchdir(dir); err != nil {
			return err
		}
		target = path.Base(target)
	}
	return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// walkTmp returns a descriptor of a directory below /tmp, which it makes if it is to be. A link on
// the way is an error: the sandbox may have made it.
func walkTmp(rest string, create bool) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dir, err := unix.Open("/tmp", flags, 0)
	if err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(strings.Trim(rest, "/"), "/") {
		if part == "" {
			continue // /tmp itself
		}
		if create {
			err = unix.Mkdirat(dir, part, 0o755)
		}
		below := -1
		if err == nil || errors.Is(err, unix.EEXIST) {
			below, err = unix.Openat(dir, part, flags, 0)
		}
		unix.Close(dir)
		if err != nil {
			return -1, err
		}
		dir = below
	}
	return dir, nil
}
