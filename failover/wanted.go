package failover

import (
	"time"

	"hanode/fsm"
	"hanode/internal/id"
)

// Step is what a node should do about one group now.
type Step int

// The steps.
const (
	Leave Step = iota // as it is
	Run               // start it, or keep it running
	Stop              // stop it, close, remember, tell
)

// Local is what a node knows of itself when it asks Wanted.
type Local struct {
	Self id.NodeRef
	// Running is the epoch at which the group runs here, whole or in part; 0 = not.
	Running id.Epoch
	// May: the lease's holder says that the group may be held now. Muted: it says
	// no only because no lease runs.
	May, Muted bool
	// Unleased is for how long there has been no lease; the others are the cluster's.
	Unleased, Deadtime, Initdead time.Duration
	// Elsewhere: a majority of voters has acked beats for deadtime, as far as this node
	// can hear, so a lease was to be had by others all that time.
	Elsewhere bool
	Drain     bool // the agent is stopping, or was fenced: hold nothing
}

// Wanted says what this node should do about the group of rec. R10 is here: a
// lease that ran out mutes the host (the guard did that already) and does not
// stop services, until it has been gone for deadtime while others could have one.
// Whether they could, a node that is cut off cannot tell: after initdead, in which a
// cluster whose voters all restarted is whole again, it no longer matters.
func Wanted(l Local, rec fsm.Record) Step {
	mine := rec.Owner == l.Self && !rec.Deleted
	running := l.Running != 0
	switch {
	case l.Drain && running:
		return Stop
	case l.Drain:
		return Leave
	case running && (!mine || rec.Epoch != l.Running):
		return Stop // never run one epoch under another's right
	case !mine:
		return Leave
	case l.May:
		return Run
	case running && l.Muted && (l.Elsewhere && l.Unleased > l.Deadtime || l.Unleased > l.Initdead):
		return Stop
	case running && l.Muted:
		return Leave // muted: the guard is closed, services go on
	case running:
		return Stop
	}
	return Leave
}
