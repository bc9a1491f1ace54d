package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/memnet"
	"hanode/internal/netio"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/vip"
	"hanode/vip/vipfake"
)

// lab is a cluster of whole agents in virtual time: real raft, real memberlist,
// real lease and planner, on a network, disks, clocks and kernels of memory.
type lab struct {
	t     testing.TB
	net   *memnet.Net
	nodes []spec.Node
	tm    spec.Timing
	key   string
	hosts map[string]*host
	begin time.Time
	log   io.Writer
	group string // the node file's groups
}

// host is one machine; its agent comes and goes.
type host struct {
	lab    *lab
	name   string
	dir    string
	clk    *simClock
	kernel *vipfake.Host
	links  []netio.Link
	wire   *memnet.Host

	mu      sync.Mutex
	disk    *memDisk
	boot    int
	agent   *Agent
	stopped chan struct{} // closed when the agent's Run has returned
	err     error
	cancel  context.CancelFunc
}

// simClock runs at its own rate; its two faces drift apart.
type simClock struct {
	base      time.Time
	boot, raw float64
	off       time.Duration
}

func (c *simClock) Now() clock.Instant {
	d := float64(time.Since(c.base))
	return clock.Instant{Boot: c.off + time.Duration(d*c.boot), Raw: c.off + time.Duration(d*c.raw)}
}

func (c *simClock) Wall() time.Time { return time.Now() }

// memDisk is what survives a power cut.
type memDisk struct {
	store *raft.InmemStore
	snaps *raft.InmemSnapshotStore
}

func newMemDisk() *memDisk {
	return &memDisk{raft.NewInmemStore(), raft.NewInmemSnapshotStore()}
}

const vipA = "10.77.0.100"

func newLab(t testing.TB, tm spec.Timing, names ...string) *lab {
	l := &lab{t: t, net: memnet.New(1), tm: tm, hosts: map[string]*host{}, begin: time.Now(), log: io.Discard}
	if os.Getenv("SIM_LOG") != "" {
		l.log = os.Stderr
	}
	dir := t.TempDir()
	l.key = filepath.Join(dir, "key")
	if err := os.WriteFile(l.key, []byte(trust.Generate()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.group = filepath.Join(dir, "groups.hcl")
	src := fmt.Sprintf("group \"web\" {\n  prefer = [%q]\n  failback = \"on\"\n  resource \"ip\" \"%s\" { dev = \"eth1\" }\n}\n", names[0], vipA)
	if err := os.WriteFile(l.group, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		role := spec.RoleNode
		if n == "arbiter" {
			role = spec.RoleWitness
		}
		l.nodes = append(l.nodes, spec.Node{Name: n, Address: fmt.Sprintf("10.0.0.%d", i+1), Role: role})
	}
	for i, n := range names {
		h := &host{lab: l, name: n, dir: filepath.Join(dir, n), disk: newMemDisk(), clk: &simClock{base: l.begin, boot: 1, raw: 1, off: time.Duration(i+1) * time.Hour}}
		h.kernel = vipfake.NewHost(h.clk)
		h.links = []netio.Link{
			{Name: "eth0", Addr: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i+1))},
			{Name: "eth1", Addr: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1))},
		}
		l.hosts[n] = h
	}
	return l
}

func (h *host) config() *config.Node {
	return &config.Node{
		File: "hanode.hcl", Cluster: "web", Name: h.name, DataDir: h.dir, KeyFile: h.lab.key, Port: 7694,
		Links: []string{"eth0", "eth1"}, Timing: h.lab.tm, Nodes: h.lab.nodes, GroupsFile: h.lab.group,
	}
}

// start boots the agent.
func (h *host) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boot++
	h.wire = h.lab.net.Host(h.name, h.links...)
	disk, boot := h.disk, h.boot
	log := slog.New(slog.NewTextHandler(h.lab.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts := Options{Version: "test", Log: log, Host: &Host{
		Network: h.wire, Clock: h.clk, ID: fmt.Sprintf("boot-%s", h.name),
		Claim:  func(string) (func() error, error) { return func() error { return nil }, nil },
		Kernel: func(string, func(string, string)) (vip.Kernel, error) { return h.kernel.Open(), nil },
		Stores: func(string, func(error)) (cluster.Stores, error) {
			return cluster.Stores{Log: disk.store, Stable: disk.store, Snapshots: disk.snaps}, nil
		},
	}}
	_ = boot
	a, err := New(h.config(), opts)
	if err != nil {
		h.lab.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.agent, h.cancel, h.stopped, h.err = a, cancel, make(chan struct{}), nil
	stopped := h.stopped
	go func() {
		defer close(stopped)
		err := a.Run(ctx)
		h.mu.Lock()
		h.err = err
		h.mu.Unlock()
	}()
}

// stop is SIGTERM, and waits.
func (h *host) stop() {
	h.cancel()
	<-h.stopped
	h.agent = nil
}

// kill is kill -9 of the agent: sockets closed by the kernel, guard and addresses
// as they are.
func (h *host) kill() {
	if h.agent == nil {
		return
	}
	h.wire.Kill()
	close(h.agent.crash)
	h.cancel()
	<-h.stopped
	h.agent = nil
}

// powerCut is the plug pulled: nobody hears of it, and the kernel's state is gone.
func (h *host) powerCut() {
	h.lab.net.PowerOff(h.name)
	if h.agent != nil {
		close(h.agent.crash)
		h.cancel()
		<-h.stopped
		h.agent = nil
	}
	h.kernel.Reboot()
}

func (l *lab) startAll() {
	for _, n := range l.nodes {
		l.hosts[n.Name].start()
	}
}

// close ends everything, so that the bubble can end.
func (l *lab) close() {
	for _, n := range l.nodes {
		l.hosts[n.Name].kill()
	}
	l.net.Close()
}

// answers lists the hosts that answer for the VIP right now.
func (l *lab) answers(addr string) []string {
	var out []string
	for _, n := range l.nodes {
		if l.hosts[n.Name].kernel.Answers(netip.MustParseAddr(addr)) {
			out = append(out, n.Name)
		}
	}
	return out
}

// until waits for cond in virtual time and watches that nobody answers twice.
func (l *lab) until(what string, limit time.Duration, cond func() bool) time.Duration {
	l.t.Helper()
	begin := time.Now()
	for !cond() {
		if who := l.answers(vipA); len(who) > 1 {
			l.t.Fatalf("%v: two hosts answer: %v", time.Since(l.begin), who)
		}
		if time.Since(begin) > limit {
			l.dump()
			l.t.Fatalf("%s: not within %v (answers: %v)", what, limit, l.answers(vipA))
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}

func (l *lab) dump() {
	for _, n := range l.nodes {
		h := l.hosts[n.Name]
		if h.agent == nil {
			l.t.Logf("%s: down", n.Name)
			continue
		}
		node := h.agent.node.Load()
		leader, term := "", uint64(0)
		if node != nil {
			leader, term = node.Leader()
		}
		h.agent.machine.View(func(s *fsm.State) {
			l.t.Logf("%s: leader %q term %d index %d founded %v", n.Name, leader, term, s.Index, s.Founded())
			for _, g := range s.Groups {
				l.t.Logf("  group %s epoch %d owner %v waits %v started %v failed %v", g.Spec.Name, g.Epoch, g.Owner, g.Waits, g.Started, g.Failed)
			}
			for _, x := range s.Nodes {
				l.t.Logf("  node %s inc %d fenced %v", x.Name, x.Inc, x.Fenced)
			}
		})
		l.t.Logf("  may: %+v problems %v", h.agent.holds("web"), h.agent.problems.m)
	}
}

func (l *lab) held(by string) func() bool {
	return func() bool { return slices.Equal(l.answers(vipA), []string{by}) }
}
