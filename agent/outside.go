package agent

import (
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
