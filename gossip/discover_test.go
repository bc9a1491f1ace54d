package gossip

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"hanode/internal/netio"
)

// nameless has the nodes know each other by name only, as with `bcast eth0`.
func (l *lab) nameless(links ...string) {
	for _, m := range l.all {
		m.halt()
		m.tweak = func(c *Config) {
			c.Discover = links
			for name := range c.Seeds {
				if name != m.name {
					c.Seeds[name] = netip.Addr{}
				}
			}
		}
	}
	for _, m := range l.all {
		m.start()
	}
}

// Nodes that know names only find each other, and again after all addresses changed.
func TestDiscovery(t *testing.T) {
	bubble(t, []string{"a", "b", "c"}, func(l *lab) {
		l.nameless("eth0")
		l.whole(5*time.Second, "a", "b", "c")
		l.until("eth1 is known from gossip", 10*time.Second, func() bool { return l.all["b"].Links("a")[1].Up })

		// One link is cut for good, the other one is renumbered on all hosts at once.
		for _, m := range l.all {
			l.cutLink(m.name, "eth1")
			if err := m.wire.SetAddr("eth0", addr(0, 100+m.n)); err != nil {
				t.Fatal(err)
			}
		}
		l.until("the new addresses are known", 10*time.Second, func() bool {
			for _, m := range l.all {
				for _, o := range l.all {
					if k := m.Links(o.name)[0]; o != m && (!k.Up || k.Address != addr(0, 100+o.n)) {
						return false
					}
				}
			}
			return true
		})
	})
}

// Where nobody is missed nobody is asked; a dead node is asked for seldom after a while.
func TestDiscoveryIsQuiet(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.nameless("eth0", "eth1")
		l.whole(5*time.Second, "a", "b")
		time.Sleep(5 * time.Second)
		a, b := l.all["a"], l.all["b"]
		asked := func(d time.Duration) int {
			x := l.net.Host("ear", netio.Link{Name: "eth0", Addr: addr(0, 9)})
			sock := must[netio.PacketConn](t)(x.ListenPacket("eth0", port))
			n := 0
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, 2048)
				for {
					k, _, err := sock.ReadFrom(buf)
					if err != nil {
						return
					}
					if k > 0 && buf[0] == askByte {
						n++
					}
				}
			}()
			time.Sleep(d)
			_ = sock.Close()
			<-done
			return n
		}
		if n := asked(time.Minute); n != 0 {
			t.Errorf("%d questions while all are heard", n)
		}
		b.halt()
		if n := asked(40 * time.Second); n < 35 || n > 41 {
			t.Errorf("%d questions in 40 s while b is missed", n)
		}
		time.Sleep(time.Minute)
		if n := asked(time.Minute); n < 10 || n > 14 {
			t.Errorf("%d questions in a minute, long after", n)
		}
		b.start()
		l.whole(10*time.Second, "a", "b")
		_ = a
	})
}

// What is not an answer to a question of ours, about somebody we miss, from where it
// says, teaches nothing.
func TestDiscoveryRefuses(t *testing.T) {
	bubble(t, []string{"a", "b"}, func(l *lab) {
		l.nameless("eth0")
		a, b := l.all["a"], l.all["b"]
		b.halt()
		time.Sleep(2 * time.Second)
		x := l.net.Host("x", netio.Link{Name: "eth0", Addr: addr(0, 9)})
		sock := must[netio.PacketConn](t)(x.ListenPacket("eth0", port))
		defer func() { _ = sock.Close() }()
		var question hail
		buf := make([]byte, 2048)
		hear := func() hail { // the next question of a, as one who has the key reads it
			for {
				n, _, err := sock.ReadFrom(buf)
				if err != nil {
					t.Fatal(err)
				}
				if n < laneHeader || buf[0] != askByte {
					continue
				}
				p, err := l.keys.Opener().Open(nil, buf[:laneHeader], buf[laneHeader:n])
				if err != nil {
					t.Fatal(err)
				}
				if h, ok := decodeHail(p); ok && h.kind == hailWho {
					return h
				}
			}
		}
		sealed := func(b []byte) []byte {
			head := a.trans.asks.head()
			return l.keys.Sealer().Seal(slices.Clone(head), head, b)
		}
		send := func(b []byte) {
			if err := sock.WriteTo(b, netip.AddrPortFrom(addr(0, 1), port)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		right := func() hail { return hail{kind: hailHere, nonce: question.nonce, addr: addr(0, 9), name: "b"} }
		old := hear()
		hear()
		for name, make := range map[string]func() []byte{
			"an old question's":      func() []byte { h := right(); h.nonce = old.nonce; return sealed(h.encode()) },
			"of no question":         func() []byte { h := right(); h.nonce = [nonceSize]byte{}; return sealed(h.encode()) },
			"another address inside": func() []byte { h := right(); h.addr = addr(0, 77); return sealed(h.encode()) },
			"a name nobody knows":    func() []byte { h := right(); h.name = "z"; return sealed(h.encode()) },
			"our own name":           func() []byte { h := right(); h.name = "a"; return sealed(h.encode()) },
			"a question":             func() []byte { return sealed(hail{kind: hailWho, nonce: question.nonce, name: "b"}.encode()) },
			"another key": func() []byte {
				head := a.trans.asks.head()
				return newKeys(t).Sealer().Seal(slices.Clone(head), head, right().encode())
			},
			"a keepalive's seal": func() []byte {
				head := a.trans.head[:]
				b := l.keys.Sealer().Seal(slices.Clone(head), head, right().encode())
				b[0] = askByte
				return b
			},
			"cut short": func() []byte { return sealed(right().encode()[:hailHead]) },
			"noise":     func() []byte { return []byte{askByte, 1, 2, 3} },
		} {
			question = hear()
			send(make())
			for _, n := range []string{"b", "z"} {
				if k := a.dir.get(n).to(); len(k) > 0 && k[0].IsValid() {
					t.Fatalf("%s taught %v of %s", name, k, n)
				}
			}
		}
		question = hear()
		send(sealed(right().encode()))
		if k := a.Links("b")[0]; k.Address != addr(0, 9) {
			t.Fatalf("the right answer taught %+v", k)
		}
		b.start() // it is elsewhere, and heard: nothing moves it any more
		l.until("b is heard", 10*time.Second, func() bool { k := a.Links("b")[0]; return k.Up && k.Address == addr(0, 2) })
		for _, nonce := range a.trans.asks.nonces[0] {
			h := right()
			h.nonce = nonce
			send(sealed(h.encode()))
		}
		if k := a.Links("b")[0]; k.Address != addr(0, 2) {
			t.Errorf("moved while it is heard: %+v", k)
		}
	})
}

func FuzzHail(f *testing.F) {
	f.Add(hail{kind: hailWho, name: "a"}.encode())
	f.Add(hail{kind: hailHere, addr: addr(0, 1), name: "node.example"}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := decodeHail(b)
		if !ok {
			return
		}
		if string(h.encode()) != string(b) {
			t.Fatalf("%q is read as %+v, which is written otherwise", b, h)
		}
		if h.kind == hailHere && (!h.addr.Is4() || h.addr.IsMulticast() || h.addr.IsLoopback()) || h.name == "" {
			t.Fatalf("accepted %+v", h)
		}
	})
}
