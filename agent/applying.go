package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/spec"
)

// Export returns the wanted set.
func (a *Agent) Export(ctx context.Context) ([]spec.Group, error) {
	return ask(ctx, a, readPatience, func() ([]spec.Group, error) { return direct{a}.Export(ctx) },
		func(c *api.Client) ([]spec.Group, error) { return c.Export(ctx) })
}

// Export answers a forwarded call.
func (d direct) Export(context.Context) ([]spec.Group, error) {
	var out []spec.Group
	d.machine.View(func(s *fsm.State) { out = s.Specs() })
	return out, nil
}

// Plan says what Apply would do.
func (a *Agent) Plan(ctx context.Context, groups []spec.Group) (*api.Plan, error) {
	return ask(ctx, a, readPatience, func() (*api.Plan, error) { return direct{a}.Plan(ctx, groups) },
		func(c *api.Client) (*api.Plan, error) { return c.Plan(ctx, groups) })
}

// Plan answers a forwarded call. It applies the command to a copy of the state and
// looks what the planner would do with it: the very code that decides.
func (d direct) Plan(ctx context.Context, groups []spec.Group) (*api.Plan, error) {
	p, err := d.plan(ctx, groups, false)
	if err != nil {
		return nil, err
	}
	return p.plan, nil
}

// planned is a plan and what it is made of.
type planned struct {
	plan   *api.Plan
	before *fsm.State
	said   asked
	place  map[string]string // where each group is to be; a group that is in none has no place
}

// plan is Plan; adopt: as if nothing were foreign.
func (d direct) plan(ctx context.Context, groups []spec.Group, adopt bool) (*planned, error) {
	st := d.machine.Copy()
	if !st.Founded() {
		return nil, d.noQuorum()
	}
	if err := checkGroups(groups, st); err != nil {
		return nil, err
	}
	said := d.preflight(ctx, groups)
	in := d.inputs()
	before := in.State.Clone()
	after := fsm.Preview(in.State, fsm.Command{SetGroups: &fsm.SetGroups{Groups: groups}})
	in.State = after
	in.Lacks = d.fit.lacks(after, adopt)
	moves := map[string]string{}
	for _, c := range failover.Plan(in) {
		if c.Takeover == nil {
			continue
		}
		for _, as := range c.Takeover.Assigns {
			moves[as.Group] = as.To.Name
		}
	}
	out := &api.Plan{}
	for _, ch := range failover.Compare(before, after, moves) {
		out.Changes = append(out.Changes, api.Change{
			Group: ch.Group, Action: api.Action(ch.Action), Text: said.say(ch.Text, ch.Group, in.Lacks), Stops: ch.Stops, Moves: ch.Moves,
		})
	}
	place := moves
	for _, name := range after.GroupNames() {
		if g := after.Groups[name]; place[name] == "" && !g.Owner.Zero() && !g.OwnerReleased {
			place[name] = g.Owner.Name
		}
	}
	return &planned{out, before, said, place}, nil
}

// atRest waits, at most limit, until every group runs or has nowhere to go.
func (a *Agent) atRest(ctx context.Context, limit time.Duration) bool {
	for end := a.host.Clock.Now().Add(limit); ; sleepCtx(ctx, 10*time.Millisecond) {
		left := a.host.Clock.Now().Remaining(end)
		ok := a.wait(ctx, max(left, 0), func(s *fsm.State) bool {
			for _, name := range s.GroupNames() {
				if g := s.Groups[name]; !g.Started && !g.GaveUp() {
					return false
				}
			}
			return true
		})
		if !ok || left <= 0 {
			return ok
		}
		in, next := a.inputs(), false
		places := failover.PlacesOf(in)
		for _, g := range in.State.Groups {
			if !g.Deleted && g.GaveUp() {
				_, ok := failover.Best(places, g)
				next = next || ok
			}
		}
		if !next {
			return true
		}
	}
}

func checkGroups(groups []spec.Group, st *fsm.State) error {
	var nodes []spec.Node
	for _, name := range st.NodeNames() {
		n := st.Nodes[name]
		nodes = append(nodes, spec.Node{Name: n.Name, Address: n.Address, Role: n.Role})
	}
	if err := config.CheckGroups(groups, nodes); err != nil {
		return fail("bad-groups", "correct the cluster file and apply it again", "%v", err)
	}
	return nil
}

// Apply makes the groups the whole wanted set and waits for the result.
func (a *Agent) Apply(ctx context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	return ask(ctx, a, writePatience, func() (*api.ApplyResult, error) { return direct{a}.Apply(ctx, req) },
		func(c *api.Client) (*api.ApplyResult, error) { return c.Apply(ctx, req) })
}

// Apply answers a forwarded call.
func (d direct) Apply(ctx context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	p, err := d.plan(ctx, req.Groups, req.Adopt)
	if err != nil {
		return nil, err
	}
	if err := p.said.refuse(req.Groups, p.before); err != nil {
		return nil, err
	}
	if !req.Adopt {
		if err := refuseForeign(p.said.foreign(req.Groups, p.before, true)); err != nil {
			return nil, err
		}
	}
	var adopts adoption
	if req.Adopt {
		adopts = adoptionOf(p.said.foreign(req.Groups, p.before, false), p.place, p.before)
		if err := d.stopForeign(ctx, adopts.stops, req.Groups); err != nil {
			return nil, err
		}
	}
	if !req.NoProbe {
		if err := d.unused(ctx, req.Groups, adopts); err != nil {
			return nil, err
		}
	}
	if err := d.commit(ctx, fsm.Command{SetGroups: &fsm.SetGroups{Groups: req.Groups, Adopt: adopts.takes}}); err != nil {
		return nil, err
	}
	settled := d.atRest(ctx, req.Wait)
	res := &api.ApplyResult{Changes: p.plan.Changes, Adopted: adopts.done}
	var bad []string
	in := d.inputs()
	for _, name := range in.State.GroupNames() {
		g := groupStatus(in, in.State.Groups[name])
		res.Groups = append(res.Groups, g)
		if *g.State != api.GroupRunning {
			bad = append(bad, fmt.Sprintf("%s is %s", name, *g.State))
		}
	}
	if req.Wait > 0 && len(bad) > 0 {
		how := "after " + req.Wait.String()
		if settled {
			how = "now"
		}
		return res, fail("not-running", "`hanode status` and `hanode why GROUP` say more", "applied, but %s %s", strings.Join(bad, ", "), how)
	}
	return res, nil
}
