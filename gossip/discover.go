package gossip

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"hanode/internal/trust"
)

// Discovery finds the addresses of nodes whose names are known, on the links that
// Config.Discover names: what a broadcast heartbeat needs no addresses for. While a node
// is not heard on such a link, "who is there?" goes to everybody on it, sealed as
// everything is; whoever has the key answers with its name and its address, to the asker
// alone.
//
// It is a question and an answer, not an announcement, because a sealed datagram can be
// recorded and sent again: the answer repeats the question's random number, so an old
// one teaches nothing, and a question teaches nobody anything. Nothing here says who is a
// member: an answer only gives an address to a name that is one already, and only while
// that name is not heard on the link, so that what works is never changed. What leads
// astray all the same, a member's answer held back and passed on by a machine between,
// ends with the next answer.
//
// It goes on after the founding: a host that got another address while all the others
// did, too, is found again.

// askByte marks a datagram of discovery, as laneByte a keepalive.
const askByte = 0xFB

const (
	// askEvery is how often a link is asked, and askSeldom every how many times of that,
	// once askPatience questions in a row taught nothing: a host that is off stays off.
	askEvery    = time.Second
	askSeldom   = 5
	askPatience = 60
	// maxHails is how many datagrams of discovery wait; those beyond are dropped.
	maxHails = 32
	// answersPerTick bounds how many questions are answered in askEvery: a replayed
	// question must not make of a node a source of more.
	answersPerTick = 64
)

// everybody is the broadcast address of the link a socket is bound to.
var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// hailKind is the first byte of a hail.
type hailKind byte

const (
	hailWho  hailKind = 1 // who is there?
	hailHere hailKind = 2 // I am
)

const nonceSize = 16

// hail is what a datagram of discovery says.
type hail struct {
	kind  hailKind
	nonce [nonceSize]byte // the question's
	addr  netip.Addr      // of the sender on this link, IPv4; in an answer
	name  string          // of the sender
}

// hailHead is the kind, the nonce and the address; the name follows.
const hailHead = 1 + nonceSize + 4

func (h hail) encode() []byte {
	b := append([]byte{byte(h.kind)}, h.nonce[:]...)
	var a [4]byte
	if h.addr.Is4() {
		a = h.addr.As4()
	}
	return append(append(b, a[:]...), h.name...)
}

// decodeHail reads what encode wrote, and nothing else.
func decodeHail(b []byte) (h hail, ok bool) {
	if len(b) <= hailHead || trust.CheckName(string(b[hailHead:])) != nil {
		return hail{}, false
	}
	h = hail{
		kind: hailKind(b[0]), nonce: [nonceSize]byte(b[1 : 1+nonceSize]),
		addr: netip.AddrFrom4([4]byte(b[1+nonceSize : hailHead])), name: string(b[hailHead:]),
	}
	switch h.kind {
	case hailWho:
		ok = h.addr == netip.IPv4Unspecified()
		h.addr = netip.Addr{}
	case hailHere:
		ok = h.addr.IsGlobalUnicast() && h.addr != everybody
	}
	if !ok {
		return hail{}, false
	}
	return h, true
}

// hailed is a hail that opened, on its way to the goroutine that answers: nothing here
// may hold up the one that reads beats.
type hailed struct {
	hail
	link int
	from netip.AddrPort
}

// discovery asks and answers on one node.
type discovery struct {
	t     *transport
	links []int // that are asked on
	in    chan hailed
	found chan struct{} // one slot: an address was learned
	// Of the one goroutine: per link, the newest question and the one before.
	nonces map[int][2][nonceSize]byte
	asked  int // times since something was learned, or nobody was missed
	ticks  int
}

func newDiscovery(t *transport) *discovery {
	d := &discovery{t: t, in: make(chan hailed, maxHails), found: make(chan struct{}, 1), nonces: map[int][2][nonceSize]byte{}}
	for i, name := range t.dir.links {
		if slices.Contains(t.cfg.Discover, name) {
			d.links = append(d.links, i)
		}
	}
	return d
}

// head is what stands in front of a hail, in clear and authenticated.
func (d *discovery) head() []byte {
	h := d.t.head
	h[0] = askByte
	return h[:]
}

// take is called by the goroutine that reads the link's socket.
func (d *discovery) take(plain []byte, link int, from netip.AddrPort) {
	h, ok := decodeHail(plain)
	switch {
	case !ok:
		d.t.count.Malformed.Add(1)
	case h.name == d.t.cfg.Name: // a broadcast comes back to its sender
	default:
		select {
		case d.in <- hailed{h, link, from}:
		default:
			d.t.count.Dropped.Add(1)
		}
	}
}

// run asks and answers until the transport closes.
func (d *discovery) run() {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	left := answersPerTick
	d.ask()
	for {
		select {
		case <-d.t.done:
			return
		case <-tick.C:
			left = answersPerTick
			if d.ticks++; d.asked < askPatience || d.ticks%askSeldom == 0 {
				d.ask()
			}
		case h := <-d.in:
			switch {
			case h.kind == hailHere:
				d.learn(h)
			case left > 0:
				left--
				d.answer(h)
			}
		}
	}
}

// ask asks on each link on which somebody is not heard.
func (d *discovery) ask() {
	before := d.asked
	d.asked = 0
	for _, link := range d.links {
		if !d.misses(link) {
			continue
		}
		d.asked = before + 1
		q := hail{kind: hailWho, name: d.t.cfg.Name}
		_, _ = rand.Read(q.nonce[:]) // it never fails
		d.nonces[link] = [2][nonceSize]byte{q.nonce, d.nonces[link][0]}
		d.send(q, link, everybody)
	}
}

func (d *discovery) misses(link int) bool {
	now := d.t.cfg.Clock.Now()
	for name := range d.t.dir.all() {
		if name != d.t.cfg.Name && !d.t.dir.alive(name, link, now) {
			return true
		}
	}
	return false
}

func (d *discovery) answer(h hailed) {
	own := d.t.cfg.Network.Links()
	if h.link < len(own) && own[h.link].Addr.Is4() {
		d.send(hail{kind: hailHere, nonce: h.nonce, addr: own[h.link].Addr, name: d.t.cfg.Name}, h.link, h.from.Addr())
	}
}

func (d *discovery) send(h hail, link int, to netip.Addr) {
	head := d.head()
	b := d.t.sealer.Seal(bytes.Clone(head), head, h.encode())
	d.t.count.Sent.Add(1)
	if err := d.t.socks[link].WriteTo(b, netip.AddrPortFrom(to, uint16(d.t.cfg.Port))); err != nil {
		d.t.count.SendErrors.Add(1)
	}
}

// learn takes an answer to a question of ours, about a node that we know and do not
// hear on the link, from the address that it names.
func (d *discovery) learn(h hailed) {
	asked := d.nonces[h.link]
	known := h.nonce != [nonceSize]byte{} && (h.nonce == asked[0] || h.nonce == asked[1])
	dir := d.t.dir
	if !known || h.from.Addr().Unmap() != h.addr || dir.get(h.name) == nil || dir.alive(h.name, h.link, d.t.cfg.Clock.Now()) {
		return
	}
	if dir.learnOn(h.name, h.link, h.addr) {
		d.asked = 0
		d.t.cfg.Log.Info("found a node by asking on its link", "peer", h.name, "dev", dir.links[h.link], "addr", h.addr)
		select {
		case d.found <- struct{}{}:
		default:
		}
	}
}
