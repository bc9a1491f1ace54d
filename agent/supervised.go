package agent

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/spec"
)

// Supervisor is what started this process and starts it again: systemd, for the real
// one. No call may block.
type Supervisor interface {
	Ready()                       // the boot clean-up is done and the socket answers; never waits for quorum
	Alive()                       // every loop that matters turns
	Status(line string)           // what it does, for people
	Stopping(limit time.Duration) // it ends, and may take that long from now
}

// turns are when each loop that matters last began a turn. None of them waits for a
// disk or a peer: one that stands still never goes on, and only a new process helps.
// Clients are safe long before that, at the end of the lease; the supervisor is for
// the node to come back.
type turns [loopCount]atomic.Int64 // by the boot clock; 0 = not yet

type loop int

const (
	loopBeats  loop = iota // sends keepalives
	loopVoter              // says who is silent
	loopGroups             // hands records to the groups
	loopCount
)

func (l loop) String() string { return [...]string{"beats", "voter", "groups"}[l] }

// A turn takes less than a second; what takes so long hangs.
const (
	turnLimit = 10 * time.Second
	tellEvery = time.Second
)

func (a *Agent) turn(l loop) {
	a.turns[l].Store(int64(a.host.Clock.Now().Boot))
}

// hangs names a loop that has not turned for too long; "" = all turn.
func (t *turns) hangs(now clock.Instant) string {
	for l := range loopCount {
		if at := t[l].Load(); at != 0 && now.Boot-time.Duration(at) > turnLimit {
			return l.String()
		}
	}
	return ""
}

// superviseLoop feeds the supervisor's watchdog while every loop turns, and keeps its
// status line.
func (a *Agent) superviseLoop(ctx context.Context) {
	s := a.opts.Supervisor
	if s == nil {
		return
	}
	tick := a.grid.Ticker(tellEvery)
	defer tick.Stop()
	told := ""
	for {
		if hung := a.turns.hangs(a.host.Clock.Now()); hung == "" {
			s.Alive()
		} else {
			a.log.Error("a loop hangs; the watchdog is not fed any more", "loop", hung)
		}
		if line := a.statusLine(); line != told {
			s.Status(line)
			told = line
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

// statusLine is what this node itself knows: it asks nobody.
func (a *Agent) statusLine() string {
	var parts []string
	n := a.node.Load()
	if n == nil {
		parts = append(parts, "waiting for the cluster to form")
	} else {
		leader, _ := a.leader(n)
		switch leader {
		case "":
			parts = append(parts, "no leader")
		case a.cfg.Name:
			parts = append(parts, "leads")
		default:
			parts = append(parts, leader+" leads")
		}
	}
	for _, name := range a.groups.names() {
		w := a.groups.get(name)
		switch {
		case w.isStarted():
			parts = append(parts, "runs "+name)
		case w.here():
			parts = append(parts, "starts or stops "+name)
		}
	}
	if len(parts) == 1 && n != nil {
		parts = append(parts, "runs no group")
	}
	return strings.Join(parts, "; ")
}

// stopTime is how long this agent may take to stop: the hand-over, then whatever its
// groups' own time-outs allow.
func (a *Agent) stopTime() time.Duration {
	return handOverTime + a.stopLimit() + 10*time.Second
}

// stopLimit is how long the slowest group that runs here may take to stop, by its own
// time-outs; at least half a minute.
func (a *Agent) stopLimit() time.Duration {
	limit := 30 * time.Second
	a.machine.View(func(s *fsm.State) {
		for name, g := range s.Groups {
			if w := a.groups.get(name); w != nil && w.here() {
				limit = max(limit, a.services.StopLimit(g.Spec.Resources))
			}
		}
	})
	return limit
}

// arrange tells systemd that the units of groups outlive this agent's own unit at
// shutdown, whenever their list has changed. It takes a reload of systemd, so it has a
// goroutine of its own, one at a time.
func (a *Agent) arrange(units []spec.Resource) {
	var names []string
	for _, r := range units {
		names = append(names, r.Name)
	}
	list := fmt.Sprint(names)
	again := a.arranged.failed.Load()
	if a.opts.Supervisor == nil || len(units) == 0 && a.arranged.list == "" || list == a.arranged.list && !again ||
		!a.arranged.busy.CompareAndSwap(false, true) {
		return
	}
	a.arranged.list = list
	a.arranged.failed.Store(false)
	a.goLoop(func(ctx context.Context) {
		defer a.arranged.busy.Store(false)
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := a.services.Arrange(ctx, units); err != nil {
			a.log.Warn("systemd may stop units of groups before this agent at shutdown", "err", err)
			sleepCtx(ctx, 10*time.Second)
			a.arranged.failed.Store(true)
		}
	})
}
