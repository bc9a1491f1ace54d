package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/lease"
)

// push tells those whom changed groups concern, and has the voters asked about whom they
// wait for: followers learn of a commit only with the next append.
func (a *Agent) push(touched []string) {
	var recs []fsm.Record
	a.machine.View(func(s *fsm.State) {
		for _, name := range touched {
			if g := s.Groups[name]; g != nil {
				recs = append(recs, g.Record())
			}
		}
	})
	// A thousand groups of a dead node change at once. What all of them wait for comes
	// first, then the new owners.
	waits := map[string][]lease.Wait{} // by owner
	for _, r := range recs {
		for _, w := range r.Waits {
			waits[r.Owner.Name] = append(waits[r.Owner.Name], lease.Wait{Claim: w.Claim, Bound: w.Bound})
		}
	}
	for owner, list := range waits {
		a.revoke(list, owner)
	}
	late := make([]func(), 0, len(recs))
	for _, r := range recs {
		b, err := json.Marshal(r)
		if err != nil {
			continue
		}
		b = append([]byte{byte(lease.KindRecord)}, b...)
		if !r.Owner.Zero() {
			a.gossip.Send(b, r.Owner.Name)
		}
		var others []string
		for _, w := range r.Waits {
			if name := w.Node.Name; name != r.Owner.Name && !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
		if len(others) > 0 {
			late = append(late, func() { a.gossip.Send(b, others...) })
		}
	}
	for _, send := range late {
		send()
	}
}

// resend pushes groups that still wait, in case a datagram was lost: those that waited at
// the same epoch already when it was called before. It returns those that wait now.
func (a *Agent) resend(waited map[string]id.Epoch) map[string]id.Epoch {
	var names []string
	wait := map[string]id.Epoch{}
	a.machine.View(func(s *fsm.State) {
		for name, g := range s.Groups {
			if len(g.Waits) == 0 {
				continue
			}
			wait[name] = g.Epoch
			if waited[name] == g.Epoch {
				names = append(names, name)
			}
		}
	})
	slices.Sort(names)
	a.push(names)
	return wait
}

// revoke sends REVOKE about each registration that the log says is over: fenced,
// or superseded. Never about a live one: that would take its other groups too.
func (a *Agent) revoke(waits []lease.Wait, tell string) {
	if len(waits) == 0 {
		return
	}
	bounds := map[id.NodeRef]time.Duration{} // all groups of a node wait for the same
	for _, w := range waits {
		bounds[w.Node] = max(bounds[w.Node], w.Bound)
	}
	var voters []string
	a.machine.View(func(s *fsm.State) {
		voters = s.Voters.Names
		maps.DeleteFunc(bounds, func(r id.NodeRef, _ time.Duration) bool {
			n := s.Nodes[r.Name]
			return n == nil || n.Inc < r.Inc || n.Inc == r.Inc && !n.Fenced
		})
	})
	for ref, bound := range bounds {
		a.gossip.Send(lease.Revoke{Ref: ref, Bound: bound, Tell: tell}.Append(nil), voters...)
	}
}
