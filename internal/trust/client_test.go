package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"
)

// A client's certificate opens the remote API of its own cluster and nothing else; a
// node's does not open that; and it ends with the key.
func TestClientCertificates(t *testing.T) {
	key, other := twoKeys(t)
	serve := func(ring *Ring, alpn ...string) (addr string, accepted chan Client) {
		t.Helper()
		cfg, err := ring.ServerConfig("web", "primary", alpn...)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := NewMux(l, cfg, slog.New(slog.DiscardHandler))
		accepted = make(chan Client, 10)
		for _, p := range alpn {
			pl := m.Protocol(p)
			go func() {
				for {
					c, err := pl.Accept()
					if err != nil {
						return
					}
					who, err := PeerClient(c.(*tls.Conn).ConnectionState())
					if err != nil {
						who.Name = "no client"
					}
					accepted <- who
				}
			}()
		}
		done := make(chan error, 1)
		go func() { done <- m.Serve() }()
		t.Cleanup(func() { m.Close(); <-done })
		return l.Addr().String(), accepted
	}
	cert := func(k *Keys, cluster string) []byte {
		t.Helper()
		text, err := k.ClientCert(Client{Cluster: cluster, Name: "ops", Role: "operate"})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	// reaches: the server lets the client in, as it says by not hanging up.
	reaches := func(addr string, cfg *tls.Config) bool {
		t.Helper()
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
		c, err := d.DialContext(context.Background(), "tcp", addr)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		nerr, ok := err.(net.Error)
		return ok && nerr.Timeout()
	}
	remote := func(text []byte) *tls.Config {
		t.Helper()
		cfg, who, err := RemoteConfig(text)
		if err != nil || who.Name != "ops" || who.Role != "operate" {
			t.Fatalf("%+v, %v", who, err)
		}
		return cfg
	}
	ring := NewRing(key)
	addr, accepted := serve(ring, "peer/1", APIALPN)
	good := remote(cert(key, "web"))
	if !reaches(addr, good) {
		t.Error("a good certificate is refused")
	}
	if who := <-accepted; who != (Client{"web", "ops", "operate"}) {
		t.Errorf("it is %+v", who)
	}
	asNode := good.Clone()
	asNode.NextProtos, asNode.VerifyConnection = []string{"peer/1"}, nil
	node, err := key.ClientConfig("web", "secondary", "primary", "peer/1")
	if err != nil {
		t.Fatal(err)
	}
	nodeAtAPI := node.Clone()
	nodeAtAPI.NextProtos, nodeAtAPI.VerifyConnection = []string{APIALPN}, nil
	bare := good.Clone()
	bare.Certificates = nil
	stranger := remote(cert(other, "web"))
	stranger.VerifyConnection = nil // it would hang up itself
	elsewhere := remote(cert(key, "db"))
	elsewhere.VerifyConnection = nil
	for name, cfg := range map[string]*tls.Config{
		"a client as a node": asNode, "a node at the API": nodeAtAPI, "without a certificate": bare, "of another key": stranger, "of another cluster": elsewhere,
	} {
		if reaches(addr, cfg) {
			t.Errorf("%s: let in", name)
		}
	}
	if !reaches(addr, node) {
		t.Error("a node is refused")
	}
	off, _ := serve(ring, "peer/1")
	if reaches(off, good) {
		t.Error("it is off, and answers")
	}
	ring.Set(other)
	if reaches(addr, good) {
		t.Error("the key was changed, and its certificate still opens")
	}
	if _, _, err := RemoteConfig([]byte("nothing")); err == nil {
		t.Error("nothing is a certificate")
	}
	if bytes.Contains(key.Text(), cert(key, "web")) {
		t.Error("the key is in the certificate")
	}
}
