package agent

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/trust"
)

// The faults that change who is a member, and who votes.

// loseDisk empties one disk. With three voters never a second one before the first
// node has its vote back, with five never a third: no cluster survives the loss of
// a majority's disks.
func (c *chaos) loseDisk(h *host, f fault) int {
	from, voters := c.diskOf(h)
	if from == 0 || h.joins || !h.take() {
		return 0
	}
	whole := c.everybodyIn()
	c.mu.Lock()
	ok := whole && !c.lost[h.name] && !c.change && len(c.lost) < min(2, (voters-1)/2)
	if len(c.nodes) == 2 {
		ok = len(c.lost) == 0 && c.otherIsComplete(h)
	}
	if ok {
		c.lost[h.name] = true
	}
	two := len(c.lost) > 1
	c.mu.Unlock()
	if !ok {
		h.give()
		return 0
	}
	h.powerCut()
	h.loseDisk()
	c.sleep(f.length)
	h.start()
	h.give()
	if two {
		c.tally.add("  while another's is lost", 1, 1)
	}
	c.wg.Go(func() {
		for !c.isBack(h, from) {
			if !c.sleep(50 * time.Millisecond) {
				return
			}
			select {
			case <-c.ended:
				return
			default:
			}
		}
		c.tally.add("  and the node rejoined", 1, 1)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.lost, h.name)
	})
	return 1
}

// everybodyIn: every founder has had the log at some time. A disk that never had it
// remembers as little as one that was lost.
func (c *chaos) everybodyIn() bool {
	for _, o := range c.order {
		a, _ := o.running()
		c.mu.Lock()
		if a != nil && a.founded() {
			if c.in == nil {
				c.in = map[string]bool{}
			}
			c.in[o.name] = true
		}
		have := c.in[o.name]
		c.mu.Unlock()
		if !have && !o.joins {
			return false
		}
	}
	return true
}

// diskOf is the number of a host's disk, and how many voters raft has.
func (c *chaos) diskOf(h *host) (disk uint64, voters int) {
	c.view(func(s *fsm.State) {
		leaving := false
		for _, n := range s.Nodes {
			leaving = leaving || n.Leaving && !n.Removed
		}
		if n := s.Nodes[h.name]; n != nil && !n.Removed && !leaving {
			disk = n.Disk
		}
	})
	voters = len(c.order)
	for _, o := range c.order {
		a, _ := o.running()
		if a == nil || a.node.Load() == nil {
			continue
		}
		if have, err := votersOf(a.node.Load()); err == nil && len(have) > 0 {
			voters = min(voters, len(have))
		}
	}
	return disk, voters
}

// isBack: a new disk's vote counts once every server has it in its configuration:
// raft gives no vote to whom it does not know as a voter. A data host gets none, and may be
// no server.
func (c *chaos) isBack(h *host, from uint64) bool {
	known, votes, gone := false, false, false
	c.view(func(s *fsm.State) {
		n := s.Nodes[h.name]
		known, votes = n != nil, s.Voters.Has(h.name)
		gone = known && (n.Leaving || n.Removed)
	})
	if gone || !known { // nobody knows it: all have just been started, and have applied nothing yet
		return gone
	}
	a, _ := h.running()
	servers := c.raftServers()
	if a == nil || a.disk.number() <= from || servers == nil {
		return false
	}
	has := func(ms []cluster.Member, name string) bool {
		return slices.ContainsFunc(ms, func(m cluster.Member) bool { return m.Name == name })
	}
	for _, o := range c.order {
		if o.hasLeft() || o.outside() || !has(servers, o.name) {
			continue
		}
		a, _ := o.running()
		if a == nil || a.node.Load() == nil {
			return false
		}
		ms, err := a.node.Load().Members()
		if err == nil && !votes && !has(servers, h.name) && !has(ms, h.name) {
			continue
		}
		if err != nil || !slices.ContainsFunc(ms, func(m cluster.Member) bool {
			return m.ID == cluster.ServerID(h.name, a.diskOf(h.name)) && m.Voter == votes
		}) {
			return false
		}
	}
	return true
}

// diskOf is which disk of a node is of record.
func (a *Agent) diskOf(name string) (d uint64) {
	a.machine.View(func(s *fsm.State) {
		if n := s.Nodes[name]; n != nil {
			d = n.Disk
		}
	})
	return d
}

// changeVoters makes three, or five, of the nodes the voters, one at a time, by the
// agent's own rule (R7). The others are data hosts then. While it is under way no
// disk is lost, or the next vote that ends would take the majority's memory along.
func (c *chaos) changeVoters(f fault) int {
	var all []string
	c.view(func(s *fsm.State) { all = s.NodeNames() })
	c.mu.Lock()
	ok := len(all) >= 4 && len(c.lost) == 0 && !c.change
	c.change = c.change || ok
	c.mu.Unlock()
	if !ok {
		return 0
	}
	want := 3
	if len(all) >= 5 && f.x < 0.4 {
		want = 5
	}
	// The nodes in an order that the schedule drew.
	turn := int(f.y * float64(len(all)))
	list := append(slices.Clone(all[turn:]), all[:turn]...)[:want]
	took := 0
	for end := time.Now().Add(f.length); time.Now().Before(end); {
		if c.stepVoters(list) {
			took = 1
		}
		if !c.sleep(25 * time.Millisecond) {
			return took
		}
	}
	c.wg.Go(func() {
		for !c.settled() {
			if !c.sleep(50 * time.Millisecond) {
				return
			}
			select {
			case <-c.ended:
				return
			default:
			}
		}
		c.tally.add("  and raft's voters followed", 1, took)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.change = false
	})
	return took
}

// settled: all servers agree on raft's voters, and they are the lease voters.
func (c *chaos) settled() bool {
	var want []string
	c.view(func(s *fsm.State) { want = slices.Sorted(slices.Values(s.Voters.Names)) })
	servers := c.raftServers()
	if servers == nil {
		return false
	}
	for _, o := range c.order {
		if o.hasLeft() || o.outside() || !slices.ContainsFunc(servers, func(m cluster.Member) bool { return m.Name == o.name }) {
			continue
		}
		a, _ := o.running()
		if a == nil || a.node.Load() == nil {
			return false
		}
		have, err := votersOf(a.node.Load())
		if err != nil || !slices.Equal(slices.Sorted(slices.Values(have)), want) {
			return false
		}
	}
	return true
}

func votersOf(n *cluster.Node) (out []string, err error) {
	ms, err := n.Members()
	for _, m := range ms {
		if m.Voter {
			out = append(out, m.Name)
		}
	}
	return out, err
}

// stepVoters asks the leader for one step towards the list. Who never came up gets no vote,
// as from the leader itself.
func (c *chaos) stepVoters(list []string) bool {
	name := c.leader()
	if name == "" {
		return false
	}
	a, _ := c.hosts[name].running()
	if a == nil {
		return false
	}
	st := a.machine.Copy()
	next := slices.Clone(st.Voters.Names)
	for _, n := range list {
		if !slices.Contains(next, n) && st.Nodes[n] != nil && st.Nodes[n].Inc > 0 && !st.Nodes[n].Leaving && !st.Nodes[n].Removed {
			next = append(next, n)
			break
		}
	}
	if len(next) == len(st.Voters.Names) {
		i := slices.IndexFunc(next, func(n string) bool { return !slices.Contains(list, n) })
		if i < 0 || len(next) <= 3 {
			return false
		}
		next = slices.Delete(next, i, i+1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.changeVoters(ctx, a.node.Load(), st, next, "a test says so") != nil {
		return false
	}
	var version uint64
	a.machine.View(func(s *fsm.State) { version = s.Voters.Version })
	return version > st.Voters.Version
}

// rotateKey changes the cluster's key in some of the runs, in the middle of everything.
// Once all is over unwell wants one key on all nodes, the new one or the old. It draws by
// itself, so that the seeds of old runs still give the same faults.
func (c *chaos) rotateKey(rng *rand.Rand, length time.Duration) {
	if rng.IntN(4) > 0 || !c.sleep(span(rng, 2*time.Second, length-time.Second)) {
		return
	}
	who := c.pick(someone(rng))
	a, _ := who.running()
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := a.RotateKey(ctx, api.RotateKeyRequest{})
	c.note("key rotation, asked of %s: %v", who.name, err)
	took := 0
	if err == nil {
		took = 1
	}
	c.tally.add("key rotation", 1, took)
}

// leave ends a node's membership while four or more are left. It may come back by
// accident, with an empty disk, and must stay out.
func (c *chaos) leave(h *host, f fault) int {
	members := 0
	c.view(func(s *fsm.State) { members = len(s.NodeNames()) })
	c.mu.Lock()
	lost := len(c.lost) > 0 || c.change
	ok := members >= 4 && !c.left && !lost
	c.left = c.left || ok
	c.mu.Unlock()
	a, _ := h.running()
	if !ok || a == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.length)
	defer cancel()
	err := a.Leave(ctx)
	c.note("%s left: %v", h.name, err)
	return 1
}

// hasLeft: the host's node is no member any more.
func (h *host) hasLeft() bool {
	left := false
	h.lab.view(func(s *fsm.State) {
		n := s.Nodes[h.name]
		left = n != nil && n.Removed
	})
	return left
}

// remove cuts a node's power and ends its membership while it is dead; then it is
// switched on again, and knows of nothing.
func (c *chaos) remove(h *host, f fault) int {
	members := 0
	c.view(func(s *fsm.State) { members = len(s.NodeNames()) })
	c.mu.Lock()
	ok := members >= 4 && !c.left && len(c.lost) == 0 && !c.change
	c.left = c.left || ok
	c.mu.Unlock()
	if !ok || !h.take() {
		return 0
	}
	defer h.give()
	if !h.up() {
		return 0
	}
	h.powerCut()
	took := 0
	for end := time.Now().Add(f.length); time.Now().Before(end) && c.sleep(100*time.Millisecond); {
		a := c.anyone(h)
		if a == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := a.Remove(ctx, api.RemoveRequest{Node: h.name, Confirm: "remove " + h.name})
		cancel()
		c.note("removing %s: %v", h.name, err)
		if err == nil {
			took = 1
			break
		}
	}
	c.sleep(time.Duration(f.x * float64(f.length)))
	h.start()
	return took
}

// anyone is an agent that runs on another host.
func (c *chaos) anyone(but *host) *Agent {
	for _, o := range c.order {
		if a, _ := o.running(); a != nil && o != but {
			return a
		}
	}
	return nil
}

// newcomer is the host that joins a cluster in the middle of everything.
const newcomer = "newcomer"

// newcomer lets the host in that is in no cluster. The join is tried again and again,
// and sometimes cut short as by kill -9; the agent starts when it is done.
func (c *chaos) newcomer(f fault) int {
	h := c.hosts[newcomer]
	if h == nil || !h.outside() || !h.take() {
		return 0
	}
	defer h.give()
	if h.up() {
		return 0
	}
	for end := time.Now().Add(f.length); time.Now().Before(end) && c.sleep(50*time.Millisecond); {
		a := c.anyone(h)
		if a == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		made, err := a.CreateToken(ctx, time.Hour)
		cancel()
		if err != nil {
			continue
		}
		tok, err := trust.ParseToken(*made.Token)
		if err != nil {
			c.fail("a token that is none: %v", err)
			return 0
		}
		reads := int(f.x * 12) // and then the connection breaks
		for ; time.Now().Before(end); reads += 2 {
			if _, err = h.join(tok, JoinOptions{}, a.cfg.Name, func(conn net.Conn) net.Conn { return &lossy{conn, reads} }); err == nil {
				h.start()
				return 1
			}
			c.note("%s does not join yet: %v", h.name, err)
			if strings.Contains(err.Error(), "move it away") { // an earlier join brought it, and it was changed since
				if err := os.Remove(h.config().KeyFile); err != nil {
					c.fail("%v", err)
					return 0
				}
			}
			if !c.sleep(time.Millisecond) {
				return 0
			}
		}
	}
	return 0
}

// outside: the host is in no cluster, so that no agent can run there.
func (h *host) outside() bool { return h.joins && Outside(h.config()) }

// rest: the host's agent has ended for good.
func (h *host) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wanted = false
}
