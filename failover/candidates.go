package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/linkstate"
	"hanode/internal/spec"
)

// Candidate is one node's standing for one group.
type Candidate struct {
	Node     string
	Eligible bool
	Score    int // higher wins; equal: by name
	Because  string
	// Failed: it would be eligible, had the group not failed there lately.
	Failed bool
	// Alone: another group that must be with it could not be there.
	Alone bool
}

// preferStep is what one place in the prefer list is worth: more than any load.
const preferStep = 100_000

// hungStep is what a disk that hangs costs: more than any preference.
const hungStep = 1000 * preferStep

// aloneStep is what it costs that a group which must be with it cannot be there: more
// than all of these, because half of what belongs together is of little use.
const aloneStep = 10 * hungStep

// settleStep is what a device costs that lost its carrier lately: more than any
// preference too, and less than a disk that hangs.
const settleStep = hungStep / 2

// pingStep is what each ping node costs that others reach and it does not: more than any
// preference, and all of them less than a device that lost its carrier.
const pingStep = settleStep / 4

// Candidates lists every member's standing for group g, best first, while the other
// groups are at their places.
func Candidates(in Inputs, g *fsm.Group, at Places) []Candidate {
	var out []Candidate
	for _, name := range in.State.NodeNames() {
		n := in.State.Nodes[name]
		c := Candidate{Node: name}
		if why := ineligible(in, n, g); why != "" {
			c.Because = why
			out = append(out, c)
			continue
		}
		f := g.Failed[name]
		if left := in.Avoid[Place{g.Spec.Name, name}]; left > 0 && f.Count > 0 {
			c.Because = fmt.Sprintf("failed here (%s): %s; it is tried again in %v", times(f.Count), f.Why, Seconds(left))
			c.Failed = true
			out = append(out, c)
			continue
		}
		if why := at.forbids(g, name); why != "" {
			c.Because = why
			out = append(out, c)
			continue
		}
		c.Eligible = true
		weight, others := at.load(g, name)
		c.Score = -weight
		c.Because = fmt.Sprintf("not in prefer; owns %d other groups", others)
		if weight != others {
			c.Because += fmt.Sprintf(" of weight %d", weight)
		}
		if i := slices.Index(g.Spec.Prefer, name); i >= 0 {
			c.Score += preferStep * (len(g.Spec.Prefer) - i)
			c.Because = fmt.Sprintf("number %d in prefer", i+1)
		}
		if f.Count > 0 {
			c.Because += fmt.Sprintf("; failed here before (%s)", times(f.Count))
		}
		if g.Spec.With != "" {
			c.Because = "with " + g.Spec.With
		}
		if why := at.misses(in, g, name); why != "" && g.Spec.With == "" {
			c.Alone = true
			c.Score -= aloneStep
			c.Because += ", but " + why
		}
		if in.Health[name].Hung {
			c.Score -= hungStep
			c.Because += ", but its disk hangs"
		}
		if n := in.Health[name].Unreached; n > 0 {
			c.Score -= pingStep * min(n, 3)
			c.Because += fmt.Sprintf(", but it reaches fewer ping nodes (by %d)", n)
		} else if in.Health[name].Regained {
			c.Score -= pingStep / 2
			c.Because += ", but it reached fewer ping nodes lately"
		}
		if l, ok := linkstate.Of(in.Health[name].Links, g.Spec); ok && l.State == linkstate.Settling {
			c.Score -= settleStep
			c.Because += fmt.Sprintf(", but its %s was without a carrier lately", l.Dev)
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b Candidate) int {
		if a.Eligible != b.Eligible {
			if a.Eligible {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Node, b.Node))
	})
	return out
}

// ineligible says why node n cannot be given group g now, or "".
func ineligible(in Inputs, n *fsm.Node, g *fsm.Group) string {
	h := in.Health[n.Name]
	switch {
	case n.Role != spec.RoleNode:
		return "a witness owns nothing"
	case n.Inc == 0:
		return "never registered"
	case n.Leaving:
		return "leaving the cluster"
	case n.Standby:
		return "standby"
	case n.Stopped:
		return "stopped in order"
	case n.Fenced:
		return "fenced; it has not registered anew"
	case h.Dead:
		return "dead: " + h.Why
	case !h.Alive || h.Inc != n.Inc:
		return "not heard"
	case !h.Leased:
		return "alive but without a lease"
	case h.Behind:
		return "alive, still catching up"
	case h.Hung && g != nil && needsDisk(g.Spec):
		return "its disk hangs, and a service is noted there before it starts"
	case g != nil && linkDown(h, g.Spec) != "":
		return "its " + linkDown(h, g.Spec)
	case g != nil && in.Lacks[n.Name][g.Spec.Name] != "":
		return in.Lacks[n.Name][g.Spec.Name]
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}

// Seconds is d in whole seconds, never less than d: for people who wait for its end.
func Seconds(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

// needsDisk: all but addresses are noted on the disk before they start, so that an
// agent that was killed finds them again.
func needsDisk(g spec.Group) bool {
	return slices.ContainsFunc(g.Resources, func(r spec.Resource) bool { return r.Type != "ip" })
}

// Load counts the groups each node owns.
func Load(s *fsm.State) map[string]int {
	load := map[string]int{}
	for _, g := range s.Groups {
		if !g.Deleted && !g.Owner.Zero() {
			load[g.Owner.Name]++
		}
	}
	return load
}
