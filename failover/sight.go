package failover

import (
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
)

// Place is a group on a node.
type Place struct{ Group, Node string }

// Calm is the least time between two automatic moves of a group, unless its owner
// died: one that fails everywhere at once must not wander about at full speed.
const Calm = 30 * time.Second

// Sight is what a leader remembers of when it saw things happen, by its own
// monotonic clock: the log holds no time that could decide anything. A new leader
// begins with an empty one and counts afresh, which only lengthens. The zero value is
// ready; it belongs to one goroutine at a time.
type Sight struct {
	failures map[Place]saw
	epochs   map[string]saw
}

type saw struct {
	epoch id.Epoch
	count int
	at    clock.Instant
}

// Look notes what is new in s, and says for how much longer each node is not given a
// group that failed there, and for how long each group is at its epoch.
func (v *Sight) Look(s *fsm.State, now clock.Instant) (avoid map[Place]time.Duration, held map[string]time.Duration) {
	avoid, held = map[Place]time.Duration{}, map[string]time.Duration{}
	failures, epochs := map[Place]saw{}, map[string]saw{}
	for name, g := range s.Groups {
		e, ok := v.epochs[name]
		if !ok || e.epoch != g.Epoch {
			e = saw{epoch: g.Epoch, at: now}
		}
		epochs[name], held[name] = e, now.Elapsed(e.at)
		for _, node := range g.FailedOn() {
			p, f := Place{name, node}, g.Failed[node]
			e, ok := v.failures[p]
			if !ok || e.epoch != f.Epoch || e.count != f.Count {
				e = saw{f.Epoch, f.Count, now}
			}
			failures[p] = e
			if left := g.Spec.Avoid(f.Count) - now.Elapsed(e.at); left > 0 {
				avoid[p] = left
			}
		}
	}
	v.failures, v.epochs = failures, epochs
	return avoid, held
}
