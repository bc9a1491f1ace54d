package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// The ICMP types of an echo and its reply.
const (
	echo4, reply4 = 8, 0
	echo6, reply6 = 128, 129
)

// icmpEcho asks a host, by name or address, whether it is there; nil = it answered
// before ctx ended. It needs a raw socket.
func icmpEcho(ctx context.Context, host string) error {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	to := addrs[0].Unmap()
	network, ask, want := "ip4:icmp", byte(echo4), byte(reply4)
	if to.Is6() {
		network, ask, want = "ip6:ipv6-icmp", echo6, reply6
	}
	conn, err := net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	if err != nil {
		return fmt.Errorf("ping %s: %w", host, err)
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	b := echo(ask, rand.Uint32())
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("ping %s: %w", host, err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromIP(buf) // without the header, unlike Read
		if err != nil {
			return fmt.Errorf("ping %s: %w", host, err)
		}
		if answers(buf[:n], to, want, b[4:8]) {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("ping %s: no answer", host))
		}
	}
}

// echo is an echo request; id is its identifier and sequence number.
func echo(kind byte, id uint32) []byte {
	b := make([]byte, 8)
	b[0] = kind
	binary.BigEndian.PutUint32(b[4:], id)
	if kind == echo4 { // the kernel does it for IPv6
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// answers reports whether a packet is the reply to the echo of that identifier.
func answers(b []byte, from netip.Addr, want byte, id []byte) bool {
	return from.IsValid() && len(b) >= 8 && b[0] == want && string(b[4:8]) == string(id)
}

// checksum is the Internet checksum of b, whose length is even.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
