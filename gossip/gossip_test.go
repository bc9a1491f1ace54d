package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"hanode/internal/clock"
	"hanode/internal/memnet"
	"hanode/internal/netio"
	"hanode/internal/trust"
)

const (
	port     = 7694
	linkDead = 300 * time.Millisecond
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// virtual reads the bubble's time as both clocks.
type virtual struct{ base time.Time }

func (v virtual) Now() clock.Instant {
	d := time.Hour + time.Since(v.base)
	return clock.Instant{Boot: d, Raw: d}
}
func (virtual) Wall() time.Time { return time.Now() }

type lab struct {
	t    *testing.T
	net  *memnet.Net
	keys *trust.Keys
	all  map[string]*member
	base time.Time
}

type member struct {
	*Gossip
	lab   *lab
	name  string
	n     int
	wire  *memnet.Host
	tweak func(*Config)
	stop  chan struct{}
	done  chan struct{}

	mu    sync.Mutex // guards the fields below
	got   map[string]int
	saved map[string][]netip.Addr
}

func newKeys(t testing.TB) *trust.Keys {
	return must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate())))
}

func addr(link, n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(link), 0, byte(n)}) }

// bubble starts nodes that beat each other over two links.
func bubble(t *testing.T, names []string, fn func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, net: memnet.New(1), keys: newKeys(t), all: map[string]*member{}, base: time.Now()}
		for i, n := range names {
			l.all[n] = &member{lab: l, name: n, n: i + 1}
		}
		for _, n := range names {
			l.all[n].start()
		}
		defer func() {
			for _, m := range l.all {
				m.halt()
			}
			l.net.Close()
			time.Sleep(time.Minute) // memberlist does not wait for its own probes
		}()
		fn(l)
	})
}

func (m *member) start() {
	l := m.lab
	m.wire = l.net.Host(m.name, netio.Link{Name: "eth0", Addr: addr(0, m.n)}, netio.Link{Name: "eth1", Addr: addr(1, m.n)})
	m.mu.Lock()
	m.got = map[string]int{}
	peers := m.saved
	m.mu.Unlock()
	cfg := Config{
		Name: m.name, Cluster: "web", Network: m.wire, Port: port, Keys: trust.NewRing(l.keys), Clock: virtual{l.base}, LinkDead: linkDead,
		Seeds: map[string]netip.Addr{}, Peers: peers, Handle: m.handle, Log: slog.New(slog.DiscardHandler),
		Save: func(p map[string][]netip.Addr) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.saved = p
		},
	}
	for _, o := range l.all {
		cfg.Seeds[o.name] = addr(0, o.n)
	}
	if m.tweak != nil {
		m.tweak(&cfg)
	}
	m.Gossip = must[*Gossip](l.t)(Start(cfg))
	m.stop, m.done = make(chan struct{}), make(chan struct{})
	go m.beat(m.Gossip)
}

func (m *member) beat(g *Gossip) {
	defer close(m.done)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			g.Send([]byte("beat"), slices.Collect(maps.Keys(m.lab.all))...)
		}
	}
}

func (m *member) handle(p Packet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got[fmt.Sprintf("%s/%d %s", p.From, p.Link, p.Payload)]++
}

func (m *member) heard() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.got
	m.got = map[string]int{}
	return out
}

func (m *member) halt() {
	if m.Gossip == nil {
		return
	}
	close(m.stop)
	<-m.done
	if err := m.Stop(0); err != nil {
		m.lab.t.Error(err)
	}
	m.heard()
	time.Sleep(time.Second)
	if late := m.heard(); len(late) > 0 {
		m.lab.t.Errorf("%s: handled after Stop: %v", m.name, late)
	}
	m.Gossip = nil
}

func (l *lab) until(what string, limit time.Duration, ok func() bool) {
	l.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			l.t.Fatalf("%v and not yet: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// whole waits until these see each other, and nobody else.
func (l *lab) whole(limit time.Duration, names ...string) {
	l.t.Helper()
	l.until(fmt.Sprint("all see ", names), limit, func() bool {
		for _, n := range names {
			if seen := l.all[n].Seen(); len(seen) != len(names) {
				return false
			}
		}
		return true
	})
}

// cutLink cuts one link of a node in both directions.
func (l *lab) cutLink(name, link string) {
	l.net.Cut(name, "", link, true)
	l.net.Cut("", name, link, true)
}

func TestLane(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c")
		// Metadata taught everybody the second link, which no seed names.
		l.until("eth1 is known", 10*time.Second, func() bool { return l.all["b"].Links("a")[1].Up })
		b := l.all["b"]
		b.heard()
		time.Sleep(time.Second)
		got := b.heard()
		for _, want := range []string{"a/0 beat", "a/1 beat", "c/0 beat", "c/1 beat", "b/-1 beat"} {
			if got[want] < 15 {
				t.Errorf("%s came %d times in a second: %v", want, got[want], got)
			}
		}
		if len(got) != 5 {
			t.Errorf("b got %v", got)
		}
		l.cutLink("a", "eth0")
		time.Sleep(time.Second)
		b.heard()
		time.Sleep(time.Second)
		if got := b.heard(); got["a/0 beat"] > 0 || got["a/1 beat"] < 15 {
			t.Errorf("with eth0 cut b got %v", got)
		}
		links := b.Links("a")
		if links[0].Up || !links[1].Up || links[0].Age < linkDead || links[1].Age > linkDead || links[1].Address != addr(1, 1) {
			t.Errorf("links to a: %+v", links)
		}
		if own := b.Links("b"); !own[0].Up || own[0].Address != addr(0, 2) {
			t.Errorf("own links: %+v", own)
		}
		time.Sleep(30 * time.Second)
		l.whole(time.Second, "a", "b", "c") // gossip takes the other link as well
		if n := b.Counters(); n.Sent.Load() == 0 || n.Received.Load() == 0 || n.OtherKey.Load()+n.OtherCluster.Load()+n.Malformed.Load() > 0 {
			t.Errorf("counters: sent %d received %d", n.Sent.Load(), n.Received.Load())
		}
	})
}

func TestStrangers(t *testing.T) {
	for _, c := range []struct {
		cause string
		tweak func(*Config)
		count func(*Counters) uint64
	}{
		{"other-key", func(c *Config) {
			c.Keys = trust.NewRing(must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate()))))
		}, func(n *Counters) uint64 { return n.OtherKey.Load() }},
		{"other-cluster", func(c *Config) { c.Cluster = "another" }, func(n *Counters) uint64 { return n.OtherCluster.Load() }},
	} {
		t.Run(c.cause, func(t *testing.T) {
			bubble(t, []string{"a", "b", "x"}, func(l *lab) {
				x := l.all["x"]
				x.halt()
				x.tweak = c.tweak
				x.start()
				l.whole(30*time.Second, "a", "b")
				a := l.all["a"]
				a.heard()
				time.Sleep(10 * time.Second)
				for what := range a.heard() {
					if strings.HasPrefix(what, "x") {
						t.Error("handled", what)
					}
				}
				for what := range x.heard() {
					if !strings.HasPrefix(what, "x") {
						t.Error("the stranger handled", what)
					}
				}
				if a.Seen()["x"] || c.count(a.Counters()) == 0 {
					t.Errorf("a sees %v and refused %d", a.Seen(), c.count(a.Counters()))
				}
				found := false
				for _, s := range a.Strangers() {
					found = found || s.Cause == c.cause && s.Addr == addr(0, 3) && s.Count > 10
				}
				if !found {
					t.Errorf("strangers: %+v", a.Strangers())
				}
				for _, k := range a.Links("x") {
					if k.Up {
						t.Errorf("its link counts as up: %+v", k)
					}
				}
			})
		})
	}
}

// TestOwnName: another machine of the same name is named as such, and what this node
// itself said is not taken for one.
func TestOwnName(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		a := l.all["a"]
		a.heard()
		clone := l.net.Host("clone", netio.Link{Name: "eth0", Addr: addr(0, 9)})
		cfg := a.cfg
		cfg.Network, cfg.Seeds, cfg.Save, cfg.Handle = clone, nil, nil, func(Packet) {}
		g := must[*Gossip](t)(Start(cfg))
		defer func() { _ = g.Stop(0) }()
		g.Introduce("there", addr(0, 1))
		for range 3 {
			g.Send([]byte("from the clone"), "there")
			time.Sleep(10 * time.Millisecond)
		}
		if s := a.Strangers(); len(s) != 1 || s[0].Cause != "same-name" || s[0].Addr != addr(0, 9) || s[0].Last.IsZero() || s[0].Count != 2 {
			t.Errorf("strangers: %+v", s)
		}
		for what := range a.heard() {
			if strings.Contains(what, "clone") {
				t.Error("handled", what)
			}
		}
	})
}

// sealed is a lane message as node from would send it.
func (l *lab) sealed(from, payload string) []byte {
	head := l.all["a"].trans.head
	plain := append([]byte{byte(len(from))}, from+payload...)
	return l.keys.Sealer().Seal(append([]byte(nil), head[:]...), head[:], plain)
}

func TestMalformed(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		x := l.net.Host("x", netio.Link{Name: "eth0", Addr: addr(0, 9)})
		sock := must[netio.PacketConn](t)(x.ListenPacket("eth0", port))
		defer func() { _ = sock.Close() }()
		a := l.all["a"]
		head := a.trans.head[:]
		good := l.sealed("b", "payload")
		flipped := slices.Clone(good)
		flipped[len(flipped)-1] ^= 1
		for _, c := range []struct {
			name                  string
			b                     []byte
			malformed, key, other uint64
		}{
			{"no more than the type", []byte{laneByte}, 1, 0, 0},
			{"half a header", head[:5], 1, 0, 0},
			{"the header alone", head, 1, 0, 0},
			{"too short to be sealed", append(slices.Clone(head), "short"...), 1, 0, 0},
			{"noise", append(slices.Clone(head), strings.Repeat("\x01noise", 50)...), 0, 1, 0},
			{"one bit flipped", flipped, 0, 1, 0},
			{"one byte less", good[:len(good)-1], 0, 1, 0},
			{"one byte more", append(slices.Clone(good), 0), 0, 1, 0},
			{"another cluster's header", append([]byte{laneByte, 1, 2, 3, 4, 5, 6, 7, 8}, good[laneHeader:]...), 0, 0, 1},
			{"as large as can be", append(slices.Clone(head), make([]byte, trust.MaxSealed-laneHeader)...), 1, 0, 0},
			{"no name inside", l.keys.Sealer().Seal(slices.Clone(head), head, nil), 1, 0, 0},
			{"an empty name", l.keys.Sealer().Seal(slices.Clone(head), head, []byte{0, 'x'}), 1, 0, 0},
			{"a name longer than the message", l.keys.Sealer().Seal(slices.Clone(head), head, []byte{9, 'x'}), 1, 0, 0},
			{"for memberlist, empty", nil, 1, 0, 0},
			{"for memberlist, noise", []byte(strings.Repeat("\x00\x01\xf4", 100)), 1, 0, 0},
			{"for memberlist, a label that is none", append([]byte{labelByte, 200}, "hanod"...), 1, 0, 0},
			{"for memberlist, another label", append([]byte{labelByte, 8}, "hanode/x..."...), 0, 0, 1},
			{"for memberlist, our label and noise", append([]byte{labelByte, 10}, "hanode/web\x01noise"...), 0, 0, 0},
		} {
			n := a.Counters()
			m, k, o := n.Malformed.Load(), n.OtherKey.Load(), n.OtherCluster.Load()
			if err := sock.WriteTo(c.b, netip.AddrPortFrom(addr(0, 1), port)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			time.Sleep(5 * time.Millisecond)
			if m, k, o = n.Malformed.Load()-m, n.OtherKey.Load()-k, n.OtherCluster.Load()-o; m != c.malformed || k != c.key || o != c.other {
				t.Errorf("%s: counted malformed %d, other key %d, other cluster %d", c.name, m, k, o)
			}
		}
		for what := range a.heard() {
			if !strings.HasSuffix(what, " beat") {
				t.Error("handled", what)
			}
		}
		l.whole(time.Second, "a", "b")
	})
}

// echo answers connections on a node's port+1 with what comes.
func (m *member) echo() net.Listener {
	ln := must[net.Listener](m.lab.t)(m.wire.Listen(port + 1))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return ln
}

func linkOf(c net.Conn) int {
	return int(netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().As4()[1])
}

func TestDialMovesWithTheLink(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		a, b := l.all["a"], l.all["b"]
		ln := b.echo()
		defer func() { _ = ln.Close() }()
		l.until("both links", 10*time.Second, func() bool { k := a.Links("b"); return k[0].Up && k[1].Up })
		ctx := l.t.Context()
		c := must[net.Conn](t)(a.Dial(ctx, "b", port+1))
		buf := make([]byte, 4)
		if _, err := c.Write([]byte("ping")); err != nil || linkOf(c) != 0 {
			t.Fatal(linkOf(c), err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		l.cutLink("b", "eth0")
		begin := time.Now()
		_, err := c.Read(buf)
		if err == nil || time.Since(begin) > 2*linkDead {
			t.Errorf("the stream on the dead link ended after %v: %v", time.Since(begin), err)
		}
		begin = time.Now()
		c2 := must[net.Conn](t)(a.Dial(ctx, "b", port+1))
		if linkOf(c2) != 1 || time.Since(begin) > headStart {
			t.Errorf("dialled link %d in %v", linkOf(c2), time.Since(begin))
		}
		// A dead node: its streams stay until somebody gives up; none is closed for
		// a silence that another link would not cure.
		l.cutLink("b", "eth1")
		time.Sleep(4 * linkDead)
		if err := c2.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal("closed although no link lives:", err)
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "b", port+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("dial of a dead node:", err)
		}
		if _, err := a.Dial(ctx, "nobody", port+1); err == nil || !strings.Contains(err.Error(), "no address of nobody") {
			t.Error(err)
		}
		_ = c2.Close()
	})
}

// TestDialWithoutNews: nothing was heard yet and the first link is dead: the second
// one gets its turn after the head start.
func TestDialWithoutNews(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		a := l.all["a"]
		ln := l.all["b"].echo()
		defer func() { _ = ln.Close() }()
		l.cutLink("b", "eth0")
		a.halt()
		a.start() // knows eth1 from what it saved
		begin := time.Now()
		c := must[net.Conn](t)(a.Dial(l.t.Context(), "b", port+1))
		if took := time.Since(begin); linkOf(c) != 1 || took > 2*headStart {
			t.Errorf("link %d after %v", linkOf(c), took)
		}
		_ = c.Close()
		l.whole(15*time.Second, "a", "b")
	})
}

// TestLongPartition: memberlist alone never dials again.
func TestLongPartition(t *testing.T) {
	bubble(t, []string{"a", "b", "c", "dead"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c", "dead")
		l.net.PowerOff("dead")
		l.net.Cut("c", "", "", true)
		l.net.Cut("", "c", "", true)
		time.Sleep(10 * time.Minute)
		if n := len(l.all["c"].Seen()); n != 1 {
			t.Errorf("cut off, c sees %d", n)
		}
		l.net.Heal()
		l.whole(10*time.Second, "a", "b", "c")
	})
}

// TestNobodyElseRejoins: what TestLongPartition shows is our doing. memberlist alone
// never finds those again that it took for dead.
func TestNobodyElseRejoins(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		for _, m := range l.all { // after their first joins
			m.halt()
			m.tweak = func(c *Config) { c.noRejoin = true }
		}
		for _, n := range []string{"a", "b", "c"} {
			l.all[n].start()
		}
		l.whole(30*time.Second, "a", "b", "c")
		l.cutLink("c", "")
		time.Sleep(10 * time.Minute)
		l.net.Heal()
		time.Sleep(10 * time.Minute)
		for n, m := range l.all {
			if len(m.Seen()) == 3 {
				t.Errorf("%s sees everybody again without our rejoin: it is not needed any more", n)
			}
		}
	})
}

// TestStopIsQuick: dials to the dead must not keep an agent from stopping.
func TestStopIsQuick(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c")
		l.net.PowerOff("b")
		l.net.PowerOff("c")
		time.Sleep(time.Minute + 100*time.Millisecond)
		a := l.all["a"]
		close(a.stop)
		<-a.done
		begin := time.Now()
		if err := a.Stop(0); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		a.Gossip = nil
	})
}

func TestOrderlyLeave(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c")
		c := l.all["c"]
		close(c.stop)
		<-c.done
		if err := c.Stop(5 * time.Second); err != nil {
			t.Error(err)
		}
		c.Gossip = nil
		l.whole(2*time.Second, "a", "b") // told, not found out
		c.start()
		l.whole(10*time.Second, "a", "b", "c")
		l.all["a"].Forget("c")
		if k := l.all["a"].Links("c"); k[0].Up && k[0].Address.IsValid() {
			t.Errorf("forgotten, but %+v", k)
		}
		l.all["a"].mu.Lock()
		defer l.all["a"].mu.Unlock()
		if _, ok := l.all["a"].saved["c"]; ok {
			t.Error("forgotten, but still on disk")
		}
	})
}

// TestNewAddress: DHCP gives a link another address; everybody learns it.
func TestNewAddress(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c")
		a := l.all["a"]
		l.until("links", 10*time.Second, func() bool { return a.Links("b")[1].Up })
		fresh := netip.MustParseAddr("10.0.0.77")
		if err := l.all["b"].wire.SetAddr("eth0", fresh); err != nil {
			t.Fatal(err)
		}
		l.until("a beats the new address", 10*time.Second, func() bool {
			k := a.Links("b")
			return k[0].Address == fresh && k[0].Up
		})
		l.all["b"].heard()
		time.Sleep(time.Second)
		if got := l.all["b"].heard(); got["a/0 beat"] < 15 {
			t.Errorf("b got %v", got)
		}
		l.whole(10*time.Second, "a", "b", "c")
	})
}

// TestBackWithoutFirstLink: a node that starts again with only its second link is
// the same node under another address.
func TestBackWithoutFirstLink(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b", "c")
		b := l.all["b"]
		b.halt()
		b.tweak = func(*Config) {
			if err := b.wire.SetAddr("eth0", netip.Addr{}); err != nil {
				t.Error(err)
			}
		}
		b.start()
		l.whole(30*time.Second, "a", "b", "c")
	})
}

func FuzzLane(f *testing.F) {
	keys := newKeys(f)
	n := memnet.New(1)
	f.Cleanup(n.Close)
	h := n.Host("a", netio.Link{Name: "eth0", Addr: addr(0, 1)})
	var got []Packet
	cfg := Config{
		Name: "a", Cluster: "web", Network: h, Port: port, Keys: trust.NewRing(keys), Clock: virtual{time.Now()}, LinkDead: linkDead,
		Handle: func(p Packet) {
			got = append(got, Packet{From: p.From, Link: p.Link, Payload: slices.Clone(p.Payload)})
		},
		Log: slog.New(slog.DiscardHandler),
	}
	tr := must[*transport](f)(newTransport(cfg, newDirectory(cfg)))
	f.Cleanup(tr.close)
	sealer := keys.Sealer()
	good := sealer.Seal(slices.Clone(tr.head[:]), tr.head[:], append([]byte{1}, "bpayload"...))
	f.Add(good, []byte(nil))
	f.Add(tr.head[:], []byte{1, 'b'})
	f.Add([]byte{laneByte}, []byte{0})
	f.Add([]byte(nil), []byte{255, 'x'})
	opener := keys.Opener()
	plain := make([]byte, 0, maxDatagram)
	f.Fuzz(func(t *testing.T, raw, inside []byte) {
		from := netip.AddrPortFrom(addr(0, 9), port)
		got = nil
		tr.sessions = sessions{}
		tr.runs(sealer, inside)
		tr.lane(opener, plain, raw, 0, from, tr.newSender())
		if len(got) > 0 && !slices.Equal(raw, good) {
			t.Fatalf("a forgery was handled: %+v", got)
		}
		// A member that sends nonsense.
		got = nil
		tr.lane(opener, plain, sealer.Seal(slices.Clone(tr.head[:]), tr.head[:], inside), 0, from, tr.newSender())
		tr.lane(opener, plain, raw, 0, from, tr.newSender())
		head := slices.Clone(tr.head[:])
		head[0] = proofByte
		tr.lane(opener, plain, sealer.Seal(slices.Clone(head), head, inside), 0, from, tr.newSender())
		tr.lane(opener, plain, keys.Sealer().Seal(slices.Clone(head), head, inside), 0, from, tr.newSender())
		for _, p := range got {
			if p.From == "" || p.From == "a" || len(p.From)+len(p.Payload)+1 != len(inside) {
				t.Fatalf("%q became %+v", inside, p)
			}
		}
	})
}

// FuzzMeta: what a member says of itself through memberlist is learned whole or not at all.
func FuzzMeta(f *testing.F) {
	n := memnet.New(1)
	f.Cleanup(n.Close)
	h := n.Host("a", netio.Link{Name: "eth0", Addr: addr(0, 1)}, netio.Link{Name: "eth1", Addr: addr(1, 1)})
	f.Add([]byte(`{"v":1,"a":["10.0.0.2","10.1.0.2"],"g":3,"s":2}`))
	f.Add([]byte(`{"v":1,"a":["",""]}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &Gossip{cfg: Config{Name: "a", Network: h, Clock: virtual{time.Now()}, LinkDead: linkDead, Generation: func() uint64 { return 1 }, Superseded: func(string, uint64) {}}}
		g.dir = newDirectory(g.cfg)
		events{g}.learn(&memberlist.Node{Name: "b", Meta: b})
		if x := g.dir.get("b"); x != nil && len(x.to()) != 2 {
			t.Errorf("%q: %v", b, x.to())
		}
		if s := g.Speaks("b"); s < 0 {
			t.Errorf("%q: speaks %d", b, s)
		}
	})
}
