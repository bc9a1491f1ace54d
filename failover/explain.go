package failover

import (
	"fmt"
	"maps"
)

// Explanation answers `hanode why`.
type Explanation struct {
	Candidates  []Candidate
	IfOwnerDies string
}

// Explain says how every node stands for the group and what would happen if its
// owner died now.
func Explain(in Inputs, group string) (Explanation, error) {
	g := in.State.Groups[group]
	if g == nil || g.Deleted {
		return Explanation{}, fmt.Errorf("group %q does not exist", group)
	}
	e := Explanation{Candidates: Candidates(PlacesOf(in), g)}
	if why := waits(in, g); why != "" {
		for i := range e.Candidates {
			if e.Candidates[i].Eligible {
				e.Candidates[i].Because += "; but " + why
			}
		}
	}
	if g.Owner.Zero() {
		e.IfOwnerDies = "nobody owns it"
		return e, nil
	}
	if g.OwnerReleased {
		e.IfOwnerDies = "nothing changes: it let go, and holds nothing of it"
		return e, nil
	}
	if in.State.Maintenance {
		e.IfOwnerDies = "nothing: maintenance is on"
		return e, nil
	}
	if in.State.Manual {
		e.IfOwnerDies = fmt.Sprintf("nothing moves (two_node = \"manual\"): it waits for %s, or for `hanode confirm-off %s`; an orderly stop hands over", g.Owner.Name, g.Owner.Name)
		return e, nil
	}
	without := in
	without.Health = maps.Clone(in.Health)
	without.Health[g.Owner.Name] = Health{Dead: true, Why: "supposed dead"}
	if g.Spec.With != "" {
		e.IfOwnerDies = "it goes where " + g.Spec.With + " goes"
		return e, nil
	}
	if c, ok := Best(PlacesOf(without), g); ok {
		e.IfOwnerDies = fmt.Sprintf("%s takes over %v after its last beat (%s)", c.Node, in.State.Timing.Deadtime, c.Because)
		if why := g.Spec.WhyExclusive(); why != "" {
			e.IfOwnerDies = fmt.Sprintf("%s gets it (%s), but the group is exclusive (%s): it starts there only once %s is known to be off",
				c.Node, c.Because, why, g.Owner.Name)
		}
		return e, nil
	}
	e.IfOwnerDies = "no other node can take it: clients lose it until one can"
	return e, nil
}
