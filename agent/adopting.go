package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
)

// strange is what is foreign of one group on one node.
type strange struct {
	node, group string
	what        []string
}

// foreign lists what the nodes said is foreign of the groups, sorted; with onlyNew of
// those alone that are new or changed.
func (q asked) foreign(groups []spec.Group, before *fsm.State, onlyNew bool) (out []strange) {
	for _, g := range groups {
		if onlyNew && unchanged(before, g) {
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(q.said)) {
			x := strange{node: node, group: g.Name}
			for _, j := range q.said[node].Groups {
				for _, f := range j.Findings {
					if j.Group == g.Name && f.Kind == peer.Foreign {
						x.what = append(x.what, f.Text)
					}
				}
			}
			if len(x.what) > 0 {
				out = append(out, x)
			}
		}
	}
	return out
}

// unchanged: the group is wanted already, with just these resources and checks.
func unchanged(s *fsm.State, g spec.Group) bool {
	old := s.Groups[g.Name]
	return old != nil && !old.Deleted && formOf(old.Spec) == formOf(g)
}

// refuseForeign is the answer where nobody said that it may be adopted.
func refuseForeign(found []strange) error {
	if len(found) == 0 {
		return nil
	}
	var list []string
	for _, x := range found {
		list = append(list, fmt.Sprintf("%s on %s (of %s)", strings.Join(x.what, ", "), x.node, x.group))
	}
	return fail("foreign-service", "stop it there, or have the cluster take it over: `hanode apply --adopt FILE`",
		"nothing was changed: the cluster did not start %s", strings.Join(list, "; "))
}

// adoptLimit bounds stopping what is foreign where a group is not to run.
const adoptLimit = 2 * time.Minute

// adoption is what an apply with Adopt does about what is foreign.
type adoption struct {
	takes []fsm.Adopt            // where the group is to run: it is taken for started
	stops map[string][]string    // node -> groups: it is stopped before
	done  api.List[api.Adoption] // the same for people
	here  map[string][]string    // group -> what is taken, as the node names it
}

// adoptionOf decides: what is where its group will be is taken over, all else stopped.
// place says where each group is to be; "" = nobody knows.
func adoptionOf(found []strange, place map[string]string, s *fsm.State) adoption {
	out := adoption{stops: map[string][]string{}, here: map[string][]string{}}
	for _, x := range found {
		n := s.Nodes[x.node]
		taken := place[x.group] == x.node && n.Registered()
		if taken {
			out.takes = append(out.takes, fsm.Adopt{Group: x.group, Node: n.Ref()})
			out.here[x.group] = x.what
		} else {
			out.stops[x.node] = append(out.stops[x.node], x.group)
		}
		out.done = append(out.done, api.Adoption{Group: x.group, Node: x.node, What: x.what, Stopped: !taken})
	}
	return out
}

// takesAddress reports whether the address of r is on the node already that takes its
// group over: it answers there when the network is asked who has it.
func (x adoption) takesAddress(group string, r spec.Resource) bool {
	return slices.ContainsFunc(x.here[group], func(what string) bool {
		return strings.HasPrefix(what, fmt.Sprintf("%s %q", r.Type, r.Name))
	})
}

// stopForeign has the other nodes stop theirs, all at once.
func (d direct) stopForeign(ctx context.Context, stops map[string][]string, groups []spec.Group) error {
	ctx, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	for node, names := range stops {
		gs := slices.DeleteFunc(slices.Clone(groups), func(g spec.Group) bool { return !slices.Contains(names, g.Name) })
		wg.Go(func() {
			var err error
			if node == d.cfg.Name {
				err = service{d.Agent}.StopForeign(ctx, gs)
			} else {
				err = d.peers.StopForeign(ctx, node, gs)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fail("adopt-failed", "stop it by hand there, then apply the file again",
			"the groups were not changed, because something does not stop where it is not to run: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}
