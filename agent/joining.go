package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/netio"
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
		a.peerAsked(ctx, asker)
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
	h.Asks = !h.TakesPart && a.disk.asks()
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
