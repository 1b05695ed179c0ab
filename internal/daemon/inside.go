package daemon

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/brasa-dev/brasa/internal/policy"
)

// resolveTime bounds how long the start waits for the addresses of the server's own name.
const resolveTime = 2 * time.Second

// inside returns the address by which functions call this server: the one that clients are told, if
// it leads by way of another machine and functions get there, as it holds for those outside too;
// else the door that is open to functions alone; empty where neither is.
func (d *Daemon) inside(ctx context.Context, door net.Listener) string {
	switch {
	case d.cfg.Egress.NoAPI:
		return ""
	case d.leadsOutside(ctx, d.cfg.URL):
		return d.cfg.URL
	case door == nil:
		return ""
	}
	return "http://" + door.Addr().String()
}

// leadsOutside says whether functions with a network get to where an address leads. They have IPv4
// alone.
func (d *Daemon) leadsOutside(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	to, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", u.Hostname())
	if err != nil || len(to) == 0 {
		return false
	}
	own, err := ownAddresses()
	if err != nil {
		return false
	}
	var allowed []netip.Prefix
	for _, s := range d.cfg.Egress.Allow {
		allowed = append(allowed, netip.MustParsePrefix(s)) // validate has checked it
	}
	for _, a := range to {
		if !policy.Outside(a, allowed, own) {
			return false
		}
	}
	return true
}

// ownAddresses are this machine's. They change.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, o := range all {
		if p, err := netip.ParsePrefix(o.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	return own, nil
}
