package netio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connected is a stream of this network, both ends.
func connected(t *testing.T) (dialled, accepted net.Conn) {
	t.Helper()
	h := lo(t)
	l, err := h.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	port := l.Addr().(*net.TCPAddr).Port
	dialled, err = h.Dial(ctx, "lo", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)))
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	for _, c := range []net.Conn{dialled, accepted} {
		if _, ok := c.(*stream); !ok {
			t.Fatalf("a %T", c)
		}
	}
	return dialled, accepted
}

// Far more than the kernel holds goes through whole, in both directions at once, to a
// reader that comes late and takes little at a time.
func TestStreamsCarryMuch(t *testing.T) {
	a, b := connected(t)
	much := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
	sums := make(chan [32]byte, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			if n, err := way[0].Write(much); n != len(much) || err != nil {
				t.Errorf("%d bytes written: %v", n, err)
			}
			way[0].(*stream).CloseWrite()
		}()
		go func() {
			time.Sleep(50 * time.Millisecond) // until the writer waits
			sum := sha256.New()
			buf := make([]byte, 9000)
			for {
				n, err := way[1].Read(buf)
				sum.Write(buf[:n])
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					break
				}
			}
			sums <- [32]byte(sum.Sum(nil))
		}()
	}
	for range 2 {
		if got := <-sums; got != sha256.Sum256(much) {
			t.Error("what came is not what was sent")
		}
	}
}

// io.Copy takes the same way.
func TestStreamsCopy(t *testing.T) {
	a, b := connected(t)
	go func() {
		io.Copy(a, bytes.NewReader(make([]byte, 1<<20)))
		a.Close()
	}()
	if n, err := io.Copy(io.Discard, b); n != 1<<20 || err != nil {
		t.Errorf("%d bytes: %v", n, err)
	}
}

func TestStreamsEnd(t *testing.T) {
	a, b := connected(t)
	buf := make([]byte, 10)

	a.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("past the deadline:", err)
	}
	a.SetReadDeadline(time.Time{})
	a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	n, err := a.Write(make([]byte, 64<<20)) // b does not read
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || n == 64<<20 {
		t.Errorf("past the deadline: %d bytes, %v", n, err)
	}
	if n, err := b.Write(nil); n != 0 || err != nil {
		t.Error("nothing:", n, err)
	}

	ended := make(chan error)
	go func() { _, err := a.Read(buf); ended <- err }()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error("a reader of what is closed:", err)
	}

	a, b = connected(t)
	a.(*stream).SetLinger(0)
	a.Close() // a reset
	if _, err := b.Read(buf); !errors.Is(err, unix.ECONNRESET) {
		t.Error("a reader of what was reset:", err)
	}
	if _, err := b.Write(buf); !errors.Is(err, unix.EPIPE) {
		t.Error("a writer:", err)
	}
}
