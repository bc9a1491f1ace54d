package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hanode/cluster"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
)

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
