package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what a UDP socket holds, in bytes, while this process does
// not run.
const receiveBuffer = 1 << 20

// Host returns this host's network. links are the names of the heartbeat
// devices, first is primary; a device may be missing now and appear later.
// IPv4 only.
//
// Sockets are bound to their device. Where the kernel does not let this process
// do so (before Linux 5.7, without CAP_NET_RAW) they are bound to the address of
// the device instead, which then must have one.
func Host(links []string) (Network, error) {
	if len(links) == 0 {
		return nil, errors.New("no links; name at least one network device")
	}
	seen := map[string]bool{}
	for _, l := range links {
		if l == "" || len(l) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("link %q cannot be a device; allowed: names of 1 to %d characters", l, unix.IFNAMSIZ-1)
		}
		if seen[l] {
			return nil, fmt.Errorf("link %q is named twice; name each device once", l)
		}
		seen[l] = true
	}
	return &host{names: append([]string(nil), links...)}, nil
}

type host struct{ names []string }

// Links implements Network. The address is the first global IPv4 one of the
// device that is not a single-host (/32) one, as VIPs are; on lo the first.
func (h *host) Links() []Link {
	out := make([]Link, 0, len(h.names))
	for _, name := range h.names {
		out = append(out, Link{Name: name, Addr: address(name)})
	}
	return out
}

func address(device string) netip.Addr {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return netip.Addr{}
	}
	addrs, err := dev.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ip = ip.Unmap()
		if !ok || !ip.Is4() {
			continue
		}
		ones, bits := n.Mask.Size()
		single := bits-ones == 0
		if ip.IsLoopback() && dev.Flags&net.FlagLoopback != 0 || ip.IsGlobalUnicast() && !single {
			return ip
		}
	}
	return netip.Addr{}
}

// has reports whether a link of that name was given.
func (h *host) has(link string) error {
	for _, n := range h.names {
		if n == link {
			return nil
		}
	}
	return fmt.Errorf("%q is not one of this node's links %v", link, h.names)
}

// ListenPacket implements Network. If the device is taken away and made anew the
// socket hears nothing more and its writes fail: close it and open another.
func (h *host) ListenPacket(link string, port int) (PacketConn, error) {
	if err := h.has(link); err != nil {
		return nil, err
	}
	var c net.PacketConn
	err := bound(link, func(control controller, at netip.Addr) (err error) {
		lc := net.ListenConfig{Control: control}
		c, err = lc.ListenPacket(context.Background(), "udp4", local(at, port))
		return err
	})
	if err != nil {
		return nil, listenError(err, "UDP", link, port)
	}
	u := c.(*net.UDPConn)
	growBuffer(u)
	conn, err := newUDPConn(u)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return conn, nil
}

// growBuffer asks for a larger receive buffer, beyond the system's limit if we
// may. Best effort: the default still works.
func growBuffer(u *net.UDPConn) {
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	forced := false
	raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) == nil
	})
	if !forced {
		u.SetReadBuffer(receiveBuffer)
	}
}

// Dial implements Network. The connection comes from the link's own address.
func (h *host) Dial(ctx context.Context, link string, to netip.AddrPort) (net.Conn, error) {
	if err := h.has(link); err != nil {
		return nil, err
	}
	own := address(link)
	var c net.Conn
	err := bound(link, func(control controller, at netip.Addr) (err error) {
		d := net.Dialer{Control: control}
		if own.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0))
		}
		c, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("through %s: %w", link, err)
	}
	return quiet(c), nil
}

type controller = func(network, address string, c syscall.RawConn) error

// bound opens a socket bound to the device or, where that is not permitted, to
// its address. open gets the address to bind to, invalid for any.
func bound(device string, open func(control controller, at netip.Addr) error) error {
	refused := false
	err := open(func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctl := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); ctl != nil {
			return ctl
		}
		refused = errors.Is(err, unix.EPERM)
		return os.NewSyscallError("bind to device "+device, err)
	}, netip.Addr{})
	if !refused {
		return err
	}
	at := address(device)
	if !at.IsValid() {
		return fmt.Errorf("this process may not bind to devices and %s has no address to bind to instead: %w", device, err)
	}
	return open(nil, at)
}

// local renders where to bind; an invalid address means any.
func local(at netip.Addr, port int) string {
	if !at.IsValid() {
		at = netip.IPv4Unspecified()
	}
	return net.JoinHostPort(at.String(), fmt.Sprint(port))
}

func listenError(err error, proto, link string, port int) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%s port %d on %s is taken by another program; find it with `ss -lnp 'sport = :%d'` and stop it, or set another port for every node: %w",
			proto, port, link, port, err)
	}
	return fmt.Errorf("listen on %s port %d of %s: %w", proto, port, link, err)
}
