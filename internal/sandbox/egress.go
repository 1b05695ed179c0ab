package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// egress gives sandboxes a way out: each has a veth of its own to the host, point to point, and
// the host forwards and translates addresses under the rules of filter.go. Those match
// interfaces by the prefix of their name, so they are written once; making and losing a sandbox
// changes no rule. There is no bridge: what leaves a sandbox can only be routed.
type egress struct {
	cfg     Config
	lease   *lease
	log     *slog.Logger
	links   *netlink.Handle // in the host's namespace
	mtu     int
	packets net.PacketConn // of the name server
	streams net.Listener
	door    *door // nil: there is none; fixed after newEgress

	mu   sync.Mutex
	next netip.Addr          // guarded by mu
	used map[netip.Addr]bool // guarded by mu
	link int                 // names the next interface; guarded by mu
}

// newEgress sets the rules, and only then switches forwarding on.
func newEgress(cfg Config, l *lease, log *slog.Logger) (*egress, error) {
	if cfg.Egress.Off {
		return nil, errors.New("it is switched off by configuration")
	}
	if os.Geteuid() != 0 || !mapsManyIDs("/proc/self/uid_map", cfg.UIDBase, cfg.UIDCount) {
		return nil, errors.New("an ordinary user has no power over the machine's network")
	}
	links, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	e := &egress{cfg: cfg, lease: l, log: log, links: links, used: map[netip.Addr]bool{}}
	if err := e.open(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *egress) open() error {
	e.mtu = e.uplinkMTU()
	if err := e.listenSomewhere(); err != nil {
		return err
	}
	if e.cfg.Egress.Door {
		if err := e.listenDoor(); err != nil {
			return err
		}
	}
	e.next = e.cfg.Egress.gateway().Next()
	was, err := forwarding()
	if err != nil {
		return err
	}
	e.lease.held.Network, e.lease.held.Forwarding = true, !was
	if err := e.lease.save(); err != nil {
		return err
	}
	if err := writeRules(e.cfg, e.doorPort(), !was); err != nil {
		return fmt.Errorf("write packet filter rules: %w", err)
	}
	if !was {
		return setForwarding(true)
	}
	return nil
}

// listenSomewhere settles the subnet: the one that was configured, or the first of a range meant
// for such use (100.64.0.0/10, not the part others take first) that is free here.
func (e *egress) listenSomewhere() error {
	if e.cfg.Egress.Subnet.IsValid() {
		return e.listenNames()
	}
	err := errors.New("no subnet is free for sandboxes")
	for second := byte(115); second < 128; second++ {
		e.cfg.Egress.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, second, 0, 0}), 16)
		if e.routed(e.cfg.Egress.Subnet) {
			continue
		}
		if err = e.listenNames(); err == nil {
			return nil
		}
	}
	return err
}

// routed says whether the machine knows a way to a part of a subnet, other than the default.
func (e *egress) routed(subnet netip.Prefix) bool {
	routes, err := e.links.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		address, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if ok && ones > 0 && netip.PrefixFrom(address, ones).Overlaps(subnet) {
			return true
		}
	}
	return false
}

// close takes back what newEgress did. The interfaces go with their namespaces.
func (e *egress) close() {
	if e.packets != nil {
		e.packets.Close()
		e.streams.Close()
	}
	if e.door != nil {
		e.door.Close() // whoever serves it may have done so
	}
	if e.lease.held.Forwarding && !e.othersLive() {
		if err := setForwarding(false); err != nil {
			e.log.Warn("IPv4 forwarding left on", "err", err)
		}
	}
	if err := removeRules(e.cfg.Prefix); err != nil {
		e.log.Warn("packet filter table left behind", "err", err)
	}
	e.links.Close()
	e.lease.held.Network, e.lease.held.Forwarding = false, false
	if err := e.lease.save(); err != nil {
		e.log.Warn("lease not written", "err", err)
	}
}

// othersLive says whether another server has interfaces here and still needs forwarding.
func (e *egress) othersLive() bool {
	links, err := e.links.LinkList()
	if err != nil {
		return true
	}
	for _, l := range links {
		if a := l.Attrs(); a.Group == linkGroup && !strings.HasPrefix(a.Name, e.cfg.Prefix+"-") {
			return true
		}
	}
	return false
}

// create makes a namespace with a way out.
func (e *egress) create(m *netnsMaker) (*netns, error) {
	name, address, free, err := e.claim()
	if err != nil {
		return nil, err
	}
	n, err := m.create(func(n *netns) error { return e.connect(n, name, address) })
	if err != nil {
		free()
		return nil, err
	}
	n.address, n.free = address, free
	return n, nil
}

// claim returns a name and an address that have been out of use the longest.
func (e *egress) claim() (name string, address netip.Addr, free func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	subnet := e.cfg.Egress.Subnet
	first := e.cfg.Egress.gateway().Next()
	for range 1 << (32 - subnet.Bits()) {
		address = e.next
		e.next = e.next.Next()
		if !subnet.Contains(e.next) { // e.next was the broadcast address's successor
			e.next = first
		}
		if !e.used[address] {
			e.used[address] = true
			e.link = (e.link + 1) % 1_000_000 // fits IFNAMSIZ behind a prefix of eight
			free = func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				delete(e.used, address)
			}
			return fmt.Sprintf("%s-%d", e.cfg.Prefix, e.link), address, free, nil
		}
	}
	return "", netip.Addr{}, nil, fmt.Errorf("all addresses of %s are in use", subnet)
}

// linkGroup marks the interfaces of all servers of our kind, so that those of two on one machine
// do not stop each other's traffic.
const linkGroup = 0x62726173

// connect runs on the maker's thread, inside the new namespace.
func (e *egress) connect(n *netns, name string, address netip.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = name, e.mtu, linkGroup
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.fd), PeerMTU: uint32(e.mtu)}
	if err := e.links.LinkAdd(pair); err != nil {
		return fmt.Errorf("make veth %s: %w", name, err)
	}
	gateway := host32(e.cfg.Egress.gateway())
	outside, err := e.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", name, err)
	}
	// IPv6 is neither offered nor wanted: nothing may reach the host by its link-local address.
	noIPv6(name)
	if err := e.links.AddrAdd(outside, &netlink.Addr{IPNet: gateway, Peer: host32(address)}); err != nil {
		return fmt.Errorf("address veth %s: %w", name, err)
	}
	if err := e.links.LinkSetUp(outside); err != nil {
		return fmt.Errorf("bring veth %s up: %w", name, err)
	}

	inner, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer inner.Close()
	noIPv6("eth0")
	inside, err := inner.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	if err := inner.AddrAdd(inside, &netlink.Addr{IPNet: host32(address)}); err != nil {
		return fmt.Errorf("address eth0: %w", err)
	}
	if err := inner.LinkSetUp(inside); err != nil {
		return fmt.Errorf("bring eth0 up: %w", err)
	}
	index := inside.Attrs().Index
	if err := inner.RouteAdd(&netlink.Route{LinkIndex: index, Dst: gateway, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to gateway: %w", err)
	}
	if err := inner.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.IP}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// uplinkMTU is that of the interface the default route leaves by, so that a tunnel below does
// not swallow large packets.
func (e *egress) uplinkMTU() int {
	const usual = 1500
	routes, err := e.links.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return usual
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if l, err := e.links.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 576 {
				return min(l.Attrs().MTU, usual)
			}
		}
	}
	return usual
}

func host32(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// noIPv6 switches IPv6 off on an interface of the calling thread's namespace. A kernel without
// IPv6 has no such file.
func noIPv6(link string) {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0)
}

const forwardingSwitch = "/proc/sys/net/ipv4/ip_forward"

func forwarding() (bool, error) {
	text, err := os.ReadFile(forwardingSwitch)
	if err != nil {
		return false, fmt.Errorf("read forwarding: %w", err)
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

func setForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := os.WriteFile(forwardingSwitch, []byte(value), 0); err != nil {
		return fmt.Errorf("switch IPv4 forwarding: %w", err)
	}
	return nil
}

// removeNetwork deletes the table and interfaces of a server that died.
func removeNetwork(prefix string) error {
	err := removeRules(prefix)
	links, lerr := netlink.LinkList()
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, prefix+"-") && l.Type() == "veth" {
			// Its namespace is going, and it with it; whoever comes first.
			_ = netlink.LinkDel(l)
		}
	}
	return err
}
