package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/fsm"
	"hanode/gossip"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/netio"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/lease"
	"hanode/vip/vipfake"
)

// wires is a network that counts what is sent and brings nothing.
type wires struct {
	sent   atomic.Int64
	closed chan struct{}
	once   sync.Once
}

func (w *wires) Links() []netio.Link {
	return []netio.Link{{Name: "eth0", Addr: netip.MustParseAddr("10.0.0.1")}, {Name: "eth1", Addr: netip.MustParseAddr("10.77.0.1")}}
}
func (w *wires) ListenPacket(string, int) (netio.PacketConn, error) { return w, nil }
func (w *wires) Listen(int) (net.Listener, error)                   { return deaf{w}, nil }
func (w *wires) Dial(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return nil, errors.New("no wire")
}

func (w *wires) ReadFrom([]byte) (int, netip.AddrPort, error) {
	<-w.closed
	return 0, netip.AddrPort{}, net.ErrClosed
}
func (w *wires) WriteTo([]byte, netip.AddrPort) error { w.sent.Add(1); return nil }
func (w *wires) Close() error                         { w.once.Do(func() { close(w.closed) }); return nil }

type deaf struct{ *wires }

func (d deaf) Accept() (net.Conn, error) { <-d.closed; return nil, net.ErrClosed }
func (d deaf) Addr() net.Addr            { return &net.TCPAddr{} }

// pathNode is a voter of three with a registration, assembled as far as the beat
// path goes; nothing of it runs by itself but gossip.
func pathNode(t testing.TB) (*Agent, *wires) {
	t.Helper()
	w := &wires{closed: make(chan struct{})}
	return pathNodeOn(t, w, trust.NewRing(pathKeys(t)), 3), w
}

func pathKeys(t testing.TB) *trust.Keys {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(trust.Generate()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := trust.Load(key)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// pathNodeOn is pathNode on a network, in a cluster of so many nodes.
func pathNodeOn(t testing.TB, w netio.Network, keys *trust.Ring, nodes int) *Agent {
	t.Helper()
	clk, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(&config.Node{Cluster: "web", Name: "n0", Timing: spec.Profiles["lan"]}, Options{Host: &Host{Network: w, Clock: clk}})
	if err != nil {
		t.Fatal(err)
	}
	a.kernel = vipfake.NewHost(clk).Open()
	a.born = clk.Now()
	a.grant.Grantor = lease.NewGrantor(a.born)
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	regs := map[string]lease.Registration{}
	peers := map[string][]netip.Addr{}
	for i, n := range names {
		regs[n] = lease.Registration{Inc: 1, Bound: time.Second}
		peers[n] = pathAddrs(i)
	}
	names = names[:min(nodes, 5)] // that vote
	a.grant.Applied(a.born, 1, names, regs)
	a.grant.voter = true
	a.grant.Ready()
	a.speak()
	a.elect.init(a.cfg.Name)
	a.groups.init()
	a.lead.init()
	g, err := gossip.Start(gossip.Config{
		Name: "n0", Cluster: "web", Network: w, Port: 7694, Keys: keys, Clock: clk, LinkDead: time.Second,
		Peers: peers, Handle: a.handle, Log: a.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Stop(0) })
	a.gossip = g
	h := lease.NewHolder(id.NodeRef{Name: "n0", Inc: 1}, 900*time.Millisecond, a.born)
	h.SetVoters(1, names)
	a.hold.holder = h
	a.lease.Store(h.Lease)
	return a
}

func pathAddrs(i int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})}
}

// TestBeatsWaitForNobody holds every lock that any slower part of the agent uses,
// with the posts full to the brim, and sends a beat, answers one and takes acks.
func TestBeatsWaitForNobody(t *testing.T) {
	a, w := pathNode(t)
	rec, err := json.Marshal(fsm.Record{Group: "web"})
	if err != nil {
		t.Fatal(err)
	}
	back := a.gossip.Sender()
	for range 2 * maxPosts { // nobody empties the queue
		a.handle(gossip.Packet{From: "n1", Payload: append([]byte{byte(lease.KindRecord)}, rec...), Answer: back})
	}
	if n := a.posts.dropped.Load(); n != maxPosts {
		t.Errorf("%d records dropped", n)
	}

	release := make(chan struct{})
	var held sync.WaitGroup
	locked := make(chan struct{})
	held.Go(func() {
		a.machine.View(func(*fsm.State) {
			for _, m := range []sync.Locker{&a.hold, &a.groups.mu, &a.lead.mu, &a.elect.mu, &a.problems.mu, &a.loops, &a.ears.replace} {
				m.Lock()
				defer m.Unlock()
			}
			close(locked)
			<-release
		})
	})
	<-locked
	a.ears.replace.Unlock() // a node that is heard for the first time needs it; one that is known does not
	a.handle(gossip.Packet{From: "n1", Payload: beatOf("n1", 1), Answer: back})
	a.handle(gossip.Packet{From: "n2", Payload: beatOf("n2", 1), Answer: back})
	a.ears.of("n0")
	a.ears.replace.Lock()
	writer := make(chan struct{})
	held.Go(func() { close(writer); a.machine.Advance(1) }) // a writer that waits stops new readers as well
	<-writer

	done := make(chan struct{})
	go func() {
		defer close(done)
		m := &mouth{Sender: a.gossip.Sender()}
		for seq := uint64(1); seq <= 100; seq++ {
			before := w.sent.Load()
			a.sayBeat(m)
			if n := w.sent.Load() - before; n < 4 {
				t.Errorf("beat %d went out as %d datagrams", seq, n)
			}
			before = w.sent.Load()
			a.handle(gossip.Packet{From: "n1", Payload: beatOf("n1", seq+1), Answer: back})
			if n := w.sent.Load() - before; n < 2 {
				t.Errorf("beat %d of n1 was answered with %d datagrams", seq+1, n)
			}
			before = w.sent.Load()
			a.handle(gossip.Packet{From: "n1", Link: 1, Payload: beatOf("n1", seq+1), Answer: back})
			if n := w.sent.Load() - before; n != 0 {
				t.Errorf("the copy of beat %d that came over the other link was answered with %d datagrams", seq+1, n)
			}
			end := a.lease.Load().End()
			a.handle(gossip.Packet{From: "n1", Payload: ackOf(m.beat.Seq), Answer: back})
			a.handle(gossip.Packet{From: "n2", Payload: ackOf(m.beat.Seq), Answer: back})
			if !end.Before(a.lease.Load().End()) {
				t.Errorf("ack %d did not move the lease", seq)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("a beat or an answer waits for a lock")
	}
	close(release)
	held.Wait()
	<-done
	if seq := a.lease.Load(); !seq.Leased(a.host.Clock.Now()) {
		t.Error("no lease")
	}
}

func beatOf(name string, seq uint64) []byte {
	return lease.Beat{Ref: id.NodeRef{Name: name, Inc: 1}, Seq: seq, Version: 1, Applied: 1, Ready: true}.Append(nil)
}

func ackOf(seq uint64) []byte {
	return lease.Reply{Ref: id.NodeRef{Name: "n0", Inc: 1}, Seq: seq, Answer: lease.Ack, Version: 1}.Append(nil)
}

// TestBeatsAllocateNothing: what allocates may have to help the collector, and then
// waits for what others allocated.
func TestBeatsAllocateNothing(t *testing.T) {
	a, _ := pathNode(t)
	m := &mouth{Sender: a.gossip.Sender()}
	back := a.gossip.Sender()
	seq := uint64(0)
	var buf [256]byte
	for name, step := range map[string]func(){
		"send a beat": func() { a.sayBeat(m) },
		"answer a beat": func() {
			seq++
			b := lease.Beat{Ref: id.NodeRef{Name: "n1", Inc: 1}, Seq: seq, Version: 1, Applied: 1, Ready: true}.Append(buf[:0])
			a.handle(gossip.Packet{From: "n1", Payload: b, Answer: back})
		},
		"take an ack": func() {
			a.sayBeat(m)
			for _, v := range []string{"n1", "n2"} {
				b := lease.Reply{Ref: id.NodeRef{Name: "n0", Inc: 1}, Seq: m.beat.Seq, Answer: lease.Ack, Version: 1}.Append(buf[:0])
				a.handle(gossip.Packet{From: v, Payload: b, Answer: back})
			}
		},
	} {
		step()
		if n := testing.AllocsPerRun(200, step); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkSendBeat(b *testing.B) {
	a, _ := pathNode(b)
	m := &mouth{Sender: a.gossip.Sender()}
	b.ReportAllocs()
	for b.Loop() {
		a.sayBeat(m)
	}
}

func BenchmarkAnswerBeat(b *testing.B) {
	a, _ := pathNode(b)
	back := a.gossip.Sender()
	var buf [256]byte
	seq := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		p := lease.Beat{Ref: id.NodeRef{Name: "n1", Inc: 1}, Seq: seq, Version: 1, Applied: 1, Ready: true}.Append(buf[:0])
		a.handle(gossip.Packet{From: "n1", Payload: p, Answer: back})
	}
}

// BenchmarkAnswerMany is BenchmarkAnswerBeat with a thousand nodes that beat in turn.
func BenchmarkAnswerMany(b *testing.B) {
	a := pathNodeOn(b, &wires{closed: make(chan struct{})}, trust.NewRing(pathKeys(b)), 1000)
	back := a.gossip.Sender()
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	var buf [256]byte
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		name := names[n%999+1]
		p := lease.Beat{Ref: id.NodeRef{Name: name, Inc: 1}, Seq: uint64(n), Version: 1}.Append(buf[:0])
		a.handle(gossip.Packet{From: name, Payload: p, Answer: back})
	}
}

// tape is a network that keeps what is sent first over its first link, or brings what it
// has kept there.
type tape struct {
	*wires
	kept   [][]byte
	bring  chan [][]byte
	played chan struct{} // told when all was brought, and asked for more
}

func (p *tape) ListenPacket(link string, _ int) (netio.PacketConn, error) {
	if link != "eth0" {
		return p.wires, nil
	}
	return &tapeConn{tape: p}, nil
}

type tapeConn struct {
	*tape
	left [][]byte
	busy bool
}

func (c *tapeConn) WriteTo(b []byte, to netip.AddrPort) error {
	if c.bring == nil {
		c.kept = append(c.kept, slices.Clone(b))
	}
	return c.wires.WriteTo(b, to)
}

func (c *tapeConn) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	for len(c.left) == 0 {
		if c.busy {
			c.played <- struct{}{}
			c.busy = false
		}
		select {
		case c.left = <-c.bring:
			c.busy = true
		case <-c.closed:
			return 0, netip.AddrPort{}, net.ErrClosed
		}
	}
	n := copy(b, c.left[0])
	c.left = c.left[1:]
	return n, netip.AddrPortFrom(pathAddrs(1)[0], 7694), nil
}

// BenchmarkReceiveBeat is all that a voter of a thousand nodes does for a beat that comes
// and is news, but for the kernel's part: opened, decoded, decided, noted, and answered
// over both links. ns/op is for one.
func BenchmarkReceiveBeat(b *testing.B) {
	keys := trust.NewRing(pathKeys(b))
	from := &tape{wires: &wires{closed: make(chan struct{})}}
	clk, err := clock.System()
	if err != nil {
		b.Fatal(err)
	}
	g, err := gossip.Start(gossip.Config{
		Name: "n1", Cluster: "web", Network: from, Port: 7694, Keys: keys, Clock: clk, LinkDead: time.Second,
		Peers: map[string][]netip.Addr{"n0": pathAddrs(0)}, Handle: func(gossip.Packet) {}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = g.Stop(0) }()
	to := &tape{wires: &wires{closed: make(chan struct{})}, bring: make(chan [][]byte), played: make(chan struct{})}
	a := pathNodeOn(b, to, keys, 1000)
	s := g.Sender()
	const batch = 1000
	seq := uint64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		b.StopTimer()
		from.kept = nil
		for range min(batch, b.N-n) {
			seq++
			s.Send(lease.Beat{Ref: id.NodeRef{Name: "n1", Inc: 1}, Seq: seq, Version: 1}.Append(nil), "n0")
		}
		kept := from.kept
		before := to.sent.Load()
		b.StartTimer()
		to.bring <- kept
		<-to.played
		n += len(kept)
		if got := to.sent.Load() - before; got < int64(len(kept)) {
			b.Fatalf("%d beats were answered by %d datagrams", len(kept), got)
		}
	}
	if h, ok := a.ears.get("n1"); !ok || h.beat.Seq != seq {
		b.Fatalf("heard of beat %d of %d", h.beat.Seq, seq)
	}
}

// BenchmarkTakeAck numbers a beat, too: an ack of an old one moves nothing.
func BenchmarkTakeAck(b *testing.B) {
	a, _ := pathNode(b)
	back := a.gossip.Sender()
	var buf [256]byte
	var m lease.Beat
	b.ReportAllocs()
	for b.Loop() {
		a.lease.Load().Say(&m, a.host.Clock.Now())
		for _, v := range [2]string{"n1", "n2"} {
			p := lease.Reply{Ref: m.Ref, Seq: m.Seq, Answer: lease.Ack, Version: 1}.Append(buf[:0])
			a.handle(gossip.Packet{From: v, Payload: p, Answer: back})
		}
	}
}

// Who asks a node that was cut off this very moment, from a leader that is not silent for
// deadtime yet, is not left waiting for it.
func TestNobodyWaitsForALeaderThatDies(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		time.Sleep(l.tm.Deadtime / 2)
		begin := time.Now()
		_, err := l.on("primary").Members(t.Context())
		took := time.Since(begin)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitNoQuorum || took > 2*l.tm.Deadtime {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
