package gossip

import "net/netip"

// Sender seals and sends lane messages for one goroutine. It keeps its buffers and
// takes no lock, so that a beat or an answer allocates nothing and waits for
// nobody. Not safe for concurrent use.
type Sender struct {
	// Buf is for the user to build payloads in; Send leaves it alone.
	Buf []byte

	t      *transport
	plain  []byte // this node's name, and behind it the payload
	name   int    // how much of plain the name takes
	sealed []byte
	head   [laneHeader]byte
}

func (t *transport) newSender() *Sender {
	s := &Sender{t: t}
	s.plain = append(s.plain, byte(len(t.cfg.Name)))
	s.plain = append(s.plain, t.cfg.Name...)
	s.name = len(s.plain)
	return s
}

// Send seals payload once and sends it to each node over every link; see
// Gossip.Send.
func (s *Sender) Send(payload []byte, to ...string) {
	t := s.t
	sealed := false
	for _, name := range to {
		if name == t.cfg.Name {
			if !t.own.put(payload) {
				t.count.Dropped.Add(1)
			}
			continue
		}
		if !sealed {
			sealed = true
			s.seal(laneByte, payload)
		}
		for i, a := range t.dir.get(name).to() {
			if a.IsValid() {
				s.write(i, netip.AddrPortFrom(a, uint16(t.cfg.Port)))
			}
		}
	}
}

func (s *Sender) seal(kind byte, payload []byte) {
	s.head = s.t.head
	s.head[0] = kind
	s.plain = append(s.plain[:s.name], payload...)
	s.sealed = s.t.sealer.Seal(append(s.sealed[:0], s.head[:]...), s.head[:], s.plain)
}

func (s *Sender) write(link int, to netip.AddrPort) {
	s.t.count.Sent.Add(1)
	if err := s.t.socks[link].WriteTo(s.sealed, to); err != nil {
		s.t.count.SendErrors.Add(1)
	}
}

// tell sends a question or an answer to a node. Who has a recording from elsewhere must
// not draw it there: what came from is used only where nothing better is known.
func (s *Sender) tell(body []byte, name string, link int, from netip.AddrPort) {
	s.seal(proofByte, body)
	x := s.t.dir.get(name)
	if name == s.t.cfg.Name || !x.reachable() {
		s.write(link, from)
		return
	}
	for i, a := range x.to() {
		if a.IsValid() {
			s.write(i, netip.AddrPortFrom(a, uint16(s.t.cfg.Port)))
		}
	}
}

// loopback is the way of a node's messages to itself: a ring of buffers. A full one
// drops, as a socket does.
type loopback struct{ queue, free chan *[]byte }

const (
	ownMessages = 256
	ownSize     = 128 // bytes that each buffer starts with; a beat or an answer fits
)

func newLoopback() loopback {
	l := loopback{make(chan *[]byte, ownMessages), make(chan *[]byte, ownMessages)}
	room := make([]byte, ownMessages*ownSize)
	for i := range ownMessages {
		b := room[i*ownSize : i*ownSize : (i+1)*ownSize]
		l.free <- &b
	}
	return l
}

func (l loopback) put(payload []byte) bool {
	select {
	case b := <-l.free:
		*b = append((*b)[:0], payload...)
		l.queue <- b // never full: it holds all there are
		return true
	default:
		return false
	}
}

// readOwn takes what this node says to itself.
func (t *transport) readOwn() {
	answer := t.newSender()
	for {
		select {
		case <-t.done:
			return
		case b := <-t.own.queue:
			t.cfg.Handle(Packet{From: t.cfg.Name, Link: -1, Payload: *b, Answer: answer})
			t.own.free <- b
		}
	}
}
