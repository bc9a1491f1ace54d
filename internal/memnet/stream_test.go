package memnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pair dials from h1 to h2.
func pair(t *testing.T, h []*Host) (c, s net.Conn) {
	t.Helper()
	l := must[net.Listener](t)(h[2].Listen(0))
	_, port, _ := net.SplitHostPort(l.Addr().String())
	p := must[int](t)(net.LookupPort("tcp", port))
	c = must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, p)))
	s = must[net.Conn](t)(l.Accept())
	return c, s
}

func TestStreamCarriesEverythingInOrder(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		n.SetLoss(0.1)
		n.SetDelay(func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(int(50 * time.Millisecond))) })
		c, s := pair(t, h)
		data := make([]byte, 3<<20) // beyond the window: the writer has to wait
		rand.NewChaCha8([32]byte{1}).Read(data)
		var wg sync.WaitGroup
		for _, way := range [][2]net.Conn{{c, s}, {s, c}} {
			wg.Go(func() {
				if k, err := io.Copy(way[0], bytes.NewReader(data)); k != int64(len(data)) || err != nil {
					t.Error("write:", k, err)
				}
			})
			wg.Go(func() {
				got := make([]byte, len(data))
				if _, err := io.ReadFull(way[1], got); err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
					t.Error("read:", err)
				}
			})
		}
		wg.Wait()
		if n.Stats().Resent == 0 {
			t.Error("10 % loss resent nothing")
		}
		c.Close()
		if k, err := s.Read(make([]byte, 1)); k != 0 || err != io.EOF {
			t.Error("after close:", err)
		}
	})
}

func TestStreamStallsOverACutAndGoesOn(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		n.Cut("h1", "h2", "eth0", true)
		c.Write([]byte("hello"))
		c.Close()
		s.Write([]byte("the other way is open")) // h1 closed: the answer is a reset
		s.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 10)
		if _, err := s.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("over a cut:", err)
		}
		s.SetReadDeadline(time.Time{})
		n.Heal()
		healed := time.Now()
		if k, err := io.ReadFull(s, buf[:5]); err != nil || string(buf[:k]) != "hello" || time.Since(healed) > maxWait {
			t.Fatal("after the heal:", err, time.Since(healed))
		}
	})
}

func TestCutStreams(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		for _, side := range []string{"h1", "h2"} {
			n.CutStreams(side, true)
			c.Write([]byte("hello"))
			s.SetReadDeadline(time.Now().Add(20 * time.Second))
			buf := make([]byte, 5)
			if _, err := s.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("while cut:", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := h[1].Dial(ctx, "eth0", s.LocalAddr().(*net.TCPAddr).AddrPort()); err == nil {
				t.Error("a new stream came through")
			}
			cancel()
			n.CutStreams(side, false)
			s.SetReadDeadline(time.Now().Add(2 * maxWait))
			if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "hello" {
				t.Fatal("after the cut:", err)
			}
		}
	})
}

func TestShutPort(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		to := s.LocalAddr().(*net.TCPAddr).AddrPort()
		dial := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			c, err := h[1].Dial(ctx, "eth0", to)
			if err == nil {
				c.Close()
			}
			return err
		}
		n.ShutPort("h1", int(to.Port()), true)
		n.ShutPort("h2", int(to.Port())+1, true)
		if err := dial(); err != nil {
			t.Error("with other ports shut:", err)
		}
		n.ShutPort("h2", int(to.Port()), true)
		if err := dial(); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("to a port that is shut:", err)
		}
		c.Write([]byte("hello"))
		if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
			t.Error("a stream that was there:", err)
		}
		n.ShutPort("h2", int(to.Port()), false)
		if err := dial(); err != nil {
			t.Error("opened again:", err)
		}
	})
}

func TestStreamEnds(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		c.Write([]byte("never read"))
		time.Sleep(time.Second)
		s.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal("peer closed with unread data:", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatal("write after reset:", err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatal("second close:", err)
		}
	})
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		c.Close()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		s.Write([]byte("to a closed end"))
		time.Sleep(time.Second)
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal("wrote to a closed end:", err)
		}
		if n.Stats().Resets != 1 {
			t.Fatalf("%+v", n.Stats())
		}
	})
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) { // nobody accepted
		l := must[net.Listener](t)(h[2].Listen(9))
		c := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		l.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal("listener closed:", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		start := time.Now()
		c.SetReadDeadline(start.Add(time.Second))
		var ne net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != time.Second {
			t.Fatal(err, time.Since(start))
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a passed deadline stays:", err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal("the write side has no deadline:", err)
		}
		// A deadline that is set from elsewhere ends a call that waits already.
		c.SetDeadline(time.Time{})
		failed := make(chan error)
		go func() { _, err := c.Read(make([]byte, 1)); failed <- err }()
		synctest.Wait()
		c.SetDeadline(time.Now())
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		// A writer whose peer does not read fills the window and waits.
		s.SetWriteDeadline(time.Now().Add(time.Minute))
		k, err := s.Write(make([]byte, window+1))
		if k != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("full window:", k, err)
		}
		go func() { time.Sleep(time.Second); c.Close() }()
		c.SetDeadline(time.Time{})
		s.SetDeadline(time.Time{})
		if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatal("the peer closed a full stream:", err)
		}
		if err := c.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestDial(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		if _, err := h[1].Dial(t.Context(), "eth0", at(2, 0, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal("nobody listens:", err)
		}
		if _, err := h[1].Dial(t.Context(), "eth7", at(2, 0, 9)); err == nil {
			t.Fatal("no such link")
		}
		l := must[net.Listener](t)(h[2].Listen(9))
		if _, err := h[2].Listen(9); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal("second listener:", err)
		}
		for _, one := range []struct{ from, to string }{{"h1", "h2"}, {"h2", "h1"}} { // the answer must get back too
			n.Cut(one.from, one.to, "", true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := h[1].Dial(ctx, "eth0", at(2, 0, 9)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("over a cut:", err)
			}
			cancel()
			n.Heal()
		}
		n.Cut("h1", "h2", "eth0", true)
		go func() { time.Sleep(20 * time.Second); n.Heal() }()
		start := time.Now()
		c := must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		if d := time.Since(start); d < 20*time.Second || d > 26*time.Second {
			t.Fatal("connected after", d)
		}
		s := must[net.Conn](t)(l.Accept())
		if c.LocalAddr().String() != s.RemoteAddr().String() || c.RemoteAddr().String() != "10.0.0.2:9" {
			t.Fatal(c.LocalAddr(), s.RemoteAddr(), c.RemoteAddr())
		}
		self := must[net.Conn](t)(h[2].Dial(t.Context(), "eth0", at(2, 0, 9)))
		self.Close()

		// The dialling host loses its power.
		n.Cut("", "", "", true)
		failed := make(chan error)
		go func() { _, err := h[1].Dial(t.Context(), "eth0", at(2, 0, 9)); failed <- err }()
		synctest.Wait()
		n.PowerOff("h1")
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestFullBacklogWaits(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		l := must[net.Listener](t)(h[2].Listen(9))
		for range backlog {
			must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		}
		go func() { time.Sleep(10 * time.Second); l.Accept() }()
		start := time.Now()
		must[net.Conn](t)(h[1].Dial(t.Context(), "eth0", at(2, 0, 9)))
		if time.Since(start) < 10*time.Second {
			t.Fatal("connected after", time.Since(start))
		}
	})
}

func TestCloseEndsAllCalls(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		c, s := pair(t, h)
		n.Cut("", "", "", true)
		var wg sync.WaitGroup
		wg.Go(func() { h[1].Dial(context.Background(), "eth0", at(2, 0, 9)) })
		wg.Go(func() { c.Read(make([]byte, 1)) })
		wg.Go(func() { s.Write(make([]byte, 2*window)) })
		synctest.Wait()
		n.Close()
		wg.Wait()
		if _, err := n.Host("late").Listen(1); !errors.Is(err, net.ErrClosed) {
			t.Fatal("a host of a closed network:", err)
		}
	})
}
