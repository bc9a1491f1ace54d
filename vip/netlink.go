package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hanode/vip/internal/nsthread"
)

const (
	// attrProto is IFA_PROTO, Linux 5.18; older kernels ignore it.
	attrProto = 11
	// ourProto marks an address as ours. Below 4 is the kernel's.
	ourProto = 0x68
	// netlinkTimeout bounds one answer; the kernel answers in microseconds
	// unless another process holds the routing lock.
	netlinkTimeout = 10
)

// rtnl speaks rtnetlink and inet_diag in one namespace. Safe for concurrent use.
type rtnl struct {
	handle  *netlink.Handle          // links
	sockets map[int]*nl.SocketHandle // addresses and sockets: the library has no IFA_PROTO, no destroy by address
}

func openRTNL(t *nsthread.Thread) (*rtnl, error) {
	r := &rtnl{sockets: map[int]*nl.SocketHandle{}}
	err := t.Do(func() (err error) {
		if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		for _, proto := range []int{unix.NETLINK_ROUTE, unix.NETLINK_INET_DIAG} {
			s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), proto)
			if err != nil {
				return err
			}
			r.sockets[proto] = &nl.SocketHandle{Socket: s}
			if err := s.SetReceiveTimeout(&unix.Timeval{Sec: netlinkTimeout}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return r, nil
}

func (r *rtnl) close() {
	if r.handle != nil {
		r.handle.Close()
	}
	for _, s := range r.sockets {
		s.Close()
	}
}

func (r *rtnl) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = r.sockets
	return req
}

// links lists the devices.
func (r *rtnl) links() (devices, error) {
	list, err := r.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	ds := make(devices, len(list))
	for _, l := range list {
		at := l.Attrs()
		ds[at.Index] = device{
			index: at.Index, master: at.MasterIndex, name: at.Name, kind: l.Type(), mac: at.HardwareAddr,
			ethernet: at.EncapType == "ether",
			loopback: at.Flags&net.FlagLoopback != 0,
			admin:    at.Flags&net.FlagUp != 0,
			up:       at.Flags&net.FlagUp != 0 && at.RawFlags&unix.IFF_LOWER_UP != 0,
		}
	}
	return ds, nil
}

// addresses lists all addresses of both families.
func (r *rtnl) addresses() ([]assigned, error) {
	var out []assigned
	for try := 0; ; try++ {
		out = out[:0]
		req := r.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, func(m []byte) bool {
			if a, ok := parseAddress(m); ok {
				out = append(out, a)
			}
			return true
		})
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 5 {
			continue // it changed meanwhile: look again
		}
		if err != nil {
			return nil, fmt.Errorf("list the addresses: %w", err)
		}
		return out, nil
	}
}

// networks are the addresses of the host, and what routes say of the links of its devices
// where one of as names no device and no address tells.
func (r *rtnl) networks(as ...Address) ([]assigned, error) {
	have, err := r.addresses()
	if err != nil {
		return nil, err
	}
	return withRoutes(have, as, r.handle.RouteListFiltered)
}

// withRoutes adds to have what routes say, by family, if an address of as needs it.
func withRoutes(have []assigned, as []Address, list func(int, *netlink.Route, uint64) ([]netlink.Route, error)) ([]assigned, error) {
	out := have
	asked := map[int]bool{}
	for _, a := range as {
		family := familyOf(a.Addr)
		if a.Dev != "" || asked[family] || slices.ContainsFunc(have, func(h assigned) bool { return !h.prefix.IsSingleIP() && h.prefix.Masked().Contains(a.Addr) }) {
			continue
		}
		asked[family] = true
		routes, err := list(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, x := range routes {
			if p, ok := onLink(x); ok {
				out = append(out, assigned{index: x.LinkIndex, prefix: p, route: true})
			}
		}
	}
	return out, nil
}

// onLink is the network that a route says is on its device's link; false = it is none
// such route, or a default.
func onLink(x netlink.Route) (netip.Prefix, bool) {
	if x.Dst == nil || x.Gw != nil || x.Via != nil || len(x.MultiPath) > 0 || x.Type != unix.RTN_UNICAST || x.Protocol == ourProto {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(x.Dst.IP)
	bits, _ := x.Dst.Mask.Size()
	p := netip.PrefixFrom(a.Unmap(), bits)
	return p, ok && p.IsValid() && bits > 0 && !p.IsSingleIP()
}

// parseAddress reads one RTM_NEWADDR body. A message it cannot make sense of is
// not ours.
func parseAddress(m []byte) (assigned, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return assigned{}, false
	}
	bits := int(m[1])
	a := assigned{index: int(binary.NativeEndian.Uint32(m[4:]))}
	var addr, local netip.Addr
	for kind, value := range attributes(m[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case attrProto:
			a.marked = len(value) == 1 && value[0] == ourProto
		}
	}
	if local.IsValid() { // with a peer, IFA_ADDRESS is the peer's
		addr = local
	}
	if !addr.IsValid() || bits > addr.BitLen() {
		return assigned{}, false
	}
	a.prefix = netip.PrefixFrom(addr, bits)
	return a, true
}

// attributes walks netlink attributes. It ends at the first that does not fit;
// the library's own walk panics where the last one lacks its padding.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// isUp reports whether a device is there and up, as of now.
func (r *rtnl) isUp(index int) bool {
	l, err := r.handle.LinkByIndex(index)
	return err == nil && l.Attrs().Flags&net.FlagUp != 0
}
