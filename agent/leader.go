package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanode/cluster"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/peer"
)

// leading is what a leader needs to remember. All of it can be lost with the
// leader: a new one counts afresh.
type leading struct {
	wake    chan struct{}
	members chan struct{} // one slot: the members are to be looked at again now

	formed atomic.Bool                   // see formedBy
	ready  atomic.Pointer[clock.Instant] // since when this node has caught up with a leader; nil = not yet

	mu      sync.Mutex
	healthy map[string]clock.Instant // since when without a break
	worse   map[string]clock.Instant // since when it reaches fewer ping nodes
	leads   clock.Instant            // since when we lead; zero = not
	applied clock.Instant            // since when a majority of the previous voters has applied the list (R7)
	version uint64                   // of that list
	sight   failover.Sight           // when failures and moves were seen
}

func (l *leading) init() {
	l.wake, l.members = make(chan struct{}, 1), make(chan struct{}, 1)
	l.healthy = map[string]clock.Instant{}
}

// formedBy reports whether this process has lived on since the cluster was whole, or
// heard so, when it started itself, of one that has; or has been in its cluster for
// initdead: Heartbeat's initdead. While one such process lives, who starts is no part
// of a cold start, and misses nobody for longer than deadtime. Time without a leader
// does not count: a node that waited for the others since yesterday knows nothing of
// them.
func (l *leading) formedBy(a *Agent, now clock.Instant) bool {
	if l.formed.Load() {
		return true
	}
	if since := l.ready.Load(); since != nil && now.Elapsed(*since) >= a.timing().Initdead {
		l.formed.Store(true)
		return true
	}
	var names []string
	var voters fsm.VoterList
	a.machine.View(func(s *fsm.State) {
		voters = s.Voters
		for _, n := range s.Nodes {
			if !n.Removed && !n.Stopped && !n.Off && (n.Inc > 0 || n.Token == "") {
				names = append(names, n.Name)
			}
		}
	})
	if len(names) == 0 && !a.founded() {
		return false
	}
	if !a.able(now) {
		return false
	}
	all := a.ears.all()
	for _, n := range names {
		// Whole means able to own: a node that still catches up would lose its group to
		// the next one and get it back a moment later. All are judged as the plan will
		// judge them: this node by its beats too, and who is to vote by the list (a node
		// that starts does not know yet that it is a voter).
		h, ok := all[n]
		if !ok || h.beat.Ref.Inc == 0 || h.beat.Unleased > 0 || voters.Has(n) && !h.beat.Ready || now.Elapsed(h.at) > a.timing().Deadtime {
			return false
		}
	}
	l.formed.Store(true)
	return true
}

// able reports whether this node itself could own a group now.
func (a *Agent) able(now clock.Instant) bool {
	a.grant.Lock()
	ready := a.grant.IsReady() || !a.grant.voter
	a.grant.Unlock()
	a.hold.Lock()
	defer a.hold.Unlock()
	return ready && a.hold.holder != nil && a.hold.holder.Leased(now)
}

func (a *Agent) founded() bool {
	ok := false
	a.machine.View(func(s *fsm.State) { ok = s.Founded() })
	return ok
}

// leadLoop runs while this node is raft's leader.
func (a *Agent) leadLoop(ctx context.Context) {
	a.lead.mu.Lock()
	a.lead.leads, a.lead.applied = a.host.Clock.Now(), clock.Instant{}
	clear(a.lead.healthy)
	a.lead.mu.Unlock()
	defer func() {
		a.lead.mu.Lock()
		a.lead.leads = clock.Instant{}
		a.lead.mu.Unlock()
	}()
	if !a.founded() {
		if err := a.found(ctx); err != nil {
			a.log.Error("cannot found the cluster", "err", err)
			return
		}
	}
	for n := a.node.Load(); ; sleepCtx(ctx, 100*time.Millisecond) {
		if err := a.finishRecovery(ctx, n); err == nil || ctx.Err() != nil {
			break
		} else {
			a.log.Error("cannot go on alone yet", "err", err)
		}
	}
	a.ready(ctx)
	var side sync.WaitGroup
	defer side.Wait()
	side.Go(func() { a.membersLoop(ctx) })
	side.Go(func() { a.rotationLoop(ctx) })
	failover.Lead(ctx, leader{a}, a.lead.wake, a.grid.Ticker(max(a.cfg.Timing.Keepalive, 5*time.Millisecond)))
}

// leads reports whether this node leads and had applied all that was committed before
// when it began to.
func (a *Agent) leads() bool {
	a.lead.mu.Lock()
	defer a.lead.mu.Unlock()
	return !a.lead.leads.IsZero()
}

// leader is failover.Leader on a live node.
type leader struct{ a *Agent }

func (l leader) Inputs() failover.Inputs { return l.a.inputs() }

func (l leader) Propose(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	n := l.a.node.Load()
	return n.Propose(ctx, c)
}

// Committed pushes what changed to those it concerns and asks the voters about
// fenced registrations: followers learn of a commit only with the next append.
func (l leader) Committed(_ fsm.Command, r fsm.Result) { l.a.push(r.Touched) }

// inputs gathers facts for a decision.
func (a *Agent) inputs() failover.Inputs {
	now := a.now()
	in := failover.Inputs{
		Wall: a.host.Clock.Wall(), State: a.machine.Copy(), Health: map[string]failover.Health{},
		Tokens: map[id.Claim]bool{}, Formed: a.lead.formedBy(a, now),
	}
	t := a.timing()
	opinions := a.opinions(in.State.Voters.Names, now)
	heard := a.ears.all()
	serving := a.serving(now, in.State, heard)
	a.lead.mu.Lock()
	defer a.lead.mu.Unlock()
	for name, n := range in.State.Nodes {
		h := failover.Health{}
		if x, ok := heard[name]; ok {
			h.Inc = x.beat.Ref.Inc
			h.Alive = now.Elapsed(x.at) < t.Deadtime
			h.Leased = x.beat.Unleased == 0
			h.Behind = in.State.Voters.Has(name) && !x.beat.Ready
			h.Hung = x.beat.Hung
			h.Links = a.ears.report(name, now).Links
			if h.Alive && serving && h.Inc == n.Inc && x.beat.Unleased >= t.Deadtime {
				h.Dead, h.Why = true, fmt.Sprintf("heard, but without a lease for %v", x.beat.Unleased.Round(time.Millisecond))
			}
		}
		if n.Registered() && failover.Silent(n.Ref(), in.State.Voters, opinions, t) {
			h.Dead, h.Why = true, fmt.Sprintf("silent for deadtime (%v), say a majority of the voters", a.deadtimeLocked(in.Formed))
		}
		if h.Alive && h.Leased && !h.Dead {
			if a.lead.healthy[name].IsZero() {
				a.lead.healthy[name] = now
			}
			h.Healthy = now.Elapsed(a.lead.healthy[name])
		} else {
			delete(a.lead.healthy, name)
		}
		in.Health[name] = h
	}
	a.compareReach(in, now)
	in.Avoid, in.Held = a.lead.sight.Look(in.State, now)
	a.hold.Lock()
	for c := range a.hold.tokens {
		in.Tokens[c] = true
	}
	a.hold.Unlock()
	in.Lacks = a.fit.lacks(in.State, false)
	return in
}

func (a *Agent) deadtimeLocked(formed bool) time.Duration {
	if !formed {
		return a.timing().Initdead
	}
	return a.timing().Deadtime
}

// serving: a majority of voters has acked beats for deadtime, so that a node without
// a lease has itself or its links to thank (R6). A leader that was stalled looks that
// long again: the others may have been stalled with it.
func (a *Agent) serving(now clock.Instant, s *fsm.State, heard map[string]heard) bool {
	return a.awake(now) >= s.Timing.Deadtime &&
		majorityServes(s.Voters.Names, func(v string) spell { return heard[v].serves }, now, s.Timing.Deadtime)
}

// propose commits cmd wherever the leader is.
func (a *Agent) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	n := a.node.Load()
	if n == nil {
		return fsm.Result{}, cluster.ErrNoLeader
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	res, err := n.Propose(ctx, cmd)
	if err == nil {
		a.push(res.Touched)
		signal(a.lead.wake)
		return res, nil
	}
	if !errors.Is(err, cluster.ErrNotLeader) && !errors.Is(err, cluster.ErrHung) {
		return res, err
	}
	to, _ := a.leader(n)
	if to == "" || to == a.cfg.Name {
		return res, cluster.ErrNoLeader
	}
	return a.peers.Propose(ctx, to, cmd)
}

// service answers other nodes.
type service struct{ a *Agent }

func (s service) Propose(ctx context.Context, asker string, c fsm.Command) (fsm.Result, error) {
	a := s.a
	if err := mayPropose(asker, c); err != nil {
		a.log.Warn("a node proposes what it may not", "peer", asker, "err", err)
		return fsm.Result{}, err
	}
	n := a.node.Load()
	if n == nil {
		return fsm.Result{}, peer.ErrNotLeader
	}
	res, err := n.Propose(ctx, c)
	if errors.Is(err, cluster.ErrNotLeader) || errors.Is(err, cluster.ErrHung) {
		return res, peer.ErrNotLeader
	}
	if err == nil {
		a.push(res.Touched)
		signal(a.lead.wake)
	}
	return res, err
}

func (s service) Mark(ctx context.Context) (uint64, error) {
	n := s.a.node.Load()
	if n == nil {
		return 0, peer.ErrNotLeader
	}
	i, err := n.Mark(ctx)
	if errors.Is(err, cluster.ErrNotLeader) {
		return 0, peer.ErrNotLeader
	}
	return i, err
}

// membersLoop keeps raft's configuration and the lease voters as they should be:
// level-triggered, one change at a time.
func (a *Agent) membersLoop(ctx context.Context) {
	tick := a.grid.Ticker(200 * time.Millisecond)
	defer tick.Stop()
	var waited map[string]id.Epoch
	for {
		if err := a.members(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("membership change not possible yet", "err", err)
		}
		waited = a.resend(waited)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		case <-a.lead.members:
		}
	}
}

// members makes one step, if one is due.
func (a *Agent) members(ctx context.Context) error {
	n := a.node.Load()
	st := a.machine.Copy()
	servers, err := n.Members()
	if err != nil {
		return err
	}
	in := map[string]cluster.Member{}
	for _, s := range servers {
		node := st.Nodes[s.Name]
		if node == nil || node.Removed || s.ID != cluster.ServerID(s.Name, node.Disk) {
			a.log.Info("removing a server that is no member any more", "server", s.ID)
			return n.Remove(s.ID)
		}
		in[s.Name] = s
	}
	heard := a.ears.all()
	votes := a.voterInputs(n, a.inputs())
	add, drop := failover.NextServers(votes, slices.Sorted(maps.Keys(in)))
	if drop != "" && !in[drop].Voter {
		a.log.Info("removing a server; the node follows a voter from now on", "node", drop)
		return n.Remove(in[drop].ID)
	}
	var leaving *fsm.Node
	for _, name := range st.NodeNames() {
		node := st.Nodes[name]
		s, ok := in[name]
		switch {
		case !ok && name == add:
			a.log.Info("adding a server without a vote until it has caught up", "node", name, "disk", node.Disk)
			return n.AddNonvoter(name, node.Disk)
		case ok && stoppedVoter(st, node, s, a.cfg.Name):
			a.log.Info("taking the vote of the node that stopped, so that this one goes on alone", "node", name)
			return n.Demote(s.ID)
		case ok && st.Manual && node.Stopped:
		case ok && !s.Voter && st.Voters.Has(name) && a.caughtUp(node, heard[name]) && !alone(st, in, heard):
			a.log.Info("giving a server its vote", "node", name)
			err := n.AddVoter(name, node.Disk)
			signal(a.lead.members) // the next one at once: an even number is worth less
			return err
		case ok && s.Voter && !st.Voters.Has(name) && name == a.cfg.Name:
			return a.pass(n, st, in)
		case ok && s.Voter && !st.Voters.Has(name) && !a.canCommit(st, votersBut(in, name), heard):
			// Not yet: it is needed.
		case ok && s.Voter && !st.Voters.Has(name):
			a.log.Info("taking the vote of a server that is no lease voter any more", "node", name)
			return n.Demote(s.ID)
		case node.Leaving && leaving == nil:
			leaving = node
		}
	}
	if leaving != nil { // after the rest: it may have to wait for who comes back
		_, ok := in[leaving.Name]
		return a.endMembership(ctx, n, st, leaving, ok)
	}
	if to := a.canSpeak(st); to > st.Speaks() {
		a.log.Info("every node can speak a newer version; the cluster speaks it from now on", "version", to)
		res, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Upgrade: &fsm.Upgrade{To: to}})
		if err == nil && res.Rejected != "" {
			err = errors.New(res.Rejected)
		}
		return err
	}
	if !st.Maintenance {
		if next, why := failover.NextVoters(votes); next != nil {
			return a.changeVoters(ctx, n, st, next, why)
		}
	}
	return a.preferIdleLeader(n, st)
}

// caughtUp reports whether a node says now, as its registration of record, that it has
// applied what a voter must have.
func (a *Agent) caughtUp(node *fsm.Node, h heard) bool {
	return h.beat.Ready && h.beat.Ref == node.Ref() && a.host.Clock.Now().Elapsed(h.at) < a.timing().Deadtime
}

// canCommit reports whether a majority of names is up and has caught up. A vote is
// taken only where those that remain can go on: else the loss of a disk, which one vote
// more would have borne, stops raft or the leases for good.
func (a *Agent) canCommit(st *fsm.State, names []string, heard map[string]heard) bool {
	up := 0
	for _, v := range names {
		if n := st.Nodes[v]; n != nil && a.caughtUp(n, heard[v]) {
			up++
		}
	}
	return up > len(names)/2
}

// votersBut are the servers with a vote in raft, less one.
func votersBut(in map[string]cluster.Member, name string) []string {
	var out []string
	for v, m := range in {
		if m.Voter && v != name {
			out = append(out, v)
		}
	}
	return out
}

// alone: one server votes, and only one more could now. Of two, the loss of either stops
// raft, so the second gets its vote together with the third, where there is to be one.
func alone(st *fsm.State, in map[string]cluster.Member, heard map[string]heard) bool {
	vote, could := 0, 0
	for _, v := range st.Voters.Names {
		switch {
		case in[v].Voter:
			vote++
		case heard[v].beat.Ready:
			could++
		}
	}
	return vote == 1 && could == 1 && len(st.NodeNames()) > 2
}

// pass hands leadership to a lease voter, heard or not: beats go to those alone, so
// a leader that is none of them knows of nobody whether he lives, and can plan
// nothing. It comes to that if the leader dies between the end of a node's lease
// vote and of its vote in raft.
func (a *Agent) pass(n *cluster.Node, st *fsm.State, in map[string]cluster.Member) error {
	var errs []error
	for _, v := range st.Voters.Names {
		if !in[v].Voter || st.Nodes[v].Leaving {
			continue
		}
		a.log.Info("handing leadership to a lease voter; this node is none any more", "to", v)
		err := n.HandOver(v, st.Nodes[v].Disk)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// endMembership takes a leaving node out, a step per call: its groups first (the
// plan does that), then its lease vote, then its raft vote, then its name.
func (a *Agent) endMembership(ctx context.Context, n *cluster.Node, st *fsm.State, node *fsm.Node, server bool) error {
	for _, g := range st.Groups {
		if g.Owner.Name == node.Name && !g.Deleted || slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return mustStay(node, g, w) }) {
			return nil // not yet
		}
	}
	if node.Name == a.cfg.Name && server {
		a.yield()
		return nil // the next leader goes on
	}
	if st.Voters.Has(node.Name) {
		return a.changeVoters(ctx, n, st, without(st.Voters.Names, node.Name), node.Name+" is leaving")
	}
	// While it is still a server: let the node see that it may go before it hears nothing
	// any more.
	_, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Leave: &fsm.Leave{Node: node.Name, Done: true}})
	return err
}

// mustStay: somebody waits for a claim of node. Of a deleted group nobody does until its
// addresses are given away again, and then the voters tell when a registration that is
// over has expired; only one that still runs can let go of it itself, and is let.
func mustStay(node *fsm.Node, g *fsm.Group, w fsm.Wait) bool {
	return w.Node.Name == node.Name && (!g.Deleted || w.Node == node.Ref() && !node.Fenced)
}

// changeVoters is R7: the next list only after a majority of the previous list's
// voters reports that it has applied the current one, plus the largest bound. Nobody is
// dropped from it whose vote is needed.
func (a *Agent) changeVoters(ctx context.Context, n *cluster.Node, st *fsm.State, names []string, why string) error {
	now := a.host.Clock.Now()
	heard := a.ears.all()
	if !st.Manual && len(names) < len(st.Voters.Names) && !a.canCommit(st, names, heard) {
		return nil // not yet
	}
	if st.Voters.Version > 1 && !st.Manual { // there no lease comes from votes
		have := 0
		for _, v := range st.Previous.Names {
			if heard[v].beat.Applied == st.Voters.Version {
				have++
			}
		}
		a.lead.mu.Lock()
		if a.lead.version != st.Voters.Version {
			a.lead.version, a.lead.applied = st.Voters.Version, clock.Instant{}
		}
		if have >= st.Previous.Majority() && a.lead.applied.IsZero() {
			a.lead.applied = now
		}
		since := a.lead.applied
		a.lead.mu.Unlock()
		if since.IsZero() || now.Elapsed(since) < st.MaxBound() {
			return nil
		}
	}
	_, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), SetVoters: &fsm.SetVoters{Version: st.Voters.Version + 1, Names: names, Why: why}})
	if err == nil {
		a.log.Info("changed who votes", "voters", names, "why", why)
	}
	return err
}

// preferIdleLeader moves leadership to a voter that owns nothing, so that the
// death of an owner is not the death of the leader too.
func (a *Agent) preferIdleLeader(n *cluster.Node, st *fsm.State) error {
	a.lead.mu.Lock()
	leads := a.lead.leads
	a.lead.mu.Unlock()
	if st.Maintenance || leads.IsZero() || a.host.Clock.Now().Elapsed(leads) < max(2*time.Second, 2*st.Timing.Deadtime) {
		return nil
	}
	if a.owns() == 0 {
		return nil
	}
	for _, g := range st.Groups {
		if len(g.Waits) > 0 || !g.Deleted && !g.Owner.Zero() && !g.Started {
			return nil // not in the middle of a move
		}
	}
	to, disk, ok := a.successor(true)
	if !ok {
		return nil
	}
	a.log.Info("handing leadership to a voter that owns nothing", "to", to)
	return n.HandOver(to, disk)
}

// successor picks a live voter to lead: the least loaded, witnesses first, one whose
// disk lags last, for it could not be elected yet. With idle only one that owns nothing
// and does not lag.
func (a *Agent) successor(idle bool) (string, uint64, bool) {
	now := a.host.Clock.Now()
	heard := a.ears.all()
	term := uint64(0)
	if n := a.node.Load(); n != nil {
		term = n.Position().LastTerm
	}
	best, disk, bestLoad := "", uint64(0), 0
	a.machine.View(func(s *fsm.State) {
		load := failover.Load(s)
		for _, v := range s.Voters.Names {
			n := s.Nodes[v]
			h, ok := heard[v]
			if v == a.cfg.Name || n == nil || n.Leaving || n.Stopped || !ok || !h.beat.Ready || h.beat.Hung || now.Elapsed(h.at) > 3*s.Timing.Keepalive {
				continue
			}
			l := load[v] * 2
			if n.Role != spec.RoleWitness {
				l++
			}
			lags := a.known.of(v).Position.LastTerm < term
			if idle && (load[v] > 0 || lags) {
				continue
			}
			if lags {
				l += 2 * (len(s.Groups) + 1) // more than any load
			}
			if best == "" || l < bestLoad {
				best, disk, bestLoad = v, n.Disk, l
			}
		}
	})
	return best, disk, best != ""
}
