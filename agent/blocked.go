package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// A group is blocked where something may still run that must not run twice: it waits for
// an owner that nobody can vouch for, or its owner cannot stop it.

// noteBlocked tells, once for each epoch, that the group is ours and does not start
// because of somebody who may still run it: the history, and the group's on_problem.
func (w *worker) noteBlocked() {
	a := w.a
	w.mu.Lock()
	rec := w.rec
	w.mu.Unlock()
	// Mostly nothing waits, or only for a lease to expire: cheap to see, in each turn of
	// each group.
	stuck := slices.ContainsFunc(rec.Waits, func(x fsm.Wait) bool {
		return !x.Live && !x.Off && (rec.Exclusive || x.Bound >= spec.Unbounded)
	})
	if self, ok := a.ref(); !stuck || w.blockedAt == rec.Epoch || !ok || rec.Owner != self {
		return
	}
	var texts []string
	a.machine.View(func(s *fsm.State) {
		if g := s.Groups[w.name]; g != nil && g.Epoch == rec.Epoch && !g.Deleted {
			for _, p := range blocked(g) {
				texts = append(texts, p.Text)
			}
		}
	})
	if len(texts) == 0 {
		return
	}
	w.blockedAt = rec.Epoch
	ev := fsm.Event{
		Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: rec.Epoch, Kind: "blocked", Text: strings.Join(texts, "; "),
	}
	w.hook(hookProblem, rec, ev.Text)
	a.goLoop(func(ctx context.Context) { w.tell(ctx, 0, ev) })
}

// stopAgain is how long a group that did not stop, and could not be killed, is left
// alone until that is tried again.
const stopAgain = time.Second

// stuck is the end of a stop after which something may still run: nothing is
// released, so that the group starts nowhere else while this node is heard. The
// cluster is told once for each epoch.
func (w *worker) stuck(running id.Epoch, err error) {
	a := w.a
	w.mu.Lock()
	w.problem = err.Error()
	told := w.stuckAt == running
	w.stuckAt = running
	w.mu.Unlock()
	a.problems.set("stop-failed", fmt.Sprintf("%s: %v", w.name, err))
	if !told {
		a.log.Error("the group does not let go; it is not released", "group", w.name, "epoch", running, "err", err)
		ev := fsm.Event{
			Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: running, Kind: kindStuck,
			Text: fmt.Sprintf("%s does not stop on %s: %v", w.name, a.cfg.Name, err), Output: w.evidence(),
		}
		w.mu.Lock()
		rec := w.rec
		w.mu.Unlock()
		rec.Epoch = running
		w.hook(hookProblem, rec, ev.Text)
		a.goLoop(func(ctx context.Context) { w.tell(ctx, running, ev) })
	}
	sleepCtx(a.ctx, stopAgain)
}

// kindStuck is the kind of the event that says so.
const kindStuck = "stop-failed"

// stuckOn finds who said of a claim on g that still counts that it does not stop.
func stuckOn(s *fsm.State, g *fsm.Group) (e fsm.Event, ok bool) {
	for _, e := range slices.Backward(s.Events) {
		if e.Kind != kindStuck || e.Group != g.Spec.Name {
			continue
		}
		claimed := g.Owner.Name == e.Node && g.Epoch == e.Epoch && !g.OwnerReleased && !g.Started
		if claimed || slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool {
			return w.Live && w.Group == e.Group && w.Node.Name == e.Node && w.Epoch == e.Epoch
		}) {
			return e, true
		}
	}
	return fsm.Event{}, false
}
