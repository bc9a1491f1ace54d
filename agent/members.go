package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
)

// Members lists the nodes. Beats go to voters only, so the leader knows best.
func (a *Agent) Members(ctx context.Context) ([]api.Member, error) {
	ms, err := ask(ctx, a, readPatience, func() ([]api.Member, error) { return a.membersHere(), nil },
		func(c *api.Client) ([]api.Member, error) { return c.Members(ctx) })
	if err != nil && ms == nil {
		ms = a.membersHere()
	}
	for i, m := range ms {
		if f := a.followsHere(m.Name); f != "" {
			ms[i].Follows = &f
		}
	}
	return ms, err
}

// Members answers a forwarded call.
func (d direct) Members(context.Context) ([]api.Member, error) { return d.membersHere(), nil }

func (a *Agent) membersHere() []api.Member {
	now := a.now()
	st := a.machine.Copy()
	heard := a.ears.all()
	leader := ""
	if n := a.node.Load(); n != nil {
		leader, _ = a.leader(n)
	}
	nodes := st.Nodes
	if !st.Founded() {
		nodes = map[string]*fsm.Node{}
		for _, n := range a.cfg.Nodes {
			nodes[n.Name] = &fsm.Node{Name: n.Name, Address: n.Address, Role: n.Role}
		}
	}
	var why map[string]string
	if n := a.node.Load(); n != nil && leader == a.cfg.Name && st.Founded() {
		why = failover.WhyVoter(a.voterInputs(n, a.inputs()))
	}
	votes := a.votesHere(st)
	logs := a.logsHere()
	var out []api.Member
	for _, n := range nodes {
		if n.Removed {
			continue
		}
		h, ok := heard[n.Name]
		m := api.Member{
			Name: n.Name, Role: n.Role, Address: api.Known(n.Address),
			Voter: votes[n.Name], Leader: n.Name == leader, VoterWhy: api.Known(why[n.Name]),
			Follows: api.Known(a.followsHere(n.Name)),
		}
		if logs != nil {
			m.Log = new(logs[n.Name])
			if *m.Log == "" {
				*m.Log = api.LogFollows
				m.VoterWhy = new("no vote: it has no log, and follows a voter; the next vote goes to one that has it")
			}
		}
		m.State = a.memberState(n, h, ok, now.Elapsed(clock.Later(h.at, a.woke())))
		if ok {
			m.LastBeatMS = age(now, h.at)
			left := api.MS(h.beat.Left - now.Elapsed(h.at))
			m.LeaseMS = &left
		}
		if n.Name == a.cfg.Name {
			m.LastBeatMS = nil
			if l := a.lease.Load(); l != nil {
				left := api.MS(now.Remaining(l.End()))
				m.LeaseMS = &left
			}
		}
		for _, l := range a.gossip.Links(n.Name) {
			link := api.MemberLink{Name: l.Name, State: api.MemberAlive}
			if l.Address.IsValid() {
				s := l.Address.String()
				link.Address = &s
			}
			if !l.Up {
				link.State = api.MemberDead
			}
			if l.Age >= 0 && n.Name != a.cfg.Name {
				v := api.MS(l.Age)
				link.LastBeatMS = &v
			}
			m.Links = append(m.Links, link)
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y api.Member) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// votesHere are the nodes that vote on leases, and for raft's leader as far as is known
// here.
func (a *Agent) votesHere(st *fsm.State) map[string]bool {
	out := map[string]bool{}
	for _, v := range st.Voters.Names {
		out[v] = true
	}
	n := a.node.Load()
	if n == nil {
		return out
	}
	servers, err := n.Members()
	for _, s := range servers {
		if err == nil && !s.Voter && s.Name != "" {
			delete(out, s.Name) // it gets it in a moment
		}
	}
	return out
}

// logsHere is how the nodes have the log that are servers of raft, as this one knows from
// that log; nil = it does not have it.
func (a *Agent) logsHere() map[string]api.LogFrom {
	n := a.node.Load()
	if n == nil || !n.Fed(unfed) {
		return nil
	}
	servers, err := n.Members()
	if err != nil {
		return nil
	}
	out := map[string]api.LogFrom{}
	for _, s := range servers {
		out[s.Name] = api.LogSpare
		if s.Voter {
			out[s.Name] = api.LogVoter
		}
	}
	return out
}

// followsHere is whom a node follows, as this one knows; "" = nobody, or that is not known.
func (a *Agent) followsHere(name string) string {
	switch v := a.following.voter.Load(); {
	case name == a.cfg.Name && v != nil:
		return *v
	case a.followed.has(name):
		return a.cfg.Name
	}
	return ""
}

func (a *Agent) memberState(n *fsm.Node, h heard, ok bool, silent time.Duration) api.MemberState {
	t := a.timing()
	quiet := !ok || silent >= t.Deadtime
	switch {
	case n.Name == a.cfg.Name && n.Inc > 0:
		return api.MemberAlive
	case n.Stopped && quiet:
		return api.MemberLeft
	case n.Inc == 0 || ok && !quiet && h.beat.Ref.Inc == 0:
		return api.MemberJoining
	case quiet:
		return api.MemberDead
	case silent >= t.Warntime:
		return api.MemberLate
	}
	return api.MemberAlive
}
