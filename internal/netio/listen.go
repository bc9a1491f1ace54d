package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// deviceCheck is how soon a device that appears, or is made anew, is listened on.
const deviceCheck = 2 * time.Second

// Listen implements Network: one socket per link. A link whose device is
// missing is listened on when it appears, unless all are missing, which is an
// error. Port 0 picks a free one, the same on all links.
func (h *host) Listen(port int) (net.Listener, error) {
	m := &merged{results: make(chan accepted), done: make(chan struct{})}
	var missing error
	for _, name := range h.names {
		p := &part{m: m, device: name, port: port}
		err := p.open()
		if err != nil && !errors.Is(err, unix.ENODEV) {
			m.Close()
			return nil, listenError(err, "TCP", name, port)
		}
		m.parts = append(m.parts, p)
		if err != nil {
			missing = err
			continue
		}
		if m.addr == nil {
			m.addr = p.l.Addr().(*net.TCPAddr)
			port = m.addr.Port
		}
	}
	if m.addr == nil {
		return nil, listenError(missing, "TCP", h.names[0], port)
	}
	for _, p := range m.parts {
		p.port = port
		m.running.Go(p.run)
	}
	return m, nil
}

// merged is one net.Listener over the sockets of all links.
type merged struct {
	addr    *net.TCPAddr
	parts   []*part
	results chan accepted
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	mu     sync.Mutex // guards closed and the socket of each part
	closed bool
}

type accepted struct {
	c   net.Conn
	err error
}

// Accept implements net.Listener. An error other than net.ErrClosed concerns one
// connection or passes: wait a little and go on.
func (m *merged) Accept() (net.Conn, error) {
	select {
	case r := <-m.results:
		return r.c, r.err
	case <-m.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: m.addr, Err: net.ErrClosed}
	}
}

// Addr implements net.Listener: any address, and the port.
func (m *merged) Addr() net.Addr { return m.addr }

// Close implements net.Listener.
func (m *merged) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return &net.OpError{Op: "close", Net: "tcp", Addr: m.addr, Err: net.ErrClosed}
	}
	m.closed = true
	close(m.done)
	for _, p := range m.parts {
		if p.l != nil {
			p.l.Close()
		}
	}
	m.mu.Unlock()
	m.running.Wait()
	return nil
}

// part listens on one link.
type part struct {
	m      *merged
	device string
	port   int
	index  int        // of the device when the socket was opened
	at     netip.Addr // what the socket is bound to; invalid = the device
	l      *net.TCPListener
}

// open opens the socket; ENODEV in the error: there is no such device.
func (p *part) open() error {
	dev, err := net.InterfaceByName(p.device)
	if err != nil {
		return errors.Join(err, unix.ENODEV)
	}
	var l net.Listener
	err = bound(p.device, func(control controller, at netip.Addr) (err error) {
		lc := net.ListenConfig{Control: control}
		p.at = at
		l, err = lc.Listen(context.Background(), "tcp4", local(at, p.port))
		return err
	})
	if err != nil {
		return err
	}
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.closed {
		l.Close()
		return net.ErrClosed
	}
	p.index, p.l = dev.Index, l.(*net.TCPListener)
	return nil
}

// run accepts until the listener is closed, and opens the socket anew when the
// device is not the one it was bound to any more.
func (p *part) run() {
	for {
		if p.l == nil && p.open() != nil {
			select {
			case <-p.m.done:
				return
			case <-time.After(deviceCheck):
			}
			continue
		}
		p.l.SetDeadline(time.Now().Add(deviceCheck))
		c, err := p.l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if p.gone() && !p.drop() {
				return
			}
			continue
		}
		if err == nil {
			c = quiet(c)
		}
		select {
		case p.m.results <- accepted{c, err}:
		case <-p.m.done:
			if c != nil {
				c.Close()
			}
			return
		}
	}
}

// gone reports that the socket is bound to what is not there any more.
func (p *part) gone() bool {
	dev, err := net.InterfaceByName(p.device)
	if err != nil || dev.Index != p.index {
		return true
	}
	return p.at.IsValid() && p.at != address(p.device)
}

// drop closes the socket; false: the whole listener is closed.
func (p *part) drop() bool {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.closed {
		return false
	}
	p.l.Close()
	p.l = nil
	return true
}
