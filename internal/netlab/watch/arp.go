package watch

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// The packets are Ethernet and ARP for IPv4, 42 octets; a received one may be
// padded.
const (
	arpLen     = 42
	opRequest  = 1
	opReply    = 2
	etherARP   = 0x0806
	etherIPv4  = 0x0800
	hwEthernet = 1
)

type packet struct {
	op                   uint16
	senderMAC, targetMAC [6]byte
	sender, target       netip.Addr
}

// identity is the sender hardware address of a request: it comes back as the
// answer's target and says which request was answered. It is never the source of
// a frame, so no switch learns it.
func identity(request uint32) (mac [6]byte) {
	mac[0], mac[1] = 0x02, 0x0b
	binary.BigEndian.PutUint32(mac[2:], request)
	return mac
}

func requestOf(mac [6]byte) (uint32, bool) {
	return binary.BigEndian.Uint32(mac[2:]), mac[0] == 0x02 && mac[1] == 0x0b
}

// encodeRequest writes "who has vip, tell from" as a broadcast of the device.
func encodeRequest(b *[arpLen]byte, dev net.HardwareAddr, id [6]byte, from, vip netip.Addr) {
	for i := range 6 {
		b[i] = 0xff
	}
	copy(b[6:12], dev)
	binary.BigEndian.PutUint16(b[12:], etherARP)
	binary.BigEndian.PutUint16(b[14:], hwEthernet)
	binary.BigEndian.PutUint16(b[16:], etherIPv4)
	b[18], b[19] = 6, 4
	binary.BigEndian.PutUint16(b[20:], opRequest)
	copy(b[22:28], id[:])
	ip := from.As4()
	copy(b[28:32], ip[:])
	clear(b[32:38])
	ip = vip.As4()
	copy(b[38:42], ip[:])
}

// decode reads a frame; ok is false if it is no ARP for IPv4 over Ethernet.
func decode(b []byte) (p packet, ok bool) {
	if len(b) < arpLen || binary.BigEndian.Uint16(b[12:]) != etherARP ||
		binary.BigEndian.Uint16(b[14:]) != hwEthernet || binary.BigEndian.Uint16(b[16:]) != etherIPv4 ||
		b[18] != 6 || b[19] != 4 {
		return packet{}, false
	}
	p.op = binary.BigEndian.Uint16(b[20:])
	copy(p.senderMAC[:], b[22:28])
	copy(p.targetMAC[:], b[32:38])
	p.sender = netip.AddrFrom4([4]byte(b[28:32]))
	p.target = netip.AddrFrom4([4]byte(b[38:42]))
	return p, true
}
