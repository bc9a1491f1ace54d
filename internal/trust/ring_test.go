package trust

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func twoKeys(t *testing.T) (old, next *Keys) {
	t.Helper()
	var out []*Keys
	for range 2 {
		k, err := Parse("key", []byte(Generate()))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, k)
	}
	return out[0], out[1]
}

// The steps of a rotation, on two nodes that take them at different times: whatever is
// sealed between them opens, until the old key is dropped.
func TestRingRotates(t *testing.T) {
	old, next := twoKeys(t)
	both, swapped := old.Before(next), next.Before(old)
	steps := []*Keys{old, both, swapped, next}
	a, b := NewRing(old), NewRing(old)
	seal, open := a.Sealer(), b.Opener()
	for i, mine := range steps {
		for j, theirs := range steps {
			if i-j > 1 || j-i > 1 {
				continue // nobody goes two steps ahead
			}
			a.Set(mine)
			b.Set(theirs)
			if _, err := open.Open(nil, nil, seal.Seal(nil, nil, []byte("beat"))); err != nil {
				t.Errorf("step %d to step %d: %v", i, j, err)
			}
		}
	}
	a.Set(old)
	late := seal.Seal(nil, nil, []byte("beat"))
	b.Set(both)
	if _, err := open.Open(nil, nil, late); err != nil {
		t.Fatal(err)
	}
	b.Set(next)
	if _, err := open.Open(nil, nil, late); !errors.Is(err, ErrKey) {
		t.Errorf("a key that was dropped still opens: %v", err)
	}
	b.Set(next.Before(old))
	if n := b.Keys().Heard(); n[old.Fingerprint()] != 0 {
		t.Errorf("heard %v", n)
	}
	if _, err := open.Open(nil, nil, late); err != nil || b.Keys().Heard()[old.Fingerprint()] != 1 {
		t.Errorf("%v, heard %v", err, b.Keys().Heard())
	}
}

func TestKeysArePickedByFingerprint(t *testing.T) {
	old, next := twoKeys(t)
	both := old.Before(next)
	if both.Fingerprint() != old.Fingerprint() || len(both.Fingerprints()) != 2 || len(both.Before(both).Fingerprints()) != 2 {
		t.Error(both.Fingerprints())
	}
	if both.Without(old.Fingerprint()).Fingerprint() != next.Fingerprint() || both.Without(both.Fingerprints()...) != nil || both.Only("other") != nil {
		t.Error("wrong keys")
	}
	back, err := Parse("key", both.Only(next.Fingerprint()).Before(both).Text())
	if err != nil || back.Fingerprint() != next.Fingerprint() || len(back.Fingerprints()) != 2 {
		t.Error(back, err)
	}
}

// Datagrams are sealed and opened while keys are set: none is lost, none is sealed with a
// key that is not there.
func TestRingIsSetUnderLoad(t *testing.T) {
	old, next := twoKeys(t)
	both, swapped := old.Before(next), next.Before(old)
	r := NewRing(both)
	seal, open := r.Sealer(), r.Opener()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := open.Open(nil, nil, seal.Seal(nil, nil, []byte("beat"))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		r.Set(swapped)
		r.Set(both)
	}
	close(stop)
	wg.Wait()
}

// A connection whose other end spoke with the old key ends when that is dropped, on both
// ends; one of the new key goes on.
func TestDroppedKeyEndsItsConnections(t *testing.T) {
	old, next := twoKeys(t)
	server, client := NewRing(old), NewRing(old)
	cfg, err := server.ServerConfig("web", "primary", "test/1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMux(l, cfg, slog.New(slog.DiscardHandler))
	served := m.Protocol("test/1") // before anybody calls: a client is done before its server
	done := make(chan error, 1)
	go func() { done <- m.Serve() }()
	defer func() {
		m.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	connect := func() (net.Conn, net.Conn) {
		t.Helper()
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.Client(context.Background(), raw, "web", "secondary", "primary", "test/1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := served.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
		return c, s
	}
	c1, s1 := connect()
	for _, k := range []*Keys{old.Before(next), next.Before(old)} {
		server.Set(k)
		client.Set(k)
	}
	c2, s2 := connect()
	server.Set(next)
	if _, err := s1.Read(make([]byte, 1)); err == nil {
		t.Error("the server still reads from who has the old key")
	}
	_ = c1.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c1.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client was not hung up on: %v", err)
	}
	client.Set(next)
	if _, err := c2.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := s2.Read(make([]byte, 1)); err != nil {
		t.Errorf("a connection of the new key ended: %v", err)
	}
}
