package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
	"hanode/resource"
)

// run is the worker's loop: look, decide, act, look again.
func (w *worker) run(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	for ctx.Err() == nil {
		restless := false
		switch w.look() {
		case failover.Run:
			w.mu.Lock()
			idle, rec, broken := w.running == 0, w.rec, w.broken
			w.mu.Unlock()
			if idle {
				w.start(ctx)
				continue
			}
			if broken != nil {
				w.failed(rec, broken)
			}
			w.recheck()
		case failover.Stop:
			if w.stop() {
				continue
			}
			restless = true
		case failover.Leave:
			restless = w.chase()
		}
		again.Stop()
		if restless { // of a thousand groups most wait for nothing
			again.Reset(w.a.retry())
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-again.C:
		}
	}
}

// retry is how long until what is not as it should be is looked at again.
func (a *Agent) retry() time.Duration { return max(a.cfg.Timing.Keepalive, 10*time.Millisecond) }

// lapseLoop has what runs here look again and again while no lease runs: what to do
// then depends on the time that has passed (failover.Wanted).
func (a *Agent) lapseLoop(ctx context.Context) {
	tick := a.grid.Ticker(a.retry())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
		if l := a.lease.Load(); l == nil || !l.Leased(a.host.Clock.Now()) {
			a.groups.wakeRunning()
		}
	}
}

// look gathers what Wanted needs and asks it.
func (w *worker) look() failover.Step {
	a := w.a
	now := a.now()
	w.mu.Lock()
	rec, running := w.rec, w.running
	w.mu.Unlock()
	l := failover.Local{Running: running, Deadtime: a.timing().Deadtime, Initdead: a.timing().Initdead, Drain: a.drain.Load()}
	a.hold.Lock()
	if h := a.hold.holder; h != nil {
		l.Self = h.Ref()
		v := h.May(w.name, now)
		l.May, l.Muted = v.OK && v.Epoch == rec.Epoch, v.Why == lease.NoLease
		l.Unleased = min(h.Unleased(now), a.awake(now)) // a stall is no reason to give up
		l.Drain = l.Drain || h.Fenced()
	} else {
		l.Drain = true
	}
	a.hold.Unlock()
	if l.Muted && l.Unleased > l.Deadtime {
		l.Elsewhere = majorityServes(a.voters(), a.ears.serving, now, l.Deadtime)
	}
	if !l.Drain && running == 0 && w.owes() {
		return failover.Stop // we may have held it once: let go formally
	}
	return failover.Wanted(l, rec)
}

// owes reports a claim of ours on the group, in any record, that we have not let
// go of although nothing runs.
func (w *worker) owes() bool {
	w.a.hold.Lock()
	defer w.a.hold.Unlock()
	if w.a.hold.holder == nil {
		return false
	}
	return len(w.a.hold.holder.Due(w.name)) > 0
}

// majorityAnswers reports whether a majority of voters is up and ready now, as far as
// this node hears: then somebody could take over what we hand over.
func (a *Agent) majorityAnswers(now clock.Instant) bool {
	dead := a.timing().Deadtime
	names := a.quorumOf()
	n := 0
	for _, v := range names {
		if v == a.cfg.Name && a.manual() {
			n++
			continue
		}
		h, answered, ok := a.ears.both(v)
		if ok && h.beat.Ready && now.Elapsed(h.at) < dead || !answered.IsZero() && now.Elapsed(answered) < dead {
			n++
		}
	}
	return n >= len(names)/2+1
}

// chase asks the voters about whom this group waits for, while it is ours and
// waits: the leader does the same, and either may be gone. It reports whether the group
// waits. The groups of a node wait for the same, so one of them asks for all.
func (w *worker) chase() bool {
	a := w.a
	now := a.host.Clock.Now()
	w.noteBlocked()
	a.hold.Lock()
	var waits []lease.Wait
	ours := false
	if h := a.hold.holder; h != nil {
		r, ok := h.Right(w.name)
		ours = ok && r.Owner == h.Ref() && len(r.Waits) > 0
		if ours && now.Elapsed(a.hold.chased) >= a.retry()/2 {
			a.hold.chased = now
			waits = h.Unsatisfied()
		}
	}
	a.hold.Unlock()
	a.revoke(waits, "")
	w.expect(ours)
	return ours
}

// specOf is the spec that the record is about; false while this node's log lags.
func (a *Agent) specOf(rec fsm.Record) (g spec.Group, ok bool) {
	a.machine.View(func(s *fsm.State) {
		if x := s.Groups[rec.Group]; x != nil && x.Revision == rec.Revision {
			g, ok = x.Spec, true
		}
	})
	return g, ok
}

// start starts the group under its record's epoch and reports it.
func (w *worker) start(ctx context.Context) {
	a := w.a
	w.mu.Lock()
	rec := w.rec
	w.mu.Unlock()
	g, ok := a.specOf(rec)
	if !ok {
		sleepCtx(ctx, time.Millisecond) // the record came before its spec
		return
	}
	w.mu.Lock()
	w.running, w.started, w.problem, w.since = rec.Epoch, false, "", a.host.Clock.Wall()
	w.opened, w.ready = clock.Instant{}, clock.Instant{}
	w.mu.Unlock()
	w.setChecks(g, rec.Revision)
	begin := a.host.Clock.Now()
	permission, adopt := w.mayAdopt()
	startCtx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		err := w.warm.await(startCtx, g.Warm())
		if err == nil {
			env := w.env(rec, g)
			env.Adopt = adopt
			err = w.res.Start(startCtx, g.Moving(), env)
		}
		done <- err
	}()
	var err error
	tick := time.NewTicker(a.retry())
	defer tick.Stop()
wait:
	for {
		select {
		case err = <-done:
			break wait
		case <-w.wake:
		case <-tick.C:
		}
		if w.look() == failover.Stop {
			cancel()
			err = errors.Join(errors.New("given up while starting"), <-done)
			break wait
		}
	}
	cancel()
	if err != nil {
		w.failed(rec, err)
		return
	}
	w.dismiss() // what was expected and is not part of it any more
	w.mu.Lock()
	w.started, w.since, w.ready = true, a.host.Clock.Wall(), a.host.Clock.Now()
	w.adopted = max(w.adopted, permission)
	w.mu.Unlock()
	took := a.host.Clock.Now().Elapsed(begin)
	a.log.Info("took over", "group", w.name, "epoch", rec.Epoch, "cause", rec.Cause, "ms", float64(took.Microseconds())/1000)
	a.goLoop(func(ctx context.Context) { w.report(ctx, rec, begin, took) })
	w.hook(hookAcquire, rec, "")
	w.watch(ctx, rec)
}

// recheck takes up checks that changed while the services stay as they are.
func (w *worker) recheck() {
	w.mu.Lock()
	rec := w.rec
	w.mu.Unlock()
	if rec.Revision == w.checked {
		return
	}
	if g, ok := w.a.specOf(rec); ok {
		w.setChecks(g, rec.Revision)
	}
}

func (w *worker) setChecks(g spec.Group, revision uint64) {
	w.res.SetChecks(g)
	w.checked = revision
}

func (w *worker) env(rec fsm.Record, g spec.Group) resource.Env {
	e := resource.Env{Group: w.name, Node: w.a.cfg.Name, Epoch: rec.Epoch, Reason: rec.Cause, Exclusive: g.IsExclusive()}
	for _, r := range g.Resources {
		if r.Type == "ip" {
			e.VIP = r.Address()
			break
		}
	}
	return e
}

// report tells the cluster that the group runs here, until it was told or is not
// true any more.
func (w *worker) report(ctx context.Context, rec fsm.Record, begin clock.Instant, took time.Duration) {
	a := w.a
	ms := func(d time.Duration) *float64 { v := float64(d.Microseconds()) / 1000; return &v }
	ev := fsm.Event{
		Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: rec.Epoch, Kind: "started", Cause: rec.Cause,
		Text: fmt.Sprintf("%s runs on %s", w.name, a.cfg.Name),
	}
	w.mu.Lock()
	answers := w.opened
	w.mu.Unlock()
	a.hold.Lock()
	for _, wait := range rec.Waits {
		// Nobody answered from the old owner's close, through the token's way here, to
		// the first announcement. A group without an address has no such silence.
		if t, ok := a.hold.tokens[wait.Claim]; ok && !answers.IsZero() && !answers.Before(t.at) {
			ev.MS = ms(t.ago + answers.Elapsed(t.at))
		}
	}
	self := id.NodeRef{}
	if a.hold.holder != nil {
		self = a.hold.holder.Ref()
	}
	a.hold.Unlock()
	h := fsm.Holding{Group: w.name, Node: self, Epoch: rec.Epoch, Started: true, Events: []fsm.Event{ev}}
	for ctx.Err() == nil && w.runs(rec.Epoch) {
		if a.tellRuns(ctx, ev.Time, h) == nil {
			return
		}
		sleepCtx(ctx, 50*time.Millisecond)
	}
}

func (w *worker) runs(e id.Epoch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running == e
}

// watch monitors the started group beside the loop; what fails for good is left in
// broken for the loop to deal with.
func (w *worker) watch(ctx context.Context, rec fsm.Record) {
	w.res.Restarted = func(r spec.Resource, times int, why error) { w.restarted(rec, r, times, why) }
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.res.Watch(ctx); err != nil && ctx.Err() == nil {
			w.mu.Lock()
			w.broken = err
			w.mu.Unlock()
			signal(w.wake)
		}
	}()
	w.unwatch = func() { cancel(); <-done }
}

// restarted tells the cluster that a resource failed and is started again here.
func (w *worker) restarted(rec fsm.Record, r spec.Resource, times int, why error) {
	a := w.a
	a.log.Warn("a resource failed and is started again", "group", w.name, "epoch", rec.Epoch,
		"resource", r.Type+" "+r.Name, "times", times, "of", r.Restarts, "err", why)
	ev := fsm.Event{
		Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: rec.Epoch, Kind: "restarted",
		Text:   fmt.Sprintf("%s %q of %s failed on %s and is started again there (%d of %d): %v", r.Type, r.Name, w.name, a.cfg.Name, times, r.Restarts, why),
		Output: w.evidence(),
	}
	w.hook(hookProblem, rec, ev.Text)
	a.goLoop(func(ctx context.Context) { w.tell(ctx, rec.Epoch, ev) })
}

// tell adds an event to the history, for as long as the group runs here at that epoch.
func (w *worker) tell(ctx context.Context, running id.Epoch, ev fsm.Event) {
	cmd := fsm.Command{At: ev.Time, Report: &fsm.Report{Events: []fsm.Event{ev}}}
	for ctx.Err() == nil && w.runs(running) {
		if _, err := w.a.propose(ctx, cmd); err == nil {
			return
		}
		sleepCtx(ctx, 100*time.Millisecond)
	}
}

// evidence is the end of what failed last printed, for the history.
func (w *worker) evidence() string {
	op := w.res.LastFailure()
	if w.warm.trouble() != nil {
		if o := w.warm.res.LastFailure(); o.At.After(op.At) {
			op = o
		}
	}
	return op.End(fsm.MaxOutput)
}

// failed unwinds a group that could not start, or broke, and says why, so that it
// starts elsewhere.
func (w *worker) failed(rec fsm.Record, err error) {
	a := w.a
	// Not a fault of this host: it lost the right.
	lost := errors.Is(err, errLost) || w.look() == failover.Stop
	ran := time.Duration(0)
	w.mu.Lock()
	w.problem = err.Error()
	if !w.ready.IsZero() {
		ran = a.host.Clock.Now().Elapsed(w.ready)
	}
	w.mu.Unlock()
	if lost {
		w.stop()
		return
	}
	w.hook(hookProblem, rec, fmt.Sprintf("%s failed on %s: %v", w.name, a.cfg.Name, err))
	a.log.Error("the group cannot run here", "group", w.name, "epoch", rec.Epoch, "err", err)
	cmd := fsm.Command{At: a.host.Clock.Wall(), Failed: &fsm.Failed{
		Group: w.name, Node: rec.Owner, Epoch: rec.Epoch, Why: err.Error(), Ran: ran, Output: w.evidence(),
	}}
	// The reason must be in the log before the leader has the token, or it gives the
	// group to this very node again. This goroutine is the only one that could open
	// the group meanwhile.
	told := false
	stopped := w.stopAfter(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 2*a.timing().Deadtime)
		defer cancel()
		_, err := a.propose(ctx, cmd)
		told = err == nil
	})
	if !stopped {
		return
	}
	w.mu.Lock()
	w.problem = err.Error()
	w.mu.Unlock()
	if told {
		return
	}
	a.goLoop(func(ctx context.Context) {
		for ctx.Err() == nil {
			if _, err := a.propose(ctx, cmd); err == nil {
				return
			}
			sleepCtx(ctx, 100*time.Millisecond)
		}
	})
}

// stop lets the group go: stop right to left (the last is that addresses are closed),
// *then* remember, *then* tell, and only then take the addresses off. It reports whether it is done; if not,
// it is tried again.
func (w *worker) stop() bool { return w.stopAfter(func() {}) }

// stopAfter is stop with something to do when all is closed and nobody knows yet.
func (w *worker) stopAfter(closed func()) bool {
	a := w.a
	if w.unwatch != nil {
		w.unwatch()
		w.unwatch = nil
	}
	w.mu.Lock()
	rec, running := w.rec, w.running
	w.started, w.broken = false, nil
	w.mu.Unlock()
	begin := a.host.Clock.Now()
	upto := running
	if running != 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), w.res.StopLimit())
		err := w.res.Stop(ctx)
		cancel()
		if err != nil {
			w.takeOff() // what was closed
			w.stuck(running, err)
			return false
		}
		a.problems.clear("stop-failed")
	}
	closed()
	// Whatever epoch before the record's we may still be held to account for.
	a.hold.Lock()
	if h := a.hold.holder; h != nil {
		for _, c := range h.Due(w.name) {
			upto = max(upto, c.Epoch)
		}
		if upto > 0 {
			h.Release(w.name, upto)
		}
	}
	a.hold.Unlock()
	a.sendOwed(w.name)
	w.takeOff() // the next owner does not wait for it
	w.mu.Lock()
	w.running, w.since = 0, a.host.Clock.Wall()
	w.mu.Unlock()
	if running != 0 {
		gone := rec
		gone.Epoch = running
		w.hook(hookRelease, gone, "")
		a.log.Info("released", "group", w.name, "epoch", running, "to", rec.Owner.Name,
			"ms", float64(a.host.Clock.Now().Elapsed(begin).Microseconds())/1000)
	}
	return true
}

// takeOff takes the addresses off that the group has closed. One that stays goes by its
// lifetime; it is silent.
func (w *worker) takeOff() {
	if err := w.a.leaving.off(w.name, w.a.kernel.Del); err != nil {
		w.a.log.Warn("silenced addresses could not be taken off", "group", w.name, "err", err)
	}
}
