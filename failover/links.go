package failover

import (
	"fmt"
	"slices"

	"hanode/fsm"
	"hanode/internal/linkstate"
	"hanode/internal/spec"
)

// linkDown says why clients cannot reach g's addresses on a node, as in "eth1 has no
// carrier"; "" if they can.
func linkDown(h Health, g spec.Group) string {
	if l, ok := linkstate.Of(h.Links, g); ok && l.State == linkstate.Down {
		return l.Dev + " " + l.Why
	}
	return ""
}

// cutOffWith: clients do not reach a group that must be with g, and there is a node for all
// of them.
func (p *planner) cutOffWith(g *fsm.Group) bool {
	if g.Spec.With != "" {
		return false
	}
	if !slices.ContainsFunc(p.at.units[g], func(o *fsm.Group) bool {
		return o != g && o.Owner == g.Owner && linkDown(p.in.Health[g.Owner.Name], o.Spec) != ""
	}) {
		return false
	}
	best, ok := Best(p.at, g)
	return ok && !best.Alone && best.Node != g.Owner.Name
}

// Unreachable says why clients cannot reach group g although its owner is well: its
// device carries nothing, and no other node can take the group. "" if they can, or if
// it moves.
func Unreachable(in Inputs, g *fsm.Group) string {
	if g.Owner.Zero() || g.OwnerReleased {
		return ""
	}
	h := in.Health[g.Owner.Name]
	why := linkDown(h, g.Spec)
	if why == "" || h.Dead {
		return ""
	}
	if _, ok := Best(PlacesOf(in), g); ok {
		return ""
	}
	return fmt.Sprintf("%s stays on %s, whose %s, because no other node can take it", g.Spec.Name, g.Owner.Name, why)
}
