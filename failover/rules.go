package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"hanode/fsm"
	"hanode/internal/id"
)

// Places says on which node each group is, or is to be, and what belongs together. A
// group that was let go of is nowhere. Take it from PlacesOf.
type Places struct {
	s     *fsm.State
	at    map[string]string       // change it by put and lift
	owns  map[string]owned        // by node
	ruled bool                    // some group has a rule about others
	units map[string][]*fsm.Group // by name of each: all that must be on one node, sorted
}

// owned is what the groups on a node weigh, and how many they are.
type owned struct{ weight, n int }

// put says where a group is, or is to be.
func (p Places) put(group, node string) {
	p.lift(group)
	p.at[group] = node
	o := p.owns[node]
	p.owns[node] = owned{o.weight + p.s.Groups[group].Spec.Load(), o.n + 1}
}

// lift takes a group from where it is.
func (p Places) lift(group string) {
	node, ok := p.at[group]
	if !ok {
		return
	}
	delete(p.at, group)
	o := p.owns[node]
	p.owns[node] = owned{o.weight - p.s.Groups[group].Spec.Load(), o.n - 1}
}

// PlacesOf are the places now.
func PlacesOf(in Inputs) Places {
	p := Places{s: in.State, at: map[string]string{}, owns: map[string]owned{}, units: map[string][]*fsm.Group{}}
	heads := map[*fsm.Group][]*fsm.Group{}
	for _, name := range in.State.GroupNames() {
		g := in.State.Groups[name]
		own := id.Claim{Group: name, Node: g.Owner, Epoch: g.Epoch}
		if !g.Owner.Zero() && !g.OwnerReleased && !in.Tokens[own] {
			p.put(name, g.Owner.Name)
		}
		p.ruled = p.ruled || g.Spec.With != "" || g.Spec.Apart != "" || g.Spec.MaxPerNode > 0
		h := head(in.State, g)
		heads[h] = append(heads[h], g)
	}
	for _, unit := range heads {
		for _, g := range unit {
			p.units[g.Spec.Name] = unit
		}
	}
	return p
}

// load is what the groups on node but g weigh, and how many they are.
func (p Places) load(g *fsm.Group, node string) (weight, n int) {
	o := p.owns[node]
	if p.at[g.Spec.Name] == node {
		return o.weight - g.Spec.Load(), o.n - 1
	}
	return o.weight, o.n
}

// head is the group that g follows in the end. Files with a circle are refused, so
// that the bound is for a state that was never checked.
func head(s *fsm.State, g *fsm.Group) *fsm.Group {
	for range len(s.Groups) {
		o := s.Groups[g.Spec.With]
		if o == nil || o.Deleted {
			break
		}
		g = o
	}
	return g
}

// forbids says which rule keeps g from node while the others are at their places, or
// "". Rules bind both sides, whoever wrote them; who is there already stays.
func (p Places) forbids(g *fsm.Group, node string) string {
	if !p.ruled {
		return ""
	}
	if o := p.s.Groups[g.Spec.With]; o != nil && !o.Deleted {
		switch where := p.at[o.Spec.Name]; where {
		case node:
		case "":
			return fmt.Sprintf("must be with %s, which is nowhere", o.Spec.Name)
		default:
			return fmt.Sprintf("must be with %s, which is on %s", o.Spec.Name, where)
		}
	}
	together := p.units[g.Spec.Name]
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
	for _, o := range slices.Concat(together, others) {
		if most := o.Spec.MaxPerNode; most > 0 && n > most {
			return fmt.Sprintf("with it %d groups would be here, and %s wants at most %d", n, o.Spec.Name, most)
		}
	}
	return ""
}

// on lists the groups on node, and those that will be there because they must be with
// one of them; without some.
func (p Places) on(node string, without []*fsm.Group) []*fsm.Group {
	var out []*fsm.Group
	for _, name := range slices.Sorted(maps.Keys(p.at)) {
		o := p.s.Groups[name]
		if p.at[name] != node || slices.Contains(without, o) {
			continue
		}
		for _, u := range p.units[name] {
			if where, placed := p.at[u.Spec.Name]; (u == o || !placed || where == node) && !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	return out
}

// misses says which group that must be with g could not be on node, or "".
func (p Places) misses(in Inputs, g *fsm.Group, node string) string {
	for _, o := range p.units[g.Spec.Name] {
		if o == g {
			continue
		}
		if why := ineligible(in, in.State.Nodes[node], o); why != "" {
			return fmt.Sprintf("%s, which must be with it, cannot be: %s", o.Spec.Name, why)
		}
		if f := o.Failed[node]; f.Count > 0 && in.Avoid[Place{o.Spec.Name, node}] > 0 {
			return fmt.Sprintf("%s, which must be with it, failed here (%s): %s", o.Spec.Name, times(f.Count), f.Why)
		}
	}
	return ""
}

// waits says for whom g is not given to anybody now, or "".
func waits(in Inputs, g *fsm.Group) string {
	o := in.State.Groups[g.Spec.After]
	if o == nil || o.Deleted || o.Started && fence(in, o).Zero() {
		return ""
	}
	return fmt.Sprintf("it waits until %s runs", o.Spec.Name)
}

// inOrder lists the groups so that each comes after those whose place it depends on;
// among equals those of dead owners first, by owner, and then by name.
func inOrder(in Inputs) []*fsm.Group {
	var out []*fsm.Group
	depth := map[*fsm.Group]int{}
	for _, name := range in.State.GroupNames() {
		out = append(out, in.State.Groups[name])
	}
	for changed := true; changed; {
		changed = false
		for _, g := range out {
			for _, name := range []string{g.Spec.With, g.Spec.After} {
				if o := in.State.Groups[name]; o != nil && !o.Deleted {
					if d := min(depth[o]+1, len(out)); d > depth[g] {
						depth[g], changed = d, true
					}
				}
			}
		}
	}
	dead := func(g *fsm.Group) string {
		if fence(in, g).Zero() {
			return "\xff"
		}
		return g.Owner.Name
	}
	slices.SortStableFunc(out, func(a, b *fsm.Group) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(dead(a), dead(b)))
	})
	return out
}
