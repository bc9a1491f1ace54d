package memnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hanode/internal/netio"
)

// addr is the address of the i-th host on the l-th wire.
func addr(i, l int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(l), 0, byte(i)}) }

func at(i, l, port int) netip.AddrPort { return netip.AddrPortFrom(addr(i, l), uint16(port)) }

// host adds host hI with links eth0 and eth1.
func host(n *Net, i int) *Host {
	return n.Host(fmt.Sprint("h", i), netio.Link{Name: "eth0", Addr: addr(i, 0)}, netio.Link{Name: "eth1", Addr: addr(i, 1)})
}

// bubble runs f in virtual time with a network of k hosts h1..hk.
func bubble(t *testing.T, k int, f func(t *testing.T, n *Net, h []*Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		h := []*Host{nil}
		for i := 1; i <= k; i++ {
			h = append(h, host(n, i))
		}
		f(t, n, h)
	})
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// collect reads datagrams until the socket closes and sends their text.
func collect(p netio.PacketConn) <-chan string {
	got := make(chan string, 4096)
	go func() {
		defer close(got)
		buf := make([]byte, 1500)
		for {
			k, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			got <- fmt.Sprintf("%s %s", from, buf[:k])
		}
	}()
	return got
}

// drain returns what is there once everything came to rest.
func drain(got <-chan string) (all []string) {
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for {
		select {
		case s, ok := <-got:
			if !ok {
				return all
			}
			all = append(all, s)
		default:
			return all
		}
	}
}

func TestPackets(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		a := must[netio.PacketConn](t)(h[1].ListenPacket("eth0", 7))
		b := must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 7))
		got := collect(b)
		start := time.Now()
		a.WriteTo([]byte("hello"), at(2, 0, 7))
		if s := <-got; s != "10.0.0.1:7 hello" || time.Since(start) != defaultDelay {
			t.Fatalf("got %q after %v", s, time.Since(start))
		}
		a.WriteTo([]byte("x"), at(2, 1, 7)) // an address of the other wire
		a.WriteTo([]byte("x"), at(2, 0, 8)) // nobody there
		a.WriteTo([]byte("x"), at(9, 0, 7)) // no such host
		if err := a.WriteTo(make([]byte, maxDatagram+1), at(2, 0, 7)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Fatal("oversized:", err)
		}
		if all := drain(got); len(all) != 0 {
			t.Fatal("unexpected", all)
		}
		if s := n.Stats(); s != (Stats{Sent: 4, Delivered: 1, Off: 2, NoSocket: 1}) {
			t.Fatalf("%+v", s)
		}
		if _, err := h[2].ListenPacket("eth0", 7); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal("second socket:", err)
		}
		b.Close()
		if _, open := <-got; open {
			t.Fatal("the reader did not end")
		}
		if err := b.WriteTo(nil, at(1, 0, 7)); !errors.Is(err, net.ErrClosed) {
			t.Fatal("write after close:", err)
		}
	})
}

func TestCutIsOneDirectionOfOneLink(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		socks := map[string]netio.PacketConn{}
		got := map[string]<-chan string{}
		for i := 1; i <= 2; i++ {
			for l := range 2 {
				k := fmt.Sprintf("h%d/eth%d", i, l)
				socks[k] = must[netio.PacketConn](t)(h[i].ListenPacket(fmt.Sprint("eth", l), 7))
				got[k] = collect(socks[k])
			}
		}
		count := func() string {
			for i := 1; i <= 2; i++ {
				for l := range 2 {
					socks[fmt.Sprintf("h%d/eth%d", i, l)].WriteTo([]byte("x"), at(3-i, l, 7))
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			return fmt.Sprint("h1 gets ", len(got["h1/eth0"]), len(got["h1/eth1"]), ", h2 gets ", len(got["h2/eth0"]), len(got["h2/eth1"]))
		}
		step := func(what, want string) {
			t.Helper()
			if s := count(); s != want {
				t.Fatalf("%s: %s, want %s", what, s, want)
			}
		}
		step("whole", "h1 gets 1 1, h2 gets 1 1")
		n.Cut("h1", "h2", "eth0", true)
		step("one way, one link", "h1 gets 2 2, h2 gets 1 2")
		n.Cut("h1", "", "", true)
		step("all that h1 says", "h1 gets 3 3, h2 gets 1 2")
		n.Cut("h1", "h2", "", false) // covers the first cut, not the wide one
		step("the wide cut stays", "h1 gets 4 4, h2 gets 1 2")
		n.Cut("h1", "", "", false)
		step("healed", "h1 gets 5 5, h2 gets 2 3")
		n.Cut("", "", "eth1", true)
		step("a dead switch", "h1 gets 6 5, h2 gets 3 3")
		n.Heal()
		step("healed again", "h1 gets 7 6, h2 gets 4 4")
	})
}

func TestChancesFollowTheSeedAndTheFlow(t *testing.T) {
	run := func(noise bool) (all []string) {
		bubble(t, 3, func(t *testing.T, n *Net, h []*Host) {
			n.SetLoss(0.3)
			n.SetDup(0.2)
			n.SetDelay(func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(int(time.Second))) })
			a := must[netio.PacketConn](t)(h[1].ListenPacket("eth0", 7))
			c := must[netio.PacketConn](t)(h[3].ListenPacket("eth0", 7))
			got := collect(must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 7)))
			for i := range 100 {
				a.WriteTo(fmt.Append(nil, i), at(2, 0, 7))
				if noise {
					c.WriteTo([]byte("noise"), at(1, 0, 7))
				}
			}
			all = drain(got)
			s := n.Stats()
			if s.Lost == 0 || s.Duplicated == 0 || s.Delivered+s.Lost-s.Duplicated != s.Sent {
				t.Fatalf("%+v", s)
			}
		})
		return all
	}
	a, b := run(false), run(true)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Fatalf("another flow changed this one:\n%v\n%v", a, b)
	}
	inOrder := true
	for i := 1; i < len(a); i++ {
		inOrder = inOrder && a[i-1] <= a[i]
	}
	if inOrder {
		t.Fatal("a random delay reordered nothing")
	}
}

func TestReorder(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		a := must[netio.PacketConn](t)(h[1].ListenPacket("eth0", 7))
		got := collect(must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 7)))
		send := func() []string {
			for i := range 100 {
				a.WriteTo(fmt.Appendf(nil, "%03d", i), at(2, 0, 7))
				time.Sleep(time.Millisecond)
			}
			return drain(got)
		}
		if all := send(); !slices.IsSorted(all) || n.Stats().Overtook != 0 {
			t.Fatal("reordered by default:", all)
		}
		n.SetReorder(0.3, 20*time.Millisecond)
		all, over := send(), n.Stats().Overtook
		if len(all) != 100 || slices.IsSorted(all) || over == 0 || over == 100 {
			t.Fatalf("%d came, %d overtook: %v", len(all), over, all)
		}
		n.Heal()
		if all := send(); !slices.IsSorted(all) || n.Stats().Overtook != over {
			t.Fatal("reordered after the heal:", all)
		}
	})
}

func TestPowerOffAndANewLife(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		l := must[net.Listener](t)(h[2].Listen(9))
		c := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		s := must[net.Conn](t)(l.Accept())
		p := must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 9))
		got := collect(p)
		failed := make(chan error, 2)
		go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
		go func() { _, err := l.Accept(); failed <- err }()
		synctest.Wait()
		n.PowerOff("h2")
		for range 2 {
			if err := <-failed; !errors.Is(err, net.ErrClosed) {
				t.Fatal("a call of the dead host:", err)
			}
		}
		if _, open := <-got; open {
			t.Fatal("the dead host still reads")
		}
		// The peer notices nothing: it may write, and reads until its deadline.
		c.Write([]byte("anyone?"))
		c.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("peer of a dead host:", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := h[1].Dial(ctx, "eth0", at(2, 0, 9))
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != 3*time.Second {
			t.Fatal("dial to a dead host:", err, time.Since(start))
		}
		// Its next life does not know the old stream.
		h2 := host(n, 2)
		must[net.Listener](t)(h2.Listen(9))
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal("old stream, new host:", err)
		}
		must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		n.PowerOff("nobody")
	})
}

func TestPause(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		a := must[netio.PacketConn](t)(h[1].ListenPacket("eth0", 7))
		b := must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 7))
		gotA, gotB := collect(a), collect(b)
		l := must[net.Listener](t)(h[2].Listen(9))
		c := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		s := must[net.Conn](t)(l.Accept())

		n.Pause("h2", true)
		for i := range 300 {
			a.WriteTo(fmt.Append(nil, i), at(2, 0, 7))
		}
		b.WriteTo([]byte("late"), at(1, 0, 7))
		s.Write([]byte("late"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a paused host spoke:", err)
		}
		if k := len(drain(gotA)) + len(drain(gotB)); k != 0 {
			t.Fatal(k, "datagrams passed a paused host")
		}
		// Its kernel still takes connections.
		c2 := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		c2.Close()

		n.Pause("h2", false)
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		buf := make([]byte, 9)
		if k, err := c.Read(buf); string(buf[:k]) != "late" {
			t.Fatal("after resume:", err)
		}
		if x, y := len(drain(gotA)), len(drain(gotB)); x != 1 || y != 256 {
			t.Fatal("after resume h1 got", x, "h2 got", y)
		}
		if s := n.Stats(); s.Overflow != 44 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestKillIsSeenByPeers(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 9))
		l := must[net.Listener](t)(h[2].Listen(9))
		c := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		must[net.Conn](t)(l.Accept())
		h[2].Kill()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal("peer of a killed process:", err)
		}
		if _, err := h[1].Dial(t.Context(), "eth0", at(2, 0, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal("dial:", err)
		}
		must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 9))
		must[net.Listener](t)(h[2].Listen(9))
	})
}

func TestSetAddr(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		a := must[netio.PacketConn](t)(h[1].ListenPacket("eth0", 7))
		got := collect(must[netio.PacketConn](t)(h[2].ListenPacket("eth0", 7)))
		if err := h[2].SetAddr("eth0", addr(77, 0)); err != nil {
			t.Fatal(err)
		}
		a.WriteTo([]byte("old"), at(2, 0, 7))
		a.WriteTo([]byte("new"), at(77, 0, 7))
		if all := drain(got); len(all) != 1 || all[0] != "10.0.0.1:7 new" {
			t.Fatal(all)
		}
		if h[2].Links()[0].Addr != addr(77, 0) || h[2].SetAddr("eth9", addr(1, 1)) == nil {
			t.Fatal("links")
		}
	})
}
