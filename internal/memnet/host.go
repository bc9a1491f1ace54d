package memnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"hanode/internal/netio"
)

// Host is one powered-on life of a host. It implements netio.Network.
type Host struct {
	n    *Net
	name string
	down chan struct{} // closed when the host is off

	// Guarded by n.mu.
	links     []netio.Link
	dead      bool
	paused    bool
	nextPort  int
	held      []func() // datagrams a paused host wants to send
	packets   map[socket]*packetConn
	listeners map[int]*listener
	conns     map[*conn]bool // open, or closed with something still to deliver
}

// socket is a port of one link.
type socket struct{ link, port int }

var _ netio.Network = (*Host)(nil)

// Name returns the name given to Net.Host.
func (h *Host) Name() string { return h.name }

// Links implements netio.Network.
func (h *Host) Links() []netio.Link {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	return slices.Clone(h.links)
}

// SetAddr gives a link another address, as DHCP may; an invalid one takes it
// away. Streams of the old address stall for good.
func (h *Host) SetAddr(link string, addr netip.Addr) error {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	i, err := h.index(link)
	if err != nil {
		return err
	}
	if p := h.n.addrs[h.links[i].Addr]; p.host == h {
		delete(h.n.addrs, h.links[i].Addr)
	}
	h.links[i].Addr = addr
	if addr.IsValid() && !h.dead {
		h.n.addrs[addr] = place{h, i}
	}
	return nil
}

// Kill closes every socket of the host, as the kernel does for a process that
// died: peers see it. The host stays on; the next process may use it.
func (h *Host) Kill() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	for _, l := range h.listeners {
		l.close()
	}
	for _, p := range h.packets {
		p.close()
	}
	for c := range h.conns {
		c.close()
	}
}

// index finds a link by name. Holds n.mu.
func (h *Host) index(link string) (int, error) {
	for i, l := range h.links {
		if l.Name == link {
			return i, nil
		}
	}
	return 0, fmt.Errorf("host %s has no link %q", h.name, link)
}

// ephemeral picks a port that no socket of the host uses. Holds n.mu.
func (h *Host) ephemeral() int {
	for {
		h.nextPort++
		if h.nextPort > 60999 {
			h.nextPort = 32768
		}
		used := h.listeners[h.nextPort] != nil
		for i := range h.links {
			used = used || h.packets[socket{i, h.nextPort}] != nil
		}
		if !used {
			return h.nextPort
		}
	}
}

// turnOff is the power cut. Holds n.mu.
func (h *Host) turnOff() {
	if h.dead {
		return
	}
	h.dead, h.paused, h.held = true, false, nil
	close(h.down)
	h.wake()
	for c := range h.conns {
		c.rdl.set(c, noTime)
		c.wdl.set(c, noTime)
		if c.backoff > 0 || h.n.closed {
			c.drop() // nobody resends for a dead host
		}
	}
	clear(h.packets)
	clear(h.listeners)
	clear(h.conns)
}

// wake makes every blocked call of the host look again. Holds n.mu.
func (h *Host) wake() {
	for _, p := range h.packets {
		p.cond.Broadcast()
	}
	for _, l := range h.listeners {
		l.cond.Broadcast()
	}
	for c := range h.conns {
		c.cond.Broadcast()
	}
}

func portError(op, network string, port int, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: &net.TCPAddr{Port: port}, Err: err}
}

var (
	errInUse   = errors.Join(errors.New("the port is in use on this host"), syscall.EADDRINUSE)
	errRefused = fmt.Errorf("connect: %w", syscall.ECONNREFUSED)
	errReset   = fmt.Errorf("connection reset by peer: %w", syscall.ECONNRESET)
)
