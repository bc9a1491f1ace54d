package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/linkstate"
)

// claimReport is one address of which the network says what it should not.
type claimReport struct {
	Addr netip.Addr `json:"addr"`
	Dev  string     `json:"dev"`
	// Held: the sender holds the address with a lease, and MACs have it too. Otherwise
	// they are all that answer, and none of them means that nobody does.
	Held bool          `json:"held,omitempty"`
	MACs []string      `json:"macs,omitempty"`
	For  time.Duration `json:"for"`
}

// claims are what this node has to say, and a channel that is closed when that changes.
func (a *Agent) claims() ([]claimReport, <-chan struct{}) {
	list, changed := a.kernel.Sightings()
	leased := false
	if l := a.lease.Load(); l != nil {
		leased = l.Leased(a.host.Clock.Now())
	}
	var out []claimReport
	for _, s := range list {
		// Muted here, the address is somebody else's by right.
		if s.Conflict() && (leased || !s.Held) || s.Unanswered() {
			c := claimReport{Addr: s.Addr, Dev: s.Dev, Held: s.Held, For: s.Since}
			for _, m := range s.MACs {
				c.MACs = append(c.MACs, m.String())
			}
			out = append(out, c)
		}
	}
	return out, changed
}

// unansweredAfter is how long a group must have been where it is before it is a problem
// that nobody answers: those who ask do so every few seconds.
const unansweredAfter = 30 * time.Second

// claimProblems says which addresses of groups more than one host has, or nobody
// answers for.
func (a *Agent) claimProblems(s *fsm.State) []api.StatusProblem {
	now, wall := a.host.Clock.Now(), a.host.Clock.Wall()
	var held, seen, silent []api.StatusProblem
	told := map[netip.Addr]bool{}
	for _, node := range s.NodeNames() {
		for _, c := range a.ears.report(node, now).Claims {
			g := groupOfAddress(s, c.Addr)
			if g == nil {
				continue
			}
			since := wall.Add(-c.For)
			what := fmt.Sprintf("%s of group %s", c.Addr, g.Spec.Name)
			switch macs := strings.Join(c.MACs, " and "); {
			case c.Held:
				told[c.Addr] = true
				held = append(held, show("vip-conflict", fmt.Sprintf("%s is used by %s too, says %s, which holds it on %s with a lease and announces it again", what, macs, node, c.Dev), &since))
			case len(c.MACs) > 0 && !told[c.Addr]:
				seen = append(seen, show("vip-conflict", fmt.Sprintf("%s is answered for by %s, as %s sees on %s", what, macs, node, c.Dev), &since))
			case len(c.MACs) == 0 && a.mustAnswer(s, g, node) && wall.Sub(g.Since) > unansweredAfter:
				silent = append(silent, show("vip-unanswered", fmt.Sprintf("nobody answers for %s, as %s sees on %s, although %s runs it", what, node, c.Dev, g.Owner.Name), nil))
			}
		}
	}
	return append(append(held, seen...), silent...)
}

// mustAnswer: the group's owner should be heard by node on the group's devices.
func (a *Agent) mustAnswer(s *fsm.State, g *fsm.Group, node string) bool {
	if !g.Started || g.Owner.Zero() || g.OwnerReleased || g.Owner.Name == node {
		return false
	}
	now := a.host.Clock.Now()
	for _, n := range []string{node, g.Owner.Name} {
		if l, ok := linkstate.Of(a.ears.report(n, now).Links, g.Spec); ok && l.State == linkstate.Down {
			return false // that is said already
		}
	}
	h, ok := a.ears.get(g.Owner.Name)
	return ok && h.beat.Unleased == 0 && now.Elapsed(h.at) < a.timing().Deadtime
}

// groupOfAddress finds the group that has an address; nil = none.
func groupOfAddress(s *fsm.State, addr netip.Addr) *fsm.Group {
	for _, name := range s.GroupNames() {
		for _, r := range s.Groups[name].Spec.Resources {
			if r.Type == "ip" && r.Address() == addr.String() {
				return s.Groups[name]
			}
		}
	}
	return nil
}
