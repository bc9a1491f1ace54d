package failover

import (
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/linkstate"
)

// Health is what the leader knows of a node now. The zero value is "never
// heard".
type Health struct {
	Inc    uint64 // incarnation in its newest beat
	Alive  bool   // not silent for deadtime
	Leased bool   // says that its lease runs
	Behind bool   // its log has not caught up since it started
	Hung   bool   // its disk does not finish a write: addresses need none, services do
	// Dead: a majority of voters has not heard it for deadtime, or it is heard but
	// had no lease for deadtime although voters answer (R6).
	Dead bool
	Why  string // why Dead
	// Healthy is for how long it has been Alive and Leased without a break.
	Healthy time.Duration
	// Links are its devices that virtual addresses need, as it says itself. One of
	// which nothing is said carries.
	Links []linkstate.Link
	// Unreached is how many ping nodes fewer it reaches than the node that reaches most,
	// once that has been so for a while; 0 = it reaches as many, or nobody asks.
	Unreached int
	// Regained: it reached fewer ping nodes not long ago, and may again.
	Regained bool
}

// Inputs is all that a decision depends on. State is read only.
type Inputs struct {
	Wall   time.Time // stamps commands; decides nothing
	State  *fsm.State
	Health map[string]Health
	// Tokens are claims the leader was told were let go.
	Tokens map[id.Claim]bool
	// Avoid is for how much longer a node is not given a group that failed there; Held
	// for how long a group is at its epoch. Both as this leader saw it: see [Sight].
	Avoid map[Place]time.Duration
	Held  map[string]time.Duration
	// Formed: all members were alive at once since this process started, or since one
	// that told it so, or initdead has passed. Until then a group waits for its most preferred node.
	Formed bool
	// Lacks says for each node and group why that node cannot be given it: what it has
	// not got that the group takes, or what is there already. It keeps a group from going there, never moves one away.
	Lacks map[string]map[string]string
}
