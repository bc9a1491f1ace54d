package config

import (
	"fmt"
	"slices"
	"strings"

	"hanode/internal/spec"
)

// rules checks what groups say about each other: whom they name, and that it can be
// done at all. A rule that cannot be kept would only be noticed when a group does not
// start one night.
func (c *groupCheck) rules() {
	at := map[string]int{}
	for i, g := range c.groups {
		if _, dup := at[g.Name]; !dup {
			at[g.Name] = i
		}
	}
	whole := true
	for i, g := range c.groups {
		for _, r := range []struct{ key, other string }{{"with", g.With}, {"apart", g.Apart}, {"after", g.After}} {
			if c.places[i].bad[r.key] {
				whole = false
				continue
			}
			if _, written := c.places[i].keys[r.key]; !written && r.other == "" {
				continue
			}
			f := finding{what: fmt.Sprintf("%s in group %s names %s", r.key, quote(g.Name), quote(r.other)), allowed: "it takes the name of another group"}
			if _, known := at[r.other]; !known {
				f.what += ", which is not a group"
				f.remedy = didYouMean(r.other, c.names())
			} else if r.other == g.Name {
				f.what += " itself"
			} else {
				continue
			}
			whole = false
			c.add(c.places[i].at(r.key), f)
		}
		c.counts(g, c.places[i])
	}
	if whole {
		c.circles(at)
		c.together(at)
	}
}

func (c *groupCheck) names() (out []string) {
	for _, g := range c.groups {
		out = append(out, g.Name)
	}
	return out
}

// counts checks the numbers, which the reader of a file has checked before.
func (c *groupCheck) counts(g spec.Group, p place) {
	for _, r := range []struct {
		key     string
		n, most int
	}{{"max_per_node", g.MaxPerNode, maxPerNode}, {"weight", g.Weight, maxWeight}} {
		if r.n < 0 || r.n > r.most {
			c.add(p.at(r.key), finding{
				what:    fmt.Sprintf("%s in group %s is %d", r.key, quote(g.Name), r.n),
				allowed: fmt.Sprintf("it takes a whole number from 1 to %d", r.most),
			})
		}
	}
}

// circles refuses groups of which each needs the next one first: with needs it on a
// node, after needs it running.
func (c *groupCheck) circles(at map[string]int) {
	next := func(i int) (out []int) {
		for _, n := range []string{c.groups[i].With, c.groups[i].After} {
			if n != "" {
				out = append(out, at[n])
			}
		}
		return out
	}
	done, told := map[int]bool{}, false
	var walk func(i int, path []int)
	walk = func(i int, path []int) {
		if k := slices.Index(path, i); k >= 0 && !told {
			var names []string
			for _, j := range append(path[k:], i) {
				names = append(names, c.groups[j].Name)
			}
			told = true
			c.add(c.places[i].line, finding{
				what:    "each of these groups waits for the next (with, after): " + strings.Join(names, ", "),
				allowed: "with and after lead to an end",
				remedy:  "remove one of the rules",
			})
		}
		if done[i] || slices.Contains(path, i) {
			return
		}
		for _, j := range next(i) {
			walk(j, append(slices.Clone(path), i))
		}
		done[i] = true
	}
	for i := range c.groups {
		walk(i, nil)
	}
}

// together refuses groups that must be on one node and must not.
func (c *groupCheck) together(at map[string]int) {
	head := func(i int) int {
		for range c.groups {
			if c.groups[i].With == "" {
				break
			}
			i = at[c.groups[i].With]
		}
		return i
	}
	units := map[int][]string{}
	for i, g := range c.groups {
		units[head(i)] = append(units[head(i)], g.Name)
	}
	for i, g := range c.groups {
		unit := units[head(i)]
		if g.Apart != "" && head(at[g.Apart]) == head(i) {
			c.add(c.places[i].at("apart"), finding{
				what:   fmt.Sprintf("groups %s and %s must be apart, and with each other (%s)", quote(g.Name), quote(g.Apart), strings.Join(unit, ", ")),
				remedy: "remove one of the rules",
			})
		}
		if g.MaxPerNode > 0 && len(unit) > g.MaxPerNode {
			c.add(c.places[i].at("max_per_node"), finding{
				what:   fmt.Sprintf("max_per_node in group %s is %d, but %d groups must be on one node: %s", quote(g.Name), g.MaxPerNode, len(unit), strings.Join(unit, ", ")),
				remedy: "raise it, or remove a with",
			})
		}
	}
}

// apartOn refuses rules for which there are too few nodes that may own groups.
func (c *groupCheck) apartOn(owners []string) {
	for i, g := range c.groups {
		if g.Apart != "" && len(owners) < 2 {
			c.add(c.places[i].at("apart"), finding{
				what:   fmt.Sprintf("groups %s and %s must be apart, and only %s may own groups", quote(g.Name), quote(g.Apart), orNone(owners)),
				remedy: "remove apart, or add a node",
			})
		}
	}
}
