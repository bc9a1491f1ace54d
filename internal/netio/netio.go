// Package netio names the sockets a node needs, link by link, so that gossip,
// raft and peer calls run unchanged on the host's network (Host) and on the
// in-memory network of the tests (internal/memnet).
//
// It moves bytes. Who is reachable where is package gossip's business.
package netio

import (
	"context"
	"net"
	"net/netip"
)

// Link is one heartbeat link of this node, in the order of the node file; the
// n-th link of every node is taken to be on the same wire.
type Link struct {
	Name string     // device, such as eth0
	Addr netip.Addr // this node's address on it; invalid while it has none
}

// Network opens sockets on named links. Safe for concurrent use.
type Network interface {
	// Links lists the links with the addresses they have now.
	Links() []Link
	// ListenPacket opens a UDP socket bound to that link and port. It receives
	// only what arrives on the link and sends only through it.
	ListenPacket(link string, port int) (PacketConn, error)
	// Listen opens one TCP listener for the port on every link.
	Listen(port int) (net.Listener, error)
	// Dial opens a TCP connection through that link.
	Dial(ctx context.Context, link string, to netip.AddrPort) (net.Conn, error)
}

// PacketConn is a UDP socket of one link. One reader, any number of writers.
type PacketConn interface {
	ReadFrom(buf []byte) (n int, from netip.AddrPort, err error)
	WriteTo(b []byte, to netip.AddrPort) error
	Close() error
}
