package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/internal/spec"
)

// At returns the cluster as the agent on one node shows it.
func (c *Cluster) At(node string) api.Backend { return &agent{Cluster: c, self: node} }

type agent struct {
	*Cluster
	self string
}

func refused(code, message, fix string) error {
	return &api.Error{Code: code, Message: message, Fix: fix, Exit: api.ExitFailed}
}

func (c *Cluster) noGroup(name string) error {
	var have []string
	for _, g := range c.groups {
		have = append(have, g.Name)
	}
	fix := "apply a cluster file first: hanode apply FILE"
	if len(have) > 0 {
		fix = "there is: " + strings.Join(have, ", ")
	}
	return refused(api.CodeNotFound, fmt.Sprintf("there is no group %q", name), fix)
}

func (c *Cluster) noNode(name string) error {
	var have []string
	for _, n := range c.nodes {
		have = append(have, n.Name)
	}
	return refused(api.CodeNotFound, fmt.Sprintf("there is no node %q", name), "there is: "+strings.Join(have, ", "))
}

func (a *agent) Members(context.Context) ([]api.Member, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []api.Member
	for _, n := range a.nodes {
		m := api.Member{
			Name: n.Name, Role: n.Role, State: api.MemberAlive, Address: api.Known(n.Address),
			Voter: !n.left, VoterWhy: new("one of 3 votes"), Leader: n.Name == a.leader(),
			Log: new(api.LogVoter), LastBeatMS: new(12.5), LeaseMS: new(861.3),
			Links: []api.MemberLink{
				{Name: "eth0", Address: api.Known(n.Address), State: api.MemberAlive, LastBeatMS: new(12.5)},
				{Name: "eth1", State: api.MemberAlive},
			},
		}
		switch {
		case n.left:
			m.State, m.LastBeatMS, m.LeaseMS = api.MemberLeft, nil, nil
		case !n.alive:
			m.State, m.LastBeatMS, m.LeaseMS = api.MemberDead, new(61000.0), nil
		}
		if m.State != api.MemberAlive {
			for i := range m.Links {
				m.Links[i].State, m.Links[i].LastBeatMS = m.State, m.LastBeatMS
			}
		}
		if n.Name == a.self {
			m.LastBeatMS, m.Links[0].LastBeatMS = nil, nil
		}
		if !a.quorum() {
			m.LeaseMS = nil
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y api.Member) int { return strings.Compare(x.Name, y.Name) })
	return out, a.noQuorum()
}

func (a *agent) Status(_ context.Context, name string) (*api.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if name != "" && a.group(name) == nil {
		return nil, a.noGroup(name)
	}
	st := &api.Status{Cluster: a.name, Leader: api.Known(a.leader()), Quorum: a.quorum()}
	for _, g := range a.groups {
		if name == "" || g.Name == name {
			gs := a.groupStatus(g)
			if name != "" {
				gs.Nodes = g.reports(a.now())
			}
			st.Groups = append(st.Groups, gs)
		}
	}
	for _, g := range a.groups {
		if g.blocked(a.node(g.owner)) {
			st.Problems = append(st.Problems, api.StatusProblem{
				Code: "group-blocked", Severity: "error", Text: g.Name + " waits for " + g.owner + ", which may still run it",
				Fix: "make sure that the host " + g.owner + " is off; then hanode confirm-off " + g.owner,
			})
		}
	}
	for _, n := range a.nodes {
		if n.standby {
			st.Problems = append(st.Problems, api.StatusProblem{
				Code: "standby", Severity: "info", Text: n.Name + " is on standby and owns nothing",
				Fix: "hanode online " + n.Name, Since: new(a.now()),
			})
		}
		if !n.alive && !n.left {
			st.Problems = append(st.Problems, api.StatusProblem{
				Code: "node-dead", Severity: "error", Text: n.Name + " does not answer",
				Fix: "start hanode on " + n.Name + ", or mend the network to it",
			})
		}
	}
	if a.maintenance {
		st.Problems = append(st.Problems, api.StatusProblem{
			Code: "maintenance", Severity: "warning", Text: "maintenance is on: nothing moves by itself",
			Fix: "hanode maintenance off", Since: new(a.now()),
		})
	}
	return st, a.noQuorum()
}

func (c *Cluster) groupStatus(g *group) api.GroupStatus {
	state := new(api.GroupRunning)
	if g.owner == "" {
		state = new(api.GroupStopped)
		if len(g.failed) > 0 {
			state = new(api.GroupFailed)
		}
	}
	if n := c.node(g.owner); n != nil && !n.alive {
		state = nil // nobody can say
		if g.blocked(n) {
			state = new(api.GroupBlocked)
		}
	}
	gs := api.GroupStatus{
		Name: g.Name, Owner: api.Known(g.owner), Epoch: g.epoch, State: state, Since: new(g.since),
	}
	for _, n := range slices.Sorted(maps.Keys(g.failed)) {
		gs.Failures = append(gs.Failures, api.GroupFailure{Node: n, Count: 1, Text: g.failed[n], RetryMS: 600_000})
	}
	for _, r := range g.Resources {
		gs.Resources = append(gs.Resources, api.ResourceStatus{Type: r.Type, Name: r.Name, State: state})
	}
	return gs
}

// reports is what the owner says of the group: each resource was started by a script
// that says so.
func (g *group) reports(now time.Time) *api.List[api.NodeReport] {
	out := api.List[api.NodeReport]{}
	for _, n := range slices.Sorted(maps.Keys(g.failed)) {
		out = append(out, api.NodeReport{Node: n, Error: new(n + " is not heard, so what it ran and printed is not known"), Resources: api.List[api.ResourceReport]{}})
	}
	if g.owner == "" {
		return &out
	}
	rep := api.NodeReport{Node: g.owner}
	for _, r := range g.Resources {
		rep.Resources = append(rep.Resources, api.ResourceReport{
			Type: r.Type, Name: r.Name, State: new(api.GroupRunning),
			Operations: []api.OperationReport{{Name: "start", At: now.Add(-time.Minute), MS: 12, Output: "starting " + r.Name + "\ndone\n"}},
		})
	}
	out = append(out, rep)
	return &out
}

func (a *agent) Export(context.Context) ([]spec.Group, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []spec.Group
	for _, g := range a.groups {
		out = append(out, g.Group)
	}
	return out, a.noQuorum()
}

func (a *agent) Events(ctx context.Context, after uint64, follow bool, fn func(api.Event) error) error {
	for {
		a.mu.Lock()
		news, changed, err := slices.Clone(a.events[min(after, uint64(len(a.events))):]), a.changed, a.noQuorum()
		a.mu.Unlock()
		for _, e := range news {
			if err := fn(e); err != nil {
				return err
			}
			after = e.Index
		}
		if !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (a *agent) Why(_ context.Context, name string) (*api.Why, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.group(name)
	if g == nil {
		return nil, a.noGroup(name)
	}
	w := &api.Why{Group: name, Owner: api.Known(g.owner), Epoch: g.epoch}
	for _, n := range a.rank(g, "") {
		because := "least loaded"
		if i := slices.Index(g.Prefer, n); i >= 0 {
			because = fmt.Sprintf("number %d in prefer", i+1)
		}
		if n == g.owner && g.pinned {
			because = "moved here by hand; " + because
		}
		w.Reasons = append(w.Reasons, api.Reason{Node: n, Eligible: true, Score: new(float64(100 - a.place(g, n))), Because: because})
	}
	for _, n := range a.nodes {
		if why := n.unfit(); why != "" {
			w.Reasons = append(w.Reasons, api.Reason{Node: n.Name, Because: why})
		}
	}
	w.IfOwnerDies = new("no other node can take it")
	if r := a.rank(g, g.owner); len(r) > 0 && a.quorum() {
		w.IfOwnerDies = new(r[0] + " takes over")
	}
	return w, a.noQuorum()
}

// Heartbeat is that of a node file without ping nodes.
func (a *agent) Heartbeat() api.Heartbeat {
	return api.Heartbeat{Nodes: api.List[string]{"primary", "secondary", "arbiter"}, Parameters: api.Params{"deadtime": "1000ms"}}
}

func (a *agent) Version() api.Version {
	return api.Version{Version: "model", Go: "go1.26", Node: a.self, Cluster: a.name}
}
