package memnet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	backlog = 128             // connections that wait for Accept
	synWait = time.Second     // before the first resend of a connection request
	maxWait = 5 * time.Second // longest wait between resends; Linux goes to 120 s
)

// listener takes connections to one port on every link of a host.
type listener struct {
	n    *Net
	h    *Host
	port int
	cond *sync.Cond // on n.mu

	// Guarded by n.mu.
	queue  []*conn
	closed bool
}

// Listen implements netio.Network. Port 0 picks a free one.
func (h *Host) Listen(port int) (net.Listener, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.dead {
		return nil, portError("listen", "tcp", port, net.ErrClosed)
	}
	if port == 0 {
		port = h.ephemeral()
	}
	if h.listeners[port] != nil {
		return nil, portError("listen", "tcp", port, errInUse)
	}
	l := &listener{n: h.n, h: h, port: port, cond: sync.NewCond(&h.n.mu)}
	h.listeners[port] = l
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for {
		switch {
		case l.closed || l.h.dead:
			return nil, portError("accept", "tcp", l.port, net.ErrClosed)
		case len(l.queue) > 0 && !l.h.paused:
			c := l.queue[0]
			l.queue = l.queue[1:]
			return c, nil
		}
		l.cond.Wait()
	}
}

// Close implements net.Listener. Connections nobody accepted are reset.
func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.closed {
		return portError("close", "tcp", l.port, net.ErrClosed)
	}
	l.close()
	return nil
}

func (l *listener) close() {
	l.closed = true
	for _, c := range l.queue {
		c.abort()
	}
	l.queue = nil
	if l.h.listeners[l.port] == l {
		delete(l.h.listeners, l.port)
	}
	l.cond.Broadcast()
}

// Addr implements net.Listener: the address of the first link that has one.
func (l *listener) Addr() net.Addr {
	for _, k := range l.h.Links() {
		if k.Addr.IsValid() {
			return net.TCPAddrFromAddrPort(netip.AddrPortFrom(k.Addr, uint16(l.port)))
		}
	}
	return &net.TCPAddr{Port: l.port}
}

// Dial implements netio.Network. Where nothing answers (cut, off, no such
// address, full backlog) it tries again until ctx ends. A port nobody listens
// on is refused after one round trip.
func (h *Host) Dial(ctx context.Context, link string, to netip.AddrPort) (net.Conn, error) {
	h.n.mu.Lock()
	i, err := h.index(link)
	h.n.mu.Unlock()
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	if err != nil {
		return fail(err)
	}
	wait := synWait
	for {
		trip, sent := h.request(i, to)
		if !sent {
			trip, wait = wait, min(2*wait, maxWait)
		}
		if err := h.sleep(ctx, trip); err != nil {
			return fail(err)
		}
		if !sent {
			continue
		}
		c, again, err := h.connect(i, to)
		switch {
		case err != nil:
			return fail(err)
		case c != nil:
			return c, nil
		}
		if err := h.sleep(ctx, again); err != nil {
			return fail(err)
		}
	}
}

// sleep waits, but not beyond the context or the host.
func (h *Host) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.down:
		return net.ErrClosed
	}
}

// request rolls the round trip of one connection request; false: it got lost.
func (h *Host) request(link int, to netip.AddrPort) (time.Duration, bool) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	dst, v := h.n.findPort(h, link, to)
	if v != passes {
		return 0, false
	}
	if dst.host != h && h.n.loss > 0 {
		for _, rng := range []*flow{h.n.flow(h, link, dst.host), h.n.flow(dst.host, dst.link, h)} {
			if rng.Float64() < h.n.loss {
				return 0, false
			}
		}
	}
	return h.n.delayOf(h, link, dst.host) + h.n.delayOf(dst.host, dst.link, h), true
}

// connect makes both ends if the way is open in both directions and somebody
// listens. Without a connection and without an error: try again after the wait.
func (h *Host) connect(link int, to netip.AddrPort) (*conn, time.Duration, error) {
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.dead {
		return nil, 0, net.ErrClosed
	}
	if h.paused {
		return nil, 10 * time.Millisecond, nil
	}
	own := h.links[link].Addr
	dst, v := n.findPort(h, link, to)
	if v != passes || !own.IsValid() {
		return nil, synWait, nil
	}
	if _, v := n.find(dst.host, dst.link, own); v != passes {
		return nil, synWait, nil
	}
	l := dst.host.listeners[int(to.Port())]
	if l == nil {
		n.stats.Refused++
		return nil, 0, errRefused
	}
	if len(l.queue) >= backlog {
		return nil, synWait, nil
	}
	n.stats.Dialled++
	from := netip.AddrPortFrom(own, uint16(h.ephemeral()))
	a := newConn(h, link, from, to)
	b := newConn(dst.host, dst.link, to, from)
	a.peer, b.peer = b, a
	l.queue = append(l.queue, b)
	l.cond.Signal()
	return a, 0, nil
}
