package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/api"
)

func (a *agent) Move(_ context.Context, req api.MoveRequest) (*api.MoveResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	g := a.group(req.Group)
	if g == nil {
		return nil, a.noGroup(req.Group)
	}
	if req.Unpin {
		g.pinned = false
		for _, m := range a.settle("failback", "unpinned") {
			if m.Group == g.Name {
				return &m, nil
			}
		}
		return &api.MoveResult{Group: g.Name, From: api.Known(g.owner), To: g.owner, Epoch: g.epoch}, nil
	}
	to := req.To
	if to == "" {
		r := a.rank(g, g.owner)
		if len(r) == 0 {
			return nil, refused("nowhere-to-go", "no other node can own "+g.Name, "hanode why "+g.Name)
		}
		to = r[0]
	}
	n := a.node(to)
	if n == nil {
		return nil, a.noNode(to)
	}
	if why := n.unfit(); why != "" {
		return nil, refused("not-eligible", fmt.Sprintf("%s cannot own %s: %s", to, g.Name, why), "hanode why "+g.Name)
	}
	g.pinned = true
	if to == g.owner {
		return &api.MoveResult{Group: g.Name, From: &to, To: to, Epoch: g.epoch}, nil
	}
	m := a.assign(g, to, "switchover", "move")
	return &m, nil
}

func (a *agent) Standby(_ context.Context, name string, on bool, _ time.Duration) (*api.NodeResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	n := a.node(name)
	if n == nil {
		return nil, a.noNode(name)
	}
	n.standby = on
	if on {
		return &api.NodeResult{Node: name, Standby: on, Moves: a.settle("switchover", name+" went on standby")}, nil
	}
	return &api.NodeResult{Node: name, Standby: on, Moves: a.settle("failback", name+" is online")}, nil
}

func (a *agent) Maintenance(_ context.Context, on bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return err
	}
	a.maintenance = on
	a.note("", "", 0, "maintenance", "", fmt.Sprintf("maintenance: %v", on), 0)
	a.settle("failover", "maintenance is over")
	return nil
}

func (a *agent) Clear(_ context.Context, req api.ClearRequest) (*api.ClearResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	if req.Group != "" && a.group(req.Group) == nil {
		return nil, a.noGroup(req.Group)
	}
	if req.Node != "" && a.node(req.Node) == nil {
		return nil, a.noNode(req.Node)
	}
	res := &api.ClearResult{}
	for _, g := range a.groups {
		for _, n := range slices.Sorted(maps.Keys(g.failed)) {
			if (req.Group == "" || req.Group == g.Name) && (req.Node == "" || req.Node == n) {
				delete(g.failed, n)
				res.Cleared = append(res.Cleared, api.Cleared{Group: g.Name, Node: n})
				a.note(n, g.Name, g.epoch, "cleared", "", g.Name+" may be tried on "+n+" again", 0)
			}
		}
	}
	a.settle("failure", "cleared")
	return res, nil
}

func (a *agent) ConfirmOff(_ context.Context, req api.ConfirmOffRequest) (*api.ConfirmOffResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	n := a.node(req.Node)
	if n == nil {
		return nil, a.noNode(req.Node)
	}
	if n.alive {
		return nil, refused("node-heard", n.Name+" is not off: its beats are heard", "switch it off, or let it go on")
	}
	res := &api.ConfirmOffResult{Node: n.Name, Confirm: n.Name + " is off", Incarnations: []uint64{1}}
	for _, g := range a.groups {
		if g.owner == n.Name && g.blocked(n) {
			res.Groups = append(res.Groups, g.Name)
		}
	}
	if req.Confirm != res.Confirm {
		return res, refused(api.CodeNeedsConfirmation, n.Name+" is not heard, but it may run without its network",
			fmt.Sprintf("if it is off: hanode confirm-off %s --confirm %q", n.Name, res.Confirm))
	}
	n.off = true
	a.settle("failover", n.Name+" is off")
	return res, nil
}

func (a *agent) Leave(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return err
	}
	n := a.node(a.self)
	if n == nil {
		return a.noNode(a.self)
	}
	n.left = true
	a.note(a.self, "", 0, "left", "leave", a.self+" left", 0)
	a.settle("switchover", a.self+" left")
	return nil
}
