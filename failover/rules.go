package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"hanode/fsm"
	"hanode/internal/id"
)

// Places says on which node each group is, or is to be, and what belongs together. A
// group that was let go of is nowhere. Take it from PlacesOf.
//
// It keeps at hand what a plan looks at for each of many nodes and many groups, so take a
// new one when the inputs change.
type Places struct {
	in     Inputs
	groups []*fsm.Group // that exist, sorted by name
	nodes  []*standing  // members, sorted by name
	node   map[string]*standing
	at     map[string]string // change it by put and lift
	ruled  bool              // some group has a rule about others
	// units has, for each of them, all that must be on one node, sorted, if they are more
	// than one.
	units map[*fsm.Group][]*fsm.Group
}

// standing is what counts of a node for every group alike.
type standing struct {
	*fsm.Node
	health Health
	why    string       // no group can be given to it; "" = that depends
	owns   owned        // what is on it
	here   []*fsm.Group // the groups that are, sorted by name
}

// owned is what the groups on a node weigh, and how many they are.
type owned struct{ weight, n int }

// find is where a group is in here, or would be.
func (x *standing) find(group string) (int, bool) {
	return slices.BinarySearchFunc(x.here, group, func(g *fsm.Group, name string) int { return strings.Compare(g.Spec.Name, name) })
}

// of is a node's standing; one that is no member owns what it owns.
func (p Places) of(node string) *standing {
	x := p.node[node]
	if x == nil {
		x = &standing{why: "no member"}
		p.node[node] = x
	}
	return x
}

// put says where a group is, or is to be.
func (p Places) put(group, node string) {
	p.lift(group)
	p.at[group] = node
	x, g := p.of(node), p.in.State.Groups[group]
	x.owns.weight += g.Spec.Load()
	x.owns.n++
	i, _ := x.find(group)
	x.here = slices.Insert(x.here, i, g)
}

// lift takes a group from where it is.
func (p Places) lift(group string) {
	node, ok := p.at[group]
	if !ok {
		return
	}
	delete(p.at, group)
	x := p.of(node)
	x.owns.weight -= p.in.State.Groups[group].Spec.Load()
	x.owns.n--
	if i, found := x.find(group); found {
		x.here = slices.Delete(x.here, i, i+1)
	}
}

// PlacesOf are the places now.
func PlacesOf(in Inputs) Places {
	p := Places{in: in, node: map[string]*standing{}, at: map[string]string{}, units: map[*fsm.Group][]*fsm.Group{}}
	for _, name := range in.State.NodeNames() {
		x := &standing{Node: in.State.Nodes[name], health: in.Health[name]}
		x.why = unable(x.Node, &x.health)
		p.nodes, p.node[name] = append(p.nodes, x), x
	}
	joined := false
	for _, name := range in.State.GroupNames() {
		g := in.State.Groups[name]
		p.groups = append(p.groups, g)
		own := id.Claim{Group: name, Node: g.Owner, Epoch: g.Epoch}
		if !g.Owner.Zero() && !g.OwnerReleased && !in.Tokens[own] {
			p.put(name, g.Owner.Name)
		}
		p.ruled = p.ruled || g.Spec.With != "" || g.Spec.Apart != "" || g.Spec.MaxPerNode > 0
		joined = joined || g.Spec.With != ""
	}
	if joined {
		p.join()
	}
	return p
}

// join finds what belongs together.
func (p Places) join() {
	heads := map[*fsm.Group][]*fsm.Group{}
	for _, g := range p.groups {
		h := head(p.in.State, g)
		heads[h] = append(heads[h], g)
	}
	for _, unit := range heads {
		if len(unit) < 2 {
			continue
		}
		for _, g := range unit {
			p.units[g] = unit
		}
	}
}

// unit is all that must be on one node with g, itself included.
func (p Places) unit(g *fsm.Group) []*fsm.Group {
	if u := p.units[g]; u != nil {
		return u
	}
	return []*fsm.Group{g}
}

// load is what the groups on the node but g, which is at where, weigh, and how many they are.
func (x *standing) load(g *fsm.Group, where string) (weight, n int) {
	if where == x.Name {
		return x.owns.weight - g.Spec.Load(), x.owns.n - 1
	}
	return x.owns.weight, x.owns.n
}

// head is the group that g follows in the end. Files with a circle are refused, so
// that the bound is for a state that was never checked.
func head(s *fsm.State, g *fsm.Group) *fsm.Group {
	for range len(s.Groups) {
		o := other(s, g.Spec.With)
		if o == nil {
			break
		}
		g = o
	}
	return g
}

// other is the group that a rule names; nil = it names none, or there is none.
func other(s *fsm.State, name string) *fsm.Group {
	if name == "" {
		return nil
	}
	if o := s.Groups[name]; o != nil && !o.Deleted {
		return o
	}
	return nil
}

// forbids says which rule keeps g from node while the others are at their places, or
// "". Rules bind both sides, whoever wrote them; who is there already stays.
func (p Places) forbids(g *fsm.Group, node string) string {
	if !p.ruled {
		return ""
	}
	if o := other(p.in.State, g.Spec.With); o != nil {
		switch where := p.at[o.Spec.Name]; where {
		case node:
		case "":
			return fmt.Sprintf("must be with %s, which is nowhere", o.Spec.Name)
		default:
			return fmt.Sprintf("must be with %s, which is on %s", o.Spec.Name, where)
		}
	}
	together := p.unit(g)
	others := p.on(node, together)
	n := len(together) + len(others)
	for _, o := range others {
		for _, u := range together {
			if u.Spec.Apart == o.Spec.Name || o.Spec.Apart == u.Spec.Name {
				if u == g {
					return fmt.Sprintf("must be apart from %s, which is here", o.Spec.Name)
				}
				return fmt.Sprintf("%s, which must be with it, must be apart from %s, which is here", u.Spec.Name, o.Spec.Name)
			}
		}
	}
	for _, list := range [][]*fsm.Group{together, others} {
		for _, o := range list {
			if most := o.Spec.MaxPerNode; most > 0 && n > most {
				return fmt.Sprintf("with it %d groups would be here, and %s wants at most %d", n, o.Spec.Name, most)
			}
		}
	}
	return ""
}

// on lists the groups on node, and those that will be there because they must be with
// one of them; without some.
func (p Places) on(node string, without []*fsm.Group) []*fsm.Group {
	here := p.of(node).here
	out := make([]*fsm.Group, 0, len(here))
	for _, o := range here {
		if slices.Contains(without, o) {
			continue
		}
		unit := p.units[o]
		if unit == nil {
			out = append(out, o)
		}
		for _, u := range unit {
			if where, placed := p.at[u.Spec.Name]; (u == o || !placed || where == node) && !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	return out
}

// misses says which group that must be with g could not be on node, or "".
func (p Places) misses(g *fsm.Group, x *standing) string {
	node := x.Name
	for _, o := range p.units[g] {
		if o == g {
			continue
		}
		if why := p.ineligible(x, o); why != "" {
			return fmt.Sprintf("%s, which must be with it, cannot be: %s", o.Spec.Name, why)
		}
		if f := o.Failed[node]; f.Count > 0 && p.in.Avoid[Place{o.Spec.Name, node}] > 0 {
			return fmt.Sprintf("%s, which must be with it, failed here (%s): %s", o.Spec.Name, times(f.Count), f.Why)
		}
	}
	return ""
}

// waits says for whom g is not given to anybody now, or "".
func waits(in Inputs, g *fsm.Group) string {
	o := other(in.State, g.Spec.After)
	if o == nil || o.Started && fence(in, o).Zero() {
		return ""
	}
	return fmt.Sprintf("it waits until %s runs", o.Spec.Name)
}

// inOrder lists the groups so that each comes after those whose place it depends on;
// among equals those of dead owners first, by owner, and then by name.
func (p Places) inOrder() []*fsm.Group {
	type place struct {
		*fsm.Group
		depth int
		dead  string // its owner; "\xff" = that lives
	}
	out := make([]*place, len(p.groups))
	var bound []*place // that depend on another
	at := map[*fsm.Group]*place{}
	for i, g := range p.groups {
		x := &place{Group: g, dead: "\xff"}
		if !fence(p.in, g).Zero() {
			x.dead = g.Owner.Name
		}
		out[i] = x
		if g.Spec.With != "" || g.Spec.After != "" {
			bound = append(bound, x)
		}
	}
	if len(bound) > 0 {
		for _, x := range out {
			at[x.Group] = x
		}
	}
	for changed := true; changed; {
		changed = false
		for _, x := range bound {
			for _, name := range []string{x.Spec.With, x.Spec.After} {
				if o := other(p.in.State, name); o != nil {
					if d := min(at[o].depth+1, len(out)); d > x.depth {
						x.depth, changed = d, true
					}
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *place) int {
		return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(a.dead, b.dead))
	})
	order := make([]*fsm.Group, len(out))
	for i, x := range out {
		order[i] = x.Group
	}
	return order
}
