package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"hanode/vip/internal/nsthread"
)

// message is one request that the kernel acknowledges.
type message = *nl.NetlinkRequest

// put asks for the address on a device, living for that many seconds: never to be a
// source by preference unless it may, without duplicate detection, and marked. flags
// say what if it is there: unix.NLM_F_REPLACE or unix.NLM_F_EXCL.
func put(index int, a Address, life uint32, flags int) message {
	req := addressMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|flags, index, a.onDevice())
	f := make([]byte, 4)
	if a.Addr.Is6() {
		binary.NativeEndian.PutUint32(f, unix.IFA_F_NODAD)
	}
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, f))
	if b := a.broadcast(); b.IsValid() {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, b.AsSlice()))
	}
	if a.Label != "" {
		req.AddData(nl.NewRtAttr(unix.IFA_LABEL, append([]byte(a.Label), 0)))
	}
	c := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: life}}
	if a.Source {
		c.Prefered = life
	}
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, c.Serialize()))
	req.AddData(nl.NewRtAttr(attrProto, []byte{ourProto}))
	return req
}

// bridgeTime is how many seconds the route of bridge lasts, and bridgeMetric puts it
// behind the kernel's own.
const (
	bridgeTime   = 2
	bridgeMetric = 1
)

// bridge asks for a route that delivers to an IPv6 address from now on, for bridgeTime.
// The kernel's own route comes later: RTM_NEWADDR leaves it to a work queue, which waits
// for a processor and for the routing lock (0.07 ms on an idle host, and up to 100 ms
// were seen on a busy one). kind is unix.RTM_NEWROUTE, or unix.RTM_DELROUTE for an end
// before its time. false: IPv4 needs none.
func bridge(kind, index int, a netip.Addr) (message, bool) {
	if !a.Is6() {
		return nil, false
	}
	flags := unix.NLM_F_ACK
	if kind == unix.RTM_NEWROUTE {
		flags |= unix.NLM_F_CREATE // EEXIST: that one lasts anew
	}
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET6, Dst_len: 128, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL,
		Protocol: ourProto, Scope: unix.RT_SCOPE_UNIVERSE,
	}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(bridgeMetric)))
	if kind == unix.RTM_NEWROUTE {
		req.AddData(nl.NewRtAttr(unix.RTA_EXPIRES, nl.Uint32Attr(bridgeTime)))
	}
	return req, true
}

// takeOff asks for an address to go.
func takeOff(index int, a netip.Prefix) message {
	return addressMessage(unix.RTM_DELADDR, 0, index, a)
}

// takeOffAll asks for addresses to go, in order, and then for their bridges, of which most
// are over long since.
func takeOffAll(where ...place) []message {
	out := make([]message, 0, 2*len(where))
	for _, p := range where {
		out = append(out, takeOff(p.index, p.on))
	}
	for _, p := range where {
		if b, ok := bridge(unix.RTM_DELROUTE, p.index, p.on.Addr()); ok {
			out = append(out, b)
		}
	}
	return out
}

// isGone reports an error that means that there is nothing to take off.
func isGone(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV)
}

func addressMessage(kind, flags, index int, p netip.Prefix) message {
	a := p.Addr()
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.AsSlice()))
	return req
}

// batcher writes many messages with one system call. One caller at a time.
type batcher struct {
	fd  int
	buf []byte
}

func newBatcher(t *nsthread.Thread) (*batcher, error) {
	b := &batcher{fd: -1, buf: make([]byte, 64<<10)}
	err := t.Do(func() (err error) {
		b.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		// Answers without the question in them; kernels before 4.3 send it, and it fits.
		_ = unix.SetsockoptInt(b.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
		if err := unix.Bind(b.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: netlinkTimeout})
	})
	if err != nil {
		b.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return b, nil
}

func (b *batcher) close() {
	if b != nil && b.fd >= 0 {
		_ = unix.Close(b.fd)
	}
}

// send sends all, in order, and returns the kernel's answer to each.
func (b *batcher) send(ms []message) []error {
	errs := make([]error, 0, len(ms))
	for part := range slices.Chunk(ms, batch) { // the answers must fit the socket
		errs = append(errs, b.exchange(part)...)
	}
	return errs
}

// exchange is one call and its answers.
func (b *batcher) exchange(ms []message) []error {
	errs := make([]error, len(ms))
	at := make(map[uint32]int, len(ms))
	var out []byte
	for i, m := range ms {
		at[m.Seq] = i
		out = append(out, m.Serialize()...)
	}
	fail := func(err error) []error {
		for _, i := range at { // what was not answered
			errs[i] = err
		}
		return errs
	}
	if err := unix.Sendto(b.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fail(fmt.Errorf("write to netlink: %w", err))
	}
	for len(at) > 0 {
		n, _, err := unix.Recvfrom(b.fd, b.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail(fmt.Errorf("the kernel does not answer: %w", err))
		}
		msgs, err := syscall.ParseNetlinkMessage(b.buf[:n])
		if err != nil {
			return fail(fmt.Errorf("read from netlink: %w", err))
		}
		for _, m := range msgs {
			i, ours := at[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue // an answer to what an earlier send gave up on
			}
			delete(at, m.Header.Seq)
			if no := -int32(binary.NativeEndian.Uint32(m.Data)); no != 0 {
				errs[i] = unix.Errno(no)
			}
		}
	}
	return errs
}
