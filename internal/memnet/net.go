// Package memnet is a network in memory: hosts with links, datagrams and
// streams between them, and the faults that tests want (cuts of one direction,
// loss, delay, duplicates, power cuts, hung hosts). A Host is a netio.Network,
// so gossip, raft and TLS run on it unchanged.
//
// All waiting is on channels, condition variables and timers, so a whole
// cluster runs under testing/synctest in virtual time; it also works in real
// time. Make the Net inside the bubble and Close it before the bubble ends.
//
// It models what a protocol can notice, not TCP: no congestion control, no
// keepalive probes. It knows nothing of what it carries.
package memnet

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hanode/internal/netio"
)

const (
	defaultDelay  = 200 * time.Microsecond // one way, until SetDelay
	loopDelay     = 20 * time.Microsecond  // a host that talks to itself
	socketPackets = 256                    // datagrams a socket holds for a reader that does not come
)

// Net is one network. The zero value is not usable; see New.
// Safe for concurrent use.
type Net struct {
	mu     sync.Mutex // guards everything below and the state of all hosts and sockets
	seed   uint64
	closed bool
	hosts  map[string]*Host
	addrs  map[netip.Addr]place
	cuts   map[route]bool
	deaf   map[string]bool // hosts whose streams stall
	shut   map[port]bool   // ports that a firewall hides
	flows  map[route]*flow
	loss   float64
	dup    float64
	late   float64 // chance of a datagram to wait lateBy more, at most
	lateBy time.Duration
	delay  func(*rand.Rand) time.Duration
	drop   func(from, to string, payload []byte) bool // nil = none
	stats  Stats
}

// route is one direction of one link: sender, receiver, device at the sender.
// In a cut an empty field stands for any.
type route struct{ from, to, link string }

// port is a TCP port of a host.
type port struct {
	host string
	port int
}

// flow is one direction of one link.
type flow struct {
	*rand.Rand
	last time.Time // when the latest of its datagrams arrives
}

// place is where an address lives: the n-th link of a host.
type place struct {
	host *Host
	link int
}

// New makes an empty network with perfect wires: 200 µs one way, nothing lost.
// The chances of a flow (from, to, link) depend only on the seed and on how many
// packets that flow carried, not on what other flows do.
func New(seed uint64) *Net {
	return &Net{
		seed: seed, hosts: map[string]*Host{}, addrs: map[netip.Addr]place{},
		cuts: map[route]bool{}, deaf: map[string]bool{}, shut: map[port]bool{}, flows: map[route]*flow{},
		delay: func(*rand.Rand) time.Duration { return defaultDelay },
	}
}

// Host adds a host, powered on. The n-th links of all hosts are on the same
// wire. A host of that name that exists is powered off and replaced: packets
// still under way reach the new one, streams of the old one are reset by it as
// soon as it hears of them.
func (n *Net) Host(name string, links ...netio.Link) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.hosts[name]; old != nil {
		old.turnOff()
		maps.DeleteFunc(n.addrs, func(_ netip.Addr, p place) bool { return p.host == old })
	}
	h := &Host{
		n: n, name: name, links: slices.Clone(links), dead: n.closed, nextPort: 32768,
		down:    make(chan struct{}),
		packets: map[socket]*packetConn{}, listeners: map[int]*listener{}, conns: map[*conn]bool{},
	}
	if n.closed {
		close(h.down)
	}
	n.hosts[name] = h
	for i, l := range links {
		if l.Addr.IsValid() {
			n.addrs[l.Addr] = place{h, i}
		}
	}
	return h
}

// Cut stops (or, with cut false, lets pass) what goes from one host to another
// through the sender's device link. An empty from, to or link means any. With
// cut false every earlier cut that the arguments cover ends; a wider one stays.
//
// Datagrams over a cut are dropped. A stream stalls and goes on after the heal,
// as TCP resends: at once to 5 s later, by how long it was stalled.
func (n *Net) Cut(from, to, link string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cut {
		n.cuts[route{from, to, link}] = true
		return
	}
	covers := func(have, want string) bool { return want == "" || have == want }
	maps.DeleteFunc(n.cuts, func(r route, _ bool) bool {
		return covers(r.from, from) && covers(r.to, to) && covers(r.link, link)
	})
}

// CutStreams stalls the streams of a host, old and new, both ways, as Cut does, or
// lets them go on; its datagrams pass.
func (n *Net) CutStreams(host string, cut bool) {
	n.set(func() { n.deaf[host] = cut })
}

// ShutPort loses the requests for connections to a TCP port of a host, as a firewall on
// it does, or lets them pass; connections that are there go on.
func (n *Net) ShutPort(host string, number int, shut bool) {
	n.set(func() { n.shut[port{host, number}] = shut })
}

// SetLoss drops each datagram with chance p (0 to 1) and makes each stream
// segment wait for a resend, 200 ms and doubling, with the same chance.
func (n *Net) SetLoss(p float64) { n.set(func() { n.loss = p }) }

// SetDup delivers each datagram twice with chance p (0 to 1).
func (n *Net) SetDup(p float64) { n.set(func() { n.dup = p }) }

// SetReorder makes each datagram, with chance p (0 to 1), wait up to most longer
// than the delay says, so that those sent after it overtake it.
func (n *Net) SetReorder(p float64, most time.Duration) {
	n.set(func() { n.late, n.lateBy = p, most })
}

// SetDelay gives the one-way delay of each datagram and segment; datagrams
// overtake each other if it varies, segments of one stream do not. The function
// must not call into the Net. nil restores the default.
func (n *Net) SetDelay(delay func(*rand.Rand) time.Duration) {
	if delay == nil {
		delay = func(*rand.Rand) time.Duration { return defaultDelay }
	}
	n.set(func() { n.delay = delay })
}

// SetDrop loses the datagrams between hosts that drop picks; nil ends it. drop is
// called with the network locked: it must not use it.
func (n *Net) SetDrop(drop func(from, to string, payload []byte) bool) {
	n.set(func() { n.drop = drop })
}

// PowerOff ends a host as a power cut does. Its own calls fail with
// net.ErrClosed; its peers notice nothing but silence. Packets that were
// already on the wire arrive. Unknown names are ignored.
func (n *Net) PowerOff(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[name]; h != nil {
		h.turnOff()
	}
}

// Pause hangs a host's process, or resumes it; its kernel goes on. While
// paused: datagrams to it wait in the socket's buffer (256, the rest is
// dropped) and its reads do not return; dials to it succeed and streams take
// data up to their window, unread; what it sends waits (256 datagrams per host,
// the rest is dropped) and leaves on resume. Its sends themselves do not block,
// so that a caller that holds a lock does not stop virtual time.
func (n *Net) Pause(name string, paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil || h.dead || h.paused == paused {
		return
	}
	h.paused = paused
	if paused {
		return
	}
	held := h.held
	h.held = nil
	for _, send := range held {
		send()
	}
	for c := range h.conns {
		c.pump()
	}
	h.wake()
}

// Heal ends all cuts, loss, duplicates, reordering and special delays. Hosts that are off
// or paused stay so.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	clear(n.deaf)
	clear(n.shut)
	n.loss, n.dup, n.late, n.drop = 0, 0, 0, nil
	n.delay = func(*rand.Rand) time.Duration { return defaultDelay }
}

// Close ends every host; all blocked calls return net.ErrClosed and nothing is
// delivered afterwards. No goroutine of the network outlives it. Closing twice
// is fine.
func (n *Net) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, h := range n.hosts {
		h.turnOff()
	}
}

// Stats counts what happened on the wires since New.
type Stats struct {
	// Datagrams.
	Sent, Delivered, Duplicated int
	Overtook                    int // one that was sent before it on the same link
	Lost                        int // by SetLoss
	Cut                         int // by Cut or SetDrop
	Off                         int // the receiver was off, or nobody has the address on that wire
	NoSocket                    int // the receiver was on, but nobody listened
	Overflow                    int // a full buffer: a slow reader or a paused host
	// Streams.
	Dialled, Refused int
	Segments, Resent int // Resent: lost or stalled once more
	Resets           int
}

// Stats returns the counts so far.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

func (n *Net) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// verdict says what becomes of something sent now.
type verdict int

const (
	passes verdict = iota
	isCut
	isOff // dead, or no such address on this wire
)

// find says who gets what h sends through its link to addr. Holds n.mu.
func (n *Net) find(h *Host, link int, addr netip.Addr) (place, verdict) {
	p, ok := n.addrs[addr]
	switch {
	case !ok:
		return place{}, isOff
	case p.host == h:
		return p, passes
	case p.link != link:
		return p, isOff
	case n.isCut(h.name, p.host.name, h.links[link].Name):
		return p, isCut
	case p.host.dead:
		return p, isOff
	}
	return p, passes
}

// findStream is find for a stream. Holds n.mu.
func (n *Net) findStream(h *Host, link int, addr netip.Addr) (place, verdict) {
	p, v := n.find(h, link, addr)
	if v == passes && p.host != h && (n.deaf[h.name] || n.deaf[p.host.name]) {
		v = isCut
	}
	return p, v
}

// findPort is findStream for a new one. Holds n.mu.
func (n *Net) findPort(h *Host, link int, to netip.AddrPort) (place, verdict) {
	p, v := n.findStream(h, link, to.Addr())
	if v == passes && p.host != h && n.shut[port{p.host.name, int(to.Port())}] {
		v = isCut
	}
	return p, v
}

func (n *Net) isCut(from, to, link string) bool {
	if len(n.cuts) == 0 {
		return false
	}
	for _, f := range [2]string{from, ""} {
		for _, t := range [2]string{to, ""} {
			if n.cuts[route{f, t, link}] || n.cuts[route{f, t, ""}] {
				return true
			}
		}
	}
	return false
}

// flow returns the dice of one direction of one link. Holds n.mu.
func (n *Net) flow(from *Host, link int, to *Host) *flow {
	r := route{from.name, to.name, from.links[link].Name}
	dice := n.flows[r]
	if dice == nil {
		f := fnv.New64a()
		for _, s := range []string{r.from, r.to, r.link} {
			f.Write([]byte(s))
			f.Write([]byte{0})
		}
		dice = &flow{Rand: rand.New(rand.NewPCG(n.seed, f.Sum64()))}
		n.flows[r] = dice
	}
	return dice
}

// delayOf rolls the one-way delay from h to the place. Holds n.mu.
func (n *Net) delayOf(h *Host, link int, to *Host) time.Duration {
	if h == to {
		return loopDelay
	}
	return max(0, n.delay(n.flow(h, link, to).Rand))
}
