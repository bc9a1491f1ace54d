// Package agent is one node, assembled: it builds the parts, starts and stops
// them in order, and carries what one part says to the next. It is the only
// package that sees all the others.
//
// The decisions are elsewhere: who may hold (lease), who should own (failover),
// what is replicated (fsm), how it is started (resource) and put on the kernel
// (vip). What is here is wiring, and every loop is thin.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
	"hanode/gossip"
	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/internal/id"
	"hanode/internal/realtime"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/lease"
	"hanode/peer"
	"hanode/resource"
	"hanode/vip"
)

// Options are what an agent gets beside its node file.
type Options struct {
	Log     *slog.Logger
	Version string
	// Speaks makes this an agent of an older version; 0 = the newest there is. For tests
	// of upgrades.
	Speaks int
	Host   *Host // nil = this host
	// Servers is how many nodes have the log, see failover.VoterInputs; 0 = as many as usual.
	Servers int
	// Supervisor is told how this agent lives; nil = nobody is.
	Supervisor Supervisor
}

// Agent is one running node.
type Agent struct {
	cfg  *config.Node
	opts Options
	log  *slog.Logger
	host *Host
	keys keyring
	disk *disk
	born clock.Instant
	grid *grid.Grid // of what this agent does again and again
	// member is what init or join wrote; nil = the node file lists the founders.
	member *membership
	roster roster

	machine  *fsm.Machine
	gossip   *gossip.Gossip
	kernel   vip.Kernel
	services *resource.Services
	peers    *peer.Client
	mux      *trust.Mux
	door     atomic.Pointer[peer.Door]    // nil until the network is open
	node     atomic.Pointer[cluster.Node] // nil until founded or joined

	// hold guards what decides whether this node may hold. The guard's bits are
	// written under it too, so that "may I" and "open" are one step. The beats do not
	// need it: they have the holder's lease.
	hold struct {
		sync.Mutex
		holder *lease.Holder // nil = not registered
		tokens map[id.Claim]tokenAt
		chased clock.Instant // when the voters were last asked whom the groups wait for
	}
	// grant guards what this node promised as a voter.
	grant struct {
		sync.Mutex
		*lease.Grantor
		voter  bool         // in the lease voters' list
		silent []id.NodeRef // whom this voter misses, as told in its beats
	}
	lease     atomic.Pointer[lease.Lease] // the holder's; nil = not registered
	voice     atomic.Pointer[voice]       // set whenever grant changes
	posts     posts
	pulse     pulse
	turns     turns
	realtime  atomic.Pointer[realtime.State] // nil = switched off, or not known yet
	beats     chan struct{}                  // one slot: send a beat now
	ears      ears
	lies      atomic.Uint64 // beats that speak for another node than their sender
	known     known
	onDisk    atomic.Pointer[roll] // of the disk, as it was before raft ran on it; nil = not read yet
	elect     election
	groups    groups
	leaving   leaving
	telling   telling
	lead      leading
	following following
	followed  followed
	fit       fitness
	foreign   foreign
	present   present
	two       twoNode
	pings     pings
	clients   clients
	ha        haNow
	problems  problems
	tm        atomic.Pointer[spec.Timing] // the cluster's, once founded

	arranged struct { // what systemd was told of the groups' units; list is groupsLoop's
		busy, failed atomic.Bool
		list         string
	}

	fenced  chan struct{} // one slot: our registration was fenced (R9)
	changed chan struct{} // one slot: replicated state changed
	touched touched       // groups whose records changed since groupsLoop looked
	ring    chan struct{} // one slot: the voter's clock has something to look at

	heardVersion atomic.Int64 // the newest version that another node said the cluster speaks
	founding     atomic.Bool  // this process writes, or wrote, the founders' configuration
	drain        atomic.Bool  // hold nothing any more
	old          atomic.Bool  // of a generation that was given up; see superseded
	removed      chan struct{}
	once         sync.Once

	fatal chan error
	crash chan struct{}   // closed by tests: stop as kill -9 does, handing over and cleaning up nothing
	ctx   context.Context // ends the loops
	loops struct {
		sync.Mutex
		ended bool
		wg    sync.WaitGroup
	}
	servers sync.WaitGroup // end when their listeners close
}

type tokenAt struct {
	at  clock.Instant
	ago time.Duration
}

// Run runs the node until ctx ends; then it hands its groups over and stops. A
// non-nil error means that it could not start, or had to stop: nothing is held
// any more in either case.
func Run(ctx context.Context, cfg *config.Node, opts Options) error {
	a, err := New(cfg, opts)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// New prepares an agent; it touches nothing yet.
func New(cfg *config.Node, opts Options) (*Agent, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	cfg, member, err := adopt(cfg)
	if err != nil {
		return nil, err
	}
	host := opts.Host
	if host == nil {
		if host, err = RealHost(cfg, opts.Log); err != nil {
			return nil, err
		}
	}
	a := &Agent{
		cfg: cfg, member: member, opts: opts, log: opts.Log.With("node", cfg.Name), host: host,
		machine: fsm.NewMachine(), grid: grid.New(),
		fenced: make(chan struct{}, 1), changed: make(chan struct{}, 1), ring: make(chan struct{}, 1),
		beats: make(chan struct{}, 1), posts: newPosts(),
		removed: make(chan struct{}), fatal: make(chan error, 1), crash: make(chan struct{}),
	}
	a.machine.Lower(speaks(opts.Speaks))
	a.hold.tokens = map[id.Claim]tokenAt{}
	a.followed.wholes = make(chan struct{}, maxWholes)
	a.two.manual.Store(cfg.Manual())
	if cfg.HADir != "" {
		if a.ha.groups, err = cfg.LoadGroups(); err != nil {
			return nil, err
		}
		a.ha.text = cfg.Resources
	}
	a.pulse.news = make(chan struct{}, 1)
	return a, nil
}

// signal fills a one-slot channel.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// stopper undoes what was started, last first.
type stopper struct {
	names []string
	fns   []func() error
}

func (s *stopper) add(name string, fn func() error) {
	s.names, s.fns = append(s.names, name), append(s.fns, fn)
}

func (s *stopper) run(log *slog.Logger) error {
	var errs []error
	for i := len(s.fns) - 1; i >= 0; i-- {
		if err := s.fns[i](); err != nil {
			log.Warn("stopping", "part", s.names[i], "err", err)
			errs = append(errs, fmt.Errorf("stop %s: %w", s.names[i], err))
		}
	}
	return errors.Join(errs...)
}

// Run starts the parts, waits, and stops them. See the package function Run.
func (a *Agent) Run(ctx context.Context) (err error) {
	var undo stopper
	defer func() {
		err = errors.Join(err, undo.run(a.log), a.setAsideIfLeft())
	}()
	// loops end before the parts they use.
	loops, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	a.ctx = loops
	if err := a.bootHost(&undo); err != nil {
		return err
	}
	if err := a.openNetwork(&undo); err != nil {
		return err
	}
	sock, err := a.openSocket(&undo)
	if err != nil {
		return err
	}
	undo.add("raft", a.stopRaft)
	undo.add("loops", func() error { a.endLoops(cancel); return nil })
	if sock != nil {
		a.goLoop(func(ctx context.Context) { a.serve(sock.Serve(ctx, a, a.log)) })
	}
	if err := a.serveHTTP(&undo); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if a.cfg.RemoteAPI {
		l := a.mux.Protocol(trust.APIALPN)
		a.goLoop(func(ctx context.Context) { a.serve(api.ServeRemote(ctx, l, a, a.log)) })
	}
	a.goLoop(a.realtimeLoop)
	a.startPulse()
	a.goLoop(a.beatLoop)
	a.goLoop(a.postLoop)
	a.goLoop(a.stallLoop)
	a.goLoop(a.voterLoop)
	a.goLoop(a.linksLoop)
	a.goLoop(a.portsLoop)
	a.goLoop(a.resourcesLoop)
	a.goLoop(a.announceLoop)
	a.goLoop(a.groupsLoop)
	a.goLoop(a.lapseLoop)
	a.goLoop(a.rosterLoop)
	a.goLoop(a.joinLoop)
	a.goLoop(a.fitLoop)
	a.goLoop(a.keyLoop)
	a.goLoop(a.probeOwn)
	a.goLoop(a.superviseLoop)
	a.goLoop(a.watchdogLoop)
	a.respawn()
	a.startPings()
	if a.opts.Supervisor != nil {
		a.opts.Supervisor.Ready()
	}
	a.log.Info("agent runs", "cluster", a.cfg.Cluster, "guard", a.kernel.Tier().String(), "version", a.opts.Version)
	select {
	case <-ctx.Done():
		if a.crashed() {
			return nil
		}
		if a.opts.Supervisor != nil {
			a.opts.Supervisor.Stopping(a.stopTime())
		}
		a.services.Drain()
		a.handOver()
	case <-a.removed:
		a.log.Info("this node left the cluster")
	case <-a.crash:
		return nil
	case err = <-a.fatal:
		a.log.Error("the agent must stop", "err", err)
	}
	a.stopHolding()
	return err
}

func (a *Agent) crashed() bool {
	select {
	case <-a.crash:
		return true
	default:
		return false
	}
}

func (a *Agent) stopRaft() error {
	if n := a.node.Load(); n != nil {
		return n.Stop()
	}
	return nil
}

// setAsideIfLeft renames data_dir once membership has ended: what left a cluster
// must not come back by accident.
func (a *Agent) setAsideIfLeft() error {
	select {
	case <-a.removed:
		return a.disk.setAside()
	default:
		return nil
	}
}

// serve turns a server's end into a reason to stop.
func (a *Agent) serve(err error) {
	if err != nil && a.ctx.Err() == nil {
		a.die(err)
	}
}

// die asks Run to stop because of err.
func (a *Agent) die(err error) {
	select {
	case a.fatal <- err:
	default:
	}
}

// goLoop runs fn until the loops end; after that it runs nothing any more.
func (a *Agent) goLoop(fn func(context.Context)) {
	a.loops.Lock()
	defer a.loops.Unlock()
	if !a.loops.ended {
		a.loops.wg.Go(func() { fn(a.ctx) })
	}
}

func (a *Agent) endLoops(cancel func()) {
	cancel()
	a.loops.Lock()
	a.loops.ended = true
	a.loops.Unlock()
	a.loops.wg.Wait()
}

// bootHost is R8 up to the registration: be alone, close the guard, take away
// what an earlier agent left, verify.
func (a *Agent) bootHost(undo *stopper) error {
	if len(a.cfg.Nodes) == 0 {
		return noCluster(a.cfg)
	}
	d, err := openDisk(a.cfg)
	if err != nil {
		return err
	}
	a.disk = d
	a.known.load(d.path(knownFile))
	if d.givenUp() {
		a.old.Store(true)
		a.drain.Store(true)
		a.problems.set("old-generation", "a later generation of the cluster began without this node")
	}
	if err := a.loadRoster(); err != nil {
		return errors.Join(err, d.close())
	}
	undo.add("disk", d.close)
	release, err := a.host.Claim(a.cfg.Cluster)
	if err != nil {
		return err
	}
	undo.add("claim", release)
	if err := a.keys.load(a.cfg); err != nil {
		return err
	}
	if a.kernel, err = a.host.Kernel(a.cfg.DataDir, a.grid, a.problems.set); err != nil {
		return fmt.Errorf("open the guard: %w", err)
	}
	undo.add("vip", func() error {
		if a.crashed() {
			return nil
		}
		return a.kernel.Shutdown()
	})
	gone, err := a.kernel.RemoveOurs()
	if err != nil {
		return fmt.Errorf("remove addresses that an earlier agent left: %w", err)
	}
	for _, g := range gone {
		a.log.Info("removed an address that an earlier agent left", "addr", g.Addr, "dev", g.Dev)
	}
	if a.services, err = resource.Open(addresses{a}, d.path("running.json")); err != nil {
		return err
	}
	undo.add("services", func() error { a.services.Close(); return nil })
	stopped, err := a.services.CleanUp(context.Background(), a.cfg.Name)
	for _, s := range stopped {
		a.log.Info("stopped what an earlier agent left running", "resource", s)
	}
	if err != nil {
		return fmt.Errorf("a service that an earlier agent started does not stop; stop it by hand and start the agent again: %w", err)
	}
	a.born = a.host.Clock.Now()
	a.grant.Grantor = lease.NewGrantor(a.born)
	a.speak()
	a.elect.init(a.cfg.Name)
	a.groups.init()
	a.lead.init()
	a.fit.init()
	a.foreign.init()
	a.machine.Watch(a.onChange)
	return nil
}

// openNetwork starts gossip and the TLS port.
func (a *Agent) openNetwork(undo *stopper) error {
	seeds, err := a.seeds()
	if err != nil {
		return err
	}
	g, err := gossip.Start(gossip.Config{
		Name: a.cfg.Name, Cluster: a.cfg.Cluster, Network: a.host.Network, Port: a.cfg.Port, Keys: a.keys.Ring,
		Clock: a.host.Clock, Grid: a.grid, Look: a.cfg.Timing.Keepalive, LinkDead: a.linkDead(), Seeds: seeds, Discover: a.cfg.Discover, Peers: a.disk.loadPeers(), Save: a.disk.savePeers,
		Generation: a.disk.generation, Superseded: a.superseded, Speaks: a.machine.Newest(), Handle: a.handle, Asked: a.beat, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.gossip = g
	undo.add("gossip", func() error { return g.Stop(0) })
	protocols := []string{alpnRaft, alpnPeer, trust.JoinALPN}
	if a.cfg.RemoteAPI {
		protocols = append(protocols, trust.APIALPN)
	}
	cfg, err := a.keys.ServerConfig(a.cfg.Cluster, a.cfg.Name, protocols...)
	if err != nil {
		return err
	}
	l, err := a.host.Network.Listen(a.cfg.Port + 1)
	if err != nil {
		return err
	}
	a.mux = trust.NewMux(l, cfg, a.log)
	a.mux.Know(g.Knows)
	undo.add("tls port", func() error { a.mux.Close(); a.servers.Wait(); return nil })
	a.peers = peer.NewClient(func(ctx context.Context, node string) (net.Conn, error) { return a.dialTLS(ctx, node, alpnPeer) })
	undo.add("peer client", func() error { a.peers.Close(); return nil })
	srv := peer.NewServer(service{a}, api.Handler(direct{a}), a.log)
	undo.add("peer server", srv.Close)
	door := peer.NewDoor(service{a}, a.log)
	a.door.Store(door)
	undo.add("door", door.Close)
	a.servers.Go(func() { a.serve(a.mux.Serve()) })
	a.servers.Go(func() { a.serve(door.Serve(a.mux.Protocol(trust.JoinALPN))) })
	a.servers.Go(func() { a.serve(srv.Serve(a.mux.Protocol(alpnPeer))) })
	return nil
}

func (a *Agent) openSocket(undo *stopper) (*api.Socket, error) {
	if a.cfg.Socket == "" {
		return nil, nil
	}
	s, err := api.Listen(a.cfg.Socket, a.cfg.SocketRead, a.log)
	if err != nil {
		return nil, err
	}
	undo.add("socket", s.Close)
	return s, nil
}

// linkDead is how long a link may be silent before its streams move to another:
// a few beats, and soon enough that raft's leader does not lose its followers.
func (a *Agent) linkDead() time.Duration {
	t := a.cfg.Timing
	return min(t.Warntime, 3*t.Keepalive+t.Keepalive/2)
}

// timing is the cluster's, or the node file's until there is a cluster.
func (a *Agent) timing() spec.Timing {
	if t := a.tm.Load(); t != nil {
		return *t
	}
	return a.cfg.Timing
}

// stopHolding drops everything that runs here and says so. It returns when
// nothing runs any more, or a resource would not stop.
func (a *Agent) stopHolding() {
	a.drain.Store(true)
	a.groups.wakeAll()
	a.groups.waitIdle(a.stopLimit())
	a.sendOwed("")
	a.hold.Lock()
	if a.hold.holder != nil {
		a.hold.holder.Fence()
	}
	a.hold.Unlock()
}

// handOverTime bounds how long others may take to take the groups over.
const handOverTime = 10 * time.Second

// handOver is an orderly stop: the leader moves our groups while we still serve
// them; what nobody can take is simply released.
func (a *Agent) handOver() {
	if !a.majorityAnswers(a.host.Clock.Now()) {
		return // cut off: nobody could take anything over from here
	}
	ref, ok := a.ref()
	if !ok || a.groups.running() == 0 && !a.manual() {
		a.yield()
		return
	}
	if a.manual() && !a.readyToStepOut() {
		return
	}
	ctx, cancel := context.WithTimeout(a.ctx, handOverTime)
	defer cancel()
	a.log.Info("stopping: handing groups over first", "groups", a.groups.running())
	// Nobody may lead just now, as when the leader was restarted before us. There will
	// be one, and until then we serve.
	for {
		_, err := a.propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Stopping: &fsm.Stopping{Node: ref}})
		if err == nil {
			break
		}
		if ctx.Err() != nil || !a.majorityAnswers(a.host.Clock.Now()) {
			a.log.Warn("cannot ask for a hand-over; releasing instead", "err", err)
			return
		}
		sleepCtx(ctx, 10*time.Millisecond)
	}
	for a.groups.running() > 0 && ctx.Err() == nil && a.othersCanOwn() {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	if a.manual() {
		a.stepOut(ctx)
		return
	}
	a.yield()
}

// yield passes raft's leadership on, so that the cluster does not have to notice.
func (a *Agent) yield() {
	n := a.node.Load()
	if n == nil || !n.IsLeader() {
		return
	}
	if to, disk, ok := a.successor(false); ok {
		if err := n.HandOver(to, disk); err != nil {
			a.log.Warn("cannot hand leadership over", "err", err)
		}
	}
}

// othersCanOwn reports whether any other node could take our groups.
func (a *Agent) othersCanOwn() bool {
	ok := false
	a.machine.View(func(s *fsm.State) {
		for _, n := range s.Nodes {
			if n.Name != a.cfg.Name && n.Registered() && n.Role == spec.RoleNode && !n.Standby && !n.Stopped {
				ok = true
			}
		}
	})
	return ok
}

// ref is this node's registration; false while it has none.
func (a *Agent) ref() (id.NodeRef, bool) {
	a.hold.Lock()
	defer a.hold.Unlock()
	if a.hold.holder == nil || a.hold.holder.Fenced() {
		return id.NodeRef{}, false
	}
	return a.hold.holder.Ref(), true
}
