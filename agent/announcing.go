package agent

import (
	"context"
	"time"

	"hanode/fsm"
)

// announceLoop has our addresses announced anew when neighbours may have learned
// something else meanwhile: a node is heard again that was silent (the network was
// parted, and the other side may have announced too), or this host stood still (it was
// copied, moved or paused, and others may have taken over and gone). The kernel does
// the same by itself for its lease and its devices.
func (a *Agent) announceLoop(ctx context.Context) {
	heard := a.hears()
	stood := a.woke()
	for {
		sleepCtx(ctx, max(a.cfg.Timing.Warntime, 20*time.Millisecond))
		if ctx.Err() != nil {
			return
		}
		why := ""
		now := a.hears()
		for name, is := range now {
			if was, known := heard[name]; known && is && !was {
				why = name + " is heard again"
			}
		}
		heard = now
		if woke := a.woke(); woke != stood {
			stood, why = woke, "this host stood still"
		}
		if why == "" {
			continue
		}
		if n := a.kernel.AnnounceAgain(); n > 0 {
			a.log.Info("announcing the addresses again", "because", why, "count", n)
		}
	}
}

// hears says of each other member whether it gave a sign of life within deadtime.
func (a *Agent) hears() map[string]bool {
	var names []string
	a.machine.View(func(s *fsm.State) { names = s.NodeNames() })
	now := a.host.Clock.Now()
	out := make(map[string]bool, len(names))
	for _, name := range names {
		if name == a.cfg.Name {
			continue
		}
		at := a.ears.last(name)
		out[name] = !at.IsZero() && now.Elapsed(at) < a.timing().Deadtime
	}
	return out
}
