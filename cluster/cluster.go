// Package cluster is this node's place in raft: founding, proposing, being
// leader, elections that are fast without raft's own timers being so, and
// changes of the voters.
//
// It is the only package that knows hashicorp/raft. It does not know what the
// entries mean (package fsm does) nor who should own what (package failover).
// Nothing here is needed for a node to go on holding: a lease lives from beats.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"hanode/fsm"
	"hanode/internal/grid"
	"hanode/internal/logbridge"
)

// ErrNotLeader means that the command must go to the leader. The caller branches
// on it to forward.
var ErrNotLeader = errors.New("this node is not the leader")

// ErrNoLeader means that nobody is known to lead.
var ErrNoLeader = errors.New("the cluster has no leader")

// ErrHung means that this node leads and its disk does not finish writing: whether
// the command commits is open. The caller branches on it to ask the next leader.
var ErrHung = errors.New("the leader's disk hangs")

// Config is what a Node is built from. Every field but Stores is needed.
type Config struct {
	Name string // of the node; raft's address
	Disk uint64 // counts the node's data directories; Name.Disk is raft's ID
	// Listener hands out raft connections of authenticated peers; Dial opens one
	// to a node by name, over whichever link answers.
	Listener net.Listener
	Dial     func(ctx context.Context, node string) (net.Conn, error)
	// Reachable reports whether a node is heard; appends wait for one that is not.
	// nil = always. Called often, from raft's goroutines: be quick.
	Reachable func(node string) bool
	// Settled reports whether a node says that it has caught up and did not start anew
	// since; it is told again only now and then what it has acknowledged. nil = never.
	// As quick as Reachable.
	Settled func(node string) bool
	// Grid is what idle appends go out on, those to all followers at once; nil = one of
	// its own.
	Grid    *grid.Grid
	Machine *fsm.Machine
	Stores  Stores
	Log     *slog.Logger
}

// Stores are raft's disks.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// Probe writes a few bytes where the log is, waits for them and returns how many
	// bytes are free there; nil = it cannot.
	Probe func() (free uint64, err error)
	Close func() error
}

// Raft's own timers stay slow: they only act when ours do not. Fast ones are not
// calm (one lost TCP segment stalls an idle connection 200 ms), and even fast
// ones take two to three timeouts to elect.
const (
	raftTimeout    = time.Second
	raftLease      = 500 * time.Millisecond
	commitTimeout  = 10 * time.Millisecond
	rpcTimeout     = 500 * time.Millisecond
	applyTimeout   = 2 * time.Second
	barrierTimeout = 5 * time.Second
)

// ServerID is raft's name for a node's data directory.
func ServerID(name string, disk uint64) string { return fmt.Sprintf("%s.%d", name, disk) }

// Node is this node in raft. Safe for concurrent use.
type Node struct {
	cfg   Config
	raft  *raft.Raft
	trans *transport
	disk  *diskWatch

	quiet  atomic.Bool   // handing leadership over: propose nothing
	led    atomic.Uint64 // newest term in which this node was seen to lead
	handed atomic.Uint64 // the term in which it told another to stand; 0 = none

	mu       sync.Mutex
	stopped  bool
	inFlight sync.WaitGroup // proposals that raft has not answered
}

// Server is a founder as raft's first configuration takes it.
type Server struct {
	Name  string
	Voter bool
}

// Start opens this node's raft. It does not found anything.
func Start(cfg Config) (*Node, error) {
	stream := &streamLayer{name: cfg.Name, id: ServerID(cfg.Name, cfg.Disk), l: cfg.Listener, dial: cfg.Dial}
	logger := logbridge.HCLog(cfg.Log, "raft")
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, ServerAddressProvider: stream, MaxPool: maxPool, MaxRPCsInFlight: 1, Timeout: rpcTimeout, Logger: logger,
	})
	n := &Node{cfg: cfg, disk: newDiskWatch(cfg.Stores)}
	n.disk.stored = func() { n.trans.idle.move() }
	n.disk.snapshot = func() (p Position) {
		if r := n.trans.raft.Load(); r != nil {
			_, p = positions(r)
		}
		return p
	}
	n.trans = newTransport(inner, ServerID(cfg.Name, cfg.Disk), cfg.Name, n.hung, cfg.Reachable, cfg.Settled)
	n.trans.grid = cmp.Or(cfg.Grid, n.trans.grid)
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(ServerID(cfg.Name, cfg.Disk))
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = raftTimeout, raftTimeout, raftLease
	rc.CommitTimeout = commitTimeout
	rc.ShutdownOnRemove = false
	rc.SnapshotThreshold, rc.TrailingLogs = 4096, 1024
	rc.Logger = logger
	rc.NoLegacyTelemetry = true
	r, err := raft.NewRaft(rc, &machine{m: cfg.Machine, moved: n.trans.idle.move}, n.disk, n.disk, cfg.Stores.Snapshots, n.trans)
	if err != nil {
		n.trans.stop()
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n.raft = r
	n.trans.raft.Store(r)
	return n, nil
}

// HasState reports whether the stores hold a cluster's log.
func HasState(s Stores) (bool, error) {
	return raft.HasExistingState(s.Log, s.Stable, s.Snapshots)
}

// Bootstrap writes the founders' configuration as the first entry. Every founder
// writes the same one, so it is safe on each of them; never call it on a node
// that has state. A founder without a vote writes none: it gets the log from those who
// vote.
func (n *Node) Bootstrap(servers []Server) error {
	var c raft.Configuration
	for _, s := range servers {
		if s.Name == n.cfg.Name && !s.Voter {
			return nil
		}
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: suffrage, ID: raft.ServerID(ServerID(s.Name, 1)), Address: raft.ServerAddress(s.Name),
		})
	}
	err := n.raft.BootstrapCluster(c).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil // founded before
	}
	return err
}

// Stop leaves raft without changing its membership.
func (n *Node) Stop() error {
	n.mu.Lock()
	was := n.stopped
	n.stopped = true
	n.mu.Unlock()
	if was {
		return nil
	}
	n.settle()
	n.trans.wake()
	err := n.shutdown()
	if errors.Is(err, errStuck) {
		n.trans.stop()
		return err // the stores are locked by the write
	}
	n.trans.stop()
	if n.cfg.Stores.Close != nil {
		err = errors.Join(err, n.cfg.Stores.Close())
	}
	return err
}

// errStuck means that raft could not be stopped.
var errStuck = errors.New("raft was left as it is: a write to its disk does not return")

// shutdown waits for raft to end, but not for a disk that hangs: only the end of
// the process helps there.
func (n *Node) shutdown() error {
	down := make(chan error, 1)
	go func() { down <- n.raft.Shutdown().Error() }()
	tick := time.NewTicker(raftTimeout / 10)
	defer tick.Stop()
	for begin := time.Now(); ; {
		select {
		case err := <-down:
			return err
		case <-tick.C:
			if n.hung() && time.Since(begin) >= 3*raftTimeout {
				return errStuck
			}
		}
	}
}

// settle waits until raft has answered every proposal: a shutdown forgets those in
// its queues, and whoever waits for one would wait for ever. A leader without its
// followers gives up after its lease; only a hung disk takes longer.
func (n *Node) settle() {
	done := make(chan struct{})
	go func() { defer close(done); n.inFlight.Wait() }()
	select {
	case <-done:
	case <-time.After(3 * raftTimeout):
	}
}

// begin counts a proposal in; false once the node stops.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return false
	}
	n.inFlight.Add(1)
	return true
}

// Leader is the name of the node known to lead and the current term; "" = none.
func (n *Node) Leader() (string, uint64) {
	addr, _ := n.raft.LeaderWithID()
	return string(addr), n.raft.CurrentTerm()
}

// Fed reports whether the log comes to this node: it leads, or heard of a leader within
// limit. A server that was taken out of raft hears of none any more.
func (n *Node) Fed(limit time.Duration) bool {
	if n.raft.State() == raft.Leader {
		return true
	}
	at := n.raft.LastContact()
	return !at.IsZero() && time.Since(at) < limit
}

// HasLog reports whether this node's disk holds entries of a log, or a snapshot.
func (n *Node) HasLog() bool { return n.raft.LastIndex() > 0 }

// Abstain keeps this node, or no longer, from asking for votes in raft, as one that was
// taken out of the servers while it was away would do for ever. It gives its own vote all
// the same. For as long as somebody else is known to lead.
func (n *Node) Abstain(on bool) { n.trans.abstains.Store(on) }

// IsLeader reports whether this node leads, as far as it knows.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Reign is the newest term in which this node was seen to lead, and whether it
// leads in that term still and could commit; 0 = none since its start. A term that it
// handed over is none any more: whoever heard that it gave that up would stand against
// the successor. It must be called more often than leaders change.
func (n *Node) Reign() (term uint64, leads bool) {
	// Raft leaves the state of a leader before it takes a newer term.
	if t := n.raft.CurrentTerm(); n.raft.State() == raft.Leader && n.raft.CurrentTerm() == t {
		n.led.Store(t)
		return t, !n.hung()
	}
	if t := n.led.Load(); t != n.handed.Load() {
		return t, false
	}
	return 0, false
}

// Propose commits cmd and returns its verdict. ErrNotLeader: send it to the
// leader. Any other error leaves it open whether the entry commits; commands are
// idempotent, so propose it again.
func (n *Node) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	_, res, err := n.apply(ctx, cmd)
	return res, err
}

// Mark commits an entry that changes nothing and returns its index: whoever has
// applied it has applied all that was committed before the call (R5).
func (n *Node) Mark(ctx context.Context) (uint64, error) {
	i, _, err := n.apply(ctx, fsm.Command{Report: &fsm.Report{}})
	return i, err
}

func (n *Node) apply(ctx context.Context, cmd fsm.Command) (uint64, fsm.Result, error) {
	if n.raft.State() != raft.Leader || n.quiet.Load() || n.hung() {
		return 0, fsm.Result{}, ErrNotLeader
	}
	if err := n.cfg.Machine.Speakable(cmd); err != nil {
		return 0, fsm.Result{}, err
	}
	data, err := fsm.Encode(cmd)
	if err != nil {
		return 0, fsm.Result{}, err
	}
	var f raft.ApplyFuture
	err = n.await(ctx, true, func() error { f = n.raft.Apply(data, applyTimeout); return f.Error() })
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, ErrNotLeader):
		return 0, fsm.Result{}, ErrNotLeader
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return 0, fsm.Result{}, err
	case err != nil:
		return 0, fsm.Result{}, fmt.Errorf("commit: %w", err)
	}
	res, ok := f.Response().(fsm.Result)
	if !ok {
		return 0, fsm.Result{}, fmt.Errorf("commit: no verdict, got %T", f.Response())
	}
	return f.Index(), res, nil
}

// await waits for raft's answer to what ask asks, or for ctx: raft answers nothing
// while its disk hangs. With orHung that ends the wait too, with ErrHung.
// ErrNotLeader: this node stops.
func (n *Node) await(ctx context.Context, orHung bool, ask func() error) error {
	if !n.begin() {
		return ErrNotLeader
	}
	done := make(chan error, 1)
	go func() { // ends when raft answers; Stop waits for that
		defer n.inFlight.Done()
		done <- ask()
	}()
	tick := time.NewTicker(raftTimeout / 10)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if orHung && n.hung() {
				return ErrHung
			}
		}
	}
}

// change waits for a change of the servers.
func (n *Node) change(ask func() raft.IndexFuture) error {
	ctx, cancel := context.WithTimeout(context.Background(), barrierTimeout)
	defer cancel()
	return n.await(ctx, false, func() error { return ask().Error() })
}

// WhileLeader runs fn each time this node becomes leader, until ctx ends. First
// comes a barrier, so that fn sees all that earlier leaders committed. fn's
// context ends when leadership does, and nothing else happens here until fn has
// returned.
func (n *Node) WhileLeader(ctx context.Context, fn func(context.Context)) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-n.raft.LeaderCh():
			// Two trues in a row mean lost and regained: stop in any case.
			stop()
			stop = func() {}
			if !leads {
				n.cfg.Log.Info("no longer leader")
				continue
			}
			stop = n.lead(ctx, fn)
		}
	}
}

// lead runs fn as leader and returns what ends it and waits for it.
func (n *Node) lead(ctx context.Context, fn func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !n.barrier(ctx) {
			return
		}
		n.cfg.Log.Info("became leader", "term", n.raft.CurrentTerm())
		fn(ctx)
	}()
	return func() { cancel(); <-done }
}

// barrier waits until all that was committed before is applied; false: leadership
// went away first. A queue that is full for a while must not leave the cluster with
// a leader that does not lead, so it tries again.
func (n *Node) barrier(ctx context.Context) bool {
	for ctx.Err() == nil {
		err := n.await(ctx, false, func() error { return n.raft.Barrier(barrierTimeout).Error() })
		if err == nil || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		n.cfg.Log.Warn("leader could not pass its barrier", "err", err)
		if !errors.Is(err, raft.ErrEnqueueTimeout) {
			return false
		}
	}
	return false
}

// Position is how far this node's log reaches; it ranks candidates.
type Position struct{ LastTerm, LastIndex uint64 }

// Position returns it.
func (n *Node) Position() Position {
	log, snap := positions(n.raft)
	if snap.LastIndex > log.LastIndex {
		return snap // the log begins after it, or is empty
	}
	return log
}

// positions are the ends of raft's log and of its newest snapshot.
func positions(r *raft.Raft) (log, snap Position) {
	stats := r.Stats()
	read := func(key string) (v uint64) {
		_, _ = fmt.Sscan(stats[key], &v)
		return v
	}
	return Position{LastTerm: read("last_log_term"), LastIndex: read("last_log_index")},
		Position{LastTerm: read("last_snapshot_term"), LastIndex: read("last_snapshot_index")}
}

// Stand makes this node a candidate now, with the voters' leave to leave a leader
// they still know. Safety of votes and log stays raft's. It may be in vain (a longer
// log, a heartbeat in that very moment, votes that were split); the caller stands
// again if need be. A candidate whose election came to nothing waits for raft's own
// timer, a second or two, and does not listen meanwhile: it is given a newer term
// first, which makes it a follower.
func (n *Node) Stand() {
	switch n.raft.State() {
	case raft.Leader:
		return
	case raft.Candidate:
		n.trans.injectTerm(n.raft.CurrentTerm() + 1)
	case raft.Follower, raft.Shutdown:
	}
	n.trans.injectTimeoutNow()
}

// HandOver makes node `to` stand, after everything committed here was applied and
// while nothing new is proposed. Raft's own LeadershipTransfer is not used: it can
// wedge a later term (hashicorp/raft #696).
func (n *Node) HandOver(to string, disk uint64) error {
	if n.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	n.quiet.Store(true)
	defer n.quiet.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), barrierTimeout)
	defer cancel()
	if err := n.await(ctx, false, func() error { return n.raft.Barrier(barrierTimeout).Error() }); err != nil {
		return fmt.Errorf("hand over to %s: %w", to, err)
	}
	n.handed.Store(n.raft.CurrentTerm())
	req := &raft.TimeoutNowRequest{RPCHeader: n.trans.header()}
	err := n.trans.TimeoutNow(raft.ServerID(ServerID(to, disk)), raft.ServerAddress(to), req, &raft.TimeoutNowResponse{})
	if err == nil {
		time.Sleep(50 * time.Millisecond) // its election; proposals wait meanwhile
	}
	if n.raft.State() == raft.Leader {
		n.handed.Store(0) // not taken
	}
	if err != nil {
		return fmt.Errorf("hand over to %s: %w", to, err)
	}
	return nil
}

// Member is one server of raft's configuration.
type Member struct {
	ID, Name string
	Voter    bool
}

// Members lists raft's configuration.
func (n *Node) Members() ([]Member, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, err
	}
	var out []Member
	for _, s := range f.Configuration().Servers {
		out = append(out, Member{ID: string(s.ID), Name: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out, nil
}

// Remove takes a server out of raft's configuration. Leader only.
func (n *Node) Remove(serverID string) error {
	return n.change(func() raft.IndexFuture { return n.raft.RemoveServer(raft.ServerID(serverID), 0, applyTimeout) })
}

// AddNonvoter adds a server that gets the log but has no vote; promote it with
// AddVoter once it has caught up. Leader only.
func (n *Node) AddNonvoter(name string, disk uint64) error {
	return n.change(func() raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(ServerID(name, disk)), raft.ServerAddress(name), 0, applyTimeout)
	})
}

// AddVoter gives a server a vote. Leader only.
func (n *Node) AddVoter(name string, disk uint64) error {
	return n.change(func() raft.IndexFuture {
		return n.raft.AddVoter(raft.ServerID(ServerID(name, disk)), raft.ServerAddress(name), 0, applyTimeout)
	})
}

// Demote takes a server's vote away; it still gets the log. Leader only.
func (n *Node) Demote(serverID string) error {
	return n.raft.DemoteVoter(raft.ServerID(serverID), 0, applyTimeout).Error()
}

// machine adapts fsm.Machine to raft, which calls it from one goroutine.
type machine struct {
	m     *fsm.Machine
	moved func() // told after each entry; nil = nobody is
	// fed is the newest entry that raft brought; another may have brought newer ones.
	fed uint64
}

func (a *machine) Apply(l *raft.Log) any {
	a.fed = l.Index
	if l.Type != raft.LogCommand {
		return nil
	}
	res := a.m.ApplyEntry(fsm.Entry{Index: l.Index, Term: l.Term, Data: l.Data})
	if a.moved != nil {
		a.moved()
	}
	return res
}

// errAhead: the state has entries that raft did not bring yet. In a snapshot of raft's they
// would be taken for older ones than they are: if its log were cut there, as by a
// recovery, the next entries would count as applied.
var errAhead = errors.New("the state is ahead of raft's log here; the snapshot is made later")

func (a *machine) Snapshot() (raft.FSMSnapshot, error) {
	b, index, _, err := a.m.Whole()
	if err == nil && index > a.fed {
		err = errAhead
	}
	return snapshot(b), err
}

func (a *machine) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if len(b) > maxSnapshot {
		return fmt.Errorf("snapshot is larger than %d bytes", maxSnapshot)
	}
	index, err := a.m.RestoreTo(b)
	a.fed = max(a.fed, index)
	return err
}

const maxSnapshot = 256 << 20

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}
