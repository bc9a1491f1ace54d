package fsm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// takeover is R3: fence and assignments in one entry. An assignment that does
// not fit is left out with a reason; the fence stands.
func (s *State) takeover(c *Takeover, at time.Time) Result {
	var res Result
	if !c.Fence.Zero() {
		n := s.Nodes[c.Fence.Name]
		if n == nil || n.Inc != c.Fence.Inc {
			return rejected("%s is not a registration of record", c.Fence)
		}
		if !n.Fenced {
			n.Fenced = true
			s.event(Event{Time: at, Node: n.Name, Kind: "fenced", Cause: c.Cause, Text: fmt.Sprintf("%s fenced: %s", c.Fence, c.WhyFence)})
		}
		for name, g := range s.Groups {
			if g.Owner == c.Fence {
				g.Started = false
				res.Touched = append(res.Touched, name)
			}
		}
	}
	for _, a := range c.Assigns {
		if why := s.assign(a, c.Cause, at); why != "" {
			res.Rejected = why
			continue
		}
		res.Touched = append(res.Touched, a.Group)
	}
	return res
}

func (s *State) assign(a Assign, cause string, at time.Time) string {
	g := s.Groups[a.Group]
	if g == nil || g.Deleted {
		return fmt.Sprintf("group %s does not exist", a.Group)
	}
	if g.Epoch == a.Epoch && g.Owner == a.To {
		return "" // the same assignment, proposed twice
	}
	if g.Epoch+1 != a.Epoch {
		return fmt.Sprintf("group %s is at epoch %d, so %d cannot be next", a.Group, g.Epoch, a.Epoch)
	}
	n := s.Nodes[a.To.Name]
	if !n.Registered() || n.Inc != a.To.Inc {
		return fmt.Sprintf("%s is not registered, or fenced", a.To)
	}
	if n.Role != spec.RoleNode || n.Leaving {
		return fmt.Sprintf("%s may not own groups", a.To.Name)
	}
	from := g.Owner
	g.advance(s.Voters, a.Released)
	g.Owner, g.OwnerHost, g.OwnerBound = a.To, n.HostID, n.Bound
	g.Cause, g.Since, g.Pinned = cause, at, a.Pin
	text := fmt.Sprintf("%s assigned to %s", a.Group, a.To.Name)
	if !from.Zero() && from.Name != a.To.Name {
		text = fmt.Sprintf("%s: %s -> %s", a.Group, from.Name, a.To.Name)
	}
	if a.Why != "" {
		text += ": " + a.Why
	}
	s.event(Event{Time: at, Node: a.To.Name, Group: a.Group, Epoch: g.Epoch, Kind: "assigned", Cause: cause, Text: text})
	return ""
}

// advance opens the next epoch: whoever held or may hold the group and is not
// known to have let go becomes a wait. The old owner is put there by Apply and
// not by the proposer, so that no leader can forget it.
func (g *Group) advance(voters VoterList, released []id.Claim) {
	if !g.Owner.Zero() && !g.OwnerReleased {
		g.Waits = append(g.Waits, g.ownerClaim())
	}
	g.Waits = slices.DeleteFunc(g.Waits, func(w Wait) bool { return slices.Contains(released, w.Claim) })
	g.Epoch++
	g.Owner, g.OwnerHost, g.OwnerBound = id.NodeRef{}, "", 0
	g.OwnerReleased, g.Started = false, false
	g.Voters = voters
}

func (s *State) holding(c *Holding) Result {
	g := s.Groups[c.Group]
	if g == nil || g.Epoch != c.Epoch || g.Owner != c.Node || g.OwnerReleased {
		return rejected("%s does not own %s at epoch %d", c.Node, c.Group, c.Epoch)
	}
	changed := len(g.Waits) > 0 || g.Started != c.Started
	g.Waits = nil
	g.Started = c.Started
	if c.Started {
		g.Adopt = Adoption{} // used, or not needed
	}
	s.report(c.Events)
	if !changed {
		return Result{}
	}
	return Result{Touched: []string{c.Group}}
}

// holdings is rejected if none of them is true any more.
func (s *State) holdings(c *Holdings) Result {
	var all Result
	held := 0
	for i := range c.All {
		res := s.holding(&c.All[i])
		if res.Rejected == "" {
			held++
		}
		all.Rejected = cmp.Or(all.Rejected, res.Rejected)
		all.Touched = append(all.Touched, res.Touched...)
	}
	if held > 0 {
		all.Rejected = ""
	}
	return all
}

func (s *State) released(c *Released, at time.Time) Result {
	var res Result
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		before := len(g.Waits)
		g.Waits = slices.DeleteFunc(g.Waits, func(w Wait) bool { return slices.Contains(c.Claims, w.Claim) })
		touched := len(g.Waits) != before
		if !g.Owner.Zero() && !g.OwnerReleased && slices.Contains(c.Claims, g.ownerClaim().Claim) {
			g.OwnerReleased, g.Started, touched = true, false, true
			if c.Failed != "" {
				s.count(g, Failed{Node: g.Owner, Epoch: g.Epoch, Why: c.Failed}, at)
			}
		}
		if touched {
			res.Touched = append(res.Touched, name)
		}
	}
	return res
}

// powerOff is R4's "confirmed power fencing". It is about one registration: what
// (n,k) ran ended with the power, while (n,k+1), on a host that was switched on
// again or on a clone, may run something. It takes no wait away, it marks it: an
// address waits for EXPIRED all the same, so that a word that was wrong can make
// two hosts run a service, but not two answer for an address.
func (s *State) powerOff(c *PowerOff, at time.Time) Result {
	n := s.Nodes[c.Node.Name]
	if n == nil || c.Node.Inc == 0 || c.Node.Inc > n.Inc {
		return rejected("%s was never registered", c.Node)
	}
	var res Result
	news := false
	if n.Inc == c.Node.Inc && !n.Off {
		n.Fenced, n.Off, news = true, true, true
	}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		touched := false
		for i, w := range g.Waits {
			if w.Node == c.Node && !w.Off {
				g.Waits[i].Off, touched = true, true
			}
		}
		if g.Owner == c.Node && g.Started {
			g.Started, touched = false, true
		}
		if touched {
			res.Touched = append(res.Touched, name)
		}
	}
	if news || len(res.Touched) > 0 {
		s.event(Event{Time: at, Node: n.Name, Kind: "power-off", Cause: c.By, Text: fmt.Sprintf("%s is known to be off: %s", c.Node, c.By)})
	}
	return res
}
