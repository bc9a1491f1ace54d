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

// tcpConnections are the TCP states but LISTEN and TIME_WAIT: a listener may
// serve other addresses and belongs to its service, the other has no socket.
const tcpConnections = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

type diagRequest [diagReqLen]byte

func (d *diagRequest) Len() int          { return diagReqLen }
func (d *diagRequest) Serialize() []byte { return d[:] }

// destroySockets ends the TCP connections whose local end is a. Closing them
// sends nothing: the guard is closed by then. The client learns from the next
// holder.
func (r *rtnl) destroySockets(a netip.Addr) (n int, err error) {
	families := []byte{unix.AF_INET6} // dual-stack sockets show IPv4 ends as ::ffff:a.b.c.d
	if a.Is4() {
		families = append(families, unix.AF_INET)
	}
	var errs []error
	for _, f := range families {
		ids, err := r.connections(f, a)
		if err != nil {
			return n, fmt.Errorf("list the connections of %s: %w", a, err)
		}
		for _, id := range ids {
			req := r.request(nl.SOCK_DESTROY, unix.NLM_F_ACK)
			d := &diagRequest{f, unix.IPPROTO_TCP}
			binary.NativeEndian.PutUint32(d[4:], tcpConnections)
			copy(d[8:], id[:])
			req.AddData(d)
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
	return n, errors.Join(errs...)
}

func (r *rtnl) connections(family byte, a netip.Addr) ([][diagIDLen]byte, error) {
	req := r.request(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	d := &diagRequest{family, unix.IPPROTO_TCP}
	binary.NativeEndian.PutUint32(d[4:], tcpConnections)
	req.AddData(d)
	var out [][diagIDLen]byte
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		if id, ok := parseDiag(m, a); ok {
			out = append(out, id)
		}
		return true
	})
	return out, err
}

// parseDiag returns the identity of the socket in an inet_diag_msg if its local
// address is a.
func parseDiag(m []byte, a netip.Addr) (id [diagIDLen]byte, ok bool) {
	if len(m) < diagMsgLen {
		return id, false
	}
	var local netip.Addr
	if m[0] == unix.AF_INET {
		local = netip.AddrFrom4([4]byte(m[8:12]))
	} else {
		local = netip.AddrFrom16([16]byte(m[8:24])).Unmap()
	}
	copy(id[:], m[4:4+diagIDLen])
	return id, local == a
}
