package sandbox

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ZygoteSpec says how a zygote is started. Args, Env and Mounts are as in Spec; what is mounted
// is seen by the zygote alone, its children see their own sandbox's mounts.
type ZygoteSpec struct {
	Name   string // for the log
	Args   []string
	Env    []string
	Mounts []Mount
}

// Zygote is a trusted process, of ours in every byte, from which programs of sandboxes are
// forked: what it has loaded, they share. It has the rights that making a sandbox takes, and no
// network. Its children give those rights up step by step, as every program does, before they do
// anything else.
//
// What is random at the start of a process is the same in all children of one zygote: addresses,
// and for Python the seed of hashes. So a zygote should be replaced now and then. Children
// outlive theirs.
//
// Its methods may be called from several goroutines.
type Zygote struct {
	host    *Host
	name    string
	spawner *spawner // whose nests it forks into
	pidfd   int      // closed with done
	net     *netns
	sock    *os.File // SEQPACKET, in the poller
	raw     syscall.RawConn

	send sync.Mutex // one message at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan<- spawned // nil when it has ended; guarded by mu

	ready chan error // its first word
	done  chan struct{}
}

// errZygoteGone is returned for a fork from a zygote that has ended.
var errZygoteGone = errors.New("the zygote has ended")

// zygoteCaps are the capabilities that the steps of a sandbox take.
const zygoteCaps = 1<<unix.CAP_SYS_ADMIN | // namespaces, mounts, host name
	1<<unix.CAP_SYS_CHROOT | // to enter a mount namespace
	1<<unix.CAP_SYS_PTRACE | // to name namespaces by a process
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID |
	1<<unix.CAP_DAC_OVERRIDE | // files of the sandbox's user
	1<<unix.CAP_SYS_RESOURCE // limits above ours, where we may

// StartZygote starts a zygote and waits until it takes requests. ctx bounds that. The error is an
// *UnsupportedError where there can be none: without root, without the embedded spawner, or
// because the program says that it cannot serve here. The caller must Close what it gets.
//
// The program reads requests from descriptor 3, in the form of spawner/wire.h; what it writes to
// its other descriptors is logged. It must never run what is not ours.
func (h *Host) StartZygote(ctx context.Context, spec ZygoteSpec) (*Zygote, error) {
	z, err := h.startZygote(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start zygote %s: %w", spec.Name, err)
	}
	return z, nil
}

func (h *Host) startZygote(ctx context.Context, spec ZygoteSpec) (*Zygote, error) {
	whole, err := Spec{Name: "zygote", Args: spec.Args, Env: spec.Env, Mounts: spec.Mounts}.complete()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	if !h.running {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.starting.Add(1)
	h.mu.Unlock()
	defer h.starting.Done()
	if h.rootless {
		return nil, &UnsupportedError{Feature: featureUID, Why: "a zygote would be its children's user", Fix: "run the server as root"}
	}
	if h.standIn {
		return nil, &UnsupportedError{Feature: featureSpawner, Why: "a zygote is its child"}
	}
	z := &Zygote{host: h, name: spec.Name, pidfd: -1, waiting: map[uint64]chan<- spawned{}, ready: make(chan error, 1), done: make(chan struct{})}
	if err := z.launch(ctx, whole); err != nil {
		return nil, err
	}
	select {
	case err = <-z.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		z.Close()
		return nil, err
	}
	return z, nil
}

func (z *Zygote) launch(ctx context.Context, spec Spec) (err error) {
	h := z.host
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "zygote")
	defer far.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return err
	}
	z.sock = os.NewFile(uintptr(pair[0]), "zygote socket")
	words, said, err := os.Pipe()
	if err != nil {
		z.sock.Close()
		return err
	}
	defer said.Close()
	defer func() {
		if err != nil {
			z.sock.Close()
			words.Close()
			if z.net != nil {
				z.net.close()
			}
		}
	}()
	if z.raw, err = z.sock.SyscallConn(); err != nil {
		return err
	}
	if z.net, err = h.nets.take(ctx); err != nil {
		return err
	}
	in := planInput{spec: spec, netns: z.net.fd, conn: int(far.Fd()), stdio: [3]int{int(h.devnull.Fd()), int(said.Fd()), int(said.Fd())}}
	defer func() {
		for _, fd := range in.mounts {
			unix.Close(fd)
		}
	}()
	for _, m := range spec.Mounts {
		fd, err := h.prepareMount(m, 0, true)
		if err != nil {
			return err
		}
		in.mounts = append(in.mounts, fd)
	}
	if z.spawner, err = h.pick(ctx); err != nil {
		return err
	}
	got, err := z.spawner.call(kindZygote, nil, planZygote(in), nil)
	if err != nil {
		return err
	}
	z.pidfd = got.pidfd
	h.mu.Lock()
	h.zygotes[z] = struct{}{}
	h.mu.Unlock()
	h.minding.Go(func() { z.log(words) })
	h.minding.Go(z.listen)
	return nil
}

// PID is the zygote's number as the host sees it, 0 when it is gone.
func (z *Zygote) PID() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.waiting == nil {
		return 0 // the descriptor is closed
	}
	return pidOf(z.pidfd)
}

// Done is closed when the zygote has ended, by whatever cause. Forks fail from then on.
func (z *Zygote) Done() <-chan struct{} { return z.done }

// Close ends the zygote and waits until it is gone. Its children live on. It may be called more
// than once.
func (z *Zygote) Close() error {
	z.mu.Lock()
	if z.waiting != nil {
		unix.PidfdSendSignal(z.pidfd, unix.SIGKILL, nil, 0) // ESRCH: it is gone, as wanted
	}
	z.mu.Unlock()
	<-z.done
	return nil
}

// log passes on what the zygote says until nobody is left who could say anything.
func (z *Zygote) log(words *os.File) {
	defer words.Close()
	lines := bufio.NewReaderSize(words, 4096)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		z.host.log.Warn("zygote says", "zygote", z.name, "line", string(line))
	}
}

// listen hands answers to those who wait for them, until the zygote is gone: its socket closes
// with it.
func (z *Zygote) listen() {
	buffer, control := make([]byte, answerSize+1024), make([]byte, unix.CmsgSpace(4))
	for {
		var n, cn int
		var failed error
		err := z.raw.Read(func(fd uintptr) bool {
			n, cn, _, _, failed = unix.Recvmsg(int(fd), buffer, control, unix.MSG_CMSG_CLOEXEC)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil || failed != nil || n < answerSize {
			break
		}
		pidfd := pidfdIn(control[:cn])
		a, err := decodeAnswer(buffer[:answerSize])
		if err != nil {
			break
		}
		if a.kind == kindReady {
			z.heard(a, string(buffer[answerSize:n]))
			continue
		}
		z.mu.Lock()
		waiter := z.waiting[a.id]
		delete(z.waiting, a.id)
		z.mu.Unlock()
		if waiter != nil {
			waiter <- spawned{a, pidfd} // has room for one
		} else if pidfd >= 0 {
			unix.Close(pidfd) // who asked has given up, and its nest is gone
		}
	}
	z.mu.Lock()
	unix.PidfdSendSignal(z.pidfd, unix.SIGKILL, nil, 0) // should it have said nonsense
	unix.Close(z.pidfd)
	z.waiting = nil
	z.mu.Unlock()
	z.sock.Close()
	z.net.close()
	z.host.mu.Lock()
	delete(z.host.zygotes, z)
	z.host.mu.Unlock()
	z.heard(answer{}, "")
	close(z.done)
}

// heard notes the first word; silence at the end is one as well.
func (z *Zygote) heard(a answer, text string) {
	var err error
	switch {
	case a.kind != kindReady:
		err = errZygoteGone
	case a.errno != 0:
		err = &UnsupportedError{Feature: "zygote", Why: strings.TrimSpace(text)}
	}
	select {
	case z.ready <- err:
	default: // it was ready once
	}
}

// fork clones the program of a nest, which it uses up. l is told of its end as by spawner.start.
// The program waits until go on is called, which is only to be done when all is there to mind it.
func (z *Zygote) fork(ctx context.Context, n *nest, p *plan, l *life) (*process, *gate, error) {
	g, far, err := newGate(p.steps)
	if err != nil {
		n.kill()
		return nil, nil, err
	}
	child, err := z.clone(ctx, n, p, far)
	unix.Close(far)
	if err != nil {
		g.close()
		n.kill()
		return nil, nil, err
	}
	// Only now does the spawner know whose end it will see. If that has come already, it says so.
	register := &plan{cgroup: -1, fds: []int{child.pidfd}, pid: child.nest}
	if _, err := z.spawner.call(kindForked, n, register, l); err != nil {
		unix.Close(child.pidfd)
		g.close()
		n.kill()
		return nil, nil, fmt.Errorf("register forked child: %w", err)
	}
	return &process{nest: n.pidfd, program: child.pidfd}, g, nil
}

// clone asks for a child and waits for its pid and pidfd.
func (z *Zygote) clone(ctx context.Context, n *nest, p *plan, far int) (spawned, error) {
	ask := *p
	head := requestHeader{kind: kindFork, cgroup: int32(p.cgroup), nest: int32(ask.fd(n.pidfd)), pid: int32(ask.fd(far))}
	message, err := encodeRequest(&head, ask.steps)
	if err != nil {
		return spawned{}, err
	}
	if len(message) > inlineRequest || len(ask.fds) > maxFDs {
		return spawned{}, fmt.Errorf("%d bytes and %d descriptors are too many for a zygote", len(message), len(ask.fds))
	}
	done := make(chan spawned, 1)
	z.mu.Lock()
	if z.waiting == nil {
		z.mu.Unlock()
		return spawned{}, errZygoteGone
	}
	z.next++
	id := z.next
	z.waiting[id] = done
	z.mu.Unlock()
	binary.NativeEndian.PutUint64(message[8:], id)
	if err := sendMessage(&z.send, z.raw, message, ask.fds); err != nil {
		z.giveUp(id, done)
		return spawned{}, fmt.Errorf("ask the zygote: %w", err)
	}
	var got spawned
	select {
	case got = <-done:
	case <-z.done:
		select {
		case got = <-done:
		default:
			return spawned{}, errZygoteGone
		}
	case <-ctx.Done():
		z.giveUp(id, done)
		return spawned{}, ctx.Err()
	}
	switch {
	case got.errno != 0:
		return spawned{}, stepError(p.steps, got.step, got.errno)
	case got.pidfd < 0 || got.nest <= 1:
		return spawned{}, errors.New("the zygote answered without a child")
	}
	return got, nil
}

// giveUp forgets a request. What has been answered to it is closed.
func (z *Zygote) giveUp(id uint64, done <-chan spawned) {
	z.mu.Lock()
	delete(z.waiting, id)
	z.mu.Unlock()
	select {
	case got := <-done:
		if got.pidfd >= 0 {
			unix.Close(got.pidfd)
		}
	default:
	}
}

// gate is where a forked child says how its steps went, and then waits.
type gate struct {
	file  *os.File
	steps []step
}

func newGate(steps []step) (g *gate, far int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, -1, err
	}
	return &gate{os.NewFile(uintptr(pair[0]), "gate"), steps}, pair[1], nil
}

func (g *gate) close() { g.file.Close() }

// open waits until the child has done its steps and lets it go on. After an error the child is
// to be killed.
func (g *gate) open(ctx context.Context) error {
	defer g.close()
	stop := context.AfterFunc(ctx, func() { g.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var outcome [8]byte
	if _, err := io.ReadFull(g.file, outcome[:]); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("forked child ended before it was confined: %w", err)
	}
	if errno := int32(binary.NativeEndian.Uint32(outcome[0:])); errno != 0 {
		return stepError(g.steps, int32(binary.NativeEndian.Uint32(outcome[4:])), errno)
	}
	_, err := g.file.Write([]byte{1})
	return err
}
