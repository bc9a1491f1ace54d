package agent

import (
	"cmp"
	"fmt"

	"hanode/api"
	"hanode/fsm"
)

// Which version the cluster speaks is in the state (package fsm); each node says in
// gossip what it could. The leader raises the one when all could more.

// speaks is what an agent is made to speak; 0 = the newest.
func speaks(n int) int { return cmp.Or(n, fsm.Newest()) }

// speaks is the version that the cluster speaks, as far as this node has applied its log.
func (a *Agent) speaks() (v int) {
	a.machine.View(func(s *fsm.State) { v = s.Speaks() })
	return v
}

// saysIt is what this node registers as its newest version: 0 while the cluster speaks
// one that has no place for it. A node whose log is still empty knows by what it was told.
func (a *Agent) saysIt() int {
	if max(a.speaks(), int(a.heardVersion.Load())) < 2 {
		return 0
	}
	return a.machine.Newest()
}

// newestOf is the newest version that a member speaks, by its own word; 0 = it was not
// seen since this node started, and never registered with one.
func (a *Agent) newestOf(n *fsm.Node) int {
	if n.Name == a.cfg.Name {
		return a.machine.Newest()
	}
	return cmp.Or(a.gossip.Speaks(n.Name), n.Speaks)
}

// canSpeak is the newest version that every member could speak, who is down included; 0
// = it is not known of all.
func (a *Agent) canSpeak(s *fsm.State) int {
	lowest := a.machine.Newest()
	for _, name := range s.NodeNames() {
		lowest = min(lowest, a.newestOf(s.Nodes[name]))
	}
	return lowest
}

func (a *Agent) canSpeakNow() (v int) {
	a.machine.View(func(s *fsm.State) { v = a.canSpeak(s) })
	return v
}

// versionProblems lists who keeps the cluster from speaking what the others could.
func (a *Agent) versionProblems(s *fsm.State) []api.StatusProblem {
	best := 0
	for _, name := range s.NodeNames() {
		best = max(best, a.newestOf(s.Nodes[name]))
	}
	var out []api.StatusProblem
	for _, name := range s.NodeNames() {
		if n := s.Nodes[name]; a.newestOf(n) > 0 && a.newestOf(n) < best {
			out = append(out, show("node-old", fmt.Sprintf("%s runs hanode %s, which speaks version %d; others could speak %d", name, n.Version, a.newestOf(n), best), nil))
		}
	}
	return out
}
