package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
	"hanode/internal/grid"
	"hanode/internal/id"
	"hanode/internal/memnet"
	"hanode/internal/netio"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/vip"
	"hanode/vip/vipfake"
)

// lab is a cluster of whole agents in virtual time: real raft, real memberlist,
// real lease and planner, on a network, disks, clocks and kernels of memory. It
// checks the invariants at each write to a kernel and at each millisecond.
type lab struct {
	t       testing.TB
	net     *memnet.Net
	nodes   []spec.Node
	servers int // as in Options; set it before the first start
	tm      spec.Timing
	key     []byte // the key file's text, of the founders
	hosts   map[string]*host
	order   []*host // as in nodes
	begin   time.Time
	log     *logBook
	group   string       // the node file's groups
	vips    []netip.Addr // all addresses that any group may have
	ledger  *ledger
	hist    *history
	gone    map[id.Claim]*expired // the checker's; see passed
	stop    chan struct{}         // ends the checker
	ended   chan struct{}
	sent    int // datagrams until the last full second; the checker's

	mu     sync.Mutex
	bad    []string // what was violated
	kinds  map[string]int
	broken chan struct{}
	once   sync.Once

	exits sync.WaitGroup // of agents that end their process
}

// logBook keeps what agents log; safe for concurrent use.
type logBook struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	also io.Writer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.also != nil {
		_, _ = b.also.Write(p)
	}
	return b.buf.Write(p)
}

func (b *logBook) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// host is one machine; its agent comes and goes.
type host struct {
	lab    *lab
	name   string
	dir    string
	clk    *simClock
	links  []netio.Link
	speaks int           // as in Options
	joins  bool          // becomes a member by init or join, and not by the node file
	steer  chan struct{} // full while somebody starts or stops it

	// gear lets a test build a broken machine: it may replace the kernel that an
	// agent gets. nil = as it is.
	gear func(vip.Kernel) vip.Kernel
	fits func(vip.Address) error // whether it has the device of an address; nil = of every one
	held heldClock
	// pings answers for the ping nodes "router" and "uplink"; nil = it has none.
	pings func(host string) bool
	dog   func(path string) (io.WriteCloser, error) // its watchdog; nil = it has none

	mu      sync.Mutex
	kernel  *vipfake.Host
	disk    *memDisk
	wire    *memnet.Host
	boot    int
	agent   *Agent // the newest one, running or not
	sys     *simKernel
	life    *life
	ready   bool
	off     bool          // without power
	forked  fork          // see fork
	power   chan struct{} // full while somebody may rely on off
	wanted  bool          // up, as far as the test is concerned
	stopped chan struct{} // closed when the agent's Run has returned
	err     error
	cancel  context.CancelFunc
	open    map[netip.Addr]opened
}

// The addresses that groups may have are 10.77.0.100 and up.
const (
	vipA     = "10.77.0.100"
	firstVIP = 100
)

// newLab makes hosts, all off. The groups are one named web, preferring the first
// name, unless some are given.
func newLab(t testing.TB, tm spec.Timing, names ...string) *lab {
	return newLabOf(t, tm, 1, names, []spec.Group{groupOf("web", vipA, names[0])})
}

func groupOf(name, addr string, prefer ...string) spec.Group {
	return spec.Group{
		Name: name, Prefer: prefer, Failback: spec.Failback{On: true},
		Resources: []spec.Resource{{Type: "ip", Name: addr, Dev: "eth1"}},
	}
}

func newLabOf(t testing.TB, tm spec.Timing, seed uint64, names []string, groups []spec.Group) *lab {
	l := &lab{
		t: t, net: memnet.New(seed), tm: tm, hosts: map[string]*host{}, begin: time.Now(), log: &logBook{},
		stop: make(chan struct{}), ended: make(chan struct{}), broken: make(chan struct{}),
	}
	if os.Getenv("SIM_LOG") != "" || *simLog {
		l.log.also = os.Stderr
	}
	l.hist = newHistory(names)
	l.gone = map[id.Claim]*expired{}
	l.ledger = newLedger(l.fail, l.hist)
	dir := t.TempDir()
	l.key = []byte(trust.Generate() + "\n")
	l.group = filepath.Join(dir, "groups.hcl")
	if err := os.WriteFile(l.group, config.FormatCluster(groups), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range maxVips {
		l.vips = append(l.vips, netip.AddrFrom4([4]byte{10, 77, 0, byte(firstVIP + i)}))
	}
	for i, n := range names {
		role := spec.RoleNode
		if n == "arbiter" {
			role = spec.RoleWitness
		}
		l.nodes = append(l.nodes, spec.Node{Name: n, Address: fmt.Sprintf("10.0.0.%d", i+1), Role: role})
	}
	for i, n := range names {
		h := &host{
			lab: l, name: n, dir: filepath.Join(dir, n), disk: newMemDisk(),
			clk: newSimClock(time.Duration(i+1) * time.Hour), steer: make(chan struct{}, 1), power: make(chan struct{}, 1), open: map[netip.Addr]opened{},
		}
		h.kernel = vipfake.NewHost(h.clk)
		h.links = []netio.Link{
			{Name: "eth0", Addr: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i+1))},
			{Name: "eth1", Addr: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1))},
		}
		l.hosts[n] = h
		l.order = append(l.order, h)
	}
	go l.watch()
	return l
}

func (h *host) config() *config.Node {
	twoNode := ""
	if len(h.lab.nodes) == 2 && !h.joins {
		twoNode = config.TwoNodeManual
	}
	watchdog := ""
	if h.dog != nil {
		watchdog = "/dev/watchdog"
	}
	var pings []config.PingNode
	if h.pings != nil {
		pings = []config.PingNode{{Name: "router", Hosts: []string{"router"}}, {Name: "net", Hosts: []string{"uplink1", "uplink2"}}}
	}
	c := &config.Node{
		Watchdog: watchdog, Ping: pings, IPFail: true,
		TwoNode: twoNode,
		File:    "hanode.hcl", Cluster: "web", Name: h.name, DataDir: h.dir, KeyFile: filepath.Join(h.dir+".etc", "key"), Port: 7694,
		Links: []string{"eth0", "eth1"}, Timing: h.lab.tm, GroupsFile: h.lab.group,
	}
	if h.joins {
		c.Address = h.links[0].Addr.String()
		return c
	}
	for _, n := range h.lab.nodes {
		if !h.lab.hosts[n.Name].joins {
			c.Nodes = append(c.Nodes, n)
		}
	}
	return c
}

// bringKey puts the cluster's key on a founder that has none yet.
func (h *host) bringKey() error {
	path := h.config().KeyFile
	if _, err := os.Stat(path); err == nil || h.joins {
		return nil
	}
	return writeKey(path, h.lab.key)
}

// start boots the agent.
func (h *host) start() {
	h.power <- struct{}{}
	defer func() { <-h.power }()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off = false
	h.wire = h.lab.net.Host(h.name, h.links...)
	h.life, h.ready, h.wanted = newLife(), false, true
	h.held.at.Store(nil) // whoever was stopped here, this process was not
	lf := h.life
	disk := h.disk
	level := slog.LevelInfo
	if h.lab.log.also != nil {
		level = slog.LevelDebug
	}
	begin := h.lab.begin
	log := slog.New(slog.NewTextHandler(h.lab.log, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("at", time.Since(begin).String())
		}
		return a
	}}))
	sys := &simKernel{h: h, life: lf}
	if err := h.bringKey(); err != nil {
		h.lab.fail("%s: %v", h.name, err)
		return
	}
	fits := h.fits
	opts := Options{Version: "test", Speaks: h.speaks, Log: log, Servers: h.lab.servers, Supervisor: told{func() { h.mu.Lock(); h.ready = true; h.mu.Unlock() }}, Host: &Host{
		Network: h.wire, Clock: gatedClock{agentClock{h}, sys}, ID: fmt.Sprintf("boot-%s-%d", h.name, h.boot),
		Boot: fmt.Sprint(h.boot), Machine: h.name, Watchdog: h.dog,
		Ping: func(_ context.Context, host string) error {
			if h.pings(host) {
				return nil
			}
			return errors.New("no answer")
		},
		Claim: func(string) (func() error, error) { return func() error { return nil }, nil },
		Kernel: func(string, *grid.Grid, func(string, string)) (vip.Kernel, error) {
			sys.Kernel = h.kernel.Open()
			// A new guard begins closed. Where there is none, what a dead agent left answers
			// until this one removes it.
			h.mu.Lock()
			maps.DeleteFunc(h.open, func(a netip.Addr, _ opened) bool { return !h.kernel.Answers(a) })
			h.mu.Unlock()
			if h.gear != nil {
				sys.Kernel = h.gear(sys.Kernel)
			}
			return sys, nil
		},
		Stores: func(string) (cluster.Stores, error) {
			m := disk.mount(lf)
			return cluster.Stores{Log: m, Stable: m, Snapshots: m.snaps, Probe: m.probe}, nil
		},
		SetAside: func(string) error {
			if lf.dead() {
				return errDead
			}
			disk.empty()
			return nil
		},
		Fits: fits,
		Exit: func(because error) {
			h.lab.note("%s ends: %v", h.name, because)
			h.lab.exits.Go(h.kill)
		},
	}}
	a, err := New(h.config(), opts)
	if err != nil {
		h.lab.fail("%s: %v", h.name, err)
		return
	}
	sys.agent = a
	h.lab.ledger.follow(fmt.Sprintf("%s (run from %v)", h.name, time.Since(begin)), a.machine)
	ctx, cancel := context.WithCancel(context.Background())
	h.agent, h.sys, h.cancel, h.stopped, h.err = a, sys, cancel, make(chan struct{}), nil
	stopped := h.stopped
	go func() {
		defer close(stopped)
		err := a.Run(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.err = err
		if err != nil && !lf.dead() {
			h.lab.note("%s ended by itself: %v", h.name, err)
		}
		lf.end()
	}()
}

// up reports whether an agent runs.
func (h *host) up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.life != nil && !h.life.dead()
}

// running is the agent while it runs, and its kernel.
func (h *host) running() (*Agent, *simKernel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life == nil || h.life.dead() || !h.ready {
		return nil, nil
	}
	return h.agent, h.sys
}

// end waits for the agent of one life.
func (h *host) end(crash bool) {
	h.mu.Lock()
	a, stopped, cancel, lf := h.agent, h.stopped, h.cancel, h.life
	h.wanted = false
	h.mu.Unlock()
	if a == nil {
		return
	}
	if crash {
		lf.crash(a)
	} else {
		cancel()
	}
	<-stopped
	cancel()
}

// halt is SIGTERM, and waits.
func (h *host) halt() { h.end(false) }

// kill is kill -9 of the agent: sockets closed by the kernel, guard and addresses
// as they are.
func (h *host) kill() {
	h.mu.Lock()
	wire := h.wire
	if h.life != nil {
		h.life.crash(h.agent)
	}
	h.mu.Unlock()
	if wire == nil {
		return
	}
	wire.Kill()
	h.lab.net.Host(h.name, h.links...) // what the dying goroutines still send goes nowhere
	h.end(true)
}

// powerCut is the plug pulled: nobody hears of it, and the kernel's state is gone.
func (h *host) powerCut() {
	h.lab.net.PowerOff(h.name)
	h.mu.Lock()
	if h.life != nil {
		h.life.crash(h.agent)
	}
	h.mu.Unlock()
	h.kernel.Reboot()
	h.end(true)
	h.clk.reboot()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boot++
	h.off = true
	clear(h.open)
}

// crash ends a life without a word to its agent but "stop where you are".
func (l *life) crash(a *Agent) {
	l.once.Do(func() {
		close(l.over)
		close(a.crash)
	})
}

// loseDisk empties the disk of a host that is down.
func (h *host) loseDisk() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disk = newMemDisk()
	if err := os.RemoveAll(h.dir); err != nil {
		h.lab.fail("%s: %v", h.name, err)
	}
}

// pause is SIGSTOP as others see it; resume is SIGCONT. See simKernel.
func (h *host) pause() (resume func() (held, late int)) { return h.pauseAs(false) }

// pauseAs is pause; gated: its loops find on resume that they are late.
func (h *host) pauseAs(gated bool) (resume func() (held, late int)) {
	_, sys := h.running()
	if sys == nil {
		return nil
	}
	sys.freeze(gated)
	h.lab.net.Pause(h.name, true)
	return func() (held, late int) {
		held, late = sys.thaw()
		h.lab.net.Pause(h.name, false)
		return held, late
	}
}

func (h *host) setOpen(a netip.Addr, o *opened) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o == nil {
		delete(h.open, a)
	} else {
		h.open[a] = *o
	}
}

func (l *lab) startAll() {
	for _, n := range l.nodes {
		if h := l.hosts[n.Name]; !h.joins {
			h.start()
		}
	}
}

// close ends everything, so that the bubble can end, and reports what was wrong.
func (l *lab) close() {
	close(l.stop)
	<-l.ended
	l.exits.Wait()
	for _, n := range l.nodes {
		l.hosts[n.Name].kill()
	}
	l.net.Close()
	time.Sleep(2 * time.Minute) // the libraries do not wait for their own probes and dials
	for _, b := range l.violations() {
		l.t.Error(b)
	}
}

// note writes a line into the log, between the agents' own.
func (l *lab) note(format string, args ...any) {
	fmt.Fprintf(l.log, "at=%v ---- %s\n", time.Since(l.begin), fmt.Sprintf(format, args...))
}

// fail notes a violation. Safe from any goroutine, and with locks held.
func (l *lab) fail(format string, args ...any) {
	text := fmt.Sprintf("at %v: %s", time.Since(l.begin), fmt.Sprintf(format, args...))
	l.note("VIOLATION %s", text)
	l.mu.Lock()
	defer l.mu.Unlock()
	kind, _, _ := strings.Cut(format, ":")
	if l.kinds == nil {
		l.kinds = map[string]int{}
	}
	if l.kinds[kind]++; l.kinds[kind] <= 3 { // a violation tends to last
		l.bad = append(l.bad, text)
	}
	l.once.Do(func() { close(l.broken) })
}

func (l *lab) violations() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.bad)
}

// answers lists the hosts that answer for the VIP right now.
func (l *lab) answers(addr string) []string {
	return l.answering(netip.MustParseAddr(addr))
}

func (l *lab) answering(a netip.Addr) []string {
	var out []string
	for _, h := range l.order {
		if h.kernel.Answers(a) {
			out = append(out, h.name)
		}
	}
	return out
}

// soak is how long a story looks on while nothing may happen: d, a quarter of it in short
// mode. What has to happen meanwhile takes far less.
func soak(d time.Duration) time.Duration {
	if testing.Short() {
		return d / 4
	}
	return d
}

// until waits for cond in virtual time; it fails the test after limit.
func (l *lab) until(what string, limit time.Duration, cond func() bool) time.Duration {
	l.t.Helper()
	d, ok := l.within(limit, cond)
	if !ok {
		l.t.Fatalf("%s: not within %v (answers: %v)\n%s%s", what, limit, l.answers(vipA), l.dump(), l.log.buf.String())
	}
	return d
}

func (l *lab) within(limit time.Duration, cond func() bool) (time.Duration, bool) {
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > limit {
			return time.Since(begin), false
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin), true
}

func (l *lab) dump() string {
	var b strings.Builder
	for _, n := range l.nodes {
		h := l.hosts[n.Name]
		a, _ := h.running()
		if a == nil {
			fmt.Fprintf(&b, "%s: down (%v)\n", n.Name, h.err)
			continue
		}
		leader, term := "", uint64(0)
		if node := a.node.Load(); node != nil {
			leader, term = node.Leader()
		}
		ref, _ := a.ref()
		a.grant.Lock()
		ready := a.grant.IsReady()
		a.grant.Unlock()
		fmt.Fprintf(&b, "%s: registered %v, leader %q term %d, voter ready %v\n", n.Name, ref, leader, term, ready)
		a.machine.View(func(s *fsm.State) {
			fmt.Fprintf(&b, "  index %d founded %v voters %v maintenance %v\n", s.Index, s.Founded(), s.Voters, s.Maintenance)
			for _, g := range s.Groups {
				fmt.Fprintf(&b, "  group %s deleted %v epoch %d owner %v released %v started %v waits %+v failed %v pinned %v: %+v\n",
					g.Spec.Name, g.Deleted, g.Epoch, g.Owner, g.OwnerReleased, g.Started, g.Waits, g.Failed, g.Pinned, a.holds(g.Spec.Name))
			}
			for _, x := range s.Nodes {
				fmt.Fprintf(&b, "  node %+v\n", *x)
			}
		})
		a.problems.mu.Lock()
		fmt.Fprintf(&b, "  problems %v\n", a.problems.m)
		a.problems.mu.Unlock()
	}
	for _, v := range l.vips {
		if who := l.answering(v); len(who) > 0 {
			fmt.Fprintf(&b, "%v answers on %v\n", v, who)
		}
	}
	return b.String()
}

// held reports whether this host alone answers for the first VIP.
func (l *lab) held(by string) func() bool {
	return func() bool { return slices.Equal(l.answers(vipA), []string{by}) }
}

// leader is the node that leads and knows it; "" = none, or two think so.
func (l *lab) leader() string {
	name := ""
	for _, n := range l.nodes {
		a, _ := l.hosts[n.Name].running()
		if a == nil {
			continue
		}
		if r := a.node.Load(); r != nil && r.IsLeader() {
			if name != "" {
				return ""
			}
			name = n.Name
		}
	}
	return name
}

// view shows the newest copy of the replicated state on any running node.
func (l *lab) view(fn func(*fsm.State)) {
	var best *fsm.Machine
	var at uint64
	for _, n := range l.nodes {
		a, _ := l.hosts[n.Name].running()
		if a == nil {
			continue
		}
		a.machine.View(func(s *fsm.State) {
			if best == nil || s.Index > at {
				best, at = a.machine, s.Index
			}
		})
	}
	if best != nil {
		best.View(fn)
	}
}

var _ raft.LogStore = mount{}
