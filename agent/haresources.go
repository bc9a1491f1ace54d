package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hanode/api"
	"hanode/config"
	"hanode/fsm"
	"hanode/internal/spec"
)

// maxDiffering is how many lines of two haresources a problem shows.
const maxDiffering = 10

// differing says in which lines the haresources of two hosts differ.
func differing(theirs, theirText, ours, ourText string) string {
	lines := config.Differing([]byte(theirText), []byte(ourText), maxDiffering)
	return fmt.Sprintf("haresources of %s (%s, -) and %s (%s, +) differ: %s",
		theirs, resourcesDigest(theirText), ours, resourcesDigest(ourText), strings.Join(lines, " | "))
}

// uneven shows with whom this host cannot found a cluster; over means that nothing is
// founded any more.
func (a *Agent) uneven(texts []string, over bool) {
	if len(texts) == 0 || over {
		a.problems.clear("haresources-differ")
		return
	}
	a.problems.set("haresources-differ", strings.Join(texts, "; "))
}

// resourcesDigest is short enough to be compared by eye.
func resourcesDigest(text string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:digestLength]
}

const digestLength = 8

// ownResources is the digest of this host's haresources; "" without Heartbeat's files.
func (a *Agent) ownResources() string {
	if a.cfg.HADir == "" {
		return ""
	}
	return resourcesDigest(a.cfg.Resources)
}

// unevenResources says whose haresources differ, as far as the hosts are heard.
func (a *Agent) unevenResources(s *fsm.State) []api.StatusProblem {
	var each []string
	seen := map[string]bool{}
	for _, name := range s.NodeNames() {
		digest := a.ears.report(name, a.now()).Resources
		if name == a.cfg.Name {
			digest = a.ownResources()
		}
		if digest != "" {
			each = append(each, name+" "+digest)
			seen[digest] = true
		}
	}
	if len(seen) < 2 {
		return nil
	}
	return []api.StatusProblem{show("haresources-changed", "haresources is not the same on all hosts: "+strings.Join(each, ", "), nil)}
}

// changedResources says where haresources of this host asks for something else than
// the cluster runs: it was edited since, or is not the one that the cluster was founded
// with.
func (a *Agent) changedResources() []api.StatusProblem {
	if a.cfg.HADir == "" || a.isWitness() {
		return nil
	}
	s := a.machine.Copy()
	if !s.Founded() {
		return nil
	}
	groups, err := a.cfg.LoadGroups()
	if err != nil {
		return nil
	}
	want, have := byName(groups), byName(s.Specs())
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(union(want, have))) {
		w, inFile := want[name]
		h, runs := have[name]
		switch {
		case !inFile:
			differ = append(differ, "-"+name)
		case !runs:
			differ = append(differ, "+"+name)
		case string(config.FormatCluster([]spec.Group{w})) != string(config.FormatCluster([]spec.Group{h})):
			differ = append(differ, name)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return []api.StatusProblem{show("haresources-changed", fmt.Sprintf("%s: haresources (%s) is not what the cluster runs: %s",
		a.cfg.Name, resourcesDigest(a.cfg.Resources), strings.Join(differ, ", ")), nil)}
}

// foundingGroups are those that the cluster is founded with. A witness has neither the
// services nor the networks of what haresources names, so it takes a node's word.
func (a *Agent) foundingGroups(ctx context.Context) ([]spec.Group, error) {
	if a.cfg.HADir == "" || !a.isWitness() {
		return a.cfg.LoadGroups()
	}
	var errs []error
	for _, n := range a.cfg.Nodes {
		if n.Role == spec.RoleWitness {
			continue
		}
		h, err := a.hello(ctx, n.Name)
		if err == nil && len(h.Groups) > 0 {
			return h.Groups, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no node says what haresources means there: %w", errors.Join(errs...))
}

func (a *Agent) isWitness() bool {
	self, ok := a.cfg.Self()
	return ok && self.Role == spec.RoleWitness
}

func union(a, b map[string]spec.Group) map[string]spec.Group {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func byName(groups []spec.Group) map[string]spec.Group {
	out := map[string]spec.Group{}
	for _, g := range groups {
		out[g.Name] = g
	}
	return out
}
