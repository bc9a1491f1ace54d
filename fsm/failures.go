package fsm

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// failed is a release that says why. It counts once for each epoch, and only for the
// node's registration of record: one that registered anew starts afresh.
func (s *State) failed(c *Failed, at time.Time) Result {
	res := s.released(&Released{Claims: []id.Claim{{Group: c.Group, Node: c.Node, Epoch: c.Epoch}}}, at)
	g, n := s.Groups[c.Group], s.Nodes[c.Node.Name]
	if g == nil || g.Deleted || n == nil || n.Ref() != c.Node || c.Epoch > g.Epoch || c.Epoch <= g.Failed[n.Name].Epoch {
		return res
	}
	s.count(g, *c, at)
	if !slices.Contains(res.Touched, c.Group) {
		res.Touched = append(res.Touched, c.Group)
	}
	return res
}

func (s *State) count(g *Group, c Failed, at time.Time) {
	f := g.Failed[c.Node.Name]
	if c.Ran >= spec.MaxRetry {
		f.Count = 0
	}
	f.Count++
	f.Epoch, f.Why = c.Epoch, c.Why
	if g.Failed == nil {
		g.Failed = map[string]Failure{}
	}
	g.Failed[c.Node.Name] = f
	times := ""
	if f.Count > 1 {
		times = fmt.Sprintf(", %d times in a row", f.Count)
	}
	s.event(Event{
		Time: at, Node: c.Node.Name, Group: g.Spec.Name, Epoch: c.Epoch, Kind: "failed",
		Text:   fmt.Sprintf("%s failed on %s%s: %s", g.Spec.Name, c.Node.Name, times, c.Why),
		Output: c.Output,
	})
}

// forgive forgets the failures on node (or, if "", on all), but for their epochs:
// what is told twice must not count anew.
func (g *Group) forgive(node string) (forgiven []string) {
	for _, n := range g.FailedOn() {
		if node == "" || n == node {
			g.Failed[n] = Failure{Epoch: g.Failed[n].Epoch}
			forgiven = append(forgiven, n)
		}
	}
	return forgiven
}

func (s *State) clear(c *Clear, at time.Time) Result {
	if g := s.Groups[c.Group]; c.Group != "" && (g == nil || g.Deleted) {
		return rejected("group %s does not exist", c.Group)
	}
	if n := s.Nodes[c.Node]; c.Node != "" && (n == nil || n.Removed) {
		return rejected("%s is not a member", c.Node)
	}
	var res Result
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		if c.Group != "" && c.Group != name {
			continue
		}
		g := s.Groups[name]
		for _, n := range g.forgive(c.Node) {
			s.event(Event{
				Time: at, Node: n, Group: name, Epoch: g.Epoch, Kind: "cleared",
				Text: fmt.Sprintf("%s may be tried on %s again", name, n),
			})
			res.Touched = append(res.Touched, name)
			if g.OwnerReleased {
				g.Cause = "cleared" // an operator asks for the next try, so it need not be calm
			}
		}
	}
	res.Touched = slices.Compact(res.Touched)
	return res
}
