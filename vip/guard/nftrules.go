package guard

import (
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is our table, in the netdev family.
const tableName = "hanode"

// metaTimeNS is NFT_META_TIME_NS: the wall clock in nanoseconds.
const metaTimeNS = expr.MetaKey(30)

const (
	reg1   = 1 // first 32 bits of the registers
	reg1b  = 9 // the next 32 bits, for a key of two addresses
	ns, na = 135, 136
)

// schema names everything of one incarnation. The names of chains and sets that
// an older incarnation could still write to carry its nonce, so that its delayed
// transactions fail instead of reaching ours.
type schema struct {
	table               *nftables.Table
	lease, in, out      *nftables.Chain
	tagIn, tagOut       *nftables.Chain // for frames with a VLAN tag in them
	vips4, vips6        *nftables.Set
	open4, open6        *nftables.Set
	self4               *nftables.Set // (v, v): what the sender and target of an announcement look like
	arpIn, arpOut       string        // counters
	ndIn, ndOut         string
	ipIn, ipOut         string
	leaseName, basePost string
}

func newSchema(nonce string) *schema {
	t := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: tableName}
	s := &schema{
		table: t, leaseName: "lease_" + nonce, basePost: "_" + nonce,
		lease: &nftables.Chain{Table: t, Name: "lease_" + nonce},
		in:    &nftables.Chain{Table: t, Name: "guard_in"},
		out:   &nftables.Chain{Table: t, Name: "guard_out"},
		tagIn: &nftables.Chain{Table: t, Name: "guard_in_tagged"}, tagOut: &nftables.Chain{Table: t, Name: "guard_out_tagged"},
		arpIn: "arp_in", arpOut: "arp_out", ndIn: "nd_in", ndOut: "nd_out", ipIn: "ip_in", ipOut: "ip_out",
	}
	set := func(id uint32, name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, ID: id, Name: name + "_" + nonce, KeyType: key}
	}
	s.vips4 = set(1, "vips4", nftables.TypeIPAddr)
	s.vips6 = set(2, "vips6", nftables.TypeIP6Addr)
	s.open4 = set(3, "open4", nftables.TypeIPAddr)
	s.open6 = set(4, "open6", nftables.TypeIP6Addr)
	s.self4 = set(5, "self4", nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr))
	s.self4.Concatenation = true
	return s
}

// create buffers the whole table but for the base chains, with known addresses
// and those of them that are open. The lease chain is empty: closed.
func (s *schema) create(c *nftables.Conn, known map[netip.Addr]bit) error {
	c.AddTable(s.table)
	for _, name := range []string{s.arpIn, s.arpOut, s.ndIn, s.ndOut, s.ipIn, s.ipOut} {
		c.AddObj(&nftables.CounterObj{Table: s.table, Name: name})
	}
	for _, set := range []*nftables.Set{s.vips4, s.vips6, s.open4, s.open6, s.self4} {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	for a, b := range known {
		if err := s.know(c, a); err != nil {
			return err
		}
		if b == bitOpen {
			if err := c.SetAddElements(s.openSet(a), element(a)); err != nil {
				return err
			}
		}
	}
	c.AddChain(s.lease)
	fixed := s.fixed()
	for _, f := range fixed {
		c.AddChain(f.chain)
	}
	for _, f := range fixed {
		for _, r := range f.rules {
			c.AddRule(&nftables.Rule{Table: s.table, Chain: f.chain, Exprs: r})
		}
	}
	return nil
}

func (s *schema) know(c *nftables.Conn, a netip.Addr) error {
	if a.Is4() {
		if err := c.SetAddElements(s.self4, selfElement(a)); err != nil {
			return err
		}
		return c.SetAddElements(s.vips4, element(a))
	}
	return c.SetAddElements(s.vips6, element(a))
}

func (s *schema) forget(c *nftables.Conn, a netip.Addr) error {
	if a.Is4() {
		if err := c.SetDeleteElements(s.self4, selfElement(a)); err != nil {
			return err
		}
		return c.SetDeleteElements(s.vips4, element(a))
	}
	return c.SetDeleteElements(s.vips6, element(a))
}

func (s *schema) openSet(a netip.Addr) *nftables.Set {
	if a.Is4() {
		return s.open4
	}
	return s.open6
}

func element(a netip.Addr) []nftables.SetElement {
	return []nftables.SetElement{{Key: a.AsSlice()}}
}

func selfElement(a netip.Addr) []nftables.SetElement {
	return []nftables.SetElement{{Key: append(a.AsSlice(), a.AsSlice()...)}}
}

// baseName ends in the nonce: a table is inspected by it.
func (s *schema) baseName(index int, in bool) string {
	if in {
		return "in" + strconv.Itoa(index) + s.basePost
	}
	return "out" + strconv.Itoa(index) + s.basePost
}

// base is the chain at one hook of one device. It is named by the device's
// index: a device may be renamed.
func (s *schema) base(dev Device, in bool) (*nftables.Chain, *nftables.Rule) {
	hook, to := nftables.ChainHookEgress, s.out.Name
	if in {
		hook, to = nftables.ChainHookIngress, s.in.Name
	}
	accept := nftables.ChainPolicyAccept
	ch := &nftables.Chain{
		Table: s.table, Name: s.baseName(dev.Index, in), Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFirst, Policy: &accept, Device: dev.Name,
	}
	return ch, &nftables.Rule{Table: s.table, Chain: ch, Exprs: []expr.Any{
		&expr.Verdict{Kind: expr.VerdictJump, Chain: to},
	}}
}

// leaseRule lets pass from wall time from up to, not including, until.
func (s *schema) leaseRule(from, until int64) *nftables.Rule {
	be := func(ns int64) []byte { return binaryutil.BigEndian.PutUint64(uint64(ns)) }
	return &nftables.Rule{Table: s.table, Chain: s.lease, Exprs: []expr.Any{
		&expr.Meta{Key: metaTimeNS, Register: reg1},
		&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: 8, Size: 8},
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: be(from)},
		&expr.Cmp{Op: expr.CmpOpLt, Register: reg1, Data: be(until)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}}
}

// gate makes the two rules for one place an address can stand in: an open
// address passes if the lease chain says so, a known one is dropped.
func (s *schema) gate(match []expr.Any, off, size uint32, counter string) [][]expr.Any {
	open, vips := s.open4, s.vips4
	if size == 16 {
		open, vips = s.open6, s.vips6
	}
	with := func(set *nftables.Set, then ...expr.Any) []expr.Any {
		r := append(append([]expr.Any{}, match...), load(off, size, reg1), lookup(set))
		return append(r, then...)
	}
	return [][]expr.Any{
		with(open, &expr.Verdict{Kind: expr.VerdictJump, Chain: s.lease.Name}),
		with(vips, count(counter), &expr.Verdict{Kind: expr.VerdictDrop}),
	}
}

// layout is where in a frame the network layer begins, counted from where nftables
// takes it to begin, and how a rule tells which protocol it is.
type layout struct {
	off uint32
	is  func(proto uint16) []expr.Any
}

var (
	// plain frames have no tag, or one that the device took off or puts on.
	plain = layout{0, protocol}
	// taggedIn frames have a second tag, where the network layer is taken to begin.
	taggedIn = layout{4, func(p uint16) []expr.Any {
		return []expr.Any{load(2, 2, reg1), equals(binaryutil.BigEndian.PutUint16(p)...)}
	}}
	// taggedOut frames have one as well, but the network layer is where it is.
	taggedOut = layout{0, func(p uint16) []expr.Any {
		version := &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{0xf0}, Xor: []byte{0}}
		switch p {
		case unix.ETH_P_IP:
			return []expr.Any{load(0, 1, reg1), version, equals(0x40)}
		case unix.ETH_P_IPV6:
			return []expr.Any{load(0, 1, reg1), version, equals(0x60)}
		}
		return []expr.Any{load(0, 6, reg1), equals(0, 1, 8, 0, 6, 4)} // ARP for IPv4 on Ethernet
	}}
)

// ruled is a chain with the rules that it has at all times.
type ruled struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

func (s *schema) fixed() []ruled {
	return []ruled{
		{s.tagIn, s.inRules(taggedIn)},
		{s.tagOut, s.outRules(taggedOut)},
		{s.in, append(divert(s.tagIn), s.inRules(plain)...)},
		{s.out, append(divert(s.tagOut), s.outRules(plain)...)},
	}
}

// divert sends frames with a tag in them to a chain.
func divert(to *nftables.Chain) (rules [][]expr.Any) {
	for _, p := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		rules = append(rules, append(protocol(p), &expr.Verdict{Kind: expr.VerdictJump, Chain: to.Name}))
	}
	return rules
}

func (s *schema) inRules(l layout) [][]expr.Any {
	arp := l.is(unix.ETH_P_ARP)
	announcement := append(append([]expr.Any{}, arp...),
		load(l.off+14, 4, reg1), load(l.off+24, 4, reg1b), lookup(s.self4), &expr.Verdict{Kind: expr.VerdictAccept})
	rules := [][]expr.Any{announcement}
	rules = append(rules, s.gate(arp, l.off+24, 4, s.arpIn)...)
	rules = append(rules, s.gate(l.is(unix.ETH_P_IP), l.off+16, 4, s.ipIn)...)
	rules = append(rules, s.gate(l.icmp6(ns), l.off+48, 16, s.ndIn)...)
	return append(rules, s.gate(l.is(unix.ETH_P_IPV6), l.off+24, 16, s.ipIn)...)
}

func (s *schema) outRules(l layout) [][]expr.Any {
	rules := s.gate(l.is(unix.ETH_P_ARP), l.off+14, 4, s.arpOut)
	rules = append(rules, s.gate(l.is(unix.ETH_P_IP), l.off+12, 4, s.ipOut)...)
	rules = append(rules, s.gate(l.icmp6(na), l.off+48, 16, s.ndOut)...)
	dad := append(l.icmp6(ns), load(l.off+8, 16, reg1), equals(make([]byte, 16)...))
	rules = append(rules, s.gate(dad, l.off+48, 16, s.ndOut)...)
	return append(rules, s.gate(l.is(unix.ETH_P_IPV6), l.off+8, 16, s.ipOut)...)
}

func (l layout) icmp6(typ byte) []expr.Any {
	return append(l.is(unix.ETH_P_IPV6),
		load(l.off+6, 1, reg1), equals(unix.IPPROTO_ICMPV6), load(l.off+40, 1, reg1), equals(typ))
}

func protocol(p uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg1},
		equals(binaryutil.BigEndian.PutUint16(p)...),
	}
}

func equals(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: b} }

func load(off, size, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: size}
}

func lookup(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID}
}

func count(name string) expr.Any {
	return &expr.Objref{Type: int(nftables.ObjTypeCounter), Name: name}
}
