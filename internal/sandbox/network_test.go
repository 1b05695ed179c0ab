package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inOwnNetwork runs the calling test once more, in a process with a network namespace of its
// own: nothing these tests do can reach the machine's network. It returns true there.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	if os.Getenv("BRASA_TEST_NETWORK") == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "BRASA_TEST_NETWORK="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// world is what lies outside of the test's machine: another namespace, behind a veth, with a
// public address from a range for documentation and some that must not be reached.
type world struct {
	fd int
}

const (
	machineAddress = "203.0.113.1"
	worldAddress   = "203.0.113.2"
	publicAddress  = "198.51.100.10"
)

var closedAddresses = []string{"169.254.169.254", "10.1.2.3", "172.16.5.5", "192.168.7.7", "100.64.1.1", "100.127.255.254"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs f on a thread within the world.
func (w *world) inside(t *testing.T, f func() error) {
	t.Helper()
	must(t, inNamespace(w.fd, f))
}

func inNamespace(fd int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m := newNetnsMaker()
	n, err := m.create(nil)
	must(t, err)
	m.close()
	w := &world{fd: n.fd}
	must(t, loopbackUp())
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.fd)}))
	link, err := netlink.LinkByName("uplink")
	must(t, err)
	must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: cidr(machineAddress + "/24")}))
	must(t, netlink.LinkSetUp(link))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(worldAddress)}))
	w.inside(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: cidr(worldAddress + "/24")}); err != nil {
			return err
		}
		for _, a := range append([]string{publicAddress}, closedAddresses...) {
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: cidr(a + "/32")}); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		// An attacker next door knows where sandboxes live.
		return netlink.RouteAdd(&netlink.Route{Dst: cidr("100.115.0.0/16"), Gw: net.ParseIP(machineAddress)})
	})
	return w
}

func cidr(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return &net.IPNet{IP: ip, Mask: n.Mask}
}

// greet listens and says who is connected.
func greet(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "hello %s\n", host)
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	return l, nil
}

func serveNames(pc net.PacketConn) {
	dns.ActivateAndServe(nil, pc, dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		addresses := map[string]string{"outside.test.": publicAddress, "rebind.test.": "169.254.169.254", "home.test.": "127.0.0.1"}
		if ip, ok := addresses[q.Question[0].Name]; ok && q.Question[0].Qtype == dns.TypeA {
			a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(ip)})
		} else if !ok {
			a.SetRcode(q, dns.RcodeNameError)
		}
		w.WriteMsg(a)
	}))
}

// visitor connects to each of its arguments and prints what came of it.
const visitor = `
import json, socket, sys, threading
result = {}
def visit(target):
    host, port = target.rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2) as c:
            result[target] = c.recv(100).decode().strip()
    except Exception as e:
        result[target] = type(e).__name__ + " " + str(e)
threads = [threading.Thread(target=visit, args=(t,)) for t in sys.argv[1:]]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps(result))
`

func visit(t *testing.T, h *Host, network bool, targets ...string) map[string]string {
	t.Helper()
	return visitWith(t, h, Spec{Network: network}, targets...)
}

func visitWith(t *testing.T, h *Host, s Spec, targets ...string) map[string]string {
	t.Helper()
	s.Args = append([]string{"/usr/bin/python3", "-I", "-c", visitor}, targets...)
	o := run(t, h, s)
	var result map[string]string
	must(t, json.Unmarshal([]byte(o.ok(t)), &result))
	return result
}

func TestWithoutNetworkThereIsOnlyLoopback(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	newWorld(t)
	h := startHost(t)
	o := run(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-c", "import socket; print(socket.if_nameindex())"}})
	if got := o.ok(t); got != "[(1, 'lo')]" {
		t.Errorf("interfaces %s", got)
	}
	gateway := h.egress.cfg.Egress.gateway().String()
	for target, got := range visit(t, h, false, publicAddress+":80", machineAddress+":80", gateway+":53", "[2001:db8::1]:80", "outside.test:80") {
		if strings.HasPrefix(got, "hello") || strings.HasPrefix(got, "timeout") {
			t.Errorf("%s: %s", target, got)
		}
	}
}

func TestEgress(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w := newWorld(t)
	w.inside(t, func() error {
		for _, address := range []string{"0.0.0.0:80"} {
			if _, err := greet(address); err != nil {
				return err
			}
		}
		pc, err := net.ListenPacket("udp4", worldAddress+":53")
		if err != nil {
			return err
		}
		go serveNames(pc)
		return nil
	})
	_, err := greet("0.0.0.0:8080")
	must(t, err)
	cfg := testConfig(t)
	cfg.Egress.Resolvers = []string{worldAddress}
	cfg.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8")}
	cfg.Egress.Connections = 8
	h := runHost(t, cfg)
	if h.noWay != nil {
		t.Skip(h.noWay)
	}
	gateway := h.egress.cfg.Egress.gateway().String()
	neighbour := start(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-u", "-c", "import socket,os\ns=socket.create_server(('0.0.0.0',8080))\nos.write(3,b'up')\nwhile True:\n c,_=s.accept(); c.sendall(b'hello'); c.close()"}, Network: true, Conn: true})
	if _, err := neighbour.Conn().Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	theirs := neighbour.net.address.String()

	open := []string{publicAddress + ":80", "outside.test:80", "10.1.2.3:80"}
	closed := []string{
		theirs + ":8080", gateway + ":8080", machineAddress + ":8080", worldAddress + "9:80",
		"169.254.169.254:80", "rebind.test:80", "home.test:8080", "127.0.0.1:8080", "0.0.0.0:8080", "2130706433:8080", "0x7f000001:8080",
		"172.16.5.5:80", "192.168.7.7:80", "100.64.1.1:80", "100.127.255.254:80", "nowhere.test:80",
		"[::ffff:169.254.169.254]:80", "[::ffff:" + machineAddress + "]:8080", "[fd00:ec2::254]:80", "[fe80::1%eth0]:80", "[2001:db8::1]:80",
	}
	got := visit(t, h, true, append(open, closed...)...)
	for _, target := range open {
		// The world sees the machine's address, never a sandbox's.
		if got[target] != "hello "+machineAddress {
			t.Errorf("%s: %q, want to get there", target, got[target])
		}
	}
	for _, target := range closed {
		if strings.HasPrefix(got[target], "hello") {
			t.Errorf("%s: %q, want not to get there", target, got[target])
		}
	}

	t.Run("dial", func(t *testing.T) {
		c, err := neighbour.Dial(context.Background(), "tcp", "localhost:8080")
		must(t, err)
		defer c.Close()
		if text, _ := io.ReadAll(c); string(text) != "hello" {
			t.Errorf("got %q", text)
		}
		if _, err := neighbour.Dial(context.Background(), "tcp", "outside.test:80"); err == nil {
			t.Error("a name was dialled")
		}
	})
	t.Run("nobody comes in", func(t *testing.T) {
		w.inside(t, func() error {
			if c, err := net.DialTimeout("tcp", theirs+":8080", time.Second); err == nil {
				c.Close()
				t.Error("the world reached a sandbox")
			}
			return nil
		})
		if c, err := net.DialTimeout("tcp", theirs+":8080", time.Second); err == nil {
			c.Close() // the machine itself may; that is how nothing is hidden from its owner
		}
	})
	t.Run("connections are counted", func(t *testing.T) {
		o := run(t, h, Spec{Network: true, Args: []string{"/usr/bin/python3", "-I", "-c", "import socket\nok=[]\nfor i in range(12):\n  try: ok.append(socket.create_connection(('" + publicAddress + "',80),timeout=1))\n  except OSError: pass\nprint(len(ok))"}})
		if got := o.ok(t); got != "8" {
			t.Errorf("%s connections, allowed 8", got)
		}
	})
	t.Run("sources are checked", func(t *testing.T) { spoof(t, w, neighbour) })
	t.Run("IPv6 is off", func(t *testing.T) {
		o := shell(t, h, "cat /proc/net/if_inet6 | grep -v ' lo$'; true", func(s *Spec) { s.Network = true })
		if got := o.ok(t); got != "" {
			t.Errorf("addresses %q", got)
		}
	})
}

// spoof sends datagrams from a sandbox's namespace with the machine's own power: one with the
// sandbox's source address, which arrives, and before it ones with others'.
func spoof(t *testing.T, w *world, s *Sandbox) {
	var pc net.PacketConn
	w.inside(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", publicAddress+":9999")
		return err
	})
	defer pc.Close()
	send := func(source, text string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		src, dst := netip.MustParseAddr(source).As4(), netip.MustParseAddr(publicAddress).As4()
		length := 28 + len(text)
		packet := []byte{0x45, 0, 0, byte(length), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		packet = append(append(packet, src[:]...), dst[:]...)
		packet = append(packet, 0x30, 0x39, 0x27, 0x0f, 0, byte(8+len(text)), 0, 0) // port 9999, no checksum
		packet = append(packet, text...)
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: dst})
	}
	must(t, inNamespace(s.net.fd, func() error {
		for _, source := range []string{"203.0.113.77", s.net.address.Next().String(), "10.1.2.3", machineAddress, "127.0.0.1"} {
			if err := send(source, "spoofed "+source); err != nil {
				return err
			}
		}
		return send(s.net.address.String(), "genuine")
	}))
	buffer := make([]byte, 100)
	must(t, pc.SetReadDeadline(time.Now().Add(patience)))
	n, _, err := pc.ReadFrom(buffer)
	if err != nil || string(buffer[:n]) != "genuine" {
		t.Errorf("got %q, %v", buffer[:n], err)
	}
}

func TestNetworkIsLeftAsFound(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	newWorld(t)
	before, err := forwarding()
	must(t, err)
	cfg := testConfig(t)
	cfg.Egress.Subnet = netip.MustParsePrefix("100.99.8.0/24")
	h, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	<-h.Ready()
	if on, _ := forwarding(); !on || h.noWay != nil {
		t.Errorf("forwarding %v, %v", on, h.noWay)
	}
	var addresses []string
	for range 6 {
		s := start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}, Network: true})
		addresses = append(addresses, s.net.address.String())
	}
	seen := map[string]bool{}
	for _, a := range addresses {
		if seen[a] || !cfg.Egress.Subnet.Contains(netip.MustParseAddr(a)) {
			t.Errorf("addresses %v", addresses)
		}
		seen[a] = true
	}
	cancel()
	must(t, <-ended)
	if on, _ := forwarding(); on != before {
		t.Errorf("forwarding is %v, was %v", on, before)
	}
	if names := tableNames(t); len(names) != 0 {
		t.Errorf("tables %v", names)
	}
	waitFor(t, "interfaces to go", func() bool { return len(ourLinks(t, cfg.Prefix)) == 0 })
}

func TestNetworkSwitchedOff(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	before, err := forwarding()
	must(t, err)
	h := startHost(t, func(c *Config) { c.Egress.Off = true })
	var no *UnsupportedError
	if _, err := h.Start(context.Background(), Spec{Name: "a", Args: []string{"/bin/true"}, Network: true}); !errors.As(err, &no) || no.Feature != featureEgress {
		t.Errorf("got %v", err)
	}
	if on, _ := forwarding(); on != before || len(tableNames(t)) != 0 {
		t.Error("the network was touched")
	}
	shell(t, h, "true").ok(t)
}

func tableNames(t *testing.T) (names []string) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	tables, err := c.ListTables()
	must(t, err)
	for _, x := range tables {
		names = append(names, x.Name)
	}
	return names
}

func ourLinks(t *testing.T, prefix string) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, prefix+"-") {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// waitFor polls a state of the kernel that tells nobody when it changes.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// What the host listens at is there before the program runs.
func TestListenInside(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		const at = "127.0.0.1:9001"
		out, text := capture(t)
		s := start(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-S", "-c", `
import socket
s = socket.create_connection(("127.0.0.1", 9001))
s.sendall(b"question\n")
print(s.makefile().read())`}, Listen: at, Stdout: out})
		out.Close()
		c, err := s.Listener().Accept()
		must(t, err)
		line := make([]byte, len("question\n"))
		_, err = io.ReadFull(c, line)
		must(t, err)
		_, err = c.Write([]byte("answer"))
		must(t, err)
		c.Close()
		if got := <-text; string(line) != "question\n" || got != "answer\n" {
			t.Errorf("got %q and %q", line, got)
		}
		s.Close()
		if _, err := s.Listener().Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		if _, err := h.Start(context.Background(), Spec{Name: uniqueName(), Args: []string{"/bin/true"}, Listen: "localhost:1"}); err == nil {
			t.Error("a name was taken for an address")
		}
	})
}

func TestEveryPortIsOwn(t *testing.T) {
	h := startHost(t)
	o := run(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-S", "-c", "import socket; print(socket.create_server(('127.0.0.1', 80)).getsockname()[1])"}})
	if got := o.ok(t); got != "80" {
		t.Errorf("got %q", got)
	}
}
