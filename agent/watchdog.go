package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"hanode/internal/clock"
)

// tickleEvery is how often a watchdog device is written to: its own time is some tens
// of seconds.
const tickleEvery = time.Second

// openWatchdog opens a device that resets the host if nothing is written to it for a
// while.
func openWatchdog(path string) (io.WriteCloser, error) { return os.OpenFile(path, os.O_WRONLY, 0) }

// watchdogLoop writes to the watchdog of the node file while this host does no harm: its
// lease runs, or it holds nothing; and the agent's own loops turn. An agent that hangs
// or was killed writes nothing, and the device resets the host: the guard silenced its
// addresses long before, this ends its services. An agent that ends by itself holds
// nothing any more and takes the device's leave.
func (a *Agent) watchdogLoop(ctx context.Context) {
	if a.cfg.Watchdog == "" {
		return
	}
	open := a.host.Watchdog
	if open == nil {
		open = openWatchdog
	}
	d, err := open(a.cfg.Watchdog)
	if err != nil {
		a.problems.set("watchdog", fmt.Sprintf("the watchdog cannot be used: %v", err))
		return
	}
	a.log.Info("the watchdog is on", "path", a.cfg.Watchdog)
	tick := time.NewTicker(tickleEvery)
	defer tick.Stop()
	for quiet := false; ; {
		harmless := a.harmless(a.host.Clock.Now())
		if harmless {
			if _, err := d.Write([]byte{0}); err != nil {
				a.problems.set("watchdog", fmt.Sprintf("the watchdog cannot be written to: %v", err))
			}
		}
		if quiet == harmless {
			if quiet = !harmless; quiet {
				a.log.Error("something is held here without a lease: the watchdog is not tickled any more")
			}
		}
		select {
		case <-ctx.Done():
			if !a.crashed() && a.groups.idle() {
				_, _ = d.Write([]byte{'V'}) // the device's word for "this end is meant"
			}
			_ = d.Close()
			return
		case <-tick.C:
		}
	}
}

// harmless: nothing is held here, or it is held with a lease, and no loop hangs.
func (a *Agent) harmless(now clock.Instant) bool {
	if a.turns.hangs(now) != "" {
		return false
	}
	l := a.lease.Load()
	return a.groups.idle() || l != nil && l.Leased(now)
}
