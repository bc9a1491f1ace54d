package failover

import (
	"fmt"
	"maps"
	"slices"

	"hanode/fsm"
)

// Change is what applying a new wanted set does to one group.
type Change struct {
	Group  string
	Action string // add, remove, change, keep
	Text   string
	Stops  bool // something that runs now stops, if only to start again
	Moves  bool // it leaves its present owner
}

// Compare says what becomes of each group between two states, where moves are
// the assignments that Plan makes of the second one.
func Compare(before, after *fsm.State, moves map[string]string) []Change {
	names := map[string]bool{}
	for _, s := range []*fsm.State{before, after} {
		for _, n := range s.GroupNames() {
			names[n] = true
		}
	}
	var out []Change
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := compare(name, before.Groups[name], after.Groups[name], moves[name])
		// Nobody wrote that it is: say so before it waits for an operator one night.
		if g := after.Groups[name]; g != nil && !g.Deleted && !g.Spec.Exclusive && g.Spec.IsExclusive() {
			c.Text += "; it is exclusive: " + g.Spec.WhyExclusive()
		}
		out = append(out, c)
	}
	return out
}

func compare(name string, old, now *fsm.Group, to string) Change {
	had := old != nil && !old.Deleted
	runs := had && !old.Owner.Zero() && !old.OwnerReleased
	c := Change{Group: name}
	switch {
	case now == nil || now.Deleted:
		c.Action, c.Stops = "remove", runs
		c.Text = name + " is removed"
		if c.Stops {
			c.Text = fmt.Sprintf("%s is stopped on %s and removed", name, old.Owner.Name)
		}
		return c
	case !had:
		c.Action, c.Text = "add", name+" is added; it waits for a node that can own it"
		if to != "" {
			c.Text = fmt.Sprintf("%s is added and starts on %s", name, to)
		}
		return c
	case old.Epoch != now.Epoch:
		c.Action, c.Stops, c.Text = "change", runs, name+" changes"
		if runs && to == "" {
			c.Text = fmt.Sprintf("%s changes and is started anew on %s", name, now.Owner.Name)
		}
	case old.Revision != now.Revision:
		c.Action, c.Text = "change", name+" changes without a restart"
	default:
		c.Action, c.Text = "keep", name+" stays as it is"
	}
	switch {
	case to == "":
		return c
	case !runs:
		c.Text += "; it starts on " + to
	case to == old.Owner.Name:
		c.Stops = true
		c.Text += "; it is started anew on " + to
	default:
		c.Moves, c.Stops = true, true
		c.Text += fmt.Sprintf("; it moves from %s to %s", old.Owner.Name, to)
	}
	if c.Action == "keep" {
		c.Action = "change"
	}
	return c
}
