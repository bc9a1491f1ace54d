package watch

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// A question by UDP goes to every host at once: the frame is a broadcast, the
// address in it is the VIP. Whoever has the VIP and does not mute it answers, and
// the answer's frame says who it was. A client that asked by unicast would only
// ever hear the one host that its ARP cache names.
const (
	ipLen      = 20
	udpLen     = 8
	payloadLen = 8
	frameLen   = 14 + ipLen + udpLen + payloadLen
	protoUDP   = 17
)

// question is the first half of a payload; the request's number is the second.
const question = "ask "

// encodeQuestion writes a datagram to VIP:port as an Ethernet broadcast.
func encodeQuestion(b *[frameLen]byte, dev net.HardwareAddr, from, to netip.AddrPort, request uint32) {
	for i := range 6 {
		b[i] = 0xff
	}
	copy(b[6:12], dev)
	binary.BigEndian.PutUint16(b[12:], etherIPv4)
	ip := b[14:]
	clear(ip[:ipLen])
	ip[0], ip[8], ip[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], ipLen+udpLen+payloadLen)
	a := from.Addr().As4()
	copy(ip[12:], a[:])
	a = to.Addr().As4()
	copy(ip[16:], a[:])
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipLen]))
	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], udpLen+payloadLen)
	binary.BigEndian.PutUint16(udp[6:], 0) // not summed
	copy(udp[udpLen:], question)
	binary.BigEndian.PutUint32(udp[udpLen+4:], request)
}

// checksum is the one of the Internet, over an even number of octets.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// decodeAnswer reads a frame; ok is false if it does not answer a question that
// from asked to.
func decodeAnswer(b []byte, from, to netip.AddrPort) (request uint32, mac [6]byte, ok bool) {
	if len(b) < frameLen || binary.BigEndian.Uint16(b[12:]) != etherIPv4 || b[14] != 0x45 || b[23] != protoUDP {
		return 0, mac, false
	}
	ip := b[14:]
	udp := ip[ipLen:]
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp))
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:]))
	if src != to || dst != from || string(udp[udpLen:udpLen+4]) != question {
		return 0, mac, false
	}
	copy(mac[:], b[6:12])
	return binary.BigEndian.Uint32(udp[udpLen+4:]), mac, true
}
