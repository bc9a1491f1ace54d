package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"hanode/fsm"
	"hanode/internal/memnet"
	"hanode/internal/netio"
	"hanode/internal/spec"
)

const raftPort = 7695

// lab is a few nodes' raft in virtual time, over streams without TLS.
type lab struct {
	t     *testing.T
	net   *memnet.Net
	names []string
	all   map[string]*member

	silent  atomic.Pointer[string] // a node that is not heard, as the others know; nil = none
	settled atomic.Bool            // every node says that it has caught up
	sent    atomic.Int64           // writes on raft's connections, both ways counted once

	mu    sync.Mutex
	conns []net.Conn // all that were dialled
}

// member is one node; its stores outlive it.
type member struct {
	*Node
	lab    *lab
	name   string
	addr   netip.Addr
	stores Stores
	disk   uint64 // 0 = 1
	m      *fsm.Machine
}

// bubble runs fn with nodes a, b, ..., started and not founded.
func bubble(t *testing.T, n int, fn func(l *lab)) {
	t.Helper()
	bubbleOn(t, n, func(string) Stores {
		return Stores{Log: raft.NewInmemStore(), Stable: raft.NewInmemStore(), Snapshots: raft.NewInmemSnapshotStore()}
	}, fn)
}

// bubbleOn is bubble on the stores that disk makes for each node.
func bubbleOn(t *testing.T, n int, disk func(name string) Stores, fn func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, net: memnet.New(1), all: map[string]*member{}}
		for i := range n {
			name := string(rune('a' + i))
			l.names = append(l.names, name)
			l.all[name] = &member{
				lab: l, name: name, addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
				stores: disk(name),
			}
			l.all[name].start()
		}
		defer func() {
			for _, m := range l.all {
				m.halt()
			}
			l.net.Close()
		}()
		fn(l)
	})
}

// start boots a node from what its stores hold.
func (m *member) start() {
	l := m.lab
	h := l.net.Host(m.name, netio.Link{Name: "eth0", Addr: m.addr})
	m.m = fsm.NewMachine()
	m.Node = must[*Node](l.t)(Start(Config{
		Name: m.name, Disk: max(1, m.disk), Machine: m.m, Stores: m.stores, Log: quietLog,
		Reachable: func(node string) bool { s := l.silent.Load(); return s == nil || *s != node },
		Settled:   func(string) bool { return l.settled.Load() },
		Listener:  must[net.Listener](l.t)(h.Listen(raftPort)),
		Dial: func(ctx context.Context, node string) (net.Conn, error) {
			to := l.all[node]
			if to == nil {
				return nil, fmt.Errorf("no node %s", node)
			}
			c, err := h.Dial(ctx, "eth0", netip.AddrPortFrom(to.addr, raftPort))
			if err != nil {
				return nil, err
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.conns = append(l.conns, c)
			return counted{c, &l.sent}, nil
		},
	}))
}

// counted counts what is written.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

func (m *member) halt() {
	if m.Node != nil {
		check(m.lab.t, m.Stop())
		check(m.lab.t, m.Stop()) // twice is fine
		m.Node = nil
	}
}

// powerCut ends a node without a word to anybody.
func (m *member) powerCut() {
	m.lab.net.PowerOff(m.name)
	m.halt()
}

// bootstrap writes the founders' configuration on every node.
func (l *lab) bootstrap() {
	l.t.Helper()
	var servers []Server
	for _, n := range l.names {
		servers = append(servers, Server{Name: n, Voter: true})
	}
	for _, n := range l.names {
		check(l.t, l.all[n].Bootstrap(servers))
	}
}

// found bootstraps, waits for a leader and commits the first entry.
func (l *lab) found() *member {
	l.t.Helper()
	l.bootstrap()
	m := l.leader()
	if r := must[fsm.Result](l.t)(m.Propose(l.t.Context(), foundCmd(l.names))); r.Rejected != "" {
		l.t.Fatal(r.Rejected)
	}
	return m
}

func foundCmd(names []string) fsm.Command {
	f := &fsm.Found{Cluster: "web", Digest: "d", Timing: spec.Profiles["lan"], Voters: names}
	for _, n := range names {
		f.Nodes = append(f.Nodes, spec.Node{Name: n, Role: spec.RoleNode})
	}
	return fsm.Command{Found: f}
}

// leader waits for a node that leads and that a majority follows.
func (l *lab) leader() *member {
	l.t.Helper()
	var found *member
	l.until("a leader", func() bool {
		for _, n := range l.names {
			m := l.all[n]
			if m.Node == nil || !m.IsLeader() {
				continue
			}
			followers := 0
			for _, o := range l.all {
				if o.Node == nil {
					continue
				}
				if who, _ := o.Leader(); who == n {
					followers++
				}
			}
			if followers > len(l.names)/2 {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// other is a running node that is not m.
func (l *lab) other(m *member) *member {
	for _, n := range l.names {
		if o := l.all[n]; o != m && o.Node != nil {
			return o
		}
	}
	return nil
}

func (l *lab) until(what string, ok func() bool) time.Duration {
	l.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > time.Minute {
			l.t.Fatal("a minute and not yet: ", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}

// applied waits until every running node has applied index.
func (l *lab) applied(index uint64) {
	l.t.Helper()
	for _, m := range l.all {
		if m.Node != nil {
			l.until(fmt.Sprintf("%s applied %d", m.name, index), func() bool { return m.m.Copy().Index >= index })
		}
	}
}

// propose commits a line of history, wherever the leader is, until it is acked.
func (l *lab) propose(text string) {
	l.t.Helper()
	cmd := fsm.Command{Report: &fsm.Report{Events: []fsm.Event{{Kind: "test", Text: text}}}}
	l.until("committed "+text, func() bool {
		for _, m := range l.all {
			if m.Node == nil {
				continue
			}
			if _, err := m.Propose(l.t.Context(), cmd); err == nil {
				return true
			}
		}
		return false
	})
}

// history lists the test's events on one node.
func (m *member) history() (out []string) {
	for _, e := range m.m.Copy().Events {
		if e.Kind == "test" {
			out = append(out, e.Text)
		}
	}
	return out
}

// takeOver makes m stand until it leads. Once is nearly always enough; a heartbeat
// that comes in the very moment can send it back.
func (l *lab) takeOver(m *member) time.Duration {
	l.t.Helper()
	var next time.Time
	return l.until(m.name+" leads", func() bool {
		if !m.IsLeader() && !time.Now().Before(next) {
			m.Stand()
			next = time.Now().Add(30 * time.Millisecond)
		}
		return m.IsLeader()
	})
}
