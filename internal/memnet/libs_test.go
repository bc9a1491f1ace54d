package memnet

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"hanode/internal/netio"
)

// The libraries that hanode stands on, each over the network in memory.

// gossip is the least memberlist.Transport that works: one link, one port.
type gossip struct {
	h       *Host
	sock    netio.PacketConn
	lis     net.Listener
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func newGossip(t *testing.T, h *Host) *gossip {
	g := &gossip{
		h:       h,
		sock:    must[netio.PacketConn](t)(h.ListenPacket("eth0", 7)),
		lis:     must[net.Listener](t)(h.Listen(7)),
		packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 64),
	}
	go func() {
		buf := make([]byte, 65536)
		for {
			k, from, err := g.sock.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case g.packets <- &memberlist.Packet{
				Buf: append([]byte(nil), buf[:k]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now(),
			}:
			default:
			}
		}
	}()
	go func() {
		for {
			c, err := g.lis.Accept()
			if err != nil {
				return
			}
			select {
			case g.streams <- c:
			default:
				c.Close()
			}
		}
	}()
	return g
}

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.h.Links()[0].Addr.AsSlice(), 7, nil
}

func (g *gossip) WriteTo(b []byte, to string) (time.Time, error) {
	return time.Now(), g.sock.WriteTo(b, netip.MustParseAddrPort(to))
}
func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }
func (g *gossip) DialTimeout(to string, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return g.h.Dial(ctx, "eth0", netip.MustParseAddrPort(to))
}
func (g *gossip) Shutdown() error { return errors.Join(g.sock.Close(), g.lis.Close()) }

// until waits in virtual time.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("five minutes and not yet:", what)
}

func TestMemberlist(t *testing.T) {
	bubble(t, 3, func(t *testing.T, n *Net, h []*Host) {
		n.SetLoss(0.01)
		n.SetDelay(func(r *rand.Rand) time.Duration { return time.Duration(100+r.IntN(900)) * time.Microsecond })
		var ms []*memberlist.Memberlist
		for i := 1; i <= 3; i++ {
			c := memberlist.DefaultLANConfig()
			c.Name, c.Transport, c.Logger = h[i].Name(), newGossip(t, h[i]), log.New(io.Discard, "", 0)
			c.SecretKey = make([]byte, 32)
			m := must[*memberlist.Memberlist](t)(memberlist.Create(c))
			must[int](t)(m.Join([]string{"h1/10.0.0.1:7"}))
			ms = append(ms, m)
		}
		sees := func(ms []*memberlist.Memberlist, k int) func() bool {
			return func() bool {
				for _, m := range ms {
					if m.NumMembers() != k {
						return false
					}
				}
				return true
			}
		}
		until(t, "all see all", sees(ms, 3))
		n.PowerOff("h3")
		until(t, "the death seen by all", sees(ms[:2], 2))
		for _, m := range ms {
			m.Shutdown()
		}
		time.Sleep(time.Minute) // it does not wait for its own probes
	})
}

// layer is a raft.StreamLayer by host name.
type layer struct {
	net.Listener
	h *Host
}

func (l layer) Addr() net.Addr { return name(l.h.Name()) }
func (l layer) Dial(to raft.ServerAddress, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var i int
	fmt.Sscanf(string(to), "h%d", &i)
	return l.h.Dial(ctx, "eth0", at(i, 0, 8))
}

type name string

func (name) Network() string  { return "name" }
func (n name) String() string { return string(n) }

type counter struct{ applied int }

func (c *counter) Apply(*raft.Log) any               { c.applied++; return nil }
func (*counter) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (*counter) Restore(io.ReadCloser) error         { return nil }

func TestRaft(t *testing.T) {
	bubble(t, 3, func(t *testing.T, n *Net, h []*Host) {
		var rs []*raft.Raft
		var ts []*raft.NetworkTransport
		var conf raft.Configuration
		for i := 1; i <= 3; i++ {
			tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
				Stream: layer{must[net.Listener](t)(h[i].Listen(8)), h[i]}, MaxPool: 2, MaxRPCsInFlight: 1,
				Timeout: 500 * time.Millisecond, Logger: hclog.NewNullLogger(),
			})
			c := raft.DefaultConfig()
			c.LocalID, c.Logger = raft.ServerID(h[i].Name()), hclog.NewNullLogger()
			s := raft.NewInmemStore()
			rs = append(rs, must[*raft.Raft](t)(raft.NewRaft(c, &counter{}, s, s, raft.NewInmemSnapshotStore(), tr)))
			ts = append(ts, tr)
			conf.Servers = append(conf.Servers, raft.Server{ID: c.LocalID, Address: raft.ServerAddress(h[i].Name())})
		}
		if err := rs[0].BootstrapCluster(conf).Error(); err != nil {
			t.Fatal(err)
		}
		var lead int
		leader := func(not int) func() bool {
			return func() bool {
				for i, r := range rs {
					if i != not && r.State() == raft.Leader {
						lead = i
						return true
					}
				}
				return false
			}
		}
		apply := func(r *raft.Raft) error { return r.Apply([]byte("x"), time.Second).Error() }
		until(t, "a leader", leader(-1))
		if err := apply(rs[lead]); err != nil {
			t.Fatal(err)
		}
		old := lead
		n.Cut(h[old+1].Name(), "", "", true)
		n.Cut("", h[old+1].Name(), "", true)
		until(t, "a new leader", leader(old))
		if err := apply(rs[lead]); err != nil {
			t.Fatal(err)
		}
		n.Heal()
		until(t, "the old one follows", func() bool { return rs[old].AppliedIndex() == rs[lead].AppliedIndex() })
		time.Sleep(time.Minute)
		for _, r := range rs {
			if err := r.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		}
		for _, tr := range ts {
			tr.Close()
		}
	})
}

func TestTLS(t *testing.T) {
	bubble(t, 2, func(t *testing.T, n *Net, h []*Host) {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der := must[[]byte](t)(x509.CreateCertificate(nil, tmpl, tmpl, pub, key))
		c, s := pair(t, h)
		server := tls.Server(s, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		client := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		go func() {
			io.Copy(server, server)
			server.Close()
		}()
		if _, err := client.Write([]byte("echo")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(client, buf); err != nil || string(buf) != "echo" {
			t.Fatal(string(buf), err)
		}
		client.CloseWrite()
		if _, err := client.Read(buf); err != io.EOF {
			t.Fatal("end:", err)
		}
		client.Close()
		synctest.Wait()
	})
}
