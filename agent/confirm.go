package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/id"
)

// ConfirmOff takes an operator's word that a node's host is off.
func (a *Agent) ConfirmOff(ctx context.Context, req api.ConfirmOffRequest) (*api.ConfirmOffResult, error) {
	res, err := ask(ctx, a, writePatience, func() (*api.ConfirmOffResult, error) { return direct{a}.ConfirmOff(ctx, req) },
		func(c *api.Client) (*api.ConfirmOffResult, error) { return c.ConfirmOff(ctx, req) })
	if e, ok := errors.AsType[*api.Error](err); ok && e.Exit == api.ExitNoQuorum && a.manual() {
		return a.confirmAlone(ctx, req)
	}
	return res, err
}

// ConfirmOff answers a forwarded call. What it cannot check it asks for as a typed
// sentence; what it can, it checks: nobody is off who is heard.
func (d direct) ConfirmOff(ctx context.Context, req api.ConfirmOffRequest) (*api.ConfirmOffResult, error) {
	in := d.inputs()
	off, err := offable(in, req.Node)
	if err != nil {
		return nil, err
	}
	res := &api.ConfirmOffResult{Node: req.Node, Confirm: off.sentence, Groups: off.groups}
	for _, ref := range off.refs {
		res.Incarnations = append(res.Incarnations, ref.Inc)
	}
	if strings.TrimSpace(req.Confirm) != off.sentence {
		return res, fail(api.CodeNeedsConfirmation, fmt.Sprintf("if that is certain: hanode confirm-off %s --confirm %q", req.Node, off.sentence),
			"%s: if the host has had power all the time, %s may be damaged by two writers", off.text, off.what())
	}
	for _, ref := range off.refs {
		if err := d.commit(ctx, fsm.Command{PowerOff: &fsm.PowerOff{Node: ref, By: "confirmed by an operator"}}); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// off is what may be confirmed about a node.
type off struct {
	refs     []id.NodeRef // oldest first
	groups   []string     // that they may run
	sentence string       // what the operator must say
	text     string       // what it means
}

func (o off) what() string {
	if len(o.groups) == 0 {
		return "what it ran"
	}
	return strings.Join(o.groups, ", ")
}

// offable says which registrations of a node can be called off: those that may
// still hold something, and none that is heard. A host that was switched on again
// is heard under a newer one; that its older ones ended with the power is for the
// operator to say, for a clone of it would look the same (R8).
func offable(in failover.Inputs, node string) (off, error) {
	n := in.State.Nodes[node]
	if n == nil {
		return off{}, fail(api.CodeNotFound, "the members are: "+strings.Join(in.State.NodeNames(), ", "), "there is no node %q", node)
	}
	refs, groups := map[id.NodeRef]bool{}, map[string]bool{}
	for name, g := range in.State.Groups {
		held := func(r id.NodeRef) {
			if r.Name == node && (!n.Off || r != n.Ref()) {
				refs[r], groups[name] = true, true
			}
		}
		for _, w := range g.Waits {
			if !w.Off {
				held(w.Node)
			}
		}
		if !g.OwnerReleased {
			held(g.Owner)
		}
	}
	h := in.Health[node]
	o := off{sentence: node + " is off", text: node + " is not heard, but it may run without its network"}
	heard := ""
	switch {
	case h.Alive && h.Inc == 0:
		heard = "its agent is heard; it registers in a moment"
	case h.Alive:
		heard = "its beats are heard"
		maps.DeleteFunc(refs, func(r id.NodeRef, _ bool) bool { return r.Inc >= h.Inc })
		o.sentence = node + " was off"
		o.text = fmt.Sprintf("%s is heard as incarnation %d; something it ran as an older one may still run, unless its host was switched off since", node, h.Inc)
	case n.Registered() && !h.Dead:
		heard = "a majority of the voters still hears it, or heard it a moment ago"
	}
	switch {
	case heard != "" && (len(refs) == 0 || !h.Alive || h.Inc == 0):
		return off{}, fail("node-heard", "a node that is heard is not off: switch it off, or let it go on", "%s is not off: %s", node, heard)
	case len(refs) == 0:
		return off{}, fail("nothing-to-confirm", "`hanode status` shows what is wrong", "nothing waits for %s", node)
	}
	o.refs = slices.SortedFunc(maps.Keys(refs), func(a, b id.NodeRef) int { return int(a.Inc) - int(b.Inc) })
	for name := range groups {
		if slices.ContainsFunc(o.refs, func(r id.NodeRef) bool { return holds(in.State.Groups[name], r) }) {
			o.groups = append(o.groups, name)
		}
	}
	slices.Sort(o.groups)
	return o, nil
}

// holds reports whether r may still hold g.
func holds(g *fsm.Group, r id.NodeRef) bool {
	return g.Owner == r && !g.OwnerReleased || slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return w.Node == r })
}
