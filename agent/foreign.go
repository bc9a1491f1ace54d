package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/spec"
)

const (
	// foreignTick is how often foreignLoop looks whether the groups have changed.
	foreignTick = 2 * time.Second
	// foreignEvery is how often it asks all services although they have not.
	foreignEvery = 5 * time.Minute
)

// foreignLoop looks for services of groups that run here although no agent started
// them, as Heartbeat's verifyallidle did: at the start, whenever the groups change, and
// now and then. It reports; to stop what is not ours is for people.
func (a *Agent) foreignLoop(ctx context.Context) {
	tick := time.NewTicker(foreignTick)
	defer tick.Stop()
	revision, looked := uint64(0), clock.Instant{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var groups []spec.Group
		now, r := a.host.Clock.Now(), uint64(0)
		owner := false
		a.machine.View(func(s *fsm.State) {
			groups, r = s.Specs(), s.Revision
			n := s.Nodes[a.cfg.Name]
			owner = n != nil && n.Role == spec.RoleNode
		})
		if !owner || r == revision && !looked.IsZero() && now.Elapsed(looked) < foreignEvery {
			continue
		}
		revision, looked = r, now
		var found []string
		for _, g := range groups {
			for _, what := range a.services.Foreign(ctx, a.cfg.Name, g) {
				found = append(found, what+" of "+g.Name)
			}
		}
		if ctx.Err() != nil {
			return
		}
		text := ""
		if len(found) > 0 {
			text = fmt.Sprintf("%s runs here, and the cluster did not start it", strings.Join(found, ", "))
			a.log.Warn("something of a group runs here that the cluster did not start", "what", found)
			looked = clock.Instant{} // again soon, until it is gone
		}
		a.problems.set("foreign-service", text)
	}
}
