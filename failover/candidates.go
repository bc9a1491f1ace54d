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

// Candidates lists every member's standing for group g, best first, while the groups are
// at their places.
func Candidates(at Places, g *fsm.Group) []Candidate {
	var out []Candidate
	for _, x := range at.nodes {
		c := at.judge(g, x)
		if c.Eligible {
			if why := at.forbids(g, x.Name); why != "" {
				c = Candidate{Node: x.Name, Because: why}
			} else {
				c.Because = at.because(g, x)
			}
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

// Best is the first of Candidates, if that is eligible. Of a thousand nodes it looks at no
// more than it must.
func Best(at Places, g *fsm.Group) (Candidate, bool) {
	if o := other(at.in.State, g.Spec.With); o != nil { // it goes where that is, or nowhere
		return at.bestOf(g, at.named(at.at[o.Spec.Name]))
	}
	// Whoever is not in prefer scores 0 at most.
	if c, ok := at.bestOf(g, at.named(g.Spec.Prefer...)); ok && c.Score > 0 {
		return c, true
	}
	return at.bestOf(g, at.nodes)
}

// named are the members of these names.
func (p Places) named(names ...string) (out []*standing) {
	for _, name := range names {
		if x := p.node[name]; x != nil && x.Node != nil && !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// bestOf is the best of some. What the rules say of a node takes longest to find out, so
// that is asked of the best only, and then of the next.
func (p Places) bestOf(g *fsm.Group, among []*standing) (Candidate, bool) {
	first := func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Node, b.Node))
	}
	var best Candidate
	var able []Candidate // only if there are rules
	for _, x := range among {
		c := p.judge(g, x)
		switch {
		case !c.Eligible:
		case p.ruled:
			able = append(able, c)
		case !best.Eligible || first(c, best) < 0:
			best = c
		}
	}
	for i := 0; i < len(able) && !best.Eligible; i++ {
		switch i { // mostly the first may have it: the others are sorted only if not
		case 0:
			k := 0
			for j := range able {
				if first(able[j], able[k]) < 0 {
					k = j
				}
			}
			able[0], able[k] = able[k], able[0]
		case 1:
			slices.SortFunc(able[1:], first)
		}
		if p.forbids(g, able[i].Node) == "" {
			best = able[i]
		}
	}
	if !best.Eligible {
		return Candidate{}, false
	}
	best.Because = p.because(g, p.node[best.Node])
	return best, true
}

// judge is a node's standing for g but for what the rules forbid, and without the reason
// if it is eligible.
func (p Places) judge(g *fsm.Group, x *standing) Candidate {
	c := Candidate{Node: x.Name}
	if why := p.ineligible(x, g); why != "" {
		c.Because = why
		return c
	}
	f := g.Failed[x.Name]
	if f.Count > 0 {
		if left := p.in.Avoid[Place{g.Spec.Name, x.Name}]; left > 0 {
			c.Because = fmt.Sprintf("failed here (%s): %s; it is tried again in %v", times(f.Count), f.Why, Seconds(left))
			c.Failed = true
			return c
		}
	}
	c.Eligible = true
	weight, _ := x.load(g, p.at[g.Spec.Name])
	c.Score = -weight
	if i := slices.Index(g.Spec.Prefer, x.Name); i >= 0 {
		c.Score += preferStep * (len(g.Spec.Prefer) - i)
	}
	if g.Spec.With == "" && p.misses(g, x) != "" {
		c.Alone = true
		c.Score -= aloneStep
	}
	if x.health.Hung {
		c.Score -= hungStep
	}
	if n := x.health.Unreached; n > 0 {
		c.Score -= pingStep * min(n, 3)
	} else if x.health.Regained {
		c.Score -= pingStep / 2
	}
	if l, ok := linkstate.Of(x.health.Links, g.Spec); ok && l.State == linkstate.Settling {
		c.Score -= settleStep
	}
	return c
}

// because says in words what judge thought of an eligible node.
func (p Places) because(g *fsm.Group, x *standing) string {
	weight, others := x.load(g, p.at[g.Spec.Name])
	why := fmt.Sprintf("not in prefer; owns %d other groups", others)
	if weight != others {
		why += fmt.Sprintf(" of weight %d", weight)
	}
	if i := slices.Index(g.Spec.Prefer, x.Name); i >= 0 {
		why = fmt.Sprintf("number %d in prefer", i+1)
	}
	if f := g.Failed[x.Name]; f.Count > 0 {
		why += fmt.Sprintf("; failed here before (%s)", times(f.Count))
	}
	if g.Spec.With != "" {
		why = "with " + g.Spec.With
	} else if miss := p.misses(g, x); miss != "" {
		why += ", but " + miss
	}
	if x.health.Hung {
		why += ", but its disk hangs"
	}
	if n := x.health.Unreached; n > 0 {
		why += fmt.Sprintf(", but it reaches fewer ping nodes (by %d)", n)
	} else if x.health.Regained {
		why += ", but it reached fewer ping nodes lately"
	}
	if l, ok := linkstate.Of(x.health.Links, g.Spec); ok && l.State == linkstate.Settling {
		why += fmt.Sprintf(", but its %s was without a carrier lately", l.Dev)
	}
	return why
}

// unable says why a node cannot be given any group now, or "".
func unable(n *fsm.Node, h *Health) string {
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
	}
	return ""
}

// ineligible says why a node cannot be given group g now, or "".
func (p Places) ineligible(x *standing, g *fsm.Group) string {
	switch {
	case x.why != "":
		return x.why
	case x.health.Hung && needsDisk(g.Spec):
		return "its disk hangs, and a service is noted there before it starts"
	case linkDown(x.health, g.Spec) != "":
		return "its " + linkDown(x.health, g.Spec)
	case len(p.in.Lacks) > 0 && p.in.Lacks[x.Name][g.Spec.Name] != "":
		return p.in.Lacks[x.Name][g.Spec.Name]
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
