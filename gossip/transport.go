package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"hanode/internal/clock"
	"hanode/internal/netio"
	"hanode/internal/ration"
	"hanode/internal/trust"
)

// laneByte marks a keepalive. memberlist's packets begin with a version (0, 1) or
// its label byte (244), so one byte tells them apart.
const laneByte = 0xFA

// labelByte begins memberlist's packets, then comes a length and the cluster's label.
const labelByte = 244

// labelOf is what memberlist puts in front of what it sends, in clear.
func labelOf(cluster string) string { return "hanode/" + cluster }

// laneHeader is laneByte and eight bytes of the cluster's name: told in clear, and
// authenticated, so that a neighbour of another cluster can be named as such.
const laneHeader = 9

// maxDatagram bounds what is read; larger ones are cut by the kernel and then fail
// to open.
const maxDatagram = 64 << 10

// transport is memberlist's transport and the lane's.
type transport struct {
	cfg    Config
	dir    *directory
	socks  []netio.PacketConn
	listen net.Listener
	head   [laneHeader]byte
	sealer *trust.Sealer

	packets chan *memberlist.Packet
	streams chan net.Conn
	own     loopback // to this node itself
	asks    *discovery

	dialing context.Context // ends with hangUp
	hangUp  context.CancelFunc
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	foreign foreign
	count   Counters

	sessions sessions
	asked    asked
	tries    *ration.Ration // of opening what comes from a session that is not known
	chatter  *ration.Ration // of what memberlist gets to read
	inbound  ration.Conns   // streams that others open: memberlist reads each for seconds
}

// What nobody has vouched for yet is rationed, so that a flood of it costs a bounded
// part of a processor: sealed datagrams of sessions that are not known (each costs some
// microseconds to try), and memberlist's packets, which it opens itself. Members' beats
// are not: they belong to a session that is known.
var (
	triesOfOne   = ration.Rate{PerSecond: 2000, Burst: 1000}
	triesOfAll   = ration.Rate{PerSecond: 20_000, Burst: 5000}
	chatterOfOne = ration.Rate{PerSecond: 500, Burst: 500}
	chatterOfAll = ration.Rate{PerSecond: 10_000, Burst: 5000}
)

const (
	maxStreams     = 64
	maxStreamsOf   = 8       // from one host; members open one every few seconds
	maxStreamBytes = 4 << 20 // all that a thousand members know of each other is one
)

// Counters count what happened on the sockets since start.
type Counters struct {
	Sent, Received, SendErrors atomic.Uint64
	// Refused datagrams changed nothing: sealed with another key, of another
	// cluster, or malformed.
	OtherKey, OtherCluster, Malformed atomic.Uint64
	Dropped                           atomic.Uint64 // memberlist did not read fast enough
	// Replayed came before, Unproven is of a session that has not shown yet that it runs
	// now, Lying says another name than its session began with, Limited was not looked
	// at: too much came from strangers.
	Replayed, Unproven, Lying, Limited atomic.Uint64
}

func newTransport(cfg Config, dir *directory) (*transport, error) {
	t := &transport{
		cfg: cfg, dir: dir, sealer: cfg.Keys.Sealer(),
		packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn),
		own: newLoopback(), done: make(chan struct{}),
		tries: ration.New(triesOfOne, triesOfAll), chatter: ration.New(chatterOfOne, chatterOfAll),
		inbound: ration.Conns{Most: maxStreams, MostOf: maxStreamsOf, Bytes: maxStreamBytes},
	}
	t.dialing, t.hangUp = context.WithCancel(context.Background())
	sum := sha256.Sum256([]byte("hanode cluster " + cfg.Cluster))
	t.head[0] = laneByte
	copy(t.head[1:], sum[:laneHeader-1])
	for _, name := range dir.links {
		s, err := cfg.Network.ListenPacket(name, cfg.Port)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("open gossip socket on %s: %w", name, err)
		}
		t.socks = append(t.socks, s)
	}
	l, err := cfg.Network.Listen(cfg.Port)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("listen for gossip: %w", err)
	}
	t.listen = l
	t.asks = newDiscovery(t)
	return t, nil
}

// start begins to read; memberlist exists by now.
func (t *transport) start() {
	for i, s := range t.socks {
		t.wg.Go(func() { t.read(i, s) })
	}
	t.wg.Go(t.accept)
	t.wg.Go(t.readOwn)
	t.wg.Go(t.prune)
	t.wg.Go(t.asks.run)
}

func (t *transport) close() {
	t.once.Do(func() {
		t.hangUp()
		close(t.done)
		for _, s := range t.socks {
			_ = s.Close()
		}
		if t.listen != nil {
			_ = t.listen.Close()
		}
	})
	t.wg.Wait()
}

// read takes datagrams off one link.
func (t *transport) read(link int, s netio.PacketConn) {
	buf := make([]byte, maxDatagram)
	plain := make([]byte, 0, maxDatagram)
	opener := t.cfg.Keys.Opener()
	answer := t.newSender()
	for {
		n, from, err := s.ReadFrom(buf)
		if err != nil {
			if t.closed() || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // a link without its device; do not spin
			continue
		}
		t.count.Received.Add(1)
		switch {
		case n > 0 && (buf[0] == laneByte || buf[0] == proofByte):
			t.lane(opener, plain, buf[:n], link, from, answer)
		case n > 0 && buf[0] == askByte:
			if p, x, ok := t.open(opener, plain, buf[:n], link, from); ok {
				x.mark(link)
				t.asks.take(p, link, from)
			}
		default:
			t.toMemberlist(buf[:n], from)
		}
	}
}

func (t *transport) closed() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *transport) toMemberlist(b []byte, from netip.AddrPort) {
	label := labelOf(t.cfg.Cluster)
	switch rest, labelled := bytes.CutPrefix(b, []byte{labelByte}); {
	case labelled && len(rest) > len(label) && int(rest[0]) == len(label) && string(rest[1:1+len(label)]) == label:
	case labelled && len(rest) > 1 && bytes.HasPrefix(rest[1:], []byte(labelOf(""))):
		t.count.OtherCluster.Add(1)
		t.foreign.note("other-cluster", from.Addr())
		return
	default: // memberlist would write a line about each
		t.count.Malformed.Add(1)
		return
	}
	if !t.chatter.Take(from.Addr(), t.cfg.Clock.Now().Boot) {
		t.count.Limited.Add(1)
		return
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
	select {
	case t.packets <- p:
	default:
		t.count.Dropped.Add(1)
	}
}

// unsealed is where a datagram comes from that opened.
type unsealed struct {
	salt  trust.Salt
	count uint64
	s     *session // nil = none is known
}

// mark notes that the datagram was taken, if its session is one that runs.
func (x unsealed) mark(link int) {
	if x.s != nil && x.s.proven.Load() {
		x.s.links[link].mark(x.count)
	}
}

// open authenticates a datagram of ours, which begins with its kind and the cluster.
// What does not open, or was taken before, changes nothing but a counter.
func (t *transport) open(o *trust.Opener, plain, b []byte, link int, from netip.AddrPort) (p []byte, x unsealed, ok bool) {
	if len(b) < laneHeader {
		t.count.Malformed.Add(1)
		return nil, x, false
	}
	if !bytes.Equal(b[1:laneHeader], t.head[1:]) {
		t.count.OtherCluster.Add(1)
		t.foreign.note("other-cluster", from.Addr())
		return nil, x, false
	}
	x.salt, x.count, ok = trust.Peek(b[laneHeader:])
	if !ok {
		t.count.Malformed.Add(1)
		return nil, x, false
	}
	x.s = t.sessions.get(x.salt)
	switch {
	case x.salt == t.sealer.Salt() && b[0] == askByte: // a broadcast comes back to its sender
		return nil, x, false
	case x.salt == t.sealer.Salt(), x.s != nil && x.s.proven.Load() && x.s.repeats(link, x.count):
		t.count.Replayed.Add(1)
		return nil, x, false
	case x.s == nil && !t.tries.Take(from.Addr(), t.cfg.Clock.Now().Boot):
		t.count.Limited.Add(1)
		return nil, x, false
	}
	p, err := o.Open(plain[:0], b[:laneHeader], b[laneHeader:])
	if err != nil {
		if errors.Is(err, trust.ErrKey) {
			t.count.OtherKey.Add(1)
			t.foreign.note("other-key", from.Addr())
		} else {
			t.count.Malformed.Add(1)
		}
		return nil, x, false
	}
	return p, x, true
}

// lane opens a lane message and hands it on.
func (t *transport) lane(o *trust.Opener, plain, b []byte, link int, from netip.AddrPort, answer *Sender) {
	p, x, ok := t.open(o, plain, b, link, from)
	if !ok {
		return
	}
	name, payload, ok := splitName(p)
	if !ok {
		t.count.Malformed.Add(1)
		return
	}
	now := t.cfg.Clock.Now()
	x.s = t.sessions.of(x.salt, name, len(t.socks))
	switch {
	case x.s == nil:
		t.count.Lying.Add(1)
	case b[0] == proofByte:
		x.mark(link)
		t.onProof(x, payload, link, from, answer)
	case !x.s.proven.Load():
		t.count.Unproven.Add(1)
		t.question(x.s, x.salt, link, from, now, answer)
	default:
		x.mark(link)
		x.s.used.Store(int64(now.Boot))
		t.take(x.s.name, payload, link, from, now, answer)
	}
}

// take hands on what a session says that runs now.
func (t *transport) take(name string, payload []byte, link int, from netip.AddrPort, now clock.Instant, answer *Sender) {
	if name == t.cfg.Name {
		t.foreign.note("same-name", from.Addr())
		return
	}
	x := t.dir.get(name)
	if x == nil {
		x = t.dir.add(name, len(t.dir.links))
	}
	x.heard[link].set(now)
	t.cfg.Handle(Packet{From: x.name, Link: link, Payload: payload, Answer: answer})
}

// splitName takes the sender's name off a lane message.
func splitName(p []byte) (name, payload []byte, ok bool) {
	if len(p) < 1 || int(p[0]) == 0 || len(p) < 1+int(p[0]) {
		return nil, nil, false
	}
	return p[1 : 1+int(p[0])], p[1+int(p[0]):], true
}

func (t *transport) prune() {
	tick := t.cfg.Grid.Ticker(t.cfg.Look)
	defer tick.Stop()
	for {
		select {
		case <-t.done:
			return
		case <-tick.C:
			tick.Next()
			t.dir.prune()
		}
	}
}

func (t *transport) accept() {
	for {
		c, err := t.listen.Accept()
		if err != nil {
			if t.closed() || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		c, ok := t.inbound.Admit(c)
		if !ok {
			t.count.Limited.Add(1)
			continue
		}
		select {
		case t.streams <- c:
		case <-t.done:
			_ = c.Close()
			return
		}
	}
}

// The rest is memberlist.NodeAwareTransport.

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	for _, l := range t.cfg.Network.Links() {
		if l.Addr.IsValid() {
			return l.Addr.AsSlice(), t.cfg.Port, nil
		}
	}
	return nil, 0, errors.New("no link has an address")
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends over the first live link to the named node.
func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if order := t.dir.order(to.Name); len(order) > 0 {
		addrs := t.dir.fit(t.dir.get(to.Name).to())
		var errs []error
		for _, i := range order {
			err := t.socks[i].WriteTo(b, netip.AddrPortFrom(addrs[i], uint16(t.cfg.Port)))
			if err == nil {
				return time.Now(), nil
			}
			errs = append(errs, err)
		}
		return time.Now(), errors.Join(errs...)
	}
	ap, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, err
	}
	return time.Now(), t.socks[0].WriteTo(b, ap)
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.dialing, timeout)
	defer cancel()
	if to.Name != "" && len(t.dir.order(to.Name)) > 0 {
		return t.dir.dial(ctx, to.Name, t.cfg.Port)
	}
	ap, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return nil, err
	}
	return t.cfg.Network.Dial(ctx, t.dir.links[0], ap)
}

// Shutdown is called by memberlist; Gossip.Stop closes the sockets itself.
func (t *transport) Shutdown() error { return nil }

// Stranger is a neighbour whose datagrams are refused.
type Stranger struct {
	Cause string // other-key, other-cluster, same-name
	Addr  netip.Addr
	Count uint64
	Last  time.Time
}

// foreign remembers a bounded number of strangers.
type foreign struct {
	mu sync.Mutex
	m  map[string]*Stranger
}

const maxStrangers = 64

func (f *foreign) note(cause string, a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := cause + " " + a.String()
	s := f.m[key]
	if s == nil {
		if len(f.m) >= maxStrangers {
			return
		}
		if f.m == nil {
			f.m = map[string]*Stranger{}
		}
		s = &Stranger{Cause: cause, Addr: a}
		f.m[key] = s
	}
	s.Count++
	s.Last = time.Now()
}

// Strangers lists neighbours whose datagrams were refused.
func (g *Gossip) Strangers() []Stranger {
	f := &g.trans.foreign
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Stranger, 0, len(f.m))
	for _, s := range f.m {
		out = append(out, *s)
	}
	return out
}

// Counters gives the sockets' counters.
func (g *Gossip) Counters() *Counters { return &g.trans.count }
