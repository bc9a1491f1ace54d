package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An inet_diag_req_v2 is 8 bytes and the 48 of an inet_diag_sockid; an
// inet_diag_msg is 4 bytes, the same sockid, and 20 more.
const (
	diagReqLen = 56
	diagMsgLen = 72
	diagIDLen  = 48
)

// What is ended are connections. A TCP listener, or a UDP socket that is connected to
// nobody, may serve other addresses, and belongs to its service; TIME_WAIT has no socket.
const (
	tcpConnections = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11
	udpConnections = 1 << 1
)

// connecting are the protocols with connections, and the states in which they are ones.
var connecting = [...]struct {
	proto  byte
	states uint32
}{{unix.IPPROTO_TCP, tcpConnections}, {unix.IPPROTO_UDP, udpConnections}}

type diagRequest [diagReqLen]byte

func (d *diagRequest) Len() int          { return diagReqLen }
func (d *diagRequest) Serialize() []byte { return d[:] }

// socket is one that is to end.
type socket struct {
	family, proto byte
	states        uint32
	id            [diagIDLen]byte
}

func (s socket) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	d := &diagRequest{s.family, s.proto}
	binary.NativeEndian.PutUint32(d[4:], s.states)
	copy(d[8:], s.id[:])
	req.AddData(d)
	return req
}

// destroySockets ends the connections whose local end is one of the addresses. Closing
// them sends nothing: the guard is closed by then. The client learns from the next
// holder.
func (r *rtnl) destroySockets(gone map[netip.Addr]bool) (n int, err error) {
	var errs []error
	for _, c := range connecting {
		// IPv6 sockets of both families show IPv4 ends as ::ffff:a.b.c.d.
		for _, family := range []byte{unix.AF_INET6, unix.AF_INET} {
			list, err := r.connections(socket{family: family, proto: c.proto, states: c.states}, gone)
			if errors.Is(err, unix.ENOENT) {
				continue // this kernel lists no sockets of the protocol
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("list the connections of released addresses: %w", err))
			}
			for _, s := range list {
				req := s.request(nl.SOCK_DESTROY, unix.NLM_F_ACK)
				req.Sockets = r.sockets
				_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
				switch {
				case err == nil:
					n++
				case errors.Is(err, unix.ENOENT): // ended by itself
				default:
					errs = append(errs, err)
				}
			}
		}
	}
	return n, errors.Join(errs...)
}

// connections lists the sockets like s whose local end is one of the addresses.
func (r *rtnl) connections(s socket, gone map[netip.Addr]bool) (list []socket, err error) {
	req := s.request(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.Sockets = r.sockets
	err = req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		if local, id, ok := parseDiag(m); ok && gone[local] {
			found := s
			found.id = id
			list = append(list, found)
		}
		return true
	})
	return list, err
}

// parseDiag returns the local address and the identity of the socket in an
// inet_diag_msg.
func parseDiag(m []byte) (local netip.Addr, id [diagIDLen]byte, ok bool) {
	if len(m) < diagMsgLen {
		return local, id, false
	}
	if m[0] == unix.AF_INET {
		local = netip.AddrFrom4([4]byte(m[8:12]))
	} else {
		local = netip.AddrFrom16([16]byte(m[8:24])).Unmap()
	}
	return local, [diagIDLen]byte(m[4:]), true
}
