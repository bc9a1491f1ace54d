package vip

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// claim is a frame in which somebody says that an address is his.
type claim struct {
	addr netip.Addr
	mac  [6]byte
}

func (c claim) hw() net.HardwareAddr { return c.mac[:] }

const (
	etherLen = 14
	ip6Len   = 40
	naLen    = 24 // without options
)

// parseClaim reads an Ethernet frame: an ARP packet with a sender address, or a
// neighbour advertisement. false: it claims nothing. What is tagged is not looked at:
// the device of the tag gets it without.
func parseClaim(b []byte) (claim, bool) {
	if len(b) < etherLen {
		return claim{}, false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		mac, ip, ok := parseARP(b)
		if !ok {
			return claim{}, false
		}
		return claim{ip, [6]byte(mac)}, true
	case unix.ETH_P_IPV6:
		return parseNA(b)
	}
	return claim{}, false
}

// parseNA reads a neighbour advertisement: who has the target is its link-layer
// option, or the sender of the frame.
func parseNA(b []byte) (claim, bool) {
	if len(b) < etherLen+ip6Len+naLen || b[etherLen]>>4 != 6 {
		return claim{}, false
	}
	ip := b[etherLen:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	icmp := ip[ip6Len:]
	// 255 hops: no router has passed it on, so it is from this link.
	if ip[6] != unix.IPPROTO_ICMPV6 || ip[7] != 255 || size < naLen || size > len(icmp) || icmp[0] != naType || icmp[1] != 0 {
		return claim{}, false
	}
	icmp = icmp[:size]
	if checksum6([16]byte(ip[8:24]), [16]byte(ip[24:40]), icmp) != 0 {
		return claim{}, false
	}
	c := claim{netip.AddrFrom16([16]byte(icmp[8:24])), [6]byte(b[6:12])}
	for o := icmp[naLen:]; len(o) >= 8; {
		n := int(o[1]) * 8
		if n == 0 || n > len(o) {
			return claim{}, false
		}
		if o[0] == naTargetLL {
			c.mac = [6]byte(o[2:8])
		}
		o = o[n:]
	}
	return c, !c.addr.Is4In6() && !c.addr.IsMulticast() && !c.addr.IsUnspecified()
}

// question asks who has a, from a device with this MAC address, and claims nothing: an
// ARP probe, or a neighbour solicitation from the device's link-local address, which
// own is (without one, as duplicate detection asks).
func question(a netip.Addr, mac net.HardwareAddr, own netip.Addr) []byte {
	if a.Is4() {
		return probeFrame(a, mac)
	}
	to := a.As16()
	group := [16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: to[13], 14: to[14], 15: to[15]}
	icmp := append([]byte{nsType, 0, 0, 0, 0, 0, 0, 0}, to[:]...)
	src := [16]byte{}
	if own.Is6() {
		src = own.As16()
		icmp = append(append(icmp, nsSourceLL, 1), mac...)
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum6(src, group, icmp))
	b := append([]byte{0x33, 0x33, 0xff, to[13], to[14], to[15]}, mac...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	return append(append(append(b, src[:]...), group[:]...), icmp...)
}

const (
	nsType     = 135
	nsSourceLL = 1 // option: source link-layer address
)
