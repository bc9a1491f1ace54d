package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Probe asks on dev whether another host uses the IPv4 address a, as RFC 5227
// section 2.1.1 does before an address is used: three ARP probes with no sender
// address, which teach nobody anything. It returns the foreign MAC that answered,
// or nil if none did until ctx or 300 ms ended. It acts in the network namespace
// of the calling thread's process.
func Probe(ctx context.Context, dev string, a netip.Addr) (net.HardwareAddr, error) {
	if !a.Is4() {
		return nil, fmt.Errorf("probe %s: only IPv4 is probed", a)
	}
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", a, dev, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap16(unix.ETH_P_ARP)))
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", a, dev, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ARP), Ifindex: ifi.Index}); err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", a, dev, err)
	}
	wait := unix.NsecToTimeval(int64(probeEvery / 4))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, err
	}
	buf := make([]byte, 256)
	for range probes {
		if _, err := unix.Write(fd, probeFrame(a, ifi.HardwareAddr)); err != nil {
			return nil, fmt.Errorf("probe %s on %s: %w", a, dev, err)
		}
		for end := time.Now().Add(probeEvery); time.Now().Before(end) && ctx.Err() == nil; {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("probe %s on %s: %w", a, dev, err)
			}
			if mac, ip, ok := parseARP(buf[:n]); ok && ip == a && !bytes.Equal(mac, ifi.HardwareAddr) {
				return bytes.Clone(mac), nil
			}
		}
	}
	return nil, nil
}

const (
	probes     = 3
	probeEvery = 100 * time.Millisecond
)

func swap16(v uint16) uint16 { return v<<8 | v>>8 }

// probeFrame asks for a and claims nothing.
func probeFrame(a netip.Addr, mac net.HardwareAddr) []byte {
	b := arpFrame(arpRequest, a, mac)
	clear(b[arpSender+6 : arpSender+10])
	return b
}

// arpSender is where the sender's MAC begins in an Ethernet ARP frame.
const arpSender = 14 + 8

// parseARP returns who says in an Ethernet ARP frame that it has which address;
// false for a frame that is not one, and for a probe.
func parseARP(b []byte) (mac net.HardwareAddr, ip netip.Addr, ok bool) {
	if len(b) < 14+28 || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP ||
		!bytes.Equal(b[14:20], []byte{0, 1, 8, 0, 6, 4}) {
		return nil, netip.Addr{}, false
	}
	ip = netip.AddrFrom4([4]byte(b[arpSender+6 : arpSender+10]))
	return net.HardwareAddr(b[arpSender : arpSender+6]), ip, !ip.IsUnspecified()
}
