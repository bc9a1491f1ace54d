package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hanode/internal/spec"
	"hanode/internal/trust"
)

// doorLab is node b with a door beside its other protocols.
func doorLab(t *testing.T) (*lab, *strings.Builder) {
	l := &lab{t: t, svc: &agent{}, keys: must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate())))}
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	l.addr = ln.Addr().String()
	l.mux = trust.NewMux(ln, must[*tls.Config](t)(l.keys.ServerConfig(cluster, "b", alpn, trust.JoinALPN)), slog.New(slog.DiscardHandler))
	var said strings.Builder
	door := NewDoor(l.svc, slog.New(slog.NewTextHandler(&said, nil)))
	var running sync.WaitGroup
	running.Go(func() { _ = l.mux.Serve() })
	running.Go(func() { _ = door.Serve(l.mux.Protocol(trust.JoinALPN)) })
	t.Cleanup(func() { _ = door.Close(); l.mux.Close(); running.Wait() })
	return l, &said
}

func (l *lab) knock(tok trust.Token, q JoinRequest) (Admission, error) {
	c, err := tls.Dial("tcp", l.addr, trust.JoinConfig(tok.Fingerprint, tok.Cluster))
	if err != nil {
		return Admission{}, err
	}
	defer func() { _ = c.Close() }()
	return Knock(context.Background(), c, q)
}

func TestAtTheDoor(t *testing.T) {
	l, said := doorLab(t)
	tok := l.keys.NewToken(cluster)
	q := JoinRequest{Protocol: 1, Cluster: cluster, Node: spec.Node{Name: "d", Address: "10.0.0.4"}, Token: tok.ID, Secret: tok.Secret, Request: "r1"}
	adm, err := l.knock(tok, q)
	if err != nil || adm.Disk != 3 || adm.Nodes[0].Name != "d" || string(adm.Key) != "key" || adm.By != "b" {
		t.Fatalf("%+v, %v", adm, err)
	}
	l.svc.err = errors.New("the token is used by e")
	if _, err = l.knock(tok, q); err == nil || !strings.Contains(err.Error(), "used by e") {
		t.Errorf("refused with %v", err)
	} else if _, ok := errors.AsType[Refusal](err); !ok {
		t.Errorf("a refusal came as %T", err)
	}
	if s := said.String(); !strings.Contains(s, "used by e") || strings.Contains(s, tok.Secret) {
		t.Errorf("the log says: %s", s)
	}
	// A cluster with another key is told nothing.
	other := must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate()))).NewToken(cluster)
	asked := len(l.svc.askers)
	if _, err = l.knock(other, q); !errors.Is(err, trust.ErrOtherKey) {
		t.Errorf("another cluster's token: %v", err)
	}
	if len(l.svc.askers) != asked {
		t.Error("it was asked all the same")
	}
}

// Nobody gets past the door to what members are asked.
func TestNothingElseIsBehindTheDoor(t *testing.T) {
	l, _ := doorLab(t)
	tok := l.keys.NewToken(cluster)
	for _, path := range []string{"/peer/hello", "/peer/propose", "/v1/status", "/join/x"} {
		c := must[*tls.Conn](t)(tls.Dial("tcp", l.addr, trust.JoinConfig(tok.Fingerprint, tok.Cluster)))
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		b, _ := io.ReadAll(c)
		if !strings.Contains(string(b), "404") {
			t.Errorf("%s: %s", path, b)
		}
		_ = c.Close()
	}
	// And the door's protocol is no way to speak another one.
	cfg := trust.JoinConfig(tok.Fingerprint, tok.Cluster)
	cfg.NextProtos = []string{alpn}
	if c, err := tls.Dial("tcp", l.addr, cfg); err == nil {
		_ = c.Close()
		t.Error("a host without a key spoke as a peer")
	}
}

func TestDoorTakesNothingLargeOrUnknown(t *testing.T) {
	l, _ := doorLab(t)
	tok := l.keys.NewToken(cluster)
	for _, body := range []string{"", "{", `{"protocol":1,"more":1}`, `{"secret":"` + strings.Repeat("a", 2*maxJoin) + `"}`} {
		c := must[*tls.Conn](t)(tls.Dial("tcp", l.addr, trust.JoinConfig(tok.Fingerprint, tok.Cluster)))
		req := must[*http.Request](t)(http.NewRequest(http.MethodPost, "http://x/join", strings.NewReader(body)))
		_ = req.Write(c) // the door may hang up first
		b, _ := io.ReadAll(io.LimitReader(c, 600))
		if strings.Contains(string(b), `"disk"`) {
			t.Errorf("let in with %.40q: %s", body, b)
		}
		_ = c.Close()
	}
	if len(l.svc.askers) > 0 {
		t.Error("the agent was asked")
	}
}

func TestJoinIsPassedOn(t *testing.T) {
	l := newLab(t, nil)
	c := l.client("c")
	adm, err := c.Join(context.Background(), "b", JoinRequest{Node: spec.Node{Name: "d"}, Request: "r2"})
	if err != nil || adm.By != "b, for another" {
		t.Errorf("%+v, %v", adm, err)
	}
}
