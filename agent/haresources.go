package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

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
	return resourcesDigest(a.haresources().text)
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
	file := a.haresources()
	want, have := byName(file.groups), byName(s.Specs())
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
		a.cfg.Name, resourcesDigest(file.text), strings.Join(differ, ", ")), nil)}
}

// foundingGroups are those that the cluster is founded with. A witness has neither the
// services nor the networks of what haresources names, so it takes a node's word.
func (a *Agent) foundingGroups(ctx context.Context) ([]spec.Group, error) {
	if a.cfg.HADir == "" {
		return a.cfg.LoadGroups()
	}
	if !a.isWitness() {
		return a.haresources().groups, nil
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

// haFile is haresources of this host.
type haFile struct {
	text   string       // in one form, see config.ResourcesText; "" without Heartbeat's files
	groups []spec.Group // what it means here
}

// haNow is the one that this host goes by. Safe for concurrent use.
type haNow struct {
	mu sync.Mutex
	haFile
}

func (a *Agent) haresources() haFile {
	a.ha.mu.Lock()
	defer a.ha.mu.Unlock()
	return a.ha.haFile
}

// agree begins the founding with a haresources on which others agreed; false: it is
// another one by now.
func (a *Agent) agree(text string) bool {
	a.ha.mu.Lock()
	defer a.ha.mu.Unlock()
	if a.ha.text != text {
		return false
	}
	a.founding.Store(true)
	return true
}

// goBy takes another one, unless a founding is under way that others agreed on.
func (a *Agent) goBy(f haFile) bool {
	founded, begun := a.founded(), a.disk.number() != 0 // not under the lock: both may wait
	a.ha.mu.Lock()
	defer a.ha.mu.Unlock()
	if (begun || a.founding.Load()) && !founded {
		return false
	}
	a.ha.haFile = f
	return true
}

const resourcesTick = time.Second

// resourcesLoop notices that haresources is another one: it is then compared with those of
// the other hosts, and with what the cluster runs. It applies nothing.
func (a *Agent) resourcesLoop(ctx context.Context) {
	if a.cfg.HADir == "" {
		return
	}
	tick := a.grid.Ticker(resourcesTick)
	defer tick.Stop()
	for last := a.haresources().text; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
		text, err := a.cfg.ResourcesNow()
		if err == nil && text != last { // it may be half written
			last = text
			continue
		}
		if err == nil && text != a.haresources().text {
			var f haFile
			if f.text, f.groups, err = a.cfg.RereadResources(config.RealHAHost()); err == nil && a.goBy(f) {
				a.log.Info("haresources was changed", "digest", resourcesDigest(f.text))
			}
		}
		bad := ""
		if err != nil {
			bad = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		a.problems.set("haresources-file", bad)
	}
}
