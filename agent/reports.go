package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
	"hanode/resource"
)

// What the programs of a group printed is kept on the node that ran them. `status
// GROUP` has it: the agent that is asked asks the others, each for itself, so that it
// can be seen without a leader too.

// reportLimit bounds asking the nodes.
const reportLimit = 2 * time.Second

// reportBytes bounds the outputs of one report together; if there are more, each is cut to
// its share.
const reportBytes = 2 << 20

// Report answers another node, or this one's own status.
func (s service) Report(group string) peer.Report {
	var out peer.Report
	w := s.a.groups.get(group)
	if w == nil {
		return out
	}
	all := append(w.warm.res.Status(), w.res.Status()...)
	total, n := 0, 0
	for _, r := range all {
		for _, op := range r.Operations {
			total, n = total+len(op.Output), n+1
		}
	}
	for _, r := range all {
		if len(r.Operations) == 0 && r.State == resource.Stopped {
			continue // nothing was ever done with it here
		}
		x := peer.Resource{Type: r.Type, Name: r.Name, State: string(r.State), Err: r.Err}
		for _, op := range r.Operations {
			if total > reportBytes {
				op.Output = op.End(reportBytes / n)
			}
			x.Operations = append(x.Operations, peer.Operation{
				Name: op.Name, At: op.At, Took: op.Took, Running: op.Running, Err: op.Err, Output: op.Output,
			})
		}
		out.Resources = append(out.Resources, x)
	}
	return out
}

// addReports asks the nodes that have, or had, something to do with a group what they
// know of it, and adds that.
func (a *Agent) addReports(ctx context.Context, s *api.Status, group string) {
	i := slices.IndexFunc(s.Groups, func(g api.GroupStatus) bool { return g.Name == group })
	if i < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	nodes := a.concerned(group)
	list := make(api.List[api.NodeReport], len(nodes))
	var wg sync.WaitGroup
	for k, node := range nodes {
		wg.Go(func() { list[k] = a.reportOf(ctx, node, group) })
	}
	wg.Wait()
	// A node that has nothing to say of it is left out, but for the owner.
	owner := s.Groups[i].Owner
	list = slices.DeleteFunc(list, func(r api.NodeReport) bool {
		return r.Error == nil && len(r.Resources) == 0 && (owner == nil || *owner != r.Node)
	})
	s.Groups[i].Nodes = &list
}

// concerned lists the nodes that may have run a group, the owner of record first.
func (a *Agent) concerned(group string) []string {
	var out []string
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	now := a.host.Clock.Now()
	a.machine.View(func(s *fsm.State) {
		g := s.Groups[group]
		if g == nil {
			return
		}
		add(g.Owner.Name)
		for _, w := range g.Waits {
			add(w.Node.Name)
		}
		for _, n := range g.FailedOn() {
			add(n)
		}
		for _, n := range s.NodeNames() {
			// Of the others only those that can answer: they may have run it once.
			if s.Nodes[n].Role == spec.RoleNode && (n == a.cfg.Name || !a.isSilent(n, now)) {
				add(n)
			}
		}
	})
	return out
}

// reportOf asks one node.
func (a *Agent) reportOf(ctx context.Context, node, group string) api.NodeReport {
	out := api.NodeReport{Node: node}
	var r peer.Report
	var err error
	switch {
	case node == a.cfg.Name:
		r = service{a}.Report(group)
	case a.isSilent(node, a.host.Clock.Now()):
		err = fmt.Errorf("%s is not heard by %s, so what it ran and printed is not known", node, a.cfg.Name)
	default:
		if r, err = a.peers.Report(ctx, node, group); err != nil {
			err = fmt.Errorf("what %s ran and printed is not known: %w", node, err)
		}
	}
	if err != nil {
		text := err.Error()
		out.Error = &text
		return out
	}
	for _, x := range r.Resources {
		y := api.ResourceReport{Type: x.Type, Name: x.Name, State: groupStateOf(resource.State(x.State)), Error: api.Known(x.Err)}
		for _, op := range x.Operations {
			y.Operations = append(y.Operations, api.OperationReport{
				Name: op.Name, At: op.At, MS: api.MS(op.Took), Running: op.Running, Error: api.Known(op.Err), Output: op.Output,
			})
		}
		out.Resources = append(out.Resources, y)
	}
	return out
}

// groupStateOf is a resource's state as the API names it.
func groupStateOf(s resource.State) *api.GroupState {
	return api.Known(map[resource.State]api.GroupState{
		resource.Stopped: api.GroupStopped, resource.Starting: api.GroupStarting, resource.Running: api.GroupRunning,
		resource.Stopping: api.GroupStopping, resource.Failed: api.GroupFailed,
	}[s])
}
