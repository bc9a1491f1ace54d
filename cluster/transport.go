package cluster

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streamLayer lets raft speak to nodes by name: the address of a server is the
// node's name, so a dead link or a new DHCP lease changes nothing in raft's
// configuration.
type streamLayer struct {
	name string
	l    net.Listener
	dial func(ctx context.Context, node string) (net.Conn, error)
}

func (s *streamLayer) Accept() (net.Conn, error) { return s.l.Accept() }
func (s *streamLayer) Close() error              { return s.l.Close() }
func (s *streamLayer) Addr() net.Addr            { return nodeAddr(s.name) }

func (s *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(to))
}

type nodeAddr string

func (nodeAddr) Network() string  { return "hanode" }
func (a nodeAddr) String() string { return string(a) }

// transport is raft's network transport with a door of our own in its consumer
// channel, for telling this node itself to stand for election.
type transport struct {
	*raft.NetworkTransport
	id, name string
	ch       chan raft.RPC
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

func newTransport(inner *raft.NetworkTransport, id, name string) *transport {
	t := &transport{NetworkTransport: inner, id: id, name: name, ch: make(chan raft.RPC), done: make(chan struct{})}
	t.wg.Go(func() {
		for {
			select {
			case rpc := <-inner.Consumer():
				select {
				case t.ch <- rpc:
				case <-t.done:
					return
				}
			case <-t.done:
				return
			}
		}
	})
	return t
}

func (t *transport) Consumer() <-chan raft.RPC { return t.ch }

func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.name)}
}

// injectTimeoutNow puts a TimeoutNow into raft's own queue, as if the leader had
// sent it.
func (t *transport) injectTimeoutNow() {
	rpc := raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: t.header()},
		RespChan: make(chan raft.RPCResponse, 1),
	}
	select {
	case t.ch <- rpc:
	case <-t.done:
	case <-time.After(rpcTimeout): // raft's main loop is stuck; its own timers will do
	}
}

func (t *transport) stop() {
	t.once.Do(func() {
		close(t.done)
		_ = t.Close()
	})
	t.wg.Wait()
}
