// Package apitest is a small working model of a cluster behind api.Backend: it
// stores what is applied, places groups, moves them, fails them over, loses its
// quorum, and remembers what happened. Tests of the API, of the commands and of
// the dashboard run against it.
//
// It has no network, no leases and no time of its own: that is the real agent's.
package apitest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/internal/spec"
)

// moveTime is how long every switchover of the model is silent.
const moveTime = 1800 * time.Microsecond

// Cluster is the model. Safe for concurrent use.
type Cluster struct {
	name string
	now  func() time.Time

	mu          sync.Mutex
	nodes       []*node  // as given
	groups      []*group // sorted by name
	events      []api.Event
	maintenance bool
	tokens      []api.Token // newest first
	retired     []api.RetiredKey
	measuring   time.Time     // since when beats are measured
	changed     chan struct{} // closed and replaced with each event
	epochs      map[string]uint64
}

type node struct {
	spec.Node
	alive, standby, left bool
	off                  bool // dead, and known to be off
}

type group struct {
	spec.Group
	owner  string // "" = nobody
	epoch  uint64
	pinned bool
	since  time.Time
	failed map[string]string // node -> why; it is not tried there
}

// New returns a cluster of nodes that are all alive and all voters. now stamps
// events and states.
func New(name string, now func() time.Time, nodes ...spec.Node) *Cluster {
	c := &Cluster{name: name, now: now, measuring: now(), changed: make(chan struct{}), epochs: map[string]uint64{}}
	for _, n := range nodes {
		c.nodes = append(c.nodes, &node{Node: n, alive: true})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(c.leader(), "", 0, "leader", "", c.leader()+" became leader", 0)
	return c
}

// Three returns a cluster "web" of primary, secondary and the witness arbiter.
func Three(now func() time.Time) *Cluster {
	return New("web", now,
		spec.Node{Name: "primary", Address: "10.0.0.1", Role: spec.RoleNode},
		spec.Node{Name: "secondary", Address: "10.0.0.2", Role: spec.RoleNode},
		spec.Node{Name: "arbiter", Address: "10.0.0.3", Role: spec.RoleWitness})
}

// Kill makes a node die; with a quorum its groups fail over.
func (c *Cluster) Kill(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.node(name)
	if n == nil || !n.alive {
		return
	}
	n.alive = false
	c.note(name, "", 0, "dead", "", name+" has not been heard for deadtime", 0)
	c.settle("failover", name+" died")
}

// Fail makes a group fail on its owner; it goes elsewhere, or nowhere.
func (c *Cluster) Fail(name, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(name)
	if g == nil || g.owner == "" {
		return
	}
	if g.failed == nil {
		g.failed = map[string]string{}
	}
	g.failed[g.owner] = why
	c.note(g.owner, name, g.epoch, "failed", "", name+" failed on "+g.owner+": "+why, 0)
	c.settle("failure", why)
}

// Revive starts a dead node again; groups that prefer it come back.
func (c *Cluster) Revive(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.node(name)
	if n == nil || n.alive {
		return
	}
	n.alive, n.left, n.off = true, false, false
	c.note(name, "", 0, "alive", "", name+" is back", 0)
	c.settle("failback", name+" is back")
}

// node returns a node by name, or nil. The caller holds mu.
func (c *Cluster) node(name string) *node {
	for _, n := range c.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *Cluster) group(name string) *group {
	for _, g := range c.groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// voters returns those that answer and those that do not.
func (c *Cluster) voters() (here, missing []string) {
	for _, n := range c.nodes {
		switch {
		case n.left:
		case n.alive:
			here = append(here, n.Name)
		default:
			missing = append(missing, n.Name)
		}
	}
	return here, missing
}

func (c *Cluster) quorum() bool {
	here, missing := c.voters()
	return len(here) > len(missing)
}

// noQuorum is the error of every answer that lacks the cluster's word.
func (c *Cluster) noQuorum() error {
	if c.quorum() {
		return nil
	}
	here, missing := c.voters()
	all := len(here) + len(missing)
	return &api.Error{
		Code: "no-quorum", Exit: api.ExitNoQuorum,
		Message: fmt.Sprintf("no quorum: %d of %d voters answer, %d are needed; missing: %s",
			len(here), all, all/2+1, strings.Join(missing, ", ")),
		Fix: "start hanode on one of the missing voters, or mend the network to it",
	}
}

// leader prefers a voter that owns nothing.
func (c *Cluster) leader() string {
	if !c.quorum() {
		return ""
	}
	var first string
	for _, n := range c.nodes {
		if !n.alive || n.left {
			continue
		}
		if n.Role == spec.RoleWitness {
			return n.Name
		}
		if first == "" {
			first = n.Name
		}
	}
	return first
}

// unfit says why a node cannot own groups; "" = it can.
func (n *node) unfit() string {
	switch {
	case n.Role == spec.RoleWitness:
		return "a witness owns nothing"
	case n.left:
		return "it has left"
	case !n.alive:
		return "it is dead"
	case n.standby:
		return "it is on standby"
	}
	return ""
}

// rank lists the fit nodes, most wanted first, without the node not.
func (c *Cluster) rank(g *group, not string) []string {
	var fit []string
	for _, n := range c.nodes {
		if _, failed := g.failed[n.Name]; n.unfit() == "" && n.Name != not && !failed {
			fit = append(fit, n.Name)
		}
	}
	slices.SortStableFunc(fit, func(a, b string) int { return c.place(g, a) - c.place(g, b) })
	return fit
}

// place is a node's rank for g: its position in prefer, or behind that its load.
func (c *Cluster) place(g *group, name string) int {
	if i := slices.Index(g.Prefer, name); i >= 0 {
		return i
	}
	load := 0
	for _, o := range c.groups {
		if o.owner == name && o != g {
			load++
		}
	}
	return len(g.Prefer) + load
}

// settle places every group that has no fit owner, and moves back those that
// may. The caller holds mu.
func (c *Cluster) settle(kind, cause string) []api.MoveResult {
	var moves []api.MoveResult
	if !c.quorum() || c.maintenance {
		return nil
	}
	for _, g := range c.groups {
		best := ""
		if r := c.rank(g, ""); len(r) > 0 {
			best = r[0]
		}
		own := c.node(g.owner)
		stay := own != nil && own.unfit() == "" && g.failed[g.owner] == ""
		switch {
		case best == g.owner || g.blocked(own):
		case stay && (g.pinned || !g.Failback.On || c.place(g, best) >= c.place(g, g.owner)):
		default:
			g.pinned = false
			moves = append(moves, c.assign(g, best, kind, cause))
		}
	}
	return moves
}

// blocked: an exclusive group waits until its dead owner is known to be off.
func (g *group) blocked(own *node) bool {
	return g.IsExclusive() && own != nil && !own.alive && !own.off
}

// assign gives g to a node ("" = nobody) under a new epoch.
func (c *Cluster) assign(g *group, to, kind, cause string) api.MoveResult {
	from := g.owner
	c.epochs[g.Name]++
	g.owner, g.epoch, g.since = to, c.epochs[g.Name], c.now()
	ms := api.MS(moveTime)
	c.note(to, g.Name, g.epoch, kind, cause, fmt.Sprintf("%s: %s -> %s", g.Name, nobody(from), nobody(to)), ms)
	return api.MoveResult{Group: g.Name, From: api.Known(from), To: to, Epoch: g.epoch, SilentMS: &ms}
}

func nobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}

// note adds an event and wakes those who follow. The caller holds mu.
func (c *Cluster) note(node, group string, epoch uint64, kind, cause, text string, ms float64) {
	c.events = append(c.events, api.Event{
		Index: uint64(len(c.events) + 1), Time: c.now(),
		Node: api.Known(node), Group: api.Known(group), Epoch: api.Known(epoch),
		Kind: kind, Cause: api.Known(cause), Text: text, MS: api.Known(ms),
	})
	close(c.changed)
	c.changed = make(chan struct{})
}
