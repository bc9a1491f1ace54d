package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// operator gives commands during the faults, one after the other, and holds the
// cluster to every answer it gets.
type operator struct {
	*lab
	rng   *rand.Rand
	tally *tally
	done  uint64 // index that every later state must have reached
}

// work goes on until stop closes.
func (o *operator) work(stop <-chan struct{}) {
	for {
		t := time.NewTimer(span(o.rng, 50*time.Millisecond, 4*time.Second))
		select {
		case <-stop:
			t.Stop()
			return
		case <-o.broken:
			t.Stop()
			return
		case <-t.C:
		}
		o.command()
	}
}

func (o *operator) command() {
	// Everything is drawn first, so that the schedule does not depend on answers.
	x, who, group, limit := o.rng.Float64(), o.rng.IntN(60), o.rng.IntN(60), span(o.rng, 0, 3*time.Second)
	groups := variant(o.rng, o.names(spec.RoleNode))
	a, _ := o.hosts[o.nodes[who%len(o.nodes)].Name].running()
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	owners := o.names(spec.RoleNode)
	node := owners[group%len(owners)]
	switch {
	case x < 0.45:
		o.move(ctx, a, group, node, limit)
	case x < 0.75 && node == newcomer:
		return // it may come and go, and standby with it
	case x < 0.60:
		o.standby(ctx, a, node, true, limit)
	case x < 0.75:
		o.standby(ctx, a, node, false, limit)
	case x < 0.90:
		o.apply(ctx, a, groups, limit)
	default:
		o.maintenance(ctx, a, group%3 == 0)
	}
}

func (o *operator) names(role spec.Role) (out []string) {
	for _, n := range o.nodes {
		if n.Role == role {
			out = append(out, n.Name)
		}
	}
	return out
}

// variant draws a wanted set: one to three of the groups, each with one of the
// addresses, so that addresses also change hands.
func variant(rng *rand.Rand, owners []string) []spec.Group {
	addrs := rng.Perm(4)
	var out []spec.Group
	for i, name := range []string{"db", "mail", "web"} {
		keep, at, prefer, back := rng.Float64() < 0.8, addrs[i], rng.Perm(len(owners)), rng.IntN(3)
		if rng.Float64() < 0.6 {
			at = i
		}
		if !keep && name != "web" {
			continue
		}
		g := groupOf(name, fmt.Sprintf("10.77.0.%d", 100+at))
		for _, p := range prefer[:rng.IntN(len(owners)+1)] {
			g.Prefer = append(g.Prefer, owners[p])
		}
		g.Failback = spec.Failback{On: back > 0, After: time.Duration(max(0, back-1)) * time.Second}
		out = append(out, g)
	}
	return out
}

// told notes a command and whether it was acknowledged.
func (o *operator) told(what string, err error) bool {
	if err == nil {
		o.tally.add("operator: "+what, 1, 1)
		_, o.done = o.ledger.position()
		return true
	}
	o.tally.add("operator: "+what, 1, 0)
	return false
}

func (o *operator) move(ctx context.Context, a *Agent, n int, to string, limit time.Duration) {
	var names []string
	o.view(func(s *fsm.State) { names = s.GroupNames() })
	if len(names) == 0 {
		return
	}
	group := names[n/7%len(names)]
	call := o.hist.stamp()
	res, err := a.Move(ctx, api.MoveRequest{Group: group, To: to, Wait: limit})
	o.note("operator at %s: move %s to %s: %+v %v", a.cfg.Name, group, to, res, err)
	if !o.told("move", err) {
		return
	}
	o.hist.did(act{object: "group " + group, kind: "moved", who: to, epoch: id.Epoch(res.Epoch)}, call)
	if g, ok := o.ledger.at(group, id.Epoch(res.Epoch)); !ok || g.owner.Name != to {
		o.fail("a move of %s to %s was acknowledged at epoch %d, which is %v", group, to, res.Epoch, g)
	}
}

// changes reports whether a command changes the newest state, and after which event. It does
// not say so of an older state: who has just started applies its log again.
func (o *operator) changes(differs func(*fsm.State) bool) (after uint64, yes bool) {
	after, _ = o.ledger.position()
	o.view(func(s *fsm.State) { yes = s.EventSeq >= after && differs(s) })
	return after, yes
}

func (o *operator) standby(ctx context.Context, a *Agent, node string, on bool, limit time.Duration) {
	before, changes := o.changes(func(s *fsm.State) bool { return (s.Nodes[node] != nil && s.Nodes[node].Standby) != on })
	call := o.hist.stamp()
	_, err := a.Standby(ctx, node, on, limit)
	o.wrote(act{object: "standby " + node, value: fmt.Sprint(on)}, call, err)
	o.note("operator at %s: standby %s %v: %v", a.cfg.Name, node, on, err)
	word := map[bool]string{true: "standby", false: "online"}[on]
	if o.told(word, err) && changes && !o.ledger.happened(before, func(e fsm.Event) bool { return e.Kind == word && e.Node == node }) {
		o.fail("%s %s was acknowledged, but is not in the log", word, node)
	}
}

func (o *operator) apply(ctx context.Context, a *Agent, groups []spec.Group, limit time.Duration) {
	call := o.hist.stamp()
	res, err := a.Apply(ctx, api.ApplyRequest{Groups: groups, Wait: limit})
	o.note("operator at %s: apply %v: %+v %v", a.cfg.Name, groups, res, err)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == "not-running" {
		err = nil // applied, only not running yet
	}
	o.wrote(act{object: "wanted", value: digestOf(groups)}, call, err)
	if o.told("apply", err) && !o.ledger.wanted(digestOf(groups)) {
		o.fail("an apply was acknowledged, but no state ever had these groups: %v", groups)
	}
}

func (o *operator) maintenance(ctx context.Context, a *Agent, on bool) {
	before, changes := o.changes(func(s *fsm.State) bool { return s.Maintenance != on })
	call := o.hist.stamp()
	err := a.Maintenance(ctx, on)
	o.wrote(act{object: "maintenance", value: fmt.Sprint(on)}, call, err)
	o.note("operator at %s: maintenance %v: %v", a.cfg.Name, on, err)
	if o.told("maintenance", err) && changes && !o.ledger.happened(before, func(e fsm.Event) bool { return e.Kind == "maintenance" }) {
		o.fail("maintenance %v was acknowledged, but is not in the log", on)
	}
}

// wrote notes a write of a register; without an acknowledgement it may come later,
// or never.
func (o *operator) wrote(a act, call int64, err error) {
	a.kind = "write"
	if err != nil {
		o.hist.may(a, call)
		return
	}
	o.hist.did(a, call)
}

// read reads the committed state as any node can: it asks the leader for a mark
// (R5 rests on the same one) and looks at its own copy once that has reached it.
func (o *operator) read(a *Agent) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	call := o.hist.stamp()
	n := a.node.Load()
	if n == nil {
		return false
	}
	mark, err := n.Mark(ctx)
	if to, _ := n.Leader(); errors.Is(err, cluster.ErrNotLeader) && to != "" && to != a.cfg.Name {
		mark, err = a.peers.Mark(ctx, to)
	}
	if err != nil {
		return false
	}
	for ctx.Err() == nil {
		var acts []act
		a.machine.View(func(s *fsm.State) {
			if s.Index >= mark && s.Founded() {
				acts = reads(s)
			}
		})
		for _, act := range acts {
			o.hist.did(act, call)
		}
		if len(acts) > 0 {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// reads is what a reader of this state learns.
func reads(s *fsm.State) []act {
	out := []act{
		{object: "maintenance", kind: "read", value: fmt.Sprint(s.Maintenance)},
		{object: "wanted", kind: "read", value: digestOf(s.Specs())},
	}
	for _, n := range s.Nodes {
		if n.Role == spec.RoleNode && n.Name != newcomer {
			out = append(out, act{object: "standby " + n.Name, kind: "read", value: fmt.Sprint(n.Standby)})
		}
	}
	for name, g := range s.Groups {
		if g.Epoch > 0 {
			out = append(out, act{object: "group " + name, kind: "is", who: g.Owner.Name, epoch: g.Epoch})
		}
	}
	return out
}

// readOn reads on some node now and then until stop closes.
func (o *operator) readOn(rng *rand.Rand, stop <-chan struct{}) {
	for {
		t := time.NewTimer(span(rng, 100*time.Millisecond, 900*time.Millisecond))
		select {
		case <-stop:
			t.Stop()
			return
		case <-o.broken:
			t.Stop()
			return
		case <-t.C:
		}
		took := 0
		if a, _ := o.order[rng.IntN(len(o.order))].running(); a != nil && o.read(a) {
			took = 1
		}
		o.tally.add("reads of the committed state", 1, took)
	}
}

// calm undoes what operators may have left: it asks until it is told "done".
func (o *operator) calm(limit time.Duration) bool {
	todo := []func(context.Context, *Agent) error{
		func(ctx context.Context, a *Agent) error {
			call := o.hist.stamp()
			err := a.Maintenance(ctx, false)
			o.wrote(act{object: "maintenance", value: "false"}, call, err)
			return err
		},
	}
	for _, n := range o.names(spec.RoleNode) {
		todo = append(todo, func(ctx context.Context, a *Agent) error {
			if n == newcomer || o.hosts[n].hasLeft() {
				return nil
			}
			call := o.hist.stamp()
			_, err := a.Standby(ctx, n, false, 0)
			o.wrote(act{object: "standby " + n, value: "false"}, call, err)
			return err
		})
	}
	end := time.Now().Add(limit)
	for i := 0; len(todo) > 0 && time.Now().Before(end); i++ {
		a, _ := o.hosts[o.nodes[i%len(o.nodes)].Name].running()
		if a != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			err := todo[0](ctx, a)
			cancel()
			o.note("operator at %s: calm, %d to go: %v", a.cfg.Name, len(todo), err)
			if err == nil {
				todo = todo[1:]
				continue
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return len(todo) == 0
}
