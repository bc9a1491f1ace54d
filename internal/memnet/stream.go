package memnet

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	window     = 256 << 10              // bytes written and not yet read by the peer
	maxSegment = 64 << 10               // bytes that travel together
	resendWait = 200 * time.Millisecond // first resend of a segment, then doubling to maxWait
	lingerFor  = 100 * time.Second      // how long a closed end still tries to deliver
)

var noTime time.Time

// conn is one end of a stream. All fields below cond are guarded by n.mu.
type conn struct {
	n             *Net
	host          *Host
	link          int // of host
	local, remote netip.AddrPort
	peer          *conn
	cond          *sync.Cond // on n.mu

	in       bytes.Buffer // arrived, not yet read
	eof      bool         // the peer's end arrived
	reset    bool         // the connection is broken
	closed   bool
	closedAt time.Time
	rdl, wdl deadline

	out     []segment // written, not yet arrived, in order
	unread  int       // bytes written here that the peer has not read
	lastDue time.Time // of the newest segment; none overtakes another
	backoff time.Duration
	timer   *time.Timer // runs when the first of out is due
}

type segment struct {
	data []byte
	due  time.Time
	fin  bool // the sender closed
	rst  bool // the sender broke the connection
}

func newConn(h *Host, link int, local, remote netip.AddrPort) *conn {
	c := &conn{n: h.n, host: h, link: link, local: local, remote: remote, cond: sync.NewCond(&h.n.mu)}
	h.conns[c] = true
	return c
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		switch {
		case c.closed || c.host.dead:
			return 0, c.fail("read", net.ErrClosed)
		case c.rdl.passed():
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case c.host.paused: // a hung process reads nothing
		case len(b) == 0:
			return 0, nil
		case c.in.Len() > 0:
			k, _ := c.in.Read(b)
			c.peer.unread -= k
			c.peer.cond.Broadcast()
			return k, nil
		case c.reset:
			return 0, c.fail("read", errReset)
		case c.eof:
			return 0, io.EOF
		}
		c.cond.Wait()
	}
}

// Write implements net.Conn. It blocks while the window is full.
func (c *conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	done := 0
	for {
		switch {
		case done > 0 && done == len(b):
			return done, nil
		case c.closed || c.host.dead:
			return done, c.fail("write", net.ErrClosed)
		case c.wdl.passed():
			return done, c.fail("write", os.ErrDeadlineExceeded)
		case c.reset:
			return done, c.fail("write", syscall.EPIPE)
		case len(b) == 0:
			return 0, nil
		case c.unread < window:
			k := min(len(b)-done, window-c.unread, maxSegment)
			c.send(segment{data: append([]byte(nil), b[done:done+k]...)})
			done += k
			continue
		}
		c.cond.Wait()
	}
}

// Close implements net.Conn: what was written still arrives, then the end. With
// unread data the connection is reset instead, as TCP does.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.close()
	return nil
}

// close ends this side. Holds n.mu.
func (c *conn) close() {
	if c.closed {
		return
	}
	if c.in.Len() > 0 {
		c.abort()
		return
	}
	c.shut()
	if c.reset {
		c.drop()
		return
	}
	c.send(segment{fin: true})
}

// abort ends this side and breaks the connection. Holds n.mu.
func (c *conn) abort() {
	if c.closed {
		return
	}
	c.shut()
	c.drop()
	if c.host.dead {
		return
	}
	c.host.conns[c] = true
	c.send(segment{rst: true})
}

func (c *conn) shut() {
	c.closed, c.closedAt = true, time.Now()
	c.rdl.set(c, noTime)
	c.wdl.set(c, noTime)
	c.in.Reset()
	c.cond.Broadcast()
}

// drop forgets what is still to be delivered. Holds n.mu.
func (c *conn) drop() {
	c.out = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.closed {
		delete(c.host.conns, c)
	}
}

// send queues one segment. Holds n.mu.
func (c *conn) send(s segment) {
	if c.host.dead {
		return
	}
	c.n.stats.Segments++
	c.unread += len(s.data)
	delay := c.n.delayOf(c.host, c.link, c.peer.host)
	if c.n.loss > 0 && c.host != c.peer.host {
		rng := c.n.flow(c.host, c.link, c.peer.host)
		for wait := resendWait; rng.Float64() < c.n.loss && wait <= maxWait; wait *= 2 {
			c.n.stats.Resent++
			delay += wait
		}
	}
	s.due = time.Now().Add(delay)
	if s.due.Before(c.lastDue) {
		s.due = c.lastDue
	}
	c.lastDue = s.due
	c.out = append(c.out, s)
	if len(c.out) == 1 {
		c.arm(time.Until(s.due))
	}
}

func (c *conn) arm(d time.Duration) {
	if c.timer != nil {
		c.timer.Reset(d)
		return
	}
	c.timer = time.AfterFunc(d, func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.pump()
	})
}

// pump delivers what is due and can get through. Holds n.mu.
func (c *conn) pump() {
	for len(c.out) > 0 {
		now := time.Now()
		if wait := c.out[0].due.Sub(now); wait > 0 {
			c.arm(wait)
			return
		}
		if c.host.paused {
			return // Pause(false) comes back
		}
		dst, v := c.n.findStream(c.host, c.link, c.remote.Addr())
		switch {
		case c.n.closed, v != passes && (c.host.dead || c.closed && now.Sub(c.closedAt) > lingerFor):
			c.drop()
			return
		case v != passes:
			c.n.stats.Resent++
			c.backoff = min(max(2*c.backoff, resendWait), maxWait)
			c.out[0].due = now.Add(c.backoff)
			continue
		case dst.host != c.peer.host:
			c.strange(dst)
			return
		}
		c.backoff = 0
		s := c.out[0]
		c.out[0] = segment{}
		c.out = c.out[1:]
		if !c.peer.take(s) {
			c.strange(dst)
			return
		}
	}
	if c.closed {
		delete(c.host.conns, c)
	}
}

// take receives a segment; false: this end is closed. Holds n.mu.
func (c *conn) take(s segment) bool {
	switch {
	case s.rst:
		c.reset = true
		c.drop()
	case c.closed:
		return s.fin
	case s.fin:
		c.eof = true
	default:
		c.in.Write(s.data)
	}
	c.cond.Broadcast()
	return true
}

// strange is what happens when data reaches a host that does not know the
// connection: the answer is a reset, if it gets back. Holds n.mu.
func (c *conn) strange(at place) {
	c.drop()
	time.AfterFunc(c.n.delayOf(at.host, at.link, c.host), func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		if _, v := c.n.find(at.host, at.link, c.local.Addr()); v != passes || c.host.dead {
			return
		}
		c.n.stats.Resets++
		c.reset = true
		c.drop()
		c.cond.Broadcast()
	})
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.rdl, &c.wdl) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.rdl) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.wdl) }

func (c *conn) setDeadlines(t time.Time, ds ...*deadline) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.host.dead {
		return c.fail("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(c, t)
	}
	c.cond.Broadcast()
	return nil
}

// deadline wakes the calls of its connection when it passes. Guarded by n.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(c *conn, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			c.n.mu.Lock()
			defer c.n.mu.Unlock()
			c.cond.Broadcast()
		})
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
