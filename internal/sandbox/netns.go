package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// netns is one sandbox's network namespace. It is used once and never given to another: sockets
// of the dead would live on in it.
type netns struct {
	mu      sync.RWMutex
	fd      int        // -1 after close; guarded by mu
	address netip.Addr // the sandbox's own, if it has a way out
	free    func()     // gives the address back; nil without one
}

// netnsMaker makes namespaces on threads of its own, which walk from one to the next.
type netnsMaker struct {
	jobs    chan func()
	working sync.WaitGroup
}

func newNetnsMaker() *netnsMaker {
	m := &netnsMaker{jobs: make(chan func())}
	// One takes most of a millisecond, so a burst that finds the pool empty must not wait in line
	// while cores are idle.
	for range min(runtime.NumCPU(), 4) {
		m.working.Go(func() {
			runtime.LockOSThread() // ends with the goroutine, and with it the last namespace
			for job := range m.jobs {
				job()
			}
		})
	}
	return m
}

func (m *netnsMaker) close() {
	close(m.jobs)
	m.working.Wait()
}

// create makes a namespace with its loopback up; within runs inside it on the same thread.
func (m *netnsMaker) create(within func(*netns) error) (*netns, error) {
	n := &netns{fd: -1}
	done := make(chan error, 1)
	m.jobs <- func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make network namespace: %w", err)
			}
			// A connection that a call has closed is gone then, and not for a minute there to be
			// seen by the calls after it. Where it cannot be had processes are replaced more often.
			_ = os.WriteFile("/proc/sys/net/ipv4/tcp_max_tw_buckets", []byte("0"), 0)
			// Programs of images listen at port 80, and nobody else is here to be pretended to.
			_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
			fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open network namespace: %w", err)
			}
			n.fd = fd
			if err := loopbackUp(); err != nil {
				return fmt.Errorf("bring loopback up: %w", err)
			}
			if within != nil {
				return within(n)
			}
			return nil
		}()
	}
	if err := <-done; err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// close lets go of the namespace. The kernel takes it down in its own time, with all that is in
// it; deleting a veth by hand would wait for that, twenty milliseconds and more.
func (n *netns) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
	if n.free != nil {
		n.free()
		n.free = nil
	}
}

// dial connects from within. A socket belongs to the namespace of the thread that makes it, so
// one thread is lent to the namespace for the time of the dial.
func (n *netns) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	// Only addresses: a name would be looked up on another thread, outside.
	if _, err := netip.ParseAddr(host); err != nil || !strings.HasPrefix(network, "tcp") && !strings.HasPrefix(network, "udp") {
		return nil, fmt.Errorf("dial %s %s in a sandbox: want tcp or udp and a literal address", network, address)
	}
	var conn net.Conn
	err = n.within(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, net.JoinHostPort(host, port))
		return err
	})
	return conn, err
}

// listen opens a socket within, at a literal address and port.
func (n *netns) listen(address string) (net.Listener, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("listen at %q in a sandbox: want a literal address and a port", address)
	}
	var l net.Listener
	err := n.within(func() (err error) {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), "tcp", address) // it does not wait for anything
		return err
	})
	return l, err
}

// within runs do on a thread that is lent to the namespace for that time.
func (n *netns) within(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer unix.Close(home)
		if err := n.enter(); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = do()
		// A thread that cannot come home stays locked and is ended with this goroutine.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (n *netns) enter() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return net.ErrClosed
	}
	return unix.Setns(n.fd, unix.CLONE_NEWNET)
}
