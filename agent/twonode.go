package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/peer"
)

// two_node = "manual": two nodes and no third vote. cluster/DESIGN.md, "Two voters",
// has the rules and their reasons. In short: an owner holds for as long as its agent
// lives, and nobody concludes anything from its silence. Raft has both nodes as
// voters, so with one of them gone it commits nothing. A node that stops in order gives
// its vote away first, so that the other one goes on. A node that is left behind by a
// crash is made the only server by an operator's word (confirm-off), and both disks
// get new raft identities then: what comes back later must join anew. And a host that
// boots asks the other one whether that happened, before it takes any part.

// twoNode is what this needs to remember.
type twoNode struct {
	manual       atomic.Bool // the node file says so, or the state once there is one
	stopsInOrder atomic.Bool

	mu    sync.Mutex
	end   context.CancelFunc // ends this node's part in raft; see joinLoop
	votes bool               // by the newest configuration on the disk when that part began
	waits bool               // for the other node, before it takes part
}

// manual reports two_node = "manual".
func (a *Agent) manual() bool { return a.two.manual.Load() }

// other is the name of the other node; "" if there are not two.
func (a *Agent) other() string {
	if len(a.cfg.Nodes) != 2 {
		return ""
	}
	for _, n := range a.cfg.Nodes {
		if n.Name != a.cfg.Name {
			return n.Name
		}
	}
	return ""
}

// recovery is what is on the disk while this node is being made the only server.
type recovery struct {
	Gone string `json:"gone"` // the other node
	// Disk is this node's number from then on, GoneDisk one that the other never had; 0
	// = not known yet.
	Disk     uint64 `json:"disk"`
	GoneDisk uint64 `json:"gone_disk,omitempty"`
	Off      bool   `json:"off"` // its host is off
	By       string `json:"by"`
}

// fork names the point at which a node went on alone. What came after it may not be in
// the other one's log, and the other way round, so of two that differ one must give
// way: the older. The zero fork, that of a cluster in which it never happened, is the
// oldest.
type fork struct {
	At  int64  `json:"at"` // wall clock, ns: the operator's order, as far as clocks go
	Tag string `json:"tag"`
}

// newer reports whether f came after o.
func (f fork) newer(o fork) bool {
	return cmp.Or(cmp.Compare(f.At, o.At), cmp.Compare(f.Tag, o.Tag)) > 0
}

func forkOf(h peer.Hello) fork { return fork{h.ForkAt, h.ForkTag} }

// farDisk is a number for a data directory of which nobody else thinks, who may also
// count on from n.
func farDisk(n uint64) uint64 { return n + 2 + mrand.Uint64N(1<<20) }

// goOnAlone makes this node the only server of raft, and returns at once. What it
// holds it goes on holding. From here on the other one's disk is refused.
func (a *Agent) goOnAlone(gone string, off bool, by string) error {
	t := &a.two
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.disk.recovering() != nil {
		return nil
	}
	a.log.Warn("going on alone: the other node must join anew", "gone", gone, "off", off, "by", by)
	at := fork{At: max(a.host.Clock.Wall().UnixNano(), a.disk.fork().At+1), Tag: rand.Text()}
	if err := a.disk.setFork(at, &recovery{Gone: gone, Disk: farDisk(a.disk.number()), Off: off, By: by}); err != nil {
		return fmt.Errorf("note that %s must join anew: %w", gone, err)
	}
	if t.end != nil {
		t.end()
	}
	return nil
}

// recoverStores does it to the disk. After a crash anywhere in here it is done again.
func (a *Agent) recoverStores(r *recovery, stores cluster.Stores) error {
	st, err := cluster.Recover(stores, a.cfg.Name, r.Disk, a.log)
	if err != nil {
		return err
	}
	if r.GoneDisk == 0 {
		r.GoneDisk = farDisk(1)
		if n := st.Nodes[r.Gone]; n != nil {
			r.GoneDisk = farDisk(n.Disk)
		}
	}
	a.known.hear(r.Gone, cluster.Held{Disk: r.GoneDisk})
	if err := a.known.save(a.disk.path(knownFile)); err != nil {
		return err
	}
	if err := a.disk.setNumber(r.Disk); err != nil {
		return err
	}
	return a.disk.setRecovering(r)
}

// finishRecovery is a new leader's first step: the state is told.
func (a *Agent) finishRecovery(ctx context.Context, n *cluster.Node) error {
	r := a.disk.recovering()
	if r == nil {
		return nil
	}
	a.log.Info("telling the state that the other node must join anew", "gone", r.Gone, "gone_disk", r.GoneDisk, "disk", r.Disk)
	res, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Recover: &fsm.Recover{
		Node: a.cfg.Name, Disk: r.Disk, Gone: r.Gone, GoneDisk: r.GoneDisk, Off: r.Off, By: r.By,
	}})
	if err == nil && res.Rejected != "" {
		err = errors.New(res.Rejected)
	}
	if err != nil {
		return fmt.Errorf("tell the state that %s must join anew: %w", r.Gone, err)
	}
	a.push(res.Touched)
	return a.disk.setRecovering(nil)
}

// skipsAsking reports that this node need not ask the other one before it takes part:
// by the configuration on its disk it votes alone (or would, were it asked), and it
// took part since the host booted. The other one may have been made the only server
// only by word that this host is off, and that is wrong while this boot lasts.
func (a *Agent) skipsAsking(voters []string) bool {
	votes := slices.Contains(voters, a.cfg.Name)
	a.two.mu.Lock()
	a.two.votes = votes
	a.two.mu.Unlock()
	return votes && len(voters) == 1 && a.disk.bootIs(a.host.ID)
}

// askOther asks the other node until it is clear who goes on from which disk. What it
// returns is more than any disk holds if this one went on alone before the other did.
func (a *Agent) askOther(ctx context.Context, mine cluster.Held) (most cluster.Held, err error) {
	defer a.waiting(false)
	for first := true; ctx.Err() == nil; first = false {
		h, err := a.hello(ctx, a.other())
		theirs, own := forkOf(h), a.disk.fork()
		switch {
		case err != nil || h.State.IsEmpty(): // an emptied node has forgotten what it heard
		case theirs == own:
			return heldOf(h), nil
		case theirs.newer(own):
			return heldOf(h).Furthest(cluster.Held{Disk: mine.Disk + 1}), nil
		case !h.TakesPart:
			return cluster.Held{}, nil // it will find out when it asks
			// Else it does not know yet that it was called off. It asks each second.
		}
		if first {
			a.waiting(true)
		}
		sleepCtx(ctx, askAgain)
	}
	return most, ctx.Err()
}

// waiting notes whether this node waits for the other one before it takes part.
func (a *Agent) waiting(on bool) {
	if !a.manual() {
		return
	}
	a.two.mu.Lock()
	a.two.waits = on
	a.two.mu.Unlock()
	if !on {
		a.problems.clear("two-node-waits")
		return
	}
	other := a.other()
	a.problems.set("two-node-waits", fmt.Sprintf("this host started and does not reach %s, which may serve, or may have gone on without it; it holds nothing until it does", other))
	a.log.Warn("waiting for the other node: with two_node = \"manual\" a host that boots alone holds nothing", "peer", other,
		"fix", fmt.Sprintf("start %s; or, if its host is off: hanode confirm-off %s", other, other))
}

// outlived reports that the other node went on without this one.
func (a *Agent) outlived(ctx context.Context) bool {
	if !a.manual() || a.other() == "" {
		return false
	}
	h, err := a.hello(ctx, a.other())
	if err != nil || h.State != peer.Member {
		return false
	}
	theirs, own := forkOf(h), a.disk.fork()
	return theirs.newer(own) || theirs == own && h.Disk > a.disk.number()
}

// errOutlived ends an agent that was called off while it lived. Its next start joins
// anew.
var errOutlived = errors.New("the other node went on without this one, by word that this host is off; " +
	"everything here is dropped, and the next start joins it with an empty disk")

// complete reports whether this disk holds all that was ever committed: both nodes
// vote, so nothing was without it, unless this one was stopped in order.
func (a *Agent) complete() bool {
	a.two.mu.Lock()
	votes := a.two.votes
	a.two.mu.Unlock()
	if n := a.node.Load(); n != nil {
		votes = slices.Contains(a.raftVoters(n), a.cfg.Name)
	}
	return votes && a.disk.number() > 0 && !a.disk.steppedOut()
}

// stepIn notes that this node votes again, so that nothing is committed without it.
func (a *Agent) stepIn() {
	n := a.node.Load()
	if n == nil || !a.disk.steppedOut() || a.two.stopsInOrder.Load() || !slices.Contains(a.raftVoters(n), a.cfg.Name) {
		return
	}
	a.grant.Lock()
	ready := a.grant.IsReady() // an older configuration may say that it votes until it has caught up
	a.grant.Unlock()
	if !ready {
		return
	}
	if err := a.disk.setSteppedOut(false); err != nil {
		a.log.Debug("not noted yet that this node votes again", "err", err)
	}
}

// outlivedLoop looks for that, beside the FENCED that its beats are answered with.
func (a *Agent) outlivedLoop(ctx context.Context) {
	for ctx.Err() == nil {
		a.stepIn()
		if a.outlived(ctx) {
			a.die(errOutlived)
			return
		}
		sleepCtx(ctx, max(time.Second, a.timing().Deadtime))
	}
}

// readyToStepOut notes on the disk, before the other node can know of the stop, that
// it may commit without this one from now on. While that cannot be written this node
// does not give its vote away: the stop then counts as a crash.
func (a *Agent) readyToStepOut() bool {
	a.two.stopsInOrder.Store(true)
	if n := a.node.Load(); n != nil && len(a.raftVoters(n)) == 1 && !a.otherIsBack() {
		return true // it is the one that goes on alone, and stays that
	}
	if err := a.disk.setSteppedOut(true); err != nil {
		a.log.Warn("cannot give this node's vote away", "err", err)
		return false
	}
	return true
}

// otherIsBack reports whether the other node is heard and does not stop itself: if it
// has no vote now it gets one.
func (a *Agent) otherIsBack() bool {
	at := a.ears.last(a.other())
	if at.IsZero() || a.host.Clock.Now().Elapsed(at) >= a.timing().Deadtime {
		return false
	}
	back := false
	a.machine.View(func(s *fsm.State) {
		n := s.Nodes[a.other()]
		back = n.Registered() && !n.Stopped && !n.Leaving
	})
	return back
}

// stepOut gives this node's vote to the other one, so that it goes on when this one
// has stopped: with two voters either is half.
func (a *Agent) stepOut(ctx context.Context) {
	n := a.node.Load()
	if n == nil {
		return
	}
	var asked time.Time
	for ctx.Err() == nil {
		voters := a.raftVoters(n)
		switch {
		case !slices.Contains(voters, a.cfg.Name):
			return
		case len(voters) == 1 && !a.otherIsBack():
			return // the other one is off, or stopped before
		case len(voters) == 1: // it gets its vote back as soon as it has caught up
		case !a.majorityAnswers(a.host.Clock.Now()):
			a.log.Warn("stopping without the other node: it cannot commit anything until this one is back, or is confirmed off")
			return
		case n.IsLeader() && time.Since(asked) > 200*time.Millisecond:
			a.yield()
			asked = time.Now()
		}
		sleepCtx(ctx, 5*time.Millisecond)
	}
	a.log.Warn("the other node did not take this one's vote over in time; it cannot commit anything until this one is back, or is confirmed off")
}

// quorumOf is whose majority commits: the lease voters, or with two_node = "manual"
// raft's own, of whom one that stopped in order is none.
func (a *Agent) quorumOf() []string {
	if a.manual() {
		if n := a.node.Load(); n != nil {
			return a.raftVoters(n)
		}
	}
	return a.voters()
}

// peerAsked notes that the other node asks for a new raft identity because its disk
// is empty or older than it was. If this node votes it has all that was committed, and
// without the other's old disk nobody leads: it goes on alone. The other one holds
// nothing meanwhile, for it has not registered.
func (a *Agent) peerAsked(ctx context.Context, asker string) {
	if !a.manual() || asker != a.other() || !a.asksAnew(ctx, asker) {
		return
	}
	// A node that has not taken part since it started does not know whether its own disk
	// is the newest: there an operator must say it.
	n := a.node.Load()
	if n == nil || !a.complete() {
		return
	}
	if to, _ := n.Leader(); to != "" {
		return
	}
	if err := a.goOnAlone(asker, false, "it asks to join with an empty disk"); err != nil {
		a.log.Error("cannot go on alone", "err", err)
	}
}

// asksAnew reports whether the other node says now that it takes no part and asks for a
// new raft identity. That it asked before means nothing: it may have got one since, and
// hold groups. From its answer on it gets one, and is registered, only by an entry of this
// node's, which shows here.
func (a *Agent) asksAnew(ctx context.Context, other string) bool {
	record := func() (disk, inc uint64) {
		a.machine.View(func(s *fsm.State) {
			if n := s.Nodes[other]; n != nil {
				disk, inc = n.Disk, n.Inc
			}
		})
		return disk, inc
	}
	disk, inc := record()
	h, err := a.hello(ctx, other)
	disk2, inc2 := record()
	return err == nil && h.Asks && disk2 == disk && inc2 == inc
}

// confirmAlone takes an operator's word that the other node is off, where nobody leads
// because of that.
func (a *Agent) confirmAlone(ctx context.Context, req api.ConfirmOffRequest) (*api.ConfirmOffResult, error) {
	other := a.other()
	if req.Node != other {
		return nil, fail(api.CodeNotFound, "the other node is "+other, "%s is not the other node of this cluster", req.Node)
	}
	if a.disk.number() == 0 {
		return nil, fail("no-copy", "start "+other+"; it has the cluster's state",
			"this node has no copy of the cluster, so it cannot go on without %s", other)
	}
	emptied := a.takesConnections(ctx, other) && a.asksAnew(ctx, other) // it is heard, and holds nothing
	if !emptied {
		if why := a.heardAtAll(ctx, other); why != "" {
			return nil, fail("node-heard", "a node that is heard is not off: switch it off, or let it go on", "%s is not off: %s", other, why)
		}
	}
	sentence, warning := other+" is off", other+" is not heard, but it may run without its network"
	if emptied {
		sentence, warning = other+" has an empty disk", other+" is heard, and asks to join with an empty disk"
	}
	if !a.complete() {
		sentence += ", and the older copy on " + a.cfg.Name + " counts"
		warning += "; and " + a.cfg.Name + " was stopped in order before it: what was changed since then is known to " + other + " alone, and is lost"
	}
	res := &api.ConfirmOffResult{Node: other, Confirm: sentence, Groups: a.maybeHeldBy(other)}
	if strings.TrimSpace(req.Confirm) != sentence {
		return res, fail(api.CodeNeedsConfirmation, fmt.Sprintf("if that is certain: hanode confirm-off %s --confirm %q", other, sentence),
			"%s: if it serves all the time, two hosts answer for one address, and write to one storage", warning)
	}
	disk := a.disk.number()
	if err := a.goOnAlone(other, !emptied, "confirmed by an operator"); err != nil {
		return nil, fail("not-written", "free the disk of data_dir, then ask again", "%v", err)
	}
	for end := a.host.Clock.Now().Add(2 * writePatience); a.host.Clock.Now().Before(end) && ctx.Err() == nil; sleepCtx(ctx, 5*time.Millisecond) {
		if a.disk.number() > disk && a.disk.recovering() == nil {
			return res, nil
		}
	}
	return nil, fail("not-committed", "it is on this node's disk and goes on: look with `hanode status`", "%s is noted as off; this node does not lead yet", other)
}

// heardAtAll says how a node shows that it has power, or "".
func (a *Agent) heardAtAll(ctx context.Context, name string) string {
	if at := a.ears.last(name); !at.IsZero() && a.host.Clock.Now().Elapsed(at) < a.timing().Deadtime {
		return "its agent is heard"
	}
	if !a.takesConnections(ctx, name) {
		return ""
	}
	if _, err := a.hello(ctx, name); err == nil {
		return "its agent answers"
	}
	return ""
}

// takesConnections reports whether a node's host is there to be asked. One that is off does
// not take a connection, and the kernel of one that is on does so at once, whatever its
// agent does: an operator waits no longer than that for the dead.
func (a *Agent) takesConnections(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	c, err := a.gossip.Dial(ctx, name, a.cfg.Port+1)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// connectTime is how long a host may take to accept a connection, over all links.
const connectTime = 300 * time.Millisecond

// maybeHeldBy lists the groups that a node may hold, as far as is known here.
func (a *Agent) maybeHeldBy(name string) (out []string) {
	a.machine.View(func(s *fsm.State) {
		for _, gn := range s.GroupNames() {
			g := s.Groups[gn]
			if g.Owner.Name == name && !g.OwnerReleased || slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return w.Node.Name == name && !w.Off }) {
				out = append(out, gn)
			}
		}
	})
	return out
}

// twoNodeProblems says what this mode is, and what it costs just now.
func (a *Agent) twoNodeProblems(s *fsm.State) []api.StatusProblem {
	if !s.Manual {
		return nil
	}
	out := []api.StatusProblem{show("two-node-manual", config.TwoNodeMeans, nil)}
	other := a.other()
	if other == "" {
		return out
	}
	n := s.Nodes[other]
	at := a.ears.last(other)
	silent := at.IsZero() || a.host.Clock.Now().Elapsed(at) >= a.timing().Deadtime
	if n == nil || !silent || n.Stopped || n.Off {
		return out
	}
	text := fmt.Sprintf("%s is not heard. %s keeps what it has, and nothing can be changed or moved", other, a.cfg.Name)
	if held := a.maybeHeldBy(other); len(held) > 0 {
		text += fmt.Sprintf("; %s stays where it is: on %s, or nowhere if that is off", strings.Join(held, ", "), other)
	}
	p := show("two-node-alone", text, nil)
	p.Fix = fmt.Sprintf("start %s, or repair the network to it; if its host is off: hanode confirm-off %s", other, other)
	return append(out, p)
}

// stoppedVoter is the other node's server if that has stopped in order and votes still.
func stoppedVoter(st *fsm.State, node *fsm.Node, s cluster.Member, self string) bool {
	return st.Manual && node.Stopped && s.Voter && node.Name != self
}

// startsAlone: the registration's lease is its own affair.
func (a *Agent) startsAlone(ref id.NodeRef) {
	a.log.Info("holding without votes (two_node = \"manual\"): "+config.TwoNodeMeans, "incarnation", ref.Inc, "fix", config.TwoNodeWayOut)
}
