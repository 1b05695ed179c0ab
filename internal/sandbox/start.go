package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Start confines and starts a program. When it returns without an error the program has been
// executed, or, with a Zygote, forked; ctx bounds the start only. The caller must Close what it gets.
//
// What cannot be enforced is refused with an *UnsupportedError, and a step the kernel refuses
// comes back as a *StepError that names it.
func (h *Host) Start(ctx context.Context, spec Spec) (*Sandbox, error) {
	spec, err := spec.complete()
	if err != nil {
		return nil, err
	}
	if limit := maxOpenFiles(); spec.Files > limit {
		return nil, &UnsupportedError{Feature: "open files", Why: fmt.Sprintf("%d are asked for, the server's hard limit is %d", spec.Files, limit), Fix: "raise LimitNOFILE of the server"}
	}
	if spec.Network && h.noWayOut() != nil {
		return nil, &UnsupportedError{Feature: featureEgress, Why: h.noWay.Error(), Fix: "run as root on a kernel with veth and nftables, or do without network"}
	}
	s := &Sandbox{host: h, spec: spec, done: make(chan struct{}), empty: make(chan struct{}), closed: make(chan struct{})}
	if err := h.admit(s); err != nil {
		return nil, fmt.Errorf("start sandbox %s: %w", spec.Name, err)
	}
	defer h.starting.Done()
	if err := h.confine(ctx, s); err != nil {
		h.forget(s)
		return nil, fmt.Errorf("start sandbox %s: %w", spec.Name, err)
	}
	h.mu.Lock()
	h.live[spec.Name] = s
	h.mu.Unlock()
	return s, nil
}

// admit takes the name and a user id.
func (h *Host) admit(s *Sandbox) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running {
		return ErrClosed
	}
	if _, taken := h.live[s.spec.Name]; taken {
		return ErrNameTaken
	}
	if !h.rootless {
		uid, err := h.uids.take()
		if err != nil {
			return err
		}
		s.uid = uid
	}
	h.live[s.spec.Name] = nil
	h.starting.Add(1)
	return nil
}

// confine gathers what the sandbox needs and has it spawned. What it took stays in s, also when
// it fails.
func (h *Host) confine(ctx context.Context, s *Sandbox) (err error) {
	mark := time.Now()
	step := func(name string) {
		now := time.Now()
		s.steps = append(s.steps, Step{name, now.Sub(mark)})
		mark = now
	}
	if h.layout != nil {
		if s.group, err = h.groups.take(ctx); err != nil {
			return err
		}
		if err := s.group.limit(s.spec.Memory, s.spec.CPU, s.spec.PIDs); err != nil {
			return fmt.Errorf("limit cgroup: %w", err)
		}
	}
	step("cgroup")
	networks := h.nets
	if s.spec.Network {
		networks = h.ways
	}
	if s.net, err = networks.take(ctx); err != nil {
		return err
	}
	if s.spec.Listen != "" {
		if s.heard, err = s.net.listen(s.spec.Listen); err != nil {
			return err
		}
	}
	if d := h.theDoor(); d != nil && s.spec.Network && s.spec.Door {
		d.admit(s)
	}
	step("network")

	in := planInput{spec: s.spec, uid: s.uid, group: s.group, netns: s.net.fd, root: -1, conn: -1, filter: h.filter, inProcess: h.standIn, forked: s.spec.Zygote != nil}
	defer func() {
		for _, fd := range in.mounts {
			unix.Close(fd)
		}
		for _, fd := range []int{in.conn, in.root} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	if s.spec.Root != "" {
		if err := h.prepareRoot(ctx, s, &in); err != nil {
			return err
		}
	}
	for _, m := range s.spec.Mounts {
		fd, err := h.prepareMount(m, s.uid, s.spec.Root == "")
		if err != nil {
			return err
		}
		in.mounts = append(in.mounts, fd)
	}
	step("mounts")

	if in.stdio, err = h.stdio(&s.spec); err != nil {
		return err
	}
	switch {
	case s.spec.Wait:
		if in.wait, err = h.waitProgram(); err != nil {
			return err
		}
		if s.waiting, in.conn, err = newWaiter(); err != nil {
			return err
		}
	case s.spec.Conn:
		if s.conn, in.conn, err = connection(); err != nil {
			return err
		}
	}
	sp, err := h.pickFor(ctx, &s.spec)
	if err != nil {
		return err
	}
	n, err := sp.nests.take(ctx)
	if err != nil {
		return err
	}
	step("namespaces")
	reaped := make(chan Exit, 1)
	l := &life{func(e Exit) { reaped <- e }, func() { close(s.empty) }}
	var waits *gate
	if z := s.spec.Zygote; z != nil {
		s.proc, waits, err = z.fork(ctx, n, planSandbox(in), l)
	} else {
		s.proc, err = sp.start(n, planSandbox(in), l)
	}
	if err != nil {
		return err
	}
	step("spawn")
	if s.group != nil {
		s.group.started()
		h.endOnOOM(s)
	}
	if h.watcher != nil {
		s.watch = h.watcher.add(s)
	}
	h.minding.Go(func() { s.finish(<-reaped) })
	if waits != nil {
		err := waits.open(ctx)
		step("confine")
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// prepareRoot gets the tree that is to be the sandbox's root.
func (h *Host) prepareRoot(ctx context.Context, s *Sandbox, in *planInput) (err error) {
	at, err := places(s.spec.Mounts)
	if err != nil {
		return err
	}
	s.base, in.root, err = h.bases.take(ctx, s.spec.Root, at)
	in.base = s.base
	return err
}

// prepareMount detaches a mount; inHost says that the sandbox's root is the host's system, where
// there may be no place for it yet.
func (h *Host) prepareMount(m Mount, uid int, inHost bool) (int, error) {
	info, err := os.Stat(m.Source)
	if err != nil {
		return -1, err
	}
	if inHost {
		if err := h.root.ensureTarget(m.Target, info.IsDir()); err != nil {
			return -1, fmt.Errorf("mount point %s: %w", m.Target, err)
		}
	}
	if m.Writable && uid != 0 {
		if err := giveTo(m.Source, uid); err != nil {
			return -1, fmt.Errorf("give %s to the sandbox: %w", m.Source, err)
		}
	}
	return detach(m)
}

// connection returns two ends of a stream: a net.Conn for us and a descriptor for the sandbox.
func connection() (net.Conn, int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	file := os.NewFile(uintptr(pair[0]), "sandbox")
	defer file.Close() // FileConn has its own copy
	conn, err := net.FileConn(file)
	if err != nil {
		unix.Close(pair[1])
		return nil, -1, err
	}
	return conn, pair[1], nil
}

// endOnOOM ends a v1 sandbox as a whole when one of its processes was killed for memory.
func (h *Host) endOnOOM(s *Sandbox) {
	if s.group.notice == nil {
		return
	}
	h.minding.Go(func() {
		var count [8]byte
		for {
			if _, err := s.group.notice.Read(count[:]); err != nil {
				return // closed by finish
			}
			// The notice comes before the kill, and also when a process could be saved
			// by reclaim.
			if s.group.oomKills() > 0 {
				s.Kill()
				return
			}
		}
	})
}

// forget undoes a start that failed half-way.
func (h *Host) forget(s *Sandbox) {
	if s.proc != nil {
		s.Close()
		return
	}
	s.closeConns()
	h.release(s)
}

// release gives back what a sandbox held. Its processes are gone.
func (h *Host) release(s *Sandbox) {
	if s.proc != nil {
		s.proc.close()
	}
	if s.heard != nil {
		s.heard.Close()
	}
	if s.net != nil {
		if d := h.theDoor(); d != nil && s.net.address.IsValid() {
			d.leave(s)
		}
		s.net.close()
	}
	h.discard(s.group)
	if s.base != nil {
		h.bases.give(s.base)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, s.spec.Name)
	if s.uid != 0 {
		h.uids.give(s.uid)
	}
}

func (h *Host) noWayOut() error {
	select {
	case <-h.ready:
		return h.noWay
	default:
		return nil
	}
}
