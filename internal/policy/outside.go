package policy

import (
	"net/netip"
	"slices"
)

// Addresses that nobody may have the server call on their behalf, whatever is allowed: this machine
// and its links (and with them the clouds' metadata services), multicast, what is reserved, and the
// ways in which IPv6 writes or carries addresses of IPv4.
var neverOutside = prefixes(
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
	"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
	"fe80::/10", "ff00::/8",
	"fd00:ec2::/32", "fd20:ce::/32", // metadata of clouds that give it an address of its own
)

// Addresses that may be opened.
var privateOutside = prefixes(
	"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16",
	"198.18.0.0/15",
	"fc00::/7", "fec0::/10", "100::/64", "2001:db8::/32",
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Outside says whether the server may call an address on somebody's behalf: it lies in the outside,
// or in a private range that allow opens. own are the machine's addresses, which are never
// outside. It is the same that functions with a network may reach.
func Outside(a netip.Addr, allow []netip.Prefix, own []netip.Addr) bool {
	// An address of IPv4 written as one of IPv6 is what it stands for; one with a zone is of a link.
	a, zoned := a.Unmap(), a.Zone() != ""
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case !a.IsValid(), zoned, slices.ContainsFunc(neverOutside, holds):
		return false
	case slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Unmap().WithZone("") == a }):
		return false
	case slices.ContainsFunc(allow, holds):
		return true
	}
	return !slices.ContainsFunc(privateOutside, holds)
}
