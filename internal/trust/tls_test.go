package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/internal/memnet"
	"hanode/internal/netio"
)

const echoALPN, otherALPN = "hanode-echo-1", "hanode-other-1"

// lab is a server h1 with a Mux and a client h2 in virtual time. The year there
// is 2000, so certificates are never checked by a date near today's.
type lab struct {
	t   *testing.T
	mux *Mux
	cli *memnet.Host
}

var serverAddr = netip.MustParseAddrPort("10.0.0.1:7695")

func withMux(t *testing.T, server *Keys, f func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		defer n.Close()
		srv := n.Host("h1", netio.Link{Name: "eth0", Addr: serverAddr.Addr()})
		cli := n.Host("h2", netio.Link{Name: "eth0", Addr: netip.MustParseAddr("10.0.0.2")})
		cfg, err := server.ServerConfig("web", "primary", echoALPN, otherALPN, JoinALPN)
		if err != nil {
			t.Fatal(err)
		}
		lis, err := srv.Listen(7695)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMux(lis, cfg, slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		for _, alpn := range []string{echoALPN, JoinALPN} {
			go echo(m.Protocol(alpn))
		}
		go func() { ended <- m.Serve() }()
		f(&lab{t: t, mux: m, cli: cli})
		m.Close()
		m.Close()
		if err := <-ended; err != nil {
			t.Error("Serve:", err)
		}
		n.Close()
		synctest.Wait()
	})
}

// echo answers each connection with the name of its peer and what it sends.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			name, err := PeerName(c.(*tls.Conn).ConnectionState())
			if err != nil {
				name = "nobody"
			}
			io.WriteString(c, name+":")
			io.Copy(c, c)
		}()
	}
}

// raw opens a connection without TLS.
func (l *lab) raw() net.Conn {
	l.t.Helper()
	c, err := l.cli.Dial(l.t.Context(), "eth0", serverAddr)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// call makes one handshake and one echo.
func (l *lab) call(cfg *tls.Config) (string, error) {
	l.t.Helper()
	c := tls.Client(l.raw(), cfg)
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := c.Handshake(); err != nil {
		return "", err
	}
	io.WriteString(c, "hi")
	c.CloseWrite()
	got, err := io.ReadAll(c)
	return string(got), err
}

func (l *lab) client(k *Keys, cluster, peer, alpn string) *tls.Config {
	l.t.Helper()
	cfg, err := k.ClientConfig(cluster, "secondary", peer, alpn)
	if err != nil {
		l.t.Fatal(err)
	}
	return cfg
}

// refused renders the counts as text.
func (l *lab) refused() string {
	time.Sleep(10 * time.Second)
	synctest.Wait()
	var out []string
	r := l.mux.Refused()
	for _, cause := range []string{CauseOtherKey, CauseOtherCluster, CauseHandshake, CauseBusy} {
		for range r[cause].Count {
			out = append(out, cause)
		}
		if r[cause].Count > 0 && (r[cause].Last.IsZero() || !strings.HasPrefix(r[cause].Addr, "10.0.0.2:")) {
			l.t.Errorf("%s: %+v", cause, r[cause])
		}
	}
	return strings.Join(out, " ")
}

func TestMutualTLS(t *testing.T) {
	withMux(t, keys(t, 1), func(l *lab) {
		got, err := l.call(l.client(keys(t, 1), "web", "primary", echoALPN))
		if err != nil || got != "secondary:hi" {
			t.Fatal(got, err)
		}
		if s := l.refused(); s != "" {
			t.Fatal("refused", s)
		}
	})
}

func TestStrangersAreToldApart(t *testing.T) {
	ours := keys(t, 1)
	for what, c := range map[string]struct {
		keys          *Keys
		cluster, peer string
		want          error
		count         string
	}{
		"other key":            {keys(t, 2), "web", "primary", ErrOtherKey, "other-key"},
		"other cluster":        {ours, "db", "primary", ErrOtherCluster, "other-cluster"},
		"other key of another": {keys(t, 2), "db", "primary", ErrOtherKey, "other-key"},
		"other node":           {ours, "web", "arbiter", ErrOtherName, "handshake"},
	} {
		withMux(t, ours, func(l *lab) {
			if _, err := l.call(l.client(c.keys, c.cluster, c.peer, echoALPN)); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
			if s := l.refused(); s != c.count {
				t.Errorf("%s: counted %q", what, s)
			}
		})
	}
}

func TestRotationOverTLS(t *testing.T) {
	for _, c := range []struct{ server, client []byte }{
		{[]byte{1}, []byte{1, 2}},
		{[]byte{1, 2}, []byte{1}},
		{[]byte{1, 2}, []byte{2, 1}},
		{[]byte{2, 1}, []byte{1, 2}},
		{[]byte{2}, []byte{2, 1}},
	} {
		withMux(t, keys(t, c.server...), func(l *lab) {
			if got, err := l.call(l.client(keys(t, c.client...), "web", "primary", echoALPN)); err != nil || got != "secondary:hi" {
				t.Error("server", c.server, "client", c.client, got, err)
			}
		})
	}
	// The wrong order: the client's active key is new to the server.
	withMux(t, keys(t, 1), func(l *lab) {
		if got, err := l.call(l.client(keys(t, 2, 1), "web", "primary", echoALPN)); err == nil {
			t.Error("an unknown active key was served:", got)
		}
		if s := l.refused(); s != "other-key" {
			t.Errorf("counted %q", s)
		}
	})
}

func TestMuxRefuses(t *testing.T) {
	ours := keys(t, 1)
	for what, c := range map[string]struct {
		do    func(l *lab)
		count string
	}{
		"plain text": {func(l *lab) {
			c := l.raw()
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			io.ReadAll(c)
			c.Close()
		}, "handshake"},
		"silence": {func(l *lab) {
			c, start := l.raw(), time.Now()
			io.ReadAll(c)
			if d := time.Since(start); d < handshakeTime || d > handshakeTime+time.Second {
				t.Error("hung up after", d)
			}
			c.Close()
		}, "handshake"},
		"no certificate": {func(l *lab) {
			if got, err := l.call(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{echoALPN}}); err == nil {
				t.Error("served", got)
			}
		}, "handshake"},
		"no certificate, join and more": {func(l *lab) {
			if got, err := l.call(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{JoinALPN, echoALPN}}); err == nil {
				t.Error("served", got)
			}
		}, "handshake"},
		"TLS 1.2": {func(l *lab) {
			cfg := l.client(ours, "web", "primary", echoALPN)
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			if got, err := l.call(cfg); err == nil {
				t.Error("served", got)
			}
		}, "handshake"},
		"unknown protocol": {func(l *lab) {
			if got, err := l.call(l.client(ours, "web", "primary", "h2")); err == nil {
				t.Error("served", got)
			}
		}, "handshake"},
		"no protocol": {func(l *lab) {
			cfg := l.client(ours, "web", "primary", "")
			cfg.NextProtos = nil
			if got, _ := l.call(cfg); got != "" {
				t.Error("served", got)
			}
		}, "handshake"},
		"a protocol nobody registered": {func(l *lab) {
			if got, _ := l.call(l.client(ours, "web", "primary", otherALPN)); got != "" {
				t.Error("served", got)
			}
		}, "handshake"},
		"a closed protocol": {func(l *lab) {
			l.mux.Protocol(echoALPN).Close()
			if got, _ := l.call(l.client(ours, "web", "primary", echoALPN)); got != "" {
				t.Error("served", got)
			}
		}, "handshake"},
		"one address with too many": {func(l *lab) {
			for range maxPerAddress + 1 {
				defer l.raw().Close()
			}
			time.Sleep(time.Second)
			if r := l.mux.Refused(); r[CauseBusy].Count != 1 {
				t.Errorf("%+v", r)
			}
		}, strings.Repeat("handshake ", maxPerAddress) + "busy"},
		"nobody accepts": {func(l *lab) {
			l.mux.Protocol(otherALPN)
			for range handOverQueue + 1 {
				c := tls.Client(l.raw(), l.client(ours, "web", "primary", otherALPN))
				defer c.Close()
				if err := c.Handshake(); err != nil {
					t.Error(err)
				}
			}
		}, "busy"},
	} {
		withMux(t, ours, func(l *lab) {
			c.do(l)
			if s := l.refused(); s != c.count {
				t.Errorf("%s: counted %q", what, s)
			}
		})
	}
}

func TestJoinNeedsOnlyTheFingerprint(t *testing.T) {
	ours := keys(t, 1)
	withMux(t, ours, func(l *lab) {
		if got, err := l.call(JoinConfig(ours.Fingerprint(), "web")); err != nil || got != "nobody:hi" {
			t.Error(got, err)
		}
		if _, err := l.call(JoinConfig(ours.Fingerprint(), "db")); !errors.Is(err, ErrOtherCluster) {
			t.Error("other cluster:", err)
		}
		if _, err := l.call(JoinConfig(keys(t, 2).Fingerprint(), "web")); !errors.Is(err, ErrOtherKey) {
			t.Error("other key:", err)
		}
	})
}

func TestServeEndsWithItsListener(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMux(lis, &tls.Config{}, slog.New(slog.DiscardHandler))
	p := m.Protocol(echoALPN)
	if p != m.Protocol(echoALPN) || p.Addr() != lis.Addr() {
		t.Error("not the same listener")
	}
	lis.Close()
	if err := m.Serve(); !errors.Is(err, net.ErrClosed) {
		t.Error("Serve on a closed listener:", err)
	}
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("Accept after the end:", err)
	}
	if _, err := m.Protocol("late").Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("Accept of a protocol that came late:", err)
	}
}

func TestNames(t *testing.T) {
	k := keys(t, 1)
	for _, ok := range []string{"a", "web-1", "a_b", "host.example.com", "10", strings.Repeat("n", 200)} {
		cfg, err := k.ServerConfig(ok, ok)
		if err != nil {
			t.Errorf("%q: %v", ok, err)
			continue
		}
		leaf, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
		if err != nil {
			t.Errorf("%q: %v", ok, err)
			continue
		}
		if c, n, err := identity(leaf); err != nil || c != ok || n != ok {
			t.Errorf("%q came back as %q %q: %v", ok, c, n, err)
		}
	}
	for _, bad := range []string{"", "-a", "a b", "a/b", "a..b", ".", "ü", "a\n", strings.Repeat("n", 201)} {
		_, e1 := k.ServerConfig(bad, "x")
		_, e2 := k.ServerConfig("x", bad)
		_, e3 := k.ClientConfig("x", "x", bad, "p")
		if e1 == nil || e2 == nil || e3 == nil {
			t.Errorf("%q was accepted: %v %v %v", bad, e1, e2, e3)
		}
	}
	if _, err := PeerName(tls.ConnectionState{}); err == nil {
		t.Error("a peer without a certificate has a name")
	}
}

// Handshakes cost a signature each: who fails at many is not answered for a while, and
// members are, from whatever address they fail.
func TestHandshakesThatFailAreRationed(t *testing.T) {
	ours := keys(t, 1)
	most := int(failures.Burst)
	fail := func(l *lab, times int) {
		for range times {
			c := l.raw()
			_, _ = c.Write([]byte("this is no TLS at all\n"))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}
	withMux(t, ours, func(l *lab) {
		fail(l, most+20)
		r := l.mux.Refused()
		if n := r[CauseLimited].Count; n == 0 || n+r[CauseHandshake].Count != uint64(most)+20 {
			t.Errorf("%+v", r)
		}
		if got, err := l.call(l.client(ours, "web", "primary", echoALPN)); err == nil {
			t.Error("served at once", got)
		}
	})
	withMux(t, ours, func(l *lab) {
		l.mux.Know(func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.2") })
		fail(l, most+20)
		if got, err := l.call(l.client(ours, "web", "primary", echoALPN)); err != nil {
			t.Error("a member was not served", got, err)
		}
	})
}
