package sandbox

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// doorPort is where the door is unless told otherwise. Another free one is taken if somebody has it.
const doorPort = 3233

// doorConnections is how many connections one sandbox may hold through the door: enough for any
// program that keeps some, and too few for a crowd of sandboxes to take all places of the server.
const doorConnections = 128

// door is the one port at the gateway's address behind which somebody of the host's answers what
// sandboxes ask. Packets get there from sandboxes alone; a connection is handed on only if its
// sandbox was started with Spec.Door. Which one that is tells the source address, which filter.go
// lets nobody choose.
type door struct {
	net.Listener

	mu    sync.Mutex
	rooms map[netip.Addr]*room // guarded by mu; by the addresses of those that may come in
}

// room holds the connections of one sandbox.
type room struct {
	sandbox string
	guests  map[*guest]struct{} // guarded by door.mu
}

// guest is a connection that a sandbox made to the door.
type guest struct {
	*net.TCPConn
	door *door
	from *room
}

// Close ends the connection.
func (v *guest) Close() error {
	v.door.mu.Lock()
	delete(v.from.guests, v)
	v.door.mu.Unlock()
	return v.TCPConn.Close()
}

// listenDoor binds the door's port at the gateway's address.
func (e *egress) listenDoor() error {
	want := e.cfg.Egress.DoorPort
	ports := []int{want}
	if want == 0 {
		ports = []int{doorPort, 0}
	}
	var err error
	for _, p := range ports {
		where := netip.AddrPortFrom(e.cfg.Egress.gateway(), uint16(p)).String()
		var l net.Listener
		if l, err = listenFree(where); err == nil {
			e.door = &door{Listener: l, rooms: map[netip.Addr]*room{}}
			return nil
		}
		err = fmt.Errorf("listen for sandboxes at %s: %w", where, err)
	}
	return err
}

// doorPort returns the port of the door, 0 where there is none.
func (e *egress) doorPort() uint16 {
	if e.door == nil {
		return 0
	}
	return uint16(e.door.Addr().(*net.TCPAddr).Port)
}

// Accept returns the next connection of a sandbox that may come in. Others are reset.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if v := d.letIn(c.(*net.TCPConn)); v != nil {
			return v, nil
		}
	}
}

func (d *door) letIn(c *net.TCPConn) *guest {
	from := netip.Addr{}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		from = a.AddrPort().Addr().Unmap()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rooms[from]
	if r == nil {
		_ = c.SetLinger(0)
		_ = c.Close()
		return nil
	}
	v := &guest{TCPConn: c, door: d, from: r}
	r.guests[v] = struct{}{}
	return v
}

// admit lets a sandbox come in, until leave.
func (d *door) admit(s *Sandbox) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rooms[s.net.address] = &room{sandbox: s.spec.Name, guests: map[*guest]struct{}{}}
}

// leave ends the connections of a sandbox that is gone. Its interface went with it, so nobody else
// would tell the other end.
func (d *door) leave(s *Sandbox) {
	d.mu.Lock()
	r := d.rooms[s.net.address]
	delete(d.rooms, s.net.address)
	var guests []*guest
	if r != nil {
		guests = slices.Collect(maps.Keys(r.guests))
	}
	d.mu.Unlock()
	for _, v := range guests {
		_ = v.TCPConn.SetLinger(0)
		_ = v.TCPConn.Close()
	}
}

// Door returns the listener that takes what sandboxes with Spec.Door ask of the host, or nil where
// there is none: EgressConfig.Door is not set, or nothing has a way out. Whoever serves it closes
// it; so does the end of Run. It is there once Ready is closed, and all calls return the same.
func (h *Host) Door() net.Listener {
	if d := h.theDoor(); d != nil {
		return d
	}
	return nil
}

// Visitor returns the name of the sandbox that has the address from which a connection came to the
// door; empty: none has, perhaps any more.
func (h *Host) Visitor(remote net.Addr) string {
	a, ok := remote.(*net.TCPAddr)
	d := h.theDoor()
	if !ok || d == nil {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.rooms[a.AddrPort().Addr().Unmap()]; r != nil {
		return r.sandbox
	}
	return ""
}

func (h *Host) theDoor() *door {
	if h.noWay != nil || h.egress == nil {
		return nil
	}
	return h.egress.door
}
