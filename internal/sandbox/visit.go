package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// visitors are threads that go into the namespaces of a sandbox, do an errand there with the
// server's rights, and come back. They are kept because making a thread costs more than the
// errand. What they do in a sandbox must not trust what they find there.
type visitors struct {
	errands chan *errand
	running sync.WaitGroup
}

type errand struct {
	nest       int // pidfd of a process in the namespaces
	namespaces int // CLONE_NEWNS, and CLONE_NEWUTS if that is wanted
	do         func() error
	done       chan error // has room for one
}

// errGone is returned for an errand to a sandbox that has ended.
var errGone = errors.New("the sandbox has ended")

func newVisitors() *visitors {
	v := &visitors{errands: make(chan *errand)}
	// An errand holds a core for its whole time, so more threads than cores gain nothing.
	for range min(runtime.NumCPU(), 8) {
		v.running.Go(v.visit)
	}
	return v
}

// close ends the threads. No errand may come any more.
func (v *visitors) close() {
	close(v.errands)
	v.running.Wait()
}

// send has an errand begun and returns a function that waits for its end, to be called once. ctx
// bounds the time until it begins.
func (v *visitors) send(ctx context.Context, nest, namespaces int, do func() error) (wait func() error) {
	e := &errand{nest: nest, namespaces: namespaces, do: do, done: make(chan error, 1)}
	select {
	case v.errands <- e:
		return func() error { return <-e.done }
	case <-ctx.Done():
		return ctx.Err
	}
}

// visit is the life of one thread. A thread that cannot come home stays locked and ends with its
// goroutine, and another takes its place.
func (v *visitors) visit() {
	runtime.LockOSThread()
	home, err := openHome()
	if err != nil {
		for e := range v.errands {
			e.done <- err
		}
		return
	}
	defer home.close()
	for e := range v.errands {
		err := unix.Setns(e.nest, e.namespaces)
		switch {
		case errors.Is(err, unix.ESRCH):
			e.done <- errGone
		case err != nil:
			e.done <- fmt.Errorf("enter namespaces: %w", err)
		default:
			// Whoever waits goes on while this thread is on its way home.
			e.done <- e.do()
		}
		if home.enter(e.namespaces) != nil {
			v.running.Go(v.visit)
			return
		}
	}
}

// homeSpaces are the namespaces a visitor comes from, by descriptors of its own: those of the
// process's first thread may be others.
type homeSpaces struct{ mounts, names int }

func openHome() (homeSpaces, error) {
	h := homeSpaces{-1, -1}
	// The mount namespace can be changed only by a thread with a working directory of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return h, fmt.Errorf("unshare working directory: %w", err)
	}
	var err error
	if h.mounts, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return h, fmt.Errorf("open mount namespace: %w", err)
	}
	if h.names, err = unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		unix.Close(h.mounts)
		return h, fmt.Errorf("open uts namespace: %w", err)
	}
	return h, nil
}

func (h homeSpaces) enter(namespaces int) error {
	err := unix.Setns(h.mounts, unix.CLONE_NEWNS)
	if err == nil && namespaces&unix.CLONE_NEWUTS != 0 {
		err = unix.Setns(h.names, unix.CLONE_NEWUTS)
	}
	return err
}

func (h homeSpaces) close() {
	unix.Close(h.mounts)
	unix.Close(h.names)
}
