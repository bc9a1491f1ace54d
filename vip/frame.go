package vip

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

var (
	etherBroadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	etherAllNodes  = [6]byte{0x33, 0x33, 0, 0, 0, 1}
	allNodes       = netip.MustParseAddr("ff02::1").As16()
)

const (
	arpRequest, arpReply = 1, 2

	naType     = 136
	naRouter   = 0x80
	naOverride = 0x20
	naTargetLL = 2 // option: target link-layer address
)

// announcement returns the frames that make neighbours send to mac what is for
// a: for IPv4 an ARP request and an ARP reply, because some hosts learn only
// from the one and some only from the other; for IPv6 an unsolicited neighbour
// advertisement with the override flag.
func announcement(a netip.Addr, mac net.HardwareAddr, router bool) [][]byte {
	if len(mac) != 6 {
		return nil
	}
	if a.Is4() {
		return [][]byte{arpFrame(arpRequest, a, mac), arpFrame(arpReply, a, mac)}
	}
	return [][]byte{naFrame(a, mac, router)}
}

// arpFrame has a as its sender and its target.
func arpFrame(op byte, a netip.Addr, mac net.HardwareAddr) []byte {
	ip := a.As4()
	b := append(etherBroadcast[:len(etherBroadcast):len(etherBroadcast)], mac...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, op)
	b = append(b, mac...)
	b = append(b, ip[:]...)
	if op == arpReply {
		b = append(b, mac...)
	} else {
		b = append(b, 0, 0, 0, 0, 0, 0)
	}
	return append(b, ip[:]...)
}

func naFrame(a netip.Addr, mac net.HardwareAddr, router bool) []byte {
	ip := a.As16()
	flags := byte(naOverride)
	if router {
		flags |= naRouter
	}
	icmp := append([]byte{naType, 0, 0, 0, flags, 0, 0, 0}, ip[:]...)
	icmp = append(append(icmp, naTargetLL, 1), mac...)
	binary.BigEndian.PutUint16(icmp[2:], checksum6(ip, allNodes, icmp))

	b := append(etherAllNodes[:len(etherAllNodes):len(etherAllNodes)], mac...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	b = append(append(b, ip[:]...), allNodes[:]...)
	return append(b, icmp...)
}

// checksum6 is ICMPv6's, over the pseudo-header and the message.
func checksum6(src, dst [16]byte, icmp []byte) uint16 {
	var sum uint32
	add := func(b []byte) {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	add(src[:])
	add(dst[:])
	add(icmp)
	sum += uint32(len(icmp)) + unix.IPPROTO_ICMPV6
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
