package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
)

// Remove ends the membership of a node that is dead.
func (a *Agent) Remove(ctx context.Context, req api.RemoveRequest) (*api.RemoveResult, error) {
	return ask(ctx, a, writePatience, func() (*api.RemoveResult, error) { return direct{a}.Remove(ctx, req) },
		func(c *api.Client) (*api.RemoveResult, error) { return c.Remove(ctx, req) })
}

// Remove answers a forwarded call. Only the dead are removed so: who lives hands over
// first, by its own agent.
func (d direct) Remove(ctx context.Context, req api.RemoveRequest) (*api.RemoveResult, error) {
	in := d.inputs()
	n := in.State.Nodes[req.Node]
	if n == nil || n.Removed {
		return nil, fail(api.CodeNotFound, "the members are: "+strings.Join(in.State.NodeNames(), ", "), "there is no node %q", req.Node)
	}
	if in.State.Manual {
		return nil, fail(api.CodeNotAllowed, fmt.Sprintf("if its host is off: hanode confirm-off %s", req.Node), "with two_node = \"manual\" both nodes stay members")
	}
	res := &api.RemoveResult{Node: req.Node, Voters: without(in.State.Voters.Names, req.Node)}
	if !n.Leaving {
		if err := removable(in, n); err != nil {
			return nil, err
		}
		if cost := costOfRemoval(in, req.Node); cost != "" {
			sentence := "remove " + req.Node
			res.Confirm = &sentence
			if strings.TrimSpace(req.Confirm) != sentence {
				return res, fail(api.CodeNeedsConfirmation, fmt.Sprintf("add a node or a witness first; or, if it is to be so: hanode remove %s --confirm %q", req.Node, sentence), "%s", cost)
			}
		}
		if err := d.commit(ctx, fsm.Command{Leave: &fsm.Leave{Node: req.Node}}); err != nil {
			return nil, err
		}
	}
	res.Removed = d.wait(ctx, req.Wait, func(s *fsm.State) bool {
		res.Voters = slices.Clone(s.Voters.Names)
		return s.Nodes[req.Node].Removed
	})
	if !res.Removed && req.Wait > 0 {
		return res, d.stillLeaving(req.Node)
	}
	return res, nil
}

// removable says why a node may not be removed: it is heard, or something waits for
// word that its host is off.
func removable(in failover.Inputs, n *fsm.Node) error {
	h := in.Health[n.Name]
	switch {
	case h.Alive:
		return fail("node-heard", "run `hanode leave` on it; it then hands its groups over first", "%s is alive: its beats are heard", n.Name)
	case n.Registered() && !h.Dead && !n.Stopped:
		return fail("node-heard", "ask again in a moment", "a majority of the voters still hears %s, or heard it a moment ago", n.Name)
	}
	for _, name := range in.State.GroupNames() {
		for _, w := range in.State.Groups[name].Stuck() {
			if w.Node.Name == n.Name {
				return fail("group-blocked", fmt.Sprintf("make sure that its host is off, then `hanode confirm-off %s`, then remove it", n.Name), "%s may still run %s", n.Name, name)
			}
		}
	}
	return nil
}

// costOfRemoval says what the cluster loses with a vote, or "". Votes only count while
// they are many: with two the loss of either stops everything.
func costOfRemoval(in failover.Inputs, name string) string {
	s := in.State
	if !s.Voters.Has(name) {
		return ""
	}
	left := without(s.Voters.Names, name)
	for _, other := range s.NodeNames() {
		if n := s.Nodes[other]; other != name && !s.Voters.Has(other) && n.Registered() && in.Health[other].Alive {
			return "" // it gets the vote
		}
	}
	live := 0
	for _, v := range left {
		if in.Health[v].Alive {
			live++
		}
	}
	need := len(left)/2 + 1
	if live > need || len(left) == 0 {
		return ""
	}
	return fmt.Sprintf("without %s the voters are %s, of which %d must be up and %d are: the loss of one more stops failover until it is back", name, strings.Join(left, ", "), need, live)
}

// stillLeaving says what a membership that does not end waits for.
func (a *Agent) stillLeaving(name string) error {
	why := "its end is being committed"
	a.machine.View(func(s *fsm.State) {
		if s.Voters.Has(name) {
			why = "it still has a vote, which ends when a majority of the voters says so"
		}
		for _, g := range s.GroupNames() {
			if s.Groups[g].Owner.Name == name {
				why = fmt.Sprintf("it still owns %s, which no other node can take; `hanode why %s` says why", g, g)
			}
		}
	})
	return fail("still-leaving", "it goes on by itself; `hanode members` shows when it is done", "%s is still a member: %s", name, why)
}
