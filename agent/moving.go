package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/id"
)

// Move is a switchover on request.
func (a *Agent) Move(ctx context.Context, req api.MoveRequest) (*api.MoveResult, error) {
	return ask(ctx, a, writePatience, func() (*api.MoveResult, error) { return direct{a}.Move(ctx, req) },
		func(c *api.Client) (*api.MoveResult, error) { return c.Move(ctx, req) })
}

// Move answers a forwarded call.
func (d direct) Move(ctx context.Context, req api.MoveRequest) (*api.MoveResult, error) {
	in := d.inputs()
	g := in.State.Groups[req.Group]
	if g == nil || g.Deleted {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "there is no group %q", req.Group)
	}
	from := api.Known(g.Owner.Name)
	if req.Unpin {
		if err := d.commit(ctx, fsm.Command{Pin: &fsm.Pin{Group: req.Group}}); err != nil {
			return nil, err
		}
		return &api.MoveResult{Group: req.Group, From: from, To: g.Owner.Name, Epoch: uint64(g.Epoch)}, nil
	}
	to, err := target(in, g, req.To)
	if err != nil {
		return nil, err
	}
	if to.Name == g.Owner.Name && g.Owner.Inc == to.Inc && !g.OwnerReleased {
		if err := d.commit(ctx, fsm.Command{Pin: &fsm.Pin{Group: req.Group, On: true}}); err != nil {
			return nil, err
		}
		return &api.MoveResult{Group: req.Group, From: from, To: to.Name, Epoch: uint64(g.Epoch)}, nil
	}
	epoch := g.Epoch + 1
	err = d.commit(ctx, fsm.Command{Takeover: &fsm.Takeover{Cause: "switchover", Assigns: []fsm.Assign{{
		Group: req.Group, Epoch: epoch, To: to, Pin: true, Why: "asked by an operator",
	}}}})
	if err != nil {
		return nil, err
	}
	res := &api.MoveResult{Group: req.Group, From: from, To: to.Name, Epoch: uint64(epoch)}
	if !d.moved(ctx, req.Wait, res) {
		return nil, fail("not-moved", "`hanode status` and `hanode events` say where it is now", "%s does not run on %s after %v", req.Group, to.Name, req.Wait)
	}
	return res, nil
}

// moved waits until res is true and fills in the silence that was measured.
func (a *Agent) moved(ctx context.Context, limit time.Duration, res *api.MoveResult) bool {
	if limit == 0 {
		return true
	}
	over := false
	a.wait(ctx, limit, func(s *fsm.State) bool {
		g := s.Groups[res.Group]
		if g == nil || g.Deleted || uint64(g.Epoch) != res.Epoch || g.GaveUp() {
			return true
		}
		over = g.Started
		return over
	})
	if over {
		a.machine.View(func(s *fsm.State) {
			for _, e := range slices.Backward(s.Events) {
				if e.Group == res.Group && uint64(e.Epoch) == res.Epoch && e.Kind == "started" {
					res.SilentMS = e.MS
					return
				}
			}
		})
	}
	return over
}

// target checks the wished owner, or picks the best other one.
func target(in failover.Inputs, g *fsm.Group, want string) (id.NodeRef, error) {
	cands := failover.Candidates(failover.PlacesOf(in), g)
	var can []string
	for _, c := range cands {
		if c.Eligible && c.Node != g.Owner.Name {
			can = append(can, c.Node)
		}
	}
	fix := "no other node can take it now; `hanode why " + g.Spec.Name + "` says why"
	if len(can) > 0 {
		fix = "it can go to: " + strings.Join(can, ", ")
	}
	if want == "" {
		if len(can) == 0 {
			return id.NodeRef{}, fail("no-target", fix, "%s has nowhere to go", g.Spec.Name)
		}
		want = can[0]
	}
	for _, c := range cands {
		if c.Node != want {
			continue
		}
		// An operator may insist on a node where it failed before.
		if !c.Eligible && !c.Failed {
			return id.NodeRef{}, fail("bad-target", fix, "%s cannot own %s: %s", want, g.Spec.Name, c.Because)
		}
		return in.State.Nodes[want].Ref(), nil
	}
	return id.NodeRef{}, fail(api.CodeNotFound, fix, "there is no node %q", want)
}

// Clear forgets failures.
func (a *Agent) Clear(ctx context.Context, req api.ClearRequest) (*api.ClearResult, error) {
	return ask(ctx, a, writePatience, func() (*api.ClearResult, error) { return direct{a}.Clear(ctx, req) },
		func(c *api.Client) (*api.ClearResult, error) { return c.Clear(ctx, req) })
}

// Clear answers a forwarded call.
func (d direct) Clear(ctx context.Context, req api.ClearRequest) (*api.ClearResult, error) {
	st := d.machine.Copy()
	if g := st.Groups[req.Group]; req.Group != "" && (g == nil || g.Deleted) {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "there is no group %q", req.Group)
	}
	if n := st.Nodes[req.Node]; req.Node != "" && (n == nil || n.Removed) {
		return nil, fail(api.CodeNotFound, "the members are: "+strings.Join(st.NodeNames(), ", "), "there is no node %q", req.Node)
	}
	res := &api.ClearResult{}
	for _, name := range st.GroupNames() {
		if req.Group != "" && req.Group != name {
			continue
		}
		for _, node := range st.Groups[name].FailedOn() {
			if req.Node == "" || req.Node == node {
				res.Cleared = append(res.Cleared, api.Cleared{Group: name, Node: node})
			}
		}
	}
	if len(res.Cleared) == 0 {
		return res, nil
	}
	return res, d.commit(ctx, fsm.Command{Clear: &fsm.Clear{Group: req.Group, Node: req.Node}})
}

// Standby takes a node out of, or back into, the choice of owners.
func (a *Agent) Standby(ctx context.Context, node string, on bool, wait time.Duration) (*api.NodeResult, error) {
	return ask(ctx, a, writePatience, func() (*api.NodeResult, error) { return direct{a}.Standby(ctx, node, on, wait) },
		func(c *api.Client) (*api.NodeResult, error) { return c.Standby(ctx, node, on, wait) })
}

// Standby answers a forwarded call.
func (d direct) Standby(ctx context.Context, node string, on bool, limit time.Duration) (*api.NodeResult, error) {
	before := d.machine.Copy()
	if n := before.Nodes[node]; n == nil || n.Removed {
		return nil, fail(api.CodeNotFound, "the members are: "+strings.Join(before.NodeNames(), ", "), "there is no node %q", node)
	}
	if err := d.commit(ctx, fsm.Command{Standby: &fsm.Standby{Node: node, On: on}}); err != nil {
		return nil, err
	}
	res := &api.NodeResult{Node: node, Standby: on}
	if !on || limit == 0 {
		return res, nil
	}
	gone := d.wait(ctx, limit, func(s *fsm.State) bool {
		for _, name := range s.GroupNames() {
			g := s.Groups[name]
			if g.Owner.Name == node && !g.OwnerReleased {
				return false
			}
			if old := before.Groups[name]; old != nil && old.Owner.Name == node && !g.Started {
				return false
			}
		}
		return true
	})
	d.machine.View(func(s *fsm.State) {
		for _, name := range s.GroupNames() {
			old, g := before.Groups[name], s.Groups[name]
			if old == nil || old.Owner.Name != node || g.Owner.Name == node {
				continue
			}
			res.Moves = append(res.Moves, api.MoveResult{Group: name, From: api.Known(node), To: g.Owner.Name, Epoch: uint64(g.Epoch)})
		}
	})
	for i := range res.Moves {
		d.moved(ctx, limit, &res.Moves[i])
	}
	if !gone {
		return res, fail("not-moved", "`hanode why GROUP` says why; they stay where they are rather than stop",
			"%s is standby, but some of its groups have nowhere to go", node)
	}
	return res, nil
}
