package fsm

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// NewGeneration begins the next generation of a cluster whose majority is lost for good
// (R13): Node alone goes on, with what its disk has. It is no entry that a leader
// proposes, there is none; it is applied to the state of one disk, offline.
//
// Everything that was registered is over. What the lost nodes held is waited for as long
// as the longest bound, as if the lease had been renewed the moment this node starts.
// They are members no more, and come back as other disks.
type NewGeneration struct {
	// Generation is the next one; a later one where the state is a saved one and the cluster
	// may have gone on after it.
	Generation uint64 `json:"generation"`
	Node       string `json:"node"`
	Disk       uint64 `json:"disk"` // its raft identity from now on; above the last one
}

// leap, for each generation, is added to everything that counts and is never used again: the lost nodes may
// have gone on counting after what this disk has, and a number of theirs must not be
// taken for one of ours.
const leap = 1_000_000

func (s *State) newGeneration(c *NewGeneration, at time.Time) Result {
	n := s.Nodes[c.Node]
	switch {
	case s.Generation == c.Generation && n != nil && n.Disk == c.Disk:
		return Result{} // done before
	case c.Generation <= s.Generation:
		return rejected("the cluster is in generation %d, so %d cannot be next", s.Generation, c.Generation)
	case n == nil || n.Removed:
		return rejected("%s is not a member of this cluster", c.Node)
	case c.Disk <= n.Disk:
		return rejected("%s has disk %d, so %d is not a new one", c.Node, n.Disk, c.Disk)
	}
	generations := c.Generation - s.Generation
	leap := leap * generations
	s.Generation = c.Generation
	for _, o := range s.Nodes {
		o.Fenced = true
		o.Inc += leap
		if o != n {
			o.Removed, o.Leaving = true, false
			o.Disk += generations - 1 // those that the lost ones had after a saved state
		}
	}
	n.Disk, n.DiskRequest, n.Leaving, n.Stopped = c.Disk, "", false, false
	s.Voters = VoterList{Version: s.Voters.Version + leap, Names: []string{c.Node}}
	s.Previous = s.Voters
	s.Tokens = nil
	longest := s.longestBound()
	s.EventSeq += leap
	s.Revision += leap
	var res Result
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		g.advance(s.Voters, nil)
		g.Epoch += id.Epoch(leap)
		g.Cause, g.Since = "recovered", at
		for i := range g.Waits {
			g.Waits[i].Bound = max(g.Waits[i].Bound, longest)
		}
		// Who could have told that a lease has expired is gone; this node counts every
		// lease as renewed at its start.
		g.Voters = s.Voters
		res.Touched = append(res.Touched, name)
	}
	s.event(Event{Time: at, Node: c.Node, Kind: "recovered", Text: fmt.Sprintf("generation %d begins with %s alone; every other node must join anew", c.Generation, c.Node)})
	return res
}

// longestBound is the longest that any lease can have lasted where a guard ended it.
func (s *State) longestBound() time.Duration {
	longest := s.Timing.Deadtime
	for _, n := range s.Nodes {
		if n.Bound < spec.Unbounded {
			longest = max(longest, n.Bound)
		}
	}
	for _, g := range s.Groups {
		for _, b := range append([]time.Duration{g.OwnerBound}, bounds(g.Waits)...) {
			if b < spec.Unbounded {
				longest = max(longest, b)
			}
		}
	}
	return longest
}

func bounds(ws []Wait) (out []time.Duration) {
	for _, w := range ws {
		out = append(out, w.Bound)
	}
	return out
}
