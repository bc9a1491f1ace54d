package apitest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"hanode/api"
	"hanode/internal/spec"
)

func (a *agent) Plan(_ context.Context, groups []spec.Group) (*api.Plan, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	return &api.Plan{Changes: a.plan(groups)}, nil
}

func (c *Cluster) plan(groups []spec.Group) []api.Change {
	var out []api.Change
	wanted := map[string]bool{}
	for _, w := range groups {
		wanted[w.Name] = true
		g := c.group(w.Name)
		ch := api.Change{Group: w.Name}
		switch {
		case g == nil:
			ch.Action = api.ActionAdd
			if r := c.rank(&group{Group: w}, ""); len(r) > 0 {
				ch.Text = "starts on " + r[0]
			} else {
				ch.Text = "waits for a node that can own it"
			}
		case reflect.DeepEqual(g.Group, w):
			ch.Action, ch.Text = api.ActionKeep, "stays on "+nobody(g.owner)
		default:
			ch.Action, ch.Text = api.ActionChange, "stays on "+nobody(g.owner)
			ch.Stops = !reflect.DeepEqual(g.Resources, w.Resources)
			if ch.Stops {
				ch.Text = "restarts what changed, on " + nobody(g.owner)
			}
			next := &group{Group: w, owner: g.owner, pinned: g.pinned}
			if r := c.rank(next, ""); len(r) > 0 && w.Failback.On && !g.pinned && c.place(next, r[0]) < c.place(next, g.owner) {
				ch.Moves, ch.Text = true, fmt.Sprintf("moves: %s -> %s", nobody(g.owner), r[0])
			}
		}
		out = append(out, ch)
	}
	for _, g := range c.groups {
		if !wanted[g.Name] {
			out = append(out, api.Change{
				Group: g.Name, Action: api.ActionRemove, Stops: g.owner != "",
				Text: "stops on " + nobody(g.owner) + " and is removed",
			})
		}
	}
	slices.SortFunc(out, func(x, y api.Change) int { return strings.Compare(x.Group, y.Group) })
	return out
}

func (a *agent) Apply(_ context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	res := &api.ApplyResult{Changes: a.plan(req.Groups)}
	var next []*group
	for _, w := range req.Groups {
		g := a.group(w.Name)
		if g == nil {
			g = &group{epoch: a.epochs[w.Name], since: a.now()}
		}
		g.Group = w
		next = append(next, g)
	}
	for _, g := range a.groups {
		if !slices.Contains(next, g) {
			a.note(g.owner, g.Name, g.epoch, "removed", "apply", g.Name+" is removed", 0)
		}
	}
	slices.SortFunc(next, func(x, y *group) int { return strings.Compare(x.Name, y.Name) })
	a.groups = next
	a.settle("started", "apply")
	var down []string
	for _, g := range a.groups {
		res.Groups = append(res.Groups, a.groupStatus(g))
		if g.owner == "" {
			down = append(down, g.Name)
		}
	}
	if len(down) > 0 {
		return res, refused("not-running", fmt.Sprintf("applied, but not running after %v: %s", req.Wait, strings.Join(down, ", ")),
			"hanode why "+down[0])
	}
	return res, nil
}
