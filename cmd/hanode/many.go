package main

import (
	"fmt"
	"slices"

	"hanode/api"
)

const (
	// fewResources of one type and state in a row are listed, more are counted; the same
	// for fewGroups with one owner and state. What was asked for by name is listed.
	fewResources = 8
	fewGroups    = 40
)

// resourceRow is one line about one resource or many.
type resourceRow struct{ what, state string }

// resourceRows lists resources, or counts those that are alike.
func resourceRows(rs []api.ResourceStatus, all bool) (rows []resourceRow) {
	for i := 0; i < len(rs); {
		n := 1
		for i+n < len(rs) && rs[i+n].Type == rs[i].Type && text(rs[i+n].State) == text(rs[i].State) {
			n++
		}
		if !all && n > fewResources {
			last := rs[i+n-1]
			rows = append(rows, resourceRow{fmt.Sprintf("%d %s, %s to %s", n, rs[i].Type, rs[i].Name, last.Name), text(rs[i].State)})
		} else {
			for _, r := range rs[i : i+n] {
				rows = append(rows, resourceRow{r.Type + " " + r.Name, text(r.State)})
			}
		}
		i += n
	}
	return rows
}

// alike tells groups apart that cannot be counted together.
type alike struct{ owner, state string }

// countGroups says which groups are listed, and how many of the others have which
// owner and state, in the order of the first of each.
func countGroups(gs []api.GroupStatus) (list []api.GroupStatus, order []alike, n map[alike]int) {
	n = map[alike]int{}
	for _, g := range gs {
		n[alike{nobody(g.Owner), text(g.State)}]++
	}
	for _, g := range gs {
		k := alike{nobody(g.Owner), text(g.State)}
		switch {
		case n[k] <= fewGroups:
			list = append(list, g)
		case !slices.Contains(order, k):
			order = append(order, k)
		}
	}
	return list, order, n
}
