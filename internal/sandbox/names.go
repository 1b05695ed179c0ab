package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The name server sandboxes ask, at the gateway's address. It passes questions on to the host's
// resolvers and answers back; which addresses may then be reached is for the packet filter.

const (
	// nameTimeout is for one resolver; a sandbox asks again after two seconds.
	nameTimeout = 1500 * time.Millisecond
	// namesPerSandbox and namesAtOnce bound questions under way: a sandbox that asks without
	// end gets silence, and takes nothing from the others.
	namesPerSandbox = 32
	namesAtOnce     = 512
)

// anyAddress lets a socket have an address that is not there yet: the gateway's is there only while
// some sandbox has a way out.
var anyAddress = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	if err != nil {
		return err
	}
	return failed
}}

// listenFree listens at an address of the gateway's.
func listenFree(where string) (net.Listener, error) {
	return anyAddress.Listen(context.Background(), "tcp4", where) // it does not wait for anything
}

// listenNames binds the gateway's address.
func (e *egress) listenNames() error {
	where := netip.AddrPortFrom(e.cfg.Egress.gateway(), 53).String()
	// Opened when the egress is made, so that a port taken by another is said then.
	pc, err := anyAddress.ListenPacket(context.Background(), "udp4", where)
	if err != nil {
		return fmt.Errorf("listen for names at %s: %w", where, err)
	}
	l, err := listenFree(where)
	if err != nil {
		pc.Close()
		return fmt.Errorf("listen for names at %s: %w", where, err)
	}
	e.packets, e.streams = pc, l
	return nil
}

// serveNames answers until ctx ends.
func (e *egress) serveNames(ctx context.Context) {
	f := &forwarder{resolvers: e.cfg.Egress.Resolvers, asking: map[string]int{}, all: make(chan struct{}, namesAtOnce)}
	servers := []*dns.Server{
		{PacketConn: e.packets, Handler: f},
		{Listener: e.streams, Handler: f, ReadTimeout: 2 * time.Second, MaxTCPQueries: 128},
	}
	var serving sync.WaitGroup
	for _, s := range servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		serving.Go(func() {
			if err := s.ActivateAndServe(); err != nil && ctx.Err() == nil {
				e.log.Error("name server ended", "err", err)
			}
		})
		select {
		case <-up:
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	for _, s := range servers {
		s.Shutdown() // only fails if it has not been started
	}
	e.packets.Close()
	e.streams.Close()
	serving.Wait()
}

type forwarder struct {
	resolvers []string
	all       chan struct{}
	mu        sync.Mutex
	asking    map[string]int // questions under way per sandbox; guarded by mu
}

// ServeDNS passes one question on.
func (f *forwarder) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	who, _, _ := net.SplitHostPort(w.RemoteAddr().String())
	if !f.enter(who) {
		return
	}
	defer f.leave(who)
	answer := f.ask(question, w.LocalAddr().Network())
	if answer == nil {
		answer = new(dns.Msg)
		answer.SetRcode(question, dns.RcodeServerFailure)
	}
	answer.Id = question.Id
	_ = w.WriteMsg(answer) // whoever asked may be gone
}

func (f *forwarder) ask(question *dns.Msg, network string) *dns.Msg {
	if question.Opcode != dns.OpcodeQuery || len(question.Question) != 1 {
		return nil
	}
	if t := question.Question[0].Qtype; t == dns.TypeAXFR || t == dns.TypeIXFR {
		return nil
	}
	client := dns.Client{Net: network, Timeout: nameTimeout, UDPSize: dns.MaxMsgSize}
	for _, server := range f.resolvers {
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		if answer, _, err := client.Exchange(question, server); err == nil {
			return answer
		}
	}
	return nil
}

func (f *forwarder) enter(who string) bool {
	select {
	case f.all <- struct{}{}:
	default:
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking[who] >= namesPerSandbox {
		<-f.all
		return false
	}
	f.asking[who]++
	return true
}

func (f *forwarder) leave(who string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking[who]--; f.asking[who] == 0 {
		delete(f.asking, who)
	}
	<-f.all
}
