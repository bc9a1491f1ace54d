package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
)

// hostID is data_dir, boot and network namespace: a newer registration from the
// same one is a proof that the older is over (R8).
func (a *Agent) hostID() string {
	a.disk.mu.Lock()
	defer a.disk.mu.Unlock()
	mark := ""
	if a.manual() {
		mark = fsm.RebootMark(a.host.Boot, a.host.Machine)
	}
	return a.disk.id.ID + "/" + a.host.ID + mark
}

// register makes the next incarnation of this node; it comes after everything an
// older one held was dropped and verified.
func (a *Agent) register(ctx context.Context) {
	nonce := rand.Text()
	var from uint64
	a.machine.View(func(s *fsm.State) {
		if n := s.Nodes[a.cfg.Name]; n != nil {
			from = n.Inc
		}
	})
	for ctx.Err() == nil && !a.drain.Load() {
		bound := a.bound()
		res, err := a.propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Register: &fsm.Register{
			Node: a.cfg.Name, From: from, Nonce: nonce, HostID: a.hostID(), Bound: bound, Version: a.opts.Version, Speaks: a.saysIt(),
		}})
		switch {
		case err != nil:
			a.problems.set("not-registered", fmt.Sprintf("no leader took this node's registration: %v", err))
		case res.Gone:
			a.expelled()
			sleepCtx(ctx, time.Second)
		case res.Rejected != "" && res.Inc != from:
			from = res.Inc // somebody registered in between; try from there
			continue
		case res.Rejected != "":
			a.problems.set("not-registered", res.Rejected)
		default:
			a.problems.clear("not-registered")
			a.problems.clear("removed")
			a.adoptRegistration(id.NodeRef{Name: a.cfg.Name, Inc: res.Inc})
			return
		}
		sleepCtx(ctx, 50*time.Millisecond)
	}
}

// expelled says that this node was put out of the cluster, and how it comes back.
func (a *Agent) expelled() {
	a.problems.clear("not-registered")
	a.problems.set("removed", fmt.Sprintf("%s was removed from cluster %s while it was away; what its data_dir holds counts no more, and it holds nothing", a.cfg.Name, a.cfg.Cluster))
}

// bound is what a voter must wait after its last ack to this node: deadtime, and
// what the guard's tier adds to it; with two_node = "manual" for ever.
func (a *Agent) bound() time.Duration {
	if extra := a.kernel.Tier().Extra(); extra < spec.Unbounded && !a.manual() {
		return a.timing().Deadtime + extra
	}
	return spec.Unbounded
}

func (a *Agent) adoptRegistration(ref id.NodeRef) {
	a.grant.Lock()
	version, names := a.grant.List()
	a.grant.Unlock()
	h := lease.NewHolder(ref, a.timing().LeaseLength(), a.host.Clock.Now())
	h.SetVoters(version, names)
	if a.manual() {
		h.Alone()
		a.startsAlone(ref)
	}
	a.hold.Lock()
	a.hold.holder = h
	a.lease.Store(h.Lease)
	// More than one voter said that the last one was fenced; none can have said it
	// of this one yet.
	select {
	case <-a.fenced:
	default:
	}
	a.hold.Unlock()
	a.log.Info("registered", "incarnation", ref.Inc)
	a.touched.add(fsm.Change{All: true}) // the new holder must learn every record
	signal(a.changed)
	a.beat()
}

// readyLoop is R5: as a voter, answer beats only after applying an index that the
// leader gave out after our start.
func (a *Agent) readyLoop(ctx context.Context) {
	for ctx.Err() == nil {
		a.ready(ctx)
		a.grant.Lock()
		done := a.grant.IsReady()
		a.grant.Unlock()
		if done {
			return
		}
		sleepCtx(ctx, 20*time.Millisecond)
	}
}

func (a *Agent) ready(ctx context.Context) {
	index, ok := a.reachNow(ctx)
	if !ok {
		return
	}
	a.grant.Lock()
	was := a.grant.IsReady()
	a.grant.Ready()
	a.speak()
	a.grant.Unlock()
	if !was {
		since := a.host.Clock.Now()
		a.lead.ready.Store(&since)
		a.log.Info("voter is ready", "index", index)
		a.beat()
	}
}

// reachNow returns once this node has applied an index that the leader gave out after the
// call: what was decided until then it knows. It gives up after 2 s.
func (a *Agent) reachNow(ctx context.Context) (index uint64, ok bool) {
	n := a.node.Load()
	if n == nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	index, err := n.Mark(ctx)
	if errors.Is(err, cluster.ErrNotLeader) {
		to, _ := a.leader(n)
		if to == "" || to == a.cfg.Name {
			return 0, false
		}
		index, err = a.peers.Mark(ctx, to)
	}
	if err != nil {
		return 0, false
	}
	for ctx.Err() == nil {
		a.machine.View(func(s *fsm.State) { ok = s.Index >= index && s.Founded() })
		if ok {
			return index, true
		}
		sleepCtx(ctx, time.Millisecond)
	}
	return 0, false
}

// watchState ends the agent when its log says so: an entry it cannot read, or the
// end of its membership.
func (a *Agent) watchState(ctx context.Context) {
	tick := a.grid.Ticker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := a.machine.Broken(); err != nil {
			a.die(err)
			return
		}
		gone := false
		a.machine.View(func(s *fsm.State) {
			n := s.Nodes[a.cfg.Name]
			gone = membershipEnded(n, a.disk.number())
		})
		if gone {
			a.once.Do(func() { close(a.removed) })
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

// membershipEnded reports that the membership of this data directory is over. A log that is replayed
// passes the end of an earlier one, whose directory had a lower number.
func membershipEnded(n *fsm.Node, disk uint64) bool { return n != nil && n.Removed && n.Disk >= disk }
