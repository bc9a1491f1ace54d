package agent

import (
	"context"
	"fmt"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/resource"
)

// A group's hooks are run by a goroutine of their own, one after the other in the
// order in which things happened. Nothing waits for them, and what they say is only
// told: a mail server that is down delays no takeover.

// The names of hooks, as in the cluster file.
const (
	hookAcquire = "on_acquire"
	hookRelease = "on_release"
	hookProblem = "on_problem"
)

type hook struct {
	name string
	argv []string
	env  resource.Env
}

const (
	// maxHooks is how many runs of hooks may wait for their turn. What comes beyond
	// that is left out, and logged.
	maxHooks = 32
	// lastHooks is how long an agent that stops waits for the hooks that are due.
	lastHooks = 5 * time.Second
)

// hook puts a hook of the group into the queue, if the group has it.
func (w *worker) hook(name string, rec fsm.Record, problem string) {
	var g spec.Group
	w.a.machine.View(func(s *fsm.State) {
		if x := s.Groups[w.name]; x != nil {
			g = x.Spec // also of a group that was removed
		}
	})
	argv := map[string][]string{hookAcquire: g.OnAcquire, hookRelease: g.OnRelease, hookProblem: g.OnProblem}[name]
	if len(argv) == 0 {
		return
	}
	env := w.env(rec, g)
	env.Problem = problem
	select {
	case w.hooks <- hook{name, argv, env}:
	default:
		w.a.log.Warn("too many hooks wait; one is left out", "group", w.name, "hook", name)
	}
}

// runHooks runs what is in the queue. When ctx ends, those that are due have a little
// time left.
func (w *worker) runHooks(ctx context.Context) {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		sleepCtx(run, lastHooks)
		cancel()
	})()
	for run.Err() == nil {
		select {
		case h := <-w.hooks:
			w.runHook(run, h)
			continue
		default:
		}
		select {
		case h := <-w.hooks:
			w.runHook(run, h)
		case <-ctx.Done():
			return
		}
	}
}

func (w *worker) runHook(ctx context.Context, h hook) {
	a := w.a
	op := a.services.Hook(ctx, h.name, h.argv, h.env)
	ms := float64(op.Took.Microseconds()) / 1000
	if op.Err == "" {
		a.log.Info("hook", "group", w.name, "epoch", h.env.Epoch, "hook", h.name, "ms", ms, "output", op.Output)
		a.problems.clear("hook-failed")
		return
	}
	a.log.Warn("hook", "group", w.name, "epoch", h.env.Epoch, "hook", h.name, "ms", ms, "err", op.Err, "output", op.Output)
	a.problems.set("hook-failed", fmt.Sprintf("%s of %s: %s", h.name, w.name, op.Err))
	ev := fsm.Event{
		Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: h.env.Epoch, Kind: "hook-failed", MS: &ms,
		Text: fmt.Sprintf("%s of %s failed on %s: %s", h.name, w.name, a.cfg.Name, op.Err), Output: op.End(fsm.MaxOutput),
	}
	a.goLoop(func(ctx context.Context) {
		// Once or not at all: it is in the log of the node as well.
		_, _ = a.propose(ctx, fsm.Command{At: ev.Time, Report: &fsm.Report{Events: []fsm.Event{ev}}})
	})
}
