package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/realtime"
	"hanode/internal/spec"
)

// pulse notices that this process did not run: it was stopped or frozen, its
// machine was paused, or it got no processor. What it did not hear meanwhile says
// nothing about others. The goroutines that beat and that watch for silence look at
// the clock more often than each keepalive, so a longer time between two looks is a
// stall; and whoever looks first after it excuses everybody before anyone decides.
type pulse struct {
	mu    sync.Mutex
	beats bool          // the loops run
	last  clock.Instant // the newest look
	woke  clock.Instant // when the newest stall ended; zero = there was none
	late  gaps          // how late this node's own beats went out
	sent  gaps          // the same as times between two of them
	born  clock.Instant // since when late, sent, gaps of others and stalls are measured
	stall stalls        // since then
	fresh stalls        // not yet in the history
	news  chan struct{} // one slot: fresh is not empty
}

// stalls adds up.
type stalls struct {
	count   uint64
	total   time.Duration
	longest time.Duration
	at      clock.Instant // when the newest ended
	when    time.Time     // the same, for people
}

func (s *stalls) add(d time.Duration, now clock.Instant, wall time.Time) {
	s.count++
	s.total += d
	s.longest = max(s.longest, d)
	s.at, s.when = now, wall
}

// stallEvery is how often the history may tell of stalls: a starved host has many.
const stallEvery = 10 * time.Second

// now reads the clock for a decision: if this process was stalled until now, nobody
// is blamed for the time of the stall by what follows.
func (a *Agent) now() clock.Instant {
	now := a.host.Clock.Now()
	p := &a.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.beats || !p.last.Before(now) {
		return now // not running yet, or another goroutine was later than we
	}
	stalled := now.Elapsed(p.last) - a.cfg.Timing.Keepalive
	p.last = now
	if stalled < a.cfg.Timing.Warntime/2 {
		return now
	}
	p.woke = now
	a.excuse(now)
	wall := a.host.Clock.Wall()
	p.stall.add(stalled, now, wall)
	p.fresh.add(stalled, now, wall)
	signal(p.news)
	return now
}

// excuse: what this process did not hear until now says nothing about others. No
// call out of here may read the clock by a.now.
func (a *Agent) excuse(now clock.Instant) {
	a.grant.Lock()
	a.grant.Excuse(now)
	a.grant.Unlock()
	if n := a.node.Load(); n != nil {
		n.ExcuseDisk()
	}
}

// startPulse begins to watch; the loops run from here on.
func (a *Agent) startPulse() {
	p := &a.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	now := a.host.Clock.Now()
	p.beats, p.last, p.born = true, now, now
}

// woke is when the newest stall of this process ended; zero = there was none.
func (a *Agent) woke() clock.Instant {
	a.pulse.mu.Lock()
	defer a.pulse.mu.Unlock()
	return a.pulse.woke
}

// awake is for how long this process has run without a stall.
func (a *Agent) awake(now clock.Instant) time.Duration {
	return now.Elapsed(clock.Later(a.born, a.woke()))
}

// dazed reports whether a stall ended less than deadtime ago: what came meanwhile
// may not have been read yet, and it is too early to call a leader late.
func (a *Agent) dazed(now clock.Instant) bool {
	woke := a.woke()
	return !woke.IsZero() && now.Elapsed(woke) < a.timing().Deadtime
}

// noteSent counts a beat of this node, which went out gap after the one before.
func (p *pulse) noteSent(gap time.Duration, t spec.Timing, now clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late.add(gap-t.Keepalive, t.Deadtime, now)
	p.sent.add(gap, t.Deadtime, now)
}

// restart forgets what was measured until now.
func (p *pulse) restart(now clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late, p.sent, p.stall, p.born = gaps{}, gaps{}, stalls{}, now
}

// stallLoop writes into the history that this node was stalled: once per stall, but
// no more often than stallEvery; what comes in between is told together.
func (a *Agent) stallLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.pulse.news:
		}
		a.pulse.mu.Lock()
		s := a.pulse.fresh
		a.pulse.fresh = stalls{}
		a.pulse.mu.Unlock()
		if s.count == 0 {
			continue
		}
		a.log.Warn("I was stalled; blaming nobody else for it", "ms", s.longest.Milliseconds(), "times", s.count)
		a.report(ctx, a.stallEvent(s))
		sleepCtx(ctx, stallEvery)
	}
}

func (a *Agent) stallEvent(s stalls) fsm.Event {
	text := fmt.Sprintf("I was stalled %d ms: the agent did not run; nobody else is blamed for it", s.longest.Milliseconds())
	if s.count > 1 {
		text = fmt.Sprintf("I was stalled %d times, %d ms in all, the longest %d ms: the agent did not run; nobody else is blamed for it",
			s.count, s.total.Milliseconds(), s.longest.Milliseconds())
	}
	ms := float64(s.longest.Microseconds()) / 1000
	return fsm.Event{Time: s.when, Node: a.cfg.Name, Kind: "stalled", Text: text, MS: &ms}
}

// report adds to the history: until it is there, for an election may leave a
// proposal's fate open.
func (a *Agent) report(ctx context.Context, e fsm.Event) {
	for ctx.Err() == nil && !a.told(e) {
		_, err := a.propose(ctx, fsm.Command{At: e.Time, Report: &fsm.Report{Events: []fsm.Event{e}}})
		if err == nil {
			return
		}
		a.log.Debug("not in the history yet", "kind", e.Kind, "err", err)
		sleepCtx(ctx, time.Second)
	}
}

// told reports whether this node's history has the event.
func (a *Agent) told(e fsm.Event) (yes bool) {
	a.machine.View(func(s *fsm.State) {
		yes = slices.ContainsFunc(s.Events, func(x fsm.Event) bool {
			return x.Kind == e.Kind && x.Node == e.Node && x.Time.Equal(e.Time)
		})
	})
	return yes
}

// realtimeLoop has this process run before ordinary ones, unless the node file says
// no. Where that is refused it is a problem only if the node file says yes.
func (a *Agent) realtimeLoop(ctx context.Context) {
	asked := a.cfg.Realtime
	if a.host.Realtime == nil || asked != nil && !*asked {
		return
	}
	a.host.Realtime(ctx, func(s realtime.State) {
		a.realtime.Store(&s)
		switch {
		case s.On:
			a.log.Info("the agent runs before ordinary programs (realtime)")
			a.problems.clear("realtime-refused")
		case asked != nil:
			a.log.Warn("realtime is set, but refused", "why", s.Why)
			a.problems.set("realtime-refused", "realtime is set, but refused: "+s.Why)
		default:
			a.log.Info("the agent runs as an ordinary program; a busy host may delay its beats", "why", s.Why)
		}
	})
}

// stallShown is how long a stall stays in `status`.
const stallShown = 10 * time.Minute

// stallProblem says that this node was stalled lately.
func (a *Agent) stallProblem() []api.StatusProblem {
	a.pulse.mu.Lock()
	s := a.pulse.stall
	a.pulse.mu.Unlock()
	if s.count == 0 || a.host.Clock.Now().Elapsed(s.at) >= stallShown {
		return nil
	}
	return []api.StatusProblem{show("stalled", fmt.Sprintf("%s was stalled %d times, the longest %v",
		a.cfg.Name, s.count, s.longest.Round(time.Millisecond)), &s.when)}
}
