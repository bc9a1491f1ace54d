package agent

import (
	"time"

	"hanode/cluster"
	"hanode/failover"
)

// lagging is how many entries a disk may be behind and still count as current: what is
// being written just now.
const lagging = 64

// voterInputs is what the choice of voters depends on, as this leader knows it.
func (a *Agent) voterInputs(n *cluster.Node, in failover.Inputs) failover.VoterInputs {
	out := failover.VoterInputs{
		State: in.State, Health: in.Health, Leader: a.cfg.Name, Servers: a.opts.Servers,
		Silent: map[string]time.Duration{}, Current: map[string]bool{},
	}
	now := a.now()
	a.lead.mu.Lock()
	leads := a.lead.leads
	a.lead.mu.Unlock()
	own := n.Position()
	for name, node := range in.State.Nodes {
		if node.Removed {
			continue
		}
		out.Silent[name] = now.Elapsed(leads)
		if at := a.ears.last(name); !at.IsZero() {
			out.Silent[name] = min(out.Silent[name], now.Elapsed(at))
		}
		held := a.known.of(name)
		out.Current[name] = name == a.cfg.Name || held.Disk == node.Disk && held.Position.LastTerm == own.LastTerm &&
			held.Position.LastIndex+lagging >= own.LastIndex
	}
	return out
}
