package sandbox

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules, as nft would print them, for prefix "brasa":
//
//	table inet brasa {
//	  set never   { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3, <our subnet> }
//	  set allowed { <Egress.Allow> }
//	  set private { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15 }
//	  set count   { type ipv4_addr; flags dynamic }
//	  set visits  { type ipv4_addr; flags dynamic }
//	  chain arrive { hook prerouting, priority raw
//	    iifname brasa-* meta nfproto ipv6 drop
//	    iifname brasa-* fib saddr . iif oif 0 drop           # a source that is not its own
//	  }
//	  chain input { hook input
//	    iifname brasa-* ip daddr <gateway> udp dport 53 accept
//	    iifname brasa-* ip daddr <gateway> tcp dport 53 accept
//	    iifname brasa-* ip daddr <gateway> tcp dport <door> ct state established,related accept
//	    iifname brasa-* ip daddr <gateway> tcp dport <door> add @visits { ip saddr ct count over <m> } drop
//	    iifname brasa-* ip daddr <gateway> tcp dport <door> accept
//	    iifname brasa-* drop                                  # the host, at any of its addresses
//	    iifgroup != <ours> ip daddr <gateway> drop            # nobody else asks there
//	  }
//	  chain forward { hook forward
//	    iifname brasa-* oifname brasa-* drop                  # each other
//	    iifname brasa-* ip daddr @never drop
//	    iifname brasa-* ct state established,related accept
//	    iifname brasa-* add @count { ip saddr ct count over <n> } drop
//	    iifname brasa-* ip daddr @allowed accept
//	    iifname brasa-* ip daddr @private drop
//	    iifname brasa-* accept
//	    oifname brasa-* ct state established,related accept
//	    oifname brasa-* drop                                  # nobody comes in
//	    iifgroup != <ours> oifgroup != <ours> drop            # only if forwarding was off before us
//	  }
//	  chain leave { hook postrouting, type nat: ip saddr <subnet> oifname != brasa-* masquerade }
//	}
//
// Packets are judged by address after names were resolved, so no spelling of an address and no
// answer of a name server goes around them.
var (
	neverRanges = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"), // link-local, and with it the clouds' metadata
		netip.MustParsePrefix("224.0.0.0/3"),    // multicast, reserved, broadcast
	}
	privateRanges = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("198.18.0.0/15"),
	}
)

// writeRules replaces our table in one transaction. door is the port that is open besides that for
// names; 0: none is. guard adds the last rule: the machine was no router before us and is to forward
// nothing that is not ours.
func writeRules(cfg Config, door uint16, guard bool) error {
	if err := removeRules(cfg.Prefix); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	w := ruleWriter{c: c, mine: cfg.Prefix + "-", table: c.AddTable(&nftables.Table{Name: cfg.Prefix, Family: nftables.TableFamilyINet})}
	never := w.addresses("never", append(slices.Clone(neverRanges), cfg.Egress.Subnet))
	allowed := w.addresses("allowed", cfg.Egress.Allow)
	private := w.addresses("private", privateRanges)
	count := &nftables.Set{Table: w.table, Name: "count", KeyType: nftables.TypeIPAddr, Dynamic: true, Size: 65535}
	w.keep(c.AddSet(count, nil))
	visits := &nftables.Set{Table: w.table, Name: "visits", KeyType: nftables.TypeIPAddr, Dynamic: true, Size: 65535}
	w.keep(c.AddSet(visits, nil))

	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
		accept := nftables.ChainPolicyAccept
		return c.AddChain(&nftables.Chain{Name: name, Table: w.table, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept})
	}
	in, out := w.name(expr.MetaKeyIIFNAME, expr.CmpOpEq), w.name(expr.MetaKeyOIFNAME, expr.CmpOpEq)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)

	arrive := chain("arrive", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	w.rule(arrive, in, family(unix.NFPROTO_IPV6), drop)
	w.rule(arrive, in, family(unix.NFPROTO_IPV4), ownSource(), drop)

	input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter-10)
	gateway := cfg.Egress.gateway().As4()
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		w.rule(input, in, family(unix.NFPROTO_IPV4), daddr(), equal(gateway[:]), transport(proto), dport(53), accept)
	}
	established := state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	if door != 0 {
		to := slices.Concat(in, family(unix.NFPROTO_IPV4), daddr(), equal(gateway[:]), transport(unix.IPPROTO_TCP), dport(door))
		w.rule(input, to, established, accept)
		w.rule(input, to, saddr(), over(visits, doorConnections), drop)
		w.rule(input, to, accept)
	}
	w.rule(input, in, drop)
	// By group: if this server is killed and does not come back, another may have the address one day, and
	// this rule is still there.
	w.rule(input, notOurGroup(expr.MetaKeyIIFGROUP), family(unix.NFPROTO_IPV4), daddr(), equal(gateway[:]), drop)

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter-10)
	w.rule(forward, in, out, drop)
	w.rule(forward, in, daddr(), member(never), drop)
	w.rule(forward, in, established, accept)
	w.rule(forward, in, saddr(), over(count, uint32(cfg.Egress.Connections)), drop)
	w.rule(forward, in, daddr(), member(allowed), accept)
	w.rule(forward, in, daddr(), member(private), drop)
	w.rule(forward, in, accept)
	w.rule(forward, out, established, accept)
	w.rule(forward, out, drop)
	if guard {
		w.rule(forward, notOurGroup(expr.MetaKeyIIFGROUP), notOurGroup(expr.MetaKeyOIFGROUP), drop)
	}

	leave := chain("leave", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	subnet := cfg.Egress.Subnet.Addr().As4()
	w.rule(leave, family(unix.NFPROTO_IPV4), saddr(), masked(cfg.Egress.Subnet.Bits()), equal(subnet[:]), w.name(expr.MetaKeyOIFNAME, expr.CmpOpNeq), []expr.Any{&expr.Masq{}})
	if w.err != nil {
		return w.err
	}
	return c.Flush()
}

// removeRules deletes our table if there is one.
func removeRules(prefix string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == prefix {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

type ruleWriter struct {
	c     *nftables.Conn
	table *nftables.Table
	mine  string // what our interfaces' names begin with
	err   error
}

func (w *ruleWriter) keep(err error) { w.err = errors.Join(w.err, err) }

func (w *ruleWriter) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	w.c.AddRule(&nftables.Rule{Table: w.table, Chain: chain, Exprs: slices.Concat(parts...)})
}

// addresses makes a set of ranges.
func (w *ruleWriter) addresses(name string, prefixes []netip.Prefix) *nftables.Set {
	set := &nftables.Set{Table: w.table, Name: name, KeyType: nftables.TypeIPAddr, Interval: true}
	w.keep(w.c.AddSet(set, rangeElements(prefixes)))
	return set
}

// rangeElements returns a set's elements: where ranges begin and where they end, the latter not
// included. Ranges that overlap or touch become one, which the kernel wants.
func rangeElements(prefixes []netip.Prefix) []nftables.SetElement {
	type span struct{ from, to uint64 }
	var spans []span
	for _, p := range prefixes {
		if !p.Addr().Is4() {
			continue // IPv6 does not leave a sandbox
		}
		a := p.Masked().Addr().As4()
		from := uint64(binary.BigEndian.Uint32(a[:]))
		spans = append(spans, span{from, from + 1<<(32-p.Bits())})
	}
	slices.SortFunc(spans, func(a, b span) int { return int(int64(a.from) - int64(b.from)) })
	var merged []span
	for _, s := range spans {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	elements := []nftables.SetElement{}
	key := func(v uint64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
	for _, s := range merged {
		elements = append(elements, nftables.SetElement{Key: key(s.from)})
		if s.to < 1<<32 {
			elements = append(elements, nftables.SetElement{Key: key(s.to), IntervalEnd: true})
		}
	}
	return elements
}

// name compares the beginning of an interface's name with ours.
func (w *ruleWriter) name(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(w.mine)}}
}

func verdict(v expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: v}} }

func equal(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func family(f byte) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}}, equal([]byte{f})...)
}

// notOurGroup holds for interfaces that are no server's of our kind.
func notOurGroup(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(linkGroup)}}
}

func transport(proto byte) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, equal([]byte{proto})...)
}

func dport(port uint16) []expr.Any {
	return append([]expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}, equal(binary.BigEndian.AppendUint16(nil, port))...)
}

func saddr() []expr.Any { return ipv4Field(12) }
func daddr() []expr.Any { return ipv4Field(16) }

func ipv4Field(offset uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}}
}

func masked(bits int) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-bits))
	return []expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)}}
}

func member(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

// ownSource holds if the way back to the source is not the interface the packet came by.
func ownSource() []expr.Any {
	return append([]expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true}}, equal(binaryutil.NativeEndian.PutUint32(0))...)
}

func state(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// over counts connections per source address and holds when there are more than n. An element
// goes when its last connection does.
func over(set *nftables.Set, n uint32) []expr.Any {
	return []expr.Any{&expr.Dynset{
		SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD),
		Exprs: []expr.Any{&expr.Connlimit{Count: n, Flags: 1 /* NFT_CONNLIMIT_F_INV: over */}},
	}}
}

// tryNftables asks for the list of tables, which fails where there is no nftables or no right.
func tryNftables() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	return err
}
