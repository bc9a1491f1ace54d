package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/netio"
	"hanode/internal/spec"
	"hanode/lease"
	"hanode/peer"
)

// What runs on the TLS port, told apart by ALPN.
const (
	alpnRaft = "hanode-raft/1"
	alpnPeer = "hanode-peer/1"
)

// seeds are the addresses of all members; the zero Addr where none is known.
func (a *Agent) seeds() (map[string]netip.Addr, error) {
	out := map[string]netip.Addr{}
	for _, n := range a.everyone() {
		if n.Address == "" { // to be found on the links
			out[n.Name] = netip.Addr{}
			continue
		}
		ad, err := netip.ParseAddr(n.Address)
		if err != nil {
			return nil, fmt.Errorf("address of node %s: %w", n.Name, err)
		}
		out[n.Name] = ad
	}
	return out, nil
}

// dialTLS opens an authenticated connection to a node by name.
func (a *Agent) dialTLS(ctx context.Context, node, alpn string) (net.Conn, error) {
	c, err := a.gossip.Dial(ctx, node, a.cfg.Port+1)
	if err != nil {
		return nil, err
	}
	t, err := a.keys.Client(ctx, c, a.cfg.Cluster, a.cfg.Name, node, alpn)
	a.keys.met.note(node, err)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", node, err)
	}
	return t, nil
}

// joinLoop brings the node into its cluster (founding it with the others, going
// on after a restart, or joining anew with an empty disk), registers it, and
// registers it anew whenever it was fenced.
//
// It does so again, and meanwhile holds what it holds, when it is to go on alone.
func (a *Agent) joinLoop(ctx context.Context) {
	for ctx.Err() == nil {
		part, end := context.WithCancel(ctx)
		a.two.mu.Lock()
		a.two.end = end
		a.two.mu.Unlock()
		err := a.takePart(part)
		ended := part.Err() != nil
		end()
		switch {
		case ctx.Err() != nil:
			return
		case !ended:
			a.die(err)
			return
		}
		if n := a.node.Swap(nil); n != nil {
			if err := n.Stop(); err != nil {
				a.die(err)
				return
			}
		}
	}
}

// takePart is this node's part in raft and in the cluster, until ctx ends; any other
// end is an error.
func (a *Agent) takePart(ctx context.Context) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	var loops sync.WaitGroup
	defer loops.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := a.node.Load()
	loops.Go(func() { n.WhileLeader(ctx, a.leadLoop) })
	for _, loop := range []func(context.Context){a.readyLoop, a.diskLoop, a.heldLoop, a.watchState, a.followLoop} {
		loops.Go(func() { loop(ctx) })
	}
	if a.manual() {
		loops.Go(func() { a.outlivedLoop(ctx) })
	}
	for ctx.Err() == nil {
		if _, registered := a.ref(); !registered && !a.drain.Load() {
			if err := a.alone(ctx); err != nil {
				return err
			}
			a.register(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.fenced:
		}
		a.log.Warn("this registration was fenced: dropping everything, then registering anew")
		a.hold.Lock()
		if a.hold.holder != nil {
			a.hold.holder.Fence()
		}
		a.hold.Unlock()
		a.groups.wakeAll()
		for a.groups.running() > 0 && ctx.Err() == nil {
			sleepCtx(ctx, 2*time.Millisecond)
		}
		if a.outlived(ctx) {
			return errOutlived
		}
	}
	return ctx.Err()
}

// enter decides who this node is in raft and starts it.
func (a *Agent) enter(ctx context.Context) error {
	bootstrap := false
	if a.disk.number() == 0 {
		var err error
		if bootstrap, err = a.decide(ctx); err != nil {
			return err
		}
	}
	stores, recovered, err := a.openStores(ctx)
	if err != nil {
		return err
	}
	n, err := cluster.Start(cluster.Config{
		Name: a.cfg.Name, Disk: a.disk.number(), Machine: a.machine, Stores: stores, Log: a.log,
		Listener: a.mux.Protocol(alpnRaft), Reachable: a.hearsLately, Settled: a.settled, Grid: a.grid,
		Dial: func(ctx context.Context, node string) (net.Conn, error) { return a.dialTLS(ctx, node, alpnRaft) },
	})
	if err != nil {
		return errors.Join(err, closeStores(stores))
	}
	if bootstrap {
		if err := n.Bootstrap(a.founders()); err != nil {
			return errors.Join(fmt.Errorf("found the cluster: %w", err), n.Stop())
		}
	}
	a.node.Store(n)
	if recovered {
		n.Stand() // it is alone, so nobody needs to be missed first
	}
	return nil
}

// openStores opens raft's disk for the identity that this node goes on with.
// recovered: as the only server.
func (a *Agent) openStores(ctx context.Context) (stores cluster.Stores, recovered bool, err error) {
	if stores, err = a.host.Stores(a.cfg.DataDir); err != nil {
		return stores, false, err
	}
	r := a.disk.recovering()
	if r != nil {
		err = a.recoverStores(r, stores)
	} else {
		stores, err = a.resume(ctx, stores)
	}
	if err == nil {
		err = a.disk.setBoot(a.host.ID)
	}
	if err != nil {
		return stores, false, errors.Join(err, closeStores(stores))
	}
	return stores, r != nil, nil
}

func closeStores(s cluster.Stores) error {
	if s.Close == nil {
		return nil
	}
	return s.Close()
}

// maxVoters is how many of the founders vote; the rest get the log without a vote.
func (a *Agent) maxVoters() int { return cmp.Or(a.opts.Servers, failover.MostServers) }

// founders is raft's first configuration, the same on every founder.
func (a *Agent) founders() []cluster.Server {
	var out []cluster.Server
	for i, n := range a.cfg.Nodes {
		out = append(out, cluster.Server{Name: n.Name, Voter: i < a.maxVoters()})
	}
	return out
}

// decide is R12: found only while a majority of the founders says "fresh, never
// left" by the same list, and none that answers has state or knows of somebody who has;
// else, if somebody has a cluster, join it with a new raft identity. It asks until one of
// both holds.
func (a *Agent) decide(ctx context.Context) (bootstrap bool, err error) {
	digest := a.cfg.Digest()
	var out outside
	defer a.problems.clear("not-joined")
	for ctx.Err() == nil {
		fresh, member := 1, ""
		known := a.disk.knows()
		ours := a.haresources().text
		var uneven []string // whose haresources differ from ours, and where
		for _, n := range a.cfg.Nodes {
			if n.Name == a.cfg.Name {
				continue
			}
			h, err := a.hello(ctx, n.Name)
			if err != nil {
				a.log.Debug("founder not reached yet", "peer", n.Name, "err", err)
				continue
			}
			switch {
			case h.Removed:
				a.expelled()
			case h.State == peer.Member:
				member = n.Name
			case h.State == peer.Outside:
				known = true
			case h.Digest != digest:
				a.problems.set("founders-differ", fmt.Sprintf("%s has another list of founders, timing or port (digest %.8s, here %.8s)", n.Name, h.Digest, digest))
			case h.Resources != ours:
				uneven = append(uneven, differing(n.Name, h.Resources, a.cfg.Name, ours))
			case h.State == peer.Fresh || h.State == peer.Founding:
				fresh++
			}
		}
		a.uneven(uneven, member != "")
		switch {
		case member != "":
			// A second host of one name would take the live one's place in raft.
			if err := a.alone(ctx); err != nil {
				return false, err
			}
			err := a.rejoin(ctx, member)
			if err == nil {
				return false, nil
			}
			out.note(a, member, err)
		case known:
			out.note(a, "", errNobodyIn)
		case fresh >= len(a.cfg.Nodes)/2+1 && (a.member == nil || a.member.Founder) && a.agree(ours):
			a.log.Info("founding the cluster", "founders", len(a.cfg.Nodes), "agreeing", fresh)
			a.problems.clear("founders-differ")
			a.uneven(nil, true)
			return true, a.disk.setNumber(1)
		}
		sleepCtx(ctx, 100*time.Millisecond)
	}
	return false, ctx.Err()
}

func (a *Agent) hello(ctx context.Context, node string) (peer.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	h, err := a.peers.Hello(ctx, node)
	if err == nil && h.Formed {
		a.lead.formed.Store(true)
	}
	for err == nil { // it never falls
		if told := a.heardVersion.Load(); int64(h.Speaks) <= told || a.heardVersion.CompareAndSwap(told, int64(h.Speaks)) {
			break
		}
	}
	if err == nil && h.Speaks > a.machine.Newest() {
		a.die(errors.New(fsm.TooOld(h.Speaks, a.cfg.Name, a.opts.Version, a.machine.Newest())))
	}
	return h, err
}

// rejoinTime is how long one node may take to answer: those that are off must not use up
// the time of the leader.
const rejoinTime = 2 * time.Second

// rejoin asks the leader for a new raft identity: an empty disk never votes under
// an old one (an emptied voter under its old name broke 71 of 1,500 runs).
func (a *Agent) rejoin(ctx context.Context, via string) error {
	request, err := a.disk.asking()
	if err != nil {
		return err
	}
	names := append([]string{via}, a.others()...)
	asked := map[string]bool{a.cfg.Name: true, "": true}
	var errs []error
	for i := 0; i < len(names); i++ {
		name := names[i]
		if asked[name] {
			continue
		}
		asked[name] = true
		each, cancel := context.WithTimeout(ctx, rejoinTime)
		disk, err := a.peers.Rejoin(each, name, request)
		cancel()
		if errors.Is(err, peer.ErrNotLeader) {
			// Who leads may have joined since the file was written; and who was removed
			// meanwhile knows of no such node.
			if h, err := a.hello(ctx, name); err == nil {
				names = append(names, h.Voters...)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		at := a.disk.fork()
		if a.manual() {
			h, err := a.hello(ctx, name)
			if err != nil {
				return err
			}
			at = forkOf(h)
		}
		a.log.Info("joining an existing cluster with an empty disk", "disk", disk)
		return a.disk.joined(disk, at)
	}
	return errors.Join(errs...)
}

// Rejoin gives asker the next disk number, once for each request; the members' loop
// does the rest.
func (s service) Rejoin(ctx context.Context, asker, request string) (uint64, error) {
	a := s.a
	n := a.node.Load()
	if n == nil || !n.IsLeader() {
		a.peerAsked(asker)
		return 0, peer.ErrNotLeader
	}
	var from uint64
	a.machine.View(func(s *fsm.State) {
		if x := s.Nodes[asker]; x != nil && !x.Removed {
			from = x.Disk
		}
	})
	if from == 0 {
		return 0, fmt.Errorf("%s is not a member of this cluster; it was removed, or never was one", asker)
	}
	if silent, known := a.unheard(asker); known && silent < 3*a.timing().Keepalive {
		return 0, fmt.Errorf("%s is alive with a disk of its own: its beats are heard", asker)
	}
	res, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), SetDisk: &fsm.SetDisk{Node: asker, From: from, Request: request}})
	if err == nil && res.Rejected != "" {
		err = errors.New(res.Rejected)
	}
	return res.Disk, err
}

// Hello says who this node is.
func (s service) Hello(asker string) peer.Hello {
	a := s.a
	h := peer.Hello{
		Name: a.cfg.Name, Cluster: a.cfg.Cluster, Digest: a.cfg.Digest(), State: peer.Fresh,
		Version: a.opts.Version, HeardMS: -1, Formed: a.lead.formedBy(a, a.host.Clock.Now()),
	}
	file := a.haresources()
	if h.Resources = file.text; !a.isWitness() {
		h.Groups = file.groups
	}
	switch n := a.node.Load(); {
	case a.founded():
		h.State = peer.Member
	case n == nil && a.disk.knows():
		h.State = peer.Outside
	case n == nil && a.disk.number() == 0:
	case n == nil && a.founding.Load():
		h.State = peer.Founding
	case n == nil || n.Position().LastIndex > 1:
		h.State = peer.Member
	default:
		h.State = peer.Founding
	}
	if a.founded() {
		h.Speaks = a.speaks()
	}
	f := a.disk.fork()
	_, registered := a.ref()
	h.ForkAt, h.ForkTag, h.TakesPart = f.At, f.Tag, registered || a.node.Load() != nil
	if silent, known := a.unheard(asker); known {
		h.HeardMS = api.MS(silent)
	}
	var disk uint64
	a.machine.View(func(s *fsm.State) {
		if n := s.Nodes[asker]; n != nil {
			h.HostID, disk, h.Removed = n.HostID, n.Disk, n.Removed
		}
	})
	held := a.heldBy(asker, disk)
	h.Disk, h.Term, h.LastTerm, h.LastIndex = held.Disk, held.Term, held.Position.LastTerm, held.Position.LastIndex
	own := a.roll()
	h.Voters, h.OwnTerm, h.OwnIndex = own.voters, own.at.LastTerm, own.at.LastIndex
	return h
}

// unheard is for how long no beat of a registration of the node came; false if none
// ever did.
func (a *Agent) unheard(node string) (time.Duration, bool) {
	h, ok := a.ears.get(node)
	return a.host.Clock.Now().Elapsed(h.registered), ok && !h.registered.IsZero()
}

// found writes the cluster's first entry.
func (a *Agent) found(ctx context.Context) error {
	c := fsm.Found{Cluster: a.cfg.Cluster, Digest: a.cfg.Digest(), Timing: a.cfg.Timing, Nodes: a.located(), Manual: a.cfg.Manual(), Tokens: a.member.tokens()}
	for i, n := range a.cfg.Nodes {
		if i < a.maxVoters() {
			c.Voters = append(c.Voters, n.Name)
		}
	}
	groups, err := a.foundingGroups(ctx)
	if err != nil {
		a.problems.set("groups-file", err.Error())
	}
	c.Groups = groups
	res, err := a.node.Load().Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), Found: &c})
	if err == nil && res.Rejected != "" {
		err = errors.New(res.Rejected)
	}
	return err
}

// located are the founders, with the addresses that were found where none is written.
func (a *Agent) located() []spec.Node {
	out := slices.Clone(a.cfg.Nodes)
	for i, n := range out {
		if links := a.gossip.Links(n.Name); n.Address == "" && len(links) > 0 && links[0].Address.IsValid() {
			out[i].Address = links[0].Address.String()
		}
	}
	return out
}

// alone refuses to go on while another host answers to this node's name. After a
// reboot the old one falls silent by itself.
func (a *Agent) alone(ctx context.Context) error {
	limit := 3*a.timing().Deadtime + time.Second
	begin := a.host.Clock.Now()
	for ctx.Err() == nil {
		other := ""
		for _, name := range a.others() {
			h, err := a.hello(ctx, name)
			// Only a host that registered elsewhere and is still heard with that
			// registration counts; our own beats before ours do not.
			if err == nil && h.HostID != "" && h.HostID != a.hostID() && h.HeardMS >= 0 && h.HeardMS < api.MS(3*a.timing().Keepalive) {
				other = name
			}
		}
		if other == "" {
			return nil
		}
		if a.host.Clock.Now().Elapsed(begin) > limit {
			return fmt.Errorf("another host is alive under the name %q (%s hears its beats); give this node a name of its own, or stop the other one", a.cfg.Name, other)
		}
		sleepCtx(ctx, 100*time.Millisecond)
	}
	return ctx.Err()
}

// probeOwn stops the agent if another host uses one of this host's link addresses:
// beats and votes would go to whichever of the two answered last.
func (a *Agent) probeOwn(ctx context.Context) {
	if a.host.Probe == nil {
		return
	}
	links := a.host.Network.Links()
	if self, ok := a.cfg.Self(); ok { // the device may have other addresses before it
		if addr, err := netip.ParseAddr(self.Address); err == nil && len(links) > 0 && links[0].Addr != addr {
			links = append(links, netio.Link{Name: links[0].Name, Addr: addr})
		}
	}
	for _, l := range links {
		if !l.Addr.IsValid() {
			continue
		}
		mac, err := a.host.Probe(ctx, l.Name, l.Addr)
		switch {
		case err != nil:
			a.log.Warn("cannot ask whether another host uses our address", "dev", l.Name, "addr", l.Addr, "err", err)
		case mac != "":
			a.die(fmt.Errorf("another host, %s, uses this node's address %s on %s; give one of them another address", mac, l.Addr, l.Name))
		}
	}
}

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
	n := a.node.Load()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	index, err := n.Mark(ctx)
	if errors.Is(err, cluster.ErrNotLeader) {
		to, _ := a.leader(n)
		if to == "" || to == a.cfg.Name {
			return
		}
		index, err = a.peers.Mark(ctx, to)
	}
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		var have uint64
		founded := false
		a.machine.View(func(s *fsm.State) { have, founded = s.Index, s.Founded() })
		if have >= index && founded {
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
			return
		}
		sleepCtx(ctx, time.Millisecond)
	}
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
