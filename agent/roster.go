package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hanode/config"
	"hanode/fsm"
	"hanode/internal/atomicfile"
	"hanode/internal/spec"
)

// Who the members are is in the replicated state. A node that starts needs to know some
// of them before it has that: founders stand in the node file, and what was known last
// in data_dir. `hanode init` and `hanode join` write the first of these.

// membership is that file: what this node knows of its cluster while it is down.
type membership struct {
	Cluster string `json:"cluster"`
	// Founder: this node is all of its cluster, which begins with it (init).
	Founder bool `json:"founder"`
	// Tokens of a founder, which are founded with the cluster.
	Tokens []fsm.Token `json:"tokens,omitempty"`
	Timing spec.Timing `json:"timing"`
	Nodes  []spec.Node `json:"nodes"` // sorted by name; this one among them
}

const membersFile = "members.json"

// readMembership returns nil if there is none.
func readMembership(dir string) (*membership, error) {
	path := filepath.Join(dir, membersFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read who the members are: %w", err)
	}
	m := &membership{}
	if err := json.Unmarshal(b, m); err != nil || m.Cluster == "" || len(m.Nodes) == 0 {
		return nil, fmt.Errorf("%s is damaged (%v); nothing was changed. Restore it from a backup, or join again: hanode join ADDRESS --token T --fresh", path, err)
	}
	return m, nil
}

func (m *membership) write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, membersFile), b)
}

func (m *membership) self(name string) (spec.Node, bool) {
	i := slices.IndexFunc(m.Nodes, func(n spec.Node) bool { return n.Name == name })
	if i < 0 {
		return spec.Node{}, false
	}
	return m.Nodes[i], true
}

// adopt completes a node file without node blocks by what init or join wrote: who the
// members are, and the cluster's timing.
func adopt(cfg *config.Node) (*config.Node, *membership, error) {
	if len(cfg.Nodes) > 0 || cfg.DataDir == "" {
		return cfg, nil, nil
	}
	m, err := readMembership(cfg.DataDir)
	if err != nil || m == nil {
		return cfg, nil, err
	}
	if m.Cluster != cfg.Cluster {
		return nil, nil, fmt.Errorf("data_dir %s belongs to cluster %q, but %s says cluster %q; correct the file or give a data_dir of its own",
			cfg.DataDir, m.Cluster, cfg.File, cfg.Cluster)
	}
	if _, ok := m.self(cfg.Name); !ok {
		return nil, nil, fmt.Errorf("data_dir %s belongs to another node than %q, which %s names; correct the file or give a data_dir of its own", cfg.DataDir, cfg.Name, cfg.File)
	}
	c := *cfg
	c.Nodes, c.Timing = m.Nodes, m.Timing
	return &c, m, nil
}

// ErrNoCluster means that nothing says which cluster the node is in.
var ErrNoCluster = errors.New("this node is in no cluster")

// noCluster says what to do about it.
func noCluster(cfg *config.Node) error {
	return fmt.Errorf("%w: %s has no node blocks, and %s holds no membership; either list the founders in it, the same on every host: "+
		"node \"NAME\" { address = \"IP\" }; or make a cluster here: hanode init; or join one: hanode join ADDRESS --token T", ErrNoCluster, cfg.File, cfg.DataDir)
}

// roster is who is known to be a member, also before there is a state. Safe for
// concurrent use.
type roster struct{ list atomic.Pointer[[]spec.Node] }

// others are the names of all members but this node.
func (a *Agent) others() (out []string) {
	for _, n := range a.everyone() {
		if n.Name != a.cfg.Name {
			out = append(out, n.Name)
		}
	}
	return out
}

// everyone lists the members as last known. Do not change the list.
func (a *Agent) everyone() []spec.Node {
	if l := a.roster.list.Load(); l != nil {
		return *l
	}
	return a.cfg.Nodes
}

// loadRoster begins with the node file and what was known last.
func (a *Agent) loadRoster() error {
	m, err := readMembership(a.cfg.DataDir)
	if err != nil {
		return err
	}
	list := slices.Clone(a.cfg.Nodes)
	if m != nil {
		for _, n := range m.Nodes {
			if !slices.ContainsFunc(list, func(o spec.Node) bool { return o.Name == n.Name }) {
				list = append(list, n)
			}
		}
	}
	a.roster.list.Store(&list)
	return nil
}

// rosterLoop keeps the roster, and what gossip knows of addresses, as the state says.
func (a *Agent) rosterLoop(ctx context.Context) {
	tick := a.grid.Ticker(100 * time.Millisecond)
	defer tick.Stop()
	var seen uint64
	saved, dropped := true, false
	for {
		if a.old.Load() && !dropped {
			dropped = true
			a.goLoop(func(context.Context) { a.stopHolding() })
		}
		var list []spec.Node
		var generation uint64
		a.machine.View(func(s *fsm.State) {
			if s.Founded() && s.Index != seen {
				seen, list, generation = s.Index, stillMembers(s, a.everyone()), s.Generation
			}
		})
		if generation > a.disk.generation() {
			if err := a.disk.reaches(generation); err != nil {
				a.log.Debug("cannot save the generation; trying again", "err", err)
				seen = 0
			}
		}
		if list != nil && !slices.Equal(list, a.everyone()) {
			a.meet(list)
			saved = false
		}
		if !saved {
			m := membership{Cluster: a.cfg.Cluster, Founder: a.member != nil && a.member.Founder, Timing: a.timing(), Nodes: a.everyone()}
			err := m.write(a.cfg.DataDir)
			if saved = err == nil; err != nil {
				a.log.Debug("cannot save who the members are; trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

// meet makes list the roster: gossip learns of who is new and forgets who is gone.
func (a *Agent) meet(list []spec.Node) {
	old := a.everyone()
	a.roster.list.Store(&list)
	a.grant.Lock()
	a.speak()
	a.grant.Unlock()
	in := func(l []spec.Node, name string) bool {
		return slices.ContainsFunc(l, func(n spec.Node) bool { return n.Name == name })
	}
	for _, n := range list {
		if addr, err := netip.ParseAddr(n.Address); err == nil && n.Name != a.cfg.Name {
			a.gossip.Introduce(n.Name, addr)
		}
	}
	for _, n := range old {
		if !in(list, n.Name) && n.Name != a.cfg.Name {
			a.gossip.Forget(n.Name)
		}
	}
}

// stillMembers is the members by the state, and whom only others know: a state that is
// replayed has not come to the newest yet.
func stillMembers(s *fsm.State, before []spec.Node) []spec.Node {
	out := members(s)
	for _, n := range before {
		if s.Nodes[n.Name] == nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(x, y spec.Node) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// members lists the nodes of the state that were not removed, sorted by name.
func members(s *fsm.State) []spec.Node {
	out := []spec.Node{}
	for _, name := range s.NodeNames() {
		n := s.Nodes[name]
		out = append(out, spec.Node{Name: n.Name, Address: n.Address, Role: n.Role, Zone: n.Zone})
	}
	return out
}
