package agent

import (
	"context"
	"errors"
	"slices"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
)

// Status reports groups and problems; the local node's own problems are added to
// what the leader says.
func (a *Agent) Status(ctx context.Context, group string) (*api.Status, error) {
	s, err := a.status(ctx, group)
	if s != nil && group != "" {
		a.addReports(ctx, s, group)
	}
	return s, err
}

func (a *Agent) status(ctx context.Context, group string) (*api.Status, error) {
	remote := false
	s, err := ask(ctx, a, readPatience, func() (*api.Status, error) { return a.statusHere(group) },
		func(c *api.Client) (*api.Status, error) { remote = true; return c.Status(ctx, group) })
	if s == nil && err != nil {
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitNoQuorum {
			return nil, err
		}
		here, hereErr := a.statusHere(group)
		if hereErr != nil {
			return nil, hereErr
		}
		here.Quorum = false
		e, _ := errors.AsType[*api.Error](err)
		here.Problems = append([]api.StatusProblem{show("no-quorum", e.Message, nil)}, here.Problems...)
		return here, err
	}
	if remote && s != nil {
		s.Problems = append(s.Problems, a.local()...)
		a.fillResources(s)
	}
	return s, err
}

// Status answers a forwarded call.
func (d direct) Status(_ context.Context, group string) (*api.Status, error) {
	return d.statusHere(group)
}

func (a *Agent) statusHere(group string) (*api.Status, error) {
	in := a.inputs()
	st := in.State
	leader, quorum := "", false
	if n := a.node.Load(); n != nil {
		leader, _ = a.leader(n)
		quorum = n.IsLeader() && leader == a.cfg.Name
	}
	out := &api.Status{Cluster: a.cfg.Cluster, Leader: api.Known(leader), Quorum: quorum}
	if group != "" && (st.Groups[group] == nil || st.Groups[group].Deleted) {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "there is no group %q", group)
	}
	for _, name := range st.GroupNames() {
		if group == "" || name == group {
			out.Groups = append(out.Groups, groupStatus(in, st.Groups[name]))
		}
	}
	out.Problems = append(a.clusterProblems(in, a.membersHere()), a.local()...)
	a.fillResources(out)
	return out, nil
}

// groupStatus renders a group from replicated state, and how long its failures count.
func groupStatus(in failover.Inputs, g *fsm.Group) api.GroupStatus {
	state := api.GroupRunning
	_, stuck := stuckOn(in.State, g)
	switch {
	case stuck:
		state = api.GroupBlocked
	case (g.Owner.Zero() || g.OwnerReleased) && len(g.FailedOn()) > 0:
		state = api.GroupFailed
	case g.Owner.Zero() || g.OwnerReleased:
		state = api.GroupStopped
	case g.Started:
	case len(g.Stuck()) > 0:
		state = api.GroupBlocked
	default:
		state = api.GroupStarting
	}
	since := g.Since
	out := api.GroupStatus{Name: g.Spec.Name, Owner: api.Known(g.Owner.Name), Epoch: uint64(g.Epoch), State: &state, Since: &since}
	for _, node := range g.FailedOn() {
		f := g.Failed[node]
		out.Failures = append(out.Failures, api.GroupFailure{
			Node: node, Count: f.Count, Text: f.Why, RetryMS: api.MS(in.Avoid[failover.Place{Group: g.Spec.Name, Node: node}]),
		})
	}
	for _, r := range g.Spec.Resources {
		rs := state
		if state == api.GroupBlocked || state == api.GroupFailed {
			rs = api.GroupStopped
		}
		out.Resources = append(out.Resources, api.ResourceStatus{Type: r.Type, Name: r.Name, State: &rs})
	}
	for _, c := range g.Spec.Checks {
		rs := state
		if state != api.GroupRunning {
			rs = api.GroupStopped
		}
		out.Resources = append(out.Resources, api.ResourceStatus{Type: "check", Name: c.Type + " " + c.Target, State: &rs})
	}
	return out
}

// fillResources puts in what this node knows exactly: its own groups' resources.
func (a *Agent) fillResources(s *api.Status) {
	for i := range s.Groups {
		g := &s.Groups[i]
		w := a.groups.get(g.Name)
		if w == nil || g.Owner == nil || *g.Owner != a.cfg.Name {
			continue
		}
		if !w.here() {
			continue
		}
		for _, r := range append(w.res.Status(), w.warm.res.Status()...) {
			j := slices.IndexFunc(g.Resources, func(x api.ResourceStatus) bool { return x.Type == r.Type && x.Name == r.Name })
			if j < 0 {
				continue
			}
			g.Resources[j].State = groupStateOf(r.State)
		}
		now := a.host.Clock.Now()
		if l := a.lease.Load(); l != nil && !l.Leased(now) {
			s.Problems = append(s.Problems, show("group-muted", g.Name+" is muted: "+a.cfg.Name+" has no lease", nil))
		}
	}
}
