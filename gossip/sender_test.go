package gossip

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"hanode/internal/memnet"
	"hanode/internal/netio"
	"hanode/internal/trust"
)

// TestTheLaneWaitsForNobody sends and takes lane messages while an address is
// being learned and streams are being moved, each for ever.
func TestTheLaneWaitsForNobody(t *testing.T) {
	keys := newKeys(t)
	n := memnet.New(1)
	t.Cleanup(n.Close)
	h := n.Host("a", netio.Link{Name: "eth0", Addr: addr(0, 1)})
	got := 0
	cfg := Config{
		Name: "a", Cluster: "web", Network: h, Port: port, Keys: trust.NewRing(keys), Clock: virtual{time.Now()}, LinkDead: linkDead,
		Peers:  map[string][]netip.Addr{"b": {addr(0, 2)}},
		Handle: func(p Packet) { got++; p.Answer.Send(p.Payload, p.From) },
		Log:    slog.New(slog.DiscardHandler),
	}
	tr := must[*transport](t)(newTransport(cfg, newDirectory(cfg)))
	t.Cleanup(tr.close)
	for _, m := range []interface{ Lock() }{&tr.dir.mu, &tr.dir.learning, &tr.dir.replace} {
		m.Lock()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		opener, answer := keys.Opener(), tr.newSender()
		b, inside := keys.Sealer(), append([]byte{1}, "bpayload"...)
		tr.runs(b, inside)
		plain, sealed := make([]byte, 0, maxDatagram), make([]byte, 0, maxDatagram)
		step := func() {
			answer.Send([]byte("beat"), "b", "a")
			sealed = b.Seal(append(sealed[:0], tr.head[:]...), tr.head[:], inside)
			tr.lane(opener, plain, sealed, 0, netip.AddrPortFrom(addr(0, 2), port), answer)
		}
		step()
		if k := testing.AllocsPerRun(100, step); k > 2 { // the in-memory network makes two copies
			t.Errorf("%v allocations for a beat, its way in and its answer", k)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the lane waits for a lock")
	}
	if sent := tr.count.Sent.Load(); got < 100 || sent != uint64(2*got) {
		t.Errorf("%d handled, %d sent", got, sent)
	}
	if at := tr.dir.get("b").heard[0].at(); at.IsZero() {
		t.Error("the link was not noted")
	}
}

// runs has the session of a sealer proven, as if it had answered; inside begins with its
// node's name.
func (t *transport) runs(s *trust.Sealer, inside []byte) {
	name, _, ok := splitName(inside)
	if !ok {
		return
	}
	x := t.sessions.of(s.Salt(), name, 1)
	number, _ := x.ask(1)
	x.prove(number[:], 0, 1)
}
