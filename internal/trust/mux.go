package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"hanode/internal/ration"
)

const (
	handshakeTime = 5 * time.Second
	maxHandshakes = 128 // at once
	maxPerAddress = 32  // of them from one address, so that one host cannot take all
	handOverQueue = 64  // connections that wait for one protocol's Accept
)

// failures is how many handshakes of one host may fail, or end without a certificate.
// Each costs a signature.
var failures = ration.Rate{PerSecond: 2, Burst: 64}

// Causes of refusal, the keys of Mux.Refused.
const (
	CauseOtherKey     = "other-key"     // see ErrOtherKey
	CauseOtherCluster = "other-cluster" // see ErrOtherCluster
	CauseHandshake    = "handshake"     // no TLS, no certificate, no protocol we speak, too slow
	CauseBusy         = "busy"          // too many handshakes at once, or the protocol does not accept
	CauseLimited      = "limited"       // too many of that host failed lately; no handshake was begun
)

// Refusal counts the connections refused for one cause. Causes are partly what
// strangers claim: good for a report, not for a decision.
type Refusal struct {
	Count uint64
	Last  time.Time
	Addr  string // of the last one
}

// Mux is one TLS listener for several protocols, told apart by ALPN after the
// handshake. Register protocols, run Serve, end with Close. Safe for concurrent
// use.
type Mux struct {
	l     net.Listener
	cfg   *tls.Config
	log   *slog.Logger
	done  chan struct{} // closed by Close
	fails *ration.Ration
	born  time.Time

	mu      sync.Mutex // guards the fields below
	closed  bool
	protos  map[string]*protocol
	opening map[*pending]bool // handshakes under way
	known   func(netip.Addr) bool
	refused map[string]Refusal
	running sync.WaitGroup // handshakes
}

// NewMux serves l with the settings of Keys.ServerConfig. The Mux owns l.
func NewMux(l net.Listener, cfg *tls.Config, log *slog.Logger) *Mux {
	return &Mux{
		l: l, cfg: cfg, log: log, done: make(chan struct{}),
		fails: ration.New(failures, ration.Rate{PerSecond: math.MaxInt32, Burst: math.MaxInt32}), born: time.Now(),
		protos: map[string]*protocol{}, opening: map[*pending]bool{}, refused: map[string]Refusal{},
	}
}

// Know tells who is a member, as far as is known: members find room however many
// strangers connect. member must not wait.
func (m *Mux) Know(member func(netip.Addr) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = member
}

// Protocol returns the listener of one protocol, the same for each call until
// it is closed. Its connections are *tls.Conn after the handshake, without
// deadline. Closing it makes the Mux refuse that protocol.
func (m *Mux) Protocol(alpn string) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.protos[alpn]; p != nil {
		return p
	}
	p := &protocol{m: m, alpn: alpn, queue: make(chan net.Conn, handOverQueue), done: make(chan struct{})}
	if m.closed {
		p.closed = true
		close(p.done)
		return p
	}
	m.protos[alpn] = p
	return p
}

// Refused returns the counts by cause; causes that never came up are absent.
func (m *Mux) Refused() map[string]Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.refused)
}

// Serve accepts until Close, then returns nil once all handshakes have ended;
// any other end is an error. Errors of Accept that may pass are waited out.
func (m *Mux) Serve() error {
	defer m.running.Wait()
	wait := 5 * time.Millisecond
	for {
		c, err := m.l.Accept()
		switch {
		case err == nil:
			wait = 5 * time.Millisecond
			m.start(c)
			continue
		case m.isClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			m.Close()
			return fmt.Errorf("accept on %s: %w", m.l.Addr(), err)
		}
		m.log.Warn("cannot accept connections, trying again", "err", err)
		t := time.NewTimer(wait)
		select {
		case <-m.done:
		case <-t.C:
		}
		t.Stop()
		wait = min(2*wait, time.Second)
	}
}

// Close ends the listener, handshakes under way, all protocols and the
// connections that nobody accepted yet. Accepted ones belong to their taker.
func (m *Mux) Close() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	close(m.done)
	for c := range m.opening {
		c.Close()
	}
	for _, p := range m.protos {
		p.closeLocked()
	}
	m.mu.Unlock()
	m.l.Close()
}

func (m *Mux) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// pending is a connection in its handshake, and after it the raw one below the TLS.
type pending struct {
	tracked
	host string
	addr netip.Addr
	ours bool  // a member's address
	hint error // what the client's first message claims; see judge
}

// start begins a handshake, or refuses where there are too many.
func (m *Mux) start(raw net.Conn) {
	c := &pending{tracked: tracked{Conn: raw}, host: ration.Host(raw)}
	c.addr, _ = netip.ParseAddr(c.host)
	m.mu.Lock()
	defer m.mu.Unlock()
	c.ours = m.known != nil && m.known(c.addr.Unmap())
	same, strangers := 0, 0
	for o := range m.opening {
		if o.host == c.host {
			same++
		}
		if !o.ours {
			strangers++
		}
	}
	switch {
	case m.closed:
		raw.Close()
		return
	case !c.ours && !m.fails.Has(c.addr, time.Since(m.born)):
		raw.Close()
		m.refuseLocked(c, CauseLimited, errors.New("too many of its handshakes failed"))
		return
	case !c.ours && strangers >= maxHandshakes || same >= maxPerAddress:
		raw.Close()
		m.refuseLocked(c, CauseBusy, errors.New("too many handshakes at once"))
		return
	}
	m.opening[c] = true
	m.running.Go(func() {
		t, err := m.handshake(c)
		m.finish(c, t, err)
	})
}

func (m *Mux) handshake(c *pending) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	c.SetDeadline(time.Now().Add(handshakeTime))
	t := tls.Server(c, m.cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := c.vouched(t.ConnectionState()); err != nil {
		return nil, err
	}
	return t, c.SetDeadline(time.Time{})
}

// finish hands the connection to its protocol.
func (m *Mux) finish(c *pending, t *tls.Conn, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.opening, c)
	if m.closed {
		c.Close()
		return
	}
	cause := CauseHandshake
	if err != nil || len(t.ConnectionState().PeerCertificates) == 0 {
		m.fails.Take(c.addr, time.Since(m.born))
	}
	if err == nil {
		alpn := t.ConnectionState().NegotiatedProtocol
		p := m.protos[alpn]
		if p == nil {
			err = fmt.Errorf("no protocol %q here", alpn)
		} else {
			select {
			case p.queue <- t:
				return
			default:
				cause, err = CauseBusy, fmt.Errorf("%s does not accept", alpn)
			}
		}
	}
	c.Close()
	m.refuseLocked(c, cause, err)
}

// refuseLocked counts and logs a refusal; what the error or the client's hint
// shows is a better cause than the one given.
func (m *Mux) refuseLocked(c *pending, cause string, err error) {
	if cause == CauseHandshake {
		switch {
		case errors.Is(err, ErrOtherKey), errors.Is(c.hint, ErrOtherKey):
			cause = CauseOtherKey
		case errors.Is(err, ErrOtherCluster), errors.Is(c.hint, ErrOtherCluster):
			cause = CauseOtherCluster
		}
	}
	r := m.refused[cause]
	r.Count++
	r.Last, r.Addr = time.Now(), c.RemoteAddr().String()
	m.refused[cause] = r
	// Anybody can cause this: the first is worth a warning, the rest is counted.
	level := slog.LevelDebug
	if r.Count == 1 {
		level = slog.LevelWarn
	}
	m.log.Log(context.Background(), level, "refused a connection", "from", r.Addr, "cause", cause, "err", err)
}

// protocol is the listener of one ALPN.
type protocol struct {
	m      *Mux
	alpn   string
	queue  chan net.Conn // sent to with m.mu held, so not after closed
	done   chan struct{}
	closed bool // guarded by m.mu
}

// Accept implements net.Listener.
func (p *protocol) Accept() (net.Conn, error) {
	select {
	case <-p.done:
	case c := <-p.queue:
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: p.alpn, Addr: p.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener. Closing twice is fine.
func (p *protocol) Close() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.closeLocked()
	return nil
}

func (p *protocol) closeLocked() {
	if p.closed {
		return
	}
	p.closed = true
	close(p.done)
	if p.m.protos[p.alpn] == p {
		delete(p.m.protos, p.alpn)
	}
	for {
		select {
		case c := <-p.queue:
			c.Close()
		default:
			return
		}
	}
}

// Addr implements net.Listener: where the Mux listens.
func (p *protocol) Addr() net.Addr { return p.m.l.Addr() }
