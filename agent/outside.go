package agent

import (
	"errors"
	"strings"
	"time"

	"hanode/internal/clock"
)

// outside is a node that its cluster does not let in.
type outside struct {
	since clock.Instant
	why   string
}

// outsideFor is for how long that is nothing to speak of: an election may be under way.
const outsideFor = 5 * time.Second

// errNobodyIn: what this node waits for may be on one disk alone.
var errNobodyIn = errors.New("no member of it answers, and who knows of a cluster founds no other one; " +
	"start those that were members; if their disks are lost for good, stop all agents, move data_dir aside on every host and found the cluster anew")

// note logs what is new of it, and shows what lasts.
func (o *outside) note(a *Agent, via string, err error) {
	now, why := a.host.Clock.Now(), strings.ReplaceAll(err.Error(), "\n", "; ")
	if o.since.IsZero() {
		o.since = now
	}
	if why != o.why {
		a.log.Info("cannot join yet", "via", via, "err", why)
		o.why = why
	}
	if now.Elapsed(o.since) >= outsideFor {
		a.problems.set("not-joined", "there is a cluster, and it does not let this node in: "+why)
	}
}
