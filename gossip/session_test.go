package gossip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hanode/internal/memnet"
	"hanode/internal/netio"
)

// recording is what went over the wires between two nodes.
type recording struct {
	mu   sync.Mutex
	sent map[string][][]byte // by who sent it and to whom, "b>a"
}

func record(n *memnet.Net) *recording {
	r := &recording{sent: map[string][][]byte{}}
	n.SetDrop(func(from, to string, b []byte) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent[from+">"+to] = append(r.sent[from+">"+to], slices.Clone(b))
		return false
	})
	return r
}

func (r *recording) of(from, to string) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent[from+">"+to])
}

// TestReplay sends what was recorded again: while its sender lives, after it died, after
// the receiver forgot all, each time from the sender's own address and from another.
func TestReplay(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		r := record(l.net)
		l.whole(10*time.Second, "a", "b")
		time.Sleep(5 * time.Second)
		a, b := l.all["a"], l.all["b"]
		if n := a.heard()["b/0 beat"]; n < 80 {
			t.Fatalf("a took %d beats", n)
		}
		x := l.net.Host("x", netio.Link{Name: "eth0", Addr: addr(0, 9)})
		elsewhere := must[netio.PacketConn](t)(x.ListenPacket("eth0", port))
		again := func(sock netio.PacketConn) {
			for _, d := range append(r.of("b", "a"), r.of("a", "b")...) {
				if err := sock.WriteTo(d, netip.AddrPortFrom(addr(0, 1), port)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		l.net.SetDrop(func(string, string, []byte) bool { return false })

		again(elsewhere)
		live := 0
		for what, n := range a.heard() {
			if strings.HasPrefix(what, "b/") {
				live += n
			}
		}
		took := 100 * time.Microsecond * time.Duration(len(r.of("b", "a"))+len(r.of("a", "b")))
		if most := 2 * (int(took/(50*time.Millisecond)) + 2); live > most {
			t.Errorf("%d beats of b in %v, more than its own %d", live, took, most)
		}
		if len(a.Strangers()) > 0 {
			t.Errorf("what a said itself is called %+v", a.Strangers())
		}

		b.halt()
		none := func(when string) {
			t.Helper()
			for what, n := range a.heard() {
				if !strings.HasPrefix(what, "a/-1 ") {
					t.Errorf("%s: handled %d of %s", when, n, what)
				}
			}
			if k := a.Links("b"); k[0].Up || k[1].Up {
				t.Errorf("%s: a dead node's links are up: %+v", when, k)
			}
			if s := a.Strangers(); len(s) > 0 {
				t.Errorf("%s: strangers %+v", when, s)
			}
		}
		time.Sleep(2 * linkDead)
		a.heard()
		again(elsewhere)
		none("b is dead")
		dead := l.net.Host("b", netio.Link{Name: "eth0", Addr: addr(0, 2)}, netio.Link{Name: "eth1", Addr: addr(1, 2)})
		from := must[netio.PacketConn](t)(dead.ListenPacket("eth0", port))
		again(from)
		none("b is dead, from its own address")
		a.halt()
		a.start()
		again(elsewhere)
		none("a started anew")
		again(from)
		none("a started anew, from b's own address")
		if n := a.Counters(); n.Unproven.Load() == 0 {
			t.Error("no recording was refused for what it is")
		}
		b.start()
		l.until("b itself is heard", time.Second, func() bool { return a.heard()["b/0 beat"] > 0 })
	})
}

// TestRunsNow: a node that starts is heard a question and an answer later, and then with
// the very next message.
func TestRunsNow(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		b := l.all["b"]
		b.halt()
		l.all["a"].heard()
		b.tweak = func(c *Config) {
			c.Asked = func() { time.AfterFunc(time.Millisecond, func() { b.Send([]byte("at once"), "a") }) }
		}
		b.start()
		b.Send([]byte("first"), "a")
		time.Sleep(10 * time.Millisecond)
		if got := l.all["a"].heard(); got["b/0 first"] != 0 || got["b/0 at once"] == 0 {
			t.Errorf("a heard %v", got)
		}
	})
}

// TestLyingSession: one process has one name.
func TestLyingSession(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		a, b := l.all["a"], l.all["b"]
		time.Sleep(time.Second)
		a.heard()
		head := a.trans.head[:]
		lie := b.trans.sealer.Seal(slices.Clone(head), head, append([]byte{1}, "clie"...))
		if err := b.trans.socks[0].WriteTo(lie, netip.AddrPortFrom(addr(0, 1), port)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		for what := range a.heard() {
			if strings.Contains(what, "lie") {
				t.Error("handled", what)
			}
		}
		if n := a.Counters().Lying.Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

// TestManySessions: recordings of thousands of processes that ended cost neither those
// that run nor memory.
func TestManySessions(t *testing.T) {
	var all sessions
	keys := newKeys(t)
	live := all.of(keys.Sealer().Salt(), []byte("b"), 1)
	number, _ := live.ask(1)
	live.prove(number[:], 7, 1)
	for range 3 * maxUnproven {
		all.of(keys.Sealer().Salt(), []byte("b"), 1)
	}
	if len(all.m) > maxUnproven+1 {
		t.Errorf("%d are remembered", len(all.m))
	}
	found := false
	for _, s := range all.m {
		found = found || s == live
	}
	if !found || !live.repeats(0, 7) || live.repeats(0, 8) {
		t.Error("the one that runs was forgotten")
	}
	for i := range maxProven + maxUnproven + 1 {
		s := all.of(keys.Sealer().Salt(), []byte("b"), 1)
		number, _ := s.ask(1)
		s.prove(number[:], 7, 1)
		s.used.Store(int64(i + 1))
	}
	all.thin()
	if len(all.m) != maxProven {
		t.Errorf("of those that proved it %d are remembered", len(all.m))
	}
}

// TestWindow compares the window with a set that remembers all.
func TestWindow(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var w window
		came, top := map[uint64]bool{0: true}, uint64(0)
		w.mark(0)
		for range 5000 {
			n := top + 1
			switch rng.IntN(4) {
			case 0:
				n = top - min(top, rng.Uint64N(3*windowSize))
			case 1:
				n = top + rng.Uint64N(3*windowSize)
			}
			want := came[n] || n <= top && top-n >= windowSize
			if got := w.seen(n); got != want {
				t.Fatalf("seed %d: %d with top %d: seen %v, want %v", seed, n, top, got, want)
			}
			if !want {
				w.mark(n)
				came[n], top = true, max(top, n)
			}
		}
	}
}

// TestRationed: what costs something to refuse is refused unread beyond a measure, for
// each source by itself, and members are heard all the same.
func TestRationed(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.whole(10*time.Second, "a", "b")
		a := l.all["a"]
		time.Sleep(time.Second)
		a.heard()
		x := l.net.Host("x", netio.Link{Name: "eth0", Addr: addr(0, 9)})
		sock := must[netio.PacketConn](t)(x.ListenPacket("eth0", port))
		defer func() { _ = sock.Close() }()
		other := newKeys(t)
		head := a.trans.head[:]
		label := append([]byte{labelByte, byte(len("hanode/web"))}, "hanode/web"...)
		for range 2000 { // 20,000 a second of each
			forged := other.Sealer().Seal(slices.Clone(head), head, []byte("\x01bbeat"))
			for _, b := range [][]byte{forged, append(slices.Clone(label), 1, 2, 3)} {
				if err := sock.WriteTo(b, netip.AddrPortFrom(addr(0, 1), port)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(50 * time.Microsecond)
		}
		n := a.Counters()
		if tried := n.OtherKey.Load(); tried < 1000 || tried > 1300 {
			t.Errorf("%d forged datagrams were tried in 100 ms", tried)
		}
		if limited := n.Limited.Load(); limited < 2000 || limited > 2600 {
			t.Errorf("%d datagrams were refused unread", limited)
		}
		if got := a.heard()["b/0 beat"]; got < 1 {
			t.Errorf("of b, %d beats were heard", got)
		}
		b := l.all["b"]
		b.halt()
		b.start() // a new session, from another source than the flood
		l.until("b is heard", 200*time.Millisecond, func() bool { return a.heard()["b/0 beat"] > 0 })
	})
}
