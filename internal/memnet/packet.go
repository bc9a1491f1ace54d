package memnet

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"hanode/internal/netio"
)

const maxDatagram = 65507 // what UDP over IPv4 carries

// packetConn is a UDP socket of one link.
type packetConn struct {
	n    *Net
	h    *Host
	at   socket
	cond *sync.Cond // on n.mu; readers wait here

	// Guarded by n.mu.
	queue  []datagram
	closed bool
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// ListenPacket implements netio.Network. Port 0 picks a free one.
func (h *Host) ListenPacket(link string, port int) (netio.PacketConn, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	i, err := h.index(link)
	if err != nil {
		return nil, err
	}
	if h.dead {
		return nil, portError("listen", "udp", port, net.ErrClosed)
	}
	if port == 0 {
		port = h.ephemeral()
	}
	at := socket{i, port}
	if h.packets[at] != nil {
		return nil, portError("listen", "udp", port, errInUse)
	}
	p := &packetConn{n: h.n, h: h, at: at, cond: sync.NewCond(&h.n.mu)}
	h.packets[at] = p
	return p, nil
}

// ReadFrom implements netio.PacketConn. What does not fit into buf is cut off.
func (p *packetConn) ReadFrom(buf []byte) (int, netip.AddrPort, error) {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	for {
		switch {
		case p.closed || p.h.dead:
			return 0, netip.AddrPort{}, &net.OpError{Op: "read", Net: "udp", Err: net.ErrClosed}
		case len(p.queue) > 0 && !p.h.paused:
			d := p.queue[0]
			p.queue[0] = datagram{}
			p.queue = p.queue[1:]
			return copy(buf, d.data), d.from, nil
		}
		p.cond.Wait()
	}
}

// WriteTo implements netio.PacketConn. It never blocks; a datagram that gets
// lost is no error.
func (p *packetConn) WriteTo(b []byte, to netip.AddrPort) error {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if p.closed || p.h.dead {
		return &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}
	}
	if len(b) > maxDatagram {
		return &net.OpError{Op: "write", Net: "udp", Err: syscall.EMSGSIZE}
	}
	p.n.stats.Sent++
	d := datagram{
		data: append([]byte(nil), b...),
		from: netip.AddrPortFrom(p.h.links[p.at.link].Addr, uint16(p.at.port)),
	}
	switch {
	case !p.h.paused:
		p.n.send(p.h, p.at.link, d, to)
	case len(p.h.held) < socketPackets:
		p.h.held = append(p.h.held, func() { p.n.send(p.h, p.at.link, d, to) })
	default:
		p.n.stats.Overflow++
	}
	return nil
}

// Close implements netio.PacketConn.
func (p *packetConn) Close() error {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	p.close()
	return nil
}

func (p *packetConn) close() {
	p.closed, p.queue = true, nil
	if p.h.packets[p.at] == p {
		delete(p.h.packets, p.at)
	}
	p.cond.Broadcast()
}

// transmit puts one datagram on the wire. Cuts are judged here, so what is on
// the wire when a cut begins still arrives. Holds n.mu.
func (n *Net) transmit(h *Host, link int, d datagram, to netip.AddrPort) {
	dst, v := n.find(h, link, to.Addr())
	switch v {
	case isCut:
		n.stats.Cut++
		return
	case isOff:
		n.stats.Off++
		return
	}
	if dst.host == h {
		time.AfterFunc(loopDelay, func() { n.arrive(d, to) })
		return
	}
	if n.drop != nil && n.drop(h.name, dst.host.name, d.data) {
		n.stats.Cut++
		return
	}
	f := n.flow(h, link, dst.host)
	if n.loss > 0 && f.Float64() < n.loss {
		n.stats.Lost++
		return
	}
	copies := 1
	if n.dup > 0 && f.Float64() < n.dup {
		n.stats.Duplicated++
		copies++
	}
	for range copies {
		wait := max(0, n.delay(f.Rand))
		if n.late > 0 && f.Float64() < n.late {
			wait += time.Duration(f.Float64() * float64(n.lateBy))
		}
		due := time.Now().Add(wait)
		if due.Before(f.last) {
			n.stats.Overtook++
		} else {
			f.last = due
		}
		time.AfterFunc(wait, func() { n.arrive(d, to) })
	}
}

// broadcast reaches every host on the link, the sender too, as on a host's socket.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// send is transmit to one, or to everybody. Holds n.mu.
func (n *Net) send(h *Host, link int, d datagram, to netip.AddrPort) {
	if to.Addr() != broadcast {
		n.transmit(h, link, d, to)
		return
	}
	var all []netip.Addr
	for a, p := range n.addrs {
		if p.link == link {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare) // a seed throws the dice in this order
	for _, a := range all {
		n.transmit(h, link, d, netip.AddrPortFrom(a, to.Port()))
	}
}

// arrive hands a datagram to whoever has the address by now.
func (n *Net) arrive(d datagram, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	dst, ok := n.addrs[to.Addr()]
	if !ok || dst.host.dead {
		n.stats.Off++
		return
	}
	p := dst.host.packets[socket{dst.link, int(to.Port())}]
	switch {
	case p == nil:
		n.stats.NoSocket++
	case len(p.queue) >= socketPackets:
		n.stats.Overflow++
	default:
		n.stats.Delivered++
		p.queue = append(p.queue, d)
		p.cond.Signal()
	}
}
