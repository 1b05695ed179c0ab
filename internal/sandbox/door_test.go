package sandbox

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answerDoor serves a host's door as long as that is there: it says who came.
func answerDoor(t *testing.T, h *Host) (at string, open *atomic.Int64) {
	t.Helper()
	l := h.Door()
	if l == nil {
		t.Skip("there is no way out here:", h.noWay)
	}
	open = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			fmt.Fprintf(c, "hello %s\n", h.Visitor(c.RemoteAddr()))
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
				open.Add(-1)
			}()
		}
	}()
	return l.Addr().String(), open
}

func withDoor(s *Spec) { s.Network, s.Door = true, true }

// Sandboxes that have the door reach exactly that of the host, and nobody else reaches it.
func TestDoor(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w := newWorld(t)
	cfg := testConfig(t)
	cfg.Egress.Door = true
	// What must stay closed is closed, whatever is allowed besides.
	cfg.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8")}
	h := runHost(t, cfg)
	at, open := answerDoor(t, h)
	gateway, port, err := net.SplitHostPort(at)
	must(t, err)
	if gateway != h.egress.cfg.Egress.gateway().String() || port != fmt.Sprint(doorPort) {
		t.Errorf("the door is at %s", at)
	}
	// Others of the host's that listen, at the door's number too.
	for _, other := range []string{machineAddress + ":" + port, "127.0.0.1:" + port, "0.0.0.0:8080"} {
		l, err := greet(other)
		must(t, err)
		defer l.Close()
	}
	neighbour := start(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-u", "-c", "import socket,os\ns=socket.create_server(('0.0.0.0'," + port + "))\nos.write(3,b'up')\nwhile True:\n c,_=s.accept(); c.sendall(b'hello'); c.close()"}, Network: true, Door: true, Conn: true})
	if _, err := neighbour.Conn().Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}

	closed := []string{
		gateway + ":8080", machineAddress + ":" + port, machineAddress + ":8080", "127.0.0.1:" + port, worldAddress + ":" + port,
		neighbour.net.address.String() + ":" + port, "169.254.169.254:" + port, "[::1]:" + port, "[::ffff:" + machineAddress + "]:" + port,
	}
	name := uniqueName()
	o := run(t, h, Spec{Name: name, Network: true, Door: true, Args: append([]string{"/usr/bin/python3", "-I", "-c", visitor, at}, closed...)})
	got := o.ok(t)
	if !strings.Contains(got, fmt.Sprintf("%q: %q", at, "hello "+name)) || strings.Count(got, "hello") != 1 {
		t.Errorf("a sandbox with the door got %s", got)
	}
	for what, s := range map[string]Spec{"with network alone": {Network: true}, "without network": {}, "without network that names the door": {Door: true}} {
		s.Args = []string{"/usr/bin/python3", "-I", "-c", visitor, at}
		if got := run(t, h, s).ok(t); strings.Contains(got, "hello") {
			t.Errorf("a sandbox %s got %s", what, got)
		}
	}
	t.Run("from elsewhere", func(t *testing.T) {
		knock := func() error {
			c, err := net.DialTimeout("tcp", at, time.Second)
			if err == nil {
				c.Close()
				t.Error("somebody who is no sandbox got to the door")
			}
			return nil
		}
		w.inside(t, knock)
		must(t, knock())
	})
	t.Run("connections are counted", func(t *testing.T) {
		o := shell(t, h, `exec /usr/bin/python3 -I -c '
import socket
ok = []
for i in range(140):
  try:
    c = socket.create_connection(("`+gateway+`", `+port+`), timeout=20 if i < `+fmt.Sprint(doorConnections)+` else 0.5)
    if c.recv(100): ok.append(c)
  except OSError: pass
print(len(ok))'`, withDoor)
		if got := o.ok(t); got != fmt.Sprint(doorConnections) {
			t.Errorf("%s connections, allowed %d", got, doorConnections)
		}
	})
	t.Run("connections end with the sandbox", func(t *testing.T) {
		waitFor(t, "those of others to end", func() bool { return open.Load() == 0 })
		s := start(t, h, Spec{Network: true, Door: true, Conn: true, Args: []string{"/usr/bin/python3", "-I", "-c", "import socket,os,time\nc=socket.create_connection(('" + gateway + "'," + port + "))\nc.recv(9)\nos.write(3,b'in')\ntime.sleep(1000)"}})
		if _, err := s.Conn().Read(make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		if n := open.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
		s.Close()
		waitFor(t, "its connection to end", func() bool { return open.Load() == 0 })
	})
}

// What a server leaves that was killed and does not come back is in nobody's way, though the next one
// has its addresses.
func TestDoorBesideALeftTable(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	newWorld(t)
	cfg := testConfig(t)
	cfg.Egress.Subnet = netip.MustParsePrefix("100.99.8.0/24")
	cfg.Egress.Door = true
	left := cfg
	left.Prefix = "gone"
	must(t, left.applyDefaults())
	if err := writeRules(left, doorPort, true); err != nil {
		t.Skip(err)
	}
	defer removeRules(left.Prefix)
	h := runHost(t, cfg)
	at, _ := answerDoor(t, h)
	if got := visitWith(t, h, Spec{Network: true, Door: true}, at)[at]; !strings.HasPrefix(got, "hello") {
		t.Errorf("got %q", got)
	}
}

func TestDoorIsOptional(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	newWorld(t)
	l, err := greet(fmt.Sprintf("0.0.0.0:%d", doorPort))
	must(t, err)
	defer l.Close()
	h := startHost(t)
	if h.Door() != nil {
		t.Error("there is a door that nobody asked for")
	}
	if h.noWay != nil {
		t.Skip(h.noWay)
	}
	at := fmt.Sprintf("%s:%d", h.egress.cfg.Egress.gateway(), doorPort)
	o := shell(t, h, "exec /usr/bin/python3 -I -c '"+visitor+"' "+at, withDoor)
	if got := o.ok(t); strings.Contains(got, "hello") {
		t.Errorf("got %s", got)
	}
}

// A port that somebody has is left to them.
func TestDoorBesideOthers(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	newWorld(t)
	l, err := greet(fmt.Sprintf("0.0.0.0:%d", doorPort))
	must(t, err)
	defer l.Close()
	h := startHost(t, func(c *Config) { c.Egress.Door = true })
	at, _ := answerDoor(t, h)
	if strings.HasSuffix(at, fmt.Sprintf(":%d", doorPort)) {
		t.Errorf("the door is at %s", at)
	}
	name := uniqueName()
	theirs := fmt.Sprintf("%s:%d", h.egress.cfg.Egress.gateway(), doorPort)
	o := run(t, h, Spec{Name: name, Network: true, Door: true, Args: []string{"/usr/bin/python3", "-I", "-c", visitor, at, theirs}})
	if got := o.ok(t); strings.Count(got, "hello") != 1 || !strings.Contains(got, "hello "+name) {
		t.Errorf("got %s", got)
	}

	named := startHost(t, func(c *Config) { c.Egress.Door, c.Egress.DoorPort = true, doorPort })
	if named.Door() != nil || named.noWay == nil {
		t.Error("another port was taken than the one that was named")
	}
}
