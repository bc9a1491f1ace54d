package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/resource"
)

// warm runs a group's concurrent resources on this node, whoever owns the group, for
// as long as the node could own it: a switchover then moves only what is left, mostly
// an address. No lease is needed, because what must not run twice may not be
// concurrent. One goroutine; the fields behind mu are read by others.
type warm struct {
	w    *worker
	res  *resource.Group
	wake chan struct{}

	mu  sync.Mutex
	ran []spec.Resource // what runs, or may; nil = nothing
	up  bool            // all of it runs
	err error           // why it does not
	bad error           // why it did not when it was tried last; nil = it did, or is not wanted
}

// warmAgain is how long a concurrent resource that failed is left alone.
const warmAgain = 10 * time.Second

func (x *warm) run(ctx context.Context) {
	tick := x.w.a.grid.Ticker(time.Second)
	defer tick.Stop()
	var tried time.Time
	var broken chan error
	end := func() {}
	defer func() { end() }()
	for ctx.Err() == nil {
		want := x.want()
		x.mu.Lock()
		ran := x.ran
		x.mu.Unlock()
		switch {
		case ran != nil && !reflect.DeepEqual(ran, want):
			end()
			end = func() {}
			if x.stop() {
				tried = time.Time{}
				continue
			}
		case ran == nil && len(want) == 0:
			x.tell(nil)
		case ran == nil && time.Since(tried) > warmAgain:
			tried = time.Now()
			if x.start(ctx, want) {
				broken, end = x.watch(ctx)
			}
		}
		select {
		case <-ctx.Done():
		case <-x.wake:
		case <-tick.C:
			tick.Next()
		case err := <-broken:
			broken = nil
			x.failed(err)
			x.stop()
			tried = time.Time{} // it ran: once more at once, then no more often than that
			if x.w.isStarted() {
				x.w.mu.Lock()
				x.w.broken = err
				x.w.mu.Unlock()
				signal(x.w.wake)
				tried = time.Now()
			}
		}
	}
}

// want is what should run here now.
func (x *warm) want() []spec.Resource {
	a := x.w.a
	a.hold.Lock()
	gone := a.hold.holder == nil || a.drain.Load()
	a.hold.Unlock()
	if gone {
		return nil
	}
	var out []spec.Resource
	a.machine.View(func(s *fsm.State) {
		g, n := s.Groups[x.w.name], s.Nodes[a.cfg.Name]
		if g != nil && !g.Deleted && !g.Spec.IsExclusive() && n.Registered() && n.Role == spec.RoleNode && !n.Standby && !n.Leaving && !n.Stopped {
			out = g.Spec.Warm()
		}
	})
	return out
}

func (x *warm) start(ctx context.Context, want []spec.Resource) bool {
	a := x.w.a
	x.mu.Lock()
	x.ran, x.up, x.err = want, false, nil
	x.mu.Unlock()
	env := resource.Env{Group: x.w.name, Node: a.cfg.Name, Reason: "concurrent"}
	_, env.Adopt = x.w.mayAdopt()
	if err := x.res.Start(ctx, want, env); err != nil {
		x.failed(err)
		x.stop()
		return false
	}
	x.mu.Lock()
	x.up = true
	x.mu.Unlock()
	x.tell(nil)
	a.log.Info("runs beside its owner", "group", x.w.name)
	signal(x.w.wake)
	return true
}

// watch monitors what runs; the channel says when it failed for good.
func (x *warm) watch(ctx context.Context) (broken chan error, end func()) {
	x.res.Restarted = func(r spec.Resource, times int, why error) {
		x.w.a.log.Warn("a resource failed and is started again", "group", x.w.name,
			"resource", r.Type+" "+r.Name, "times", times, "of", r.Restarts, "err", why)
	}
	ctx, cancel := context.WithCancel(ctx)
	done, broken := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		if err := x.res.Watch(ctx); err != nil && ctx.Err() == nil {
			broken <- err
		}
	}()
	return broken, func() { cancel(); <-done }
}

func (x *warm) failed(err error) {
	x.mu.Lock()
	x.up, x.err = false, err
	x.mu.Unlock()
	x.tell(err)
	x.w.a.log.Error("a concurrent resource does not run here", "group", x.w.name, "err", err)
}

// tell makes err known with what this node says of itself; nil = all is well.
func (x *warm) tell(err error) {
	x.mu.Lock()
	news := (x.bad == nil) != (err == nil) || err != nil && err.Error() != x.bad.Error()
	x.bad = err
	x.mu.Unlock()
	if news {
		signal(x.w.a.fit.wake)
	}
}

// trouble is why it does not run beside its owner, or nil.
func (x *warm) trouble() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.bad
}

// stop reports whether nothing runs any more; if not, it is tried again.
func (x *warm) stop() bool {
	a := x.w.a
	x.mu.Lock()
	x.up = false
	x.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), x.res.StopLimit())
	defer cancel()
	if err := x.res.Stop(ctx); err != nil {
		a.problems.set("stop-failed", fmt.Sprintf("%s: %v", x.w.name, err))
		return false
	}
	x.mu.Lock()
	x.ran = nil
	x.mu.Unlock()
	return true
}

// idle reports whether nothing of it runs here.
func (x *warm) idle() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ran == nil
}

// warmLimit is how long an owner waits for a start to begin; how long that may take,
// the resources say.
const warmLimit = 20 * time.Second

// await returns nil once all of it runs: at once, if it is as it should be.
func (x *warm) await(ctx context.Context, want []spec.Resource) error {
	if len(want) == 0 {
		return nil
	}
	signal(x.wake)
	for end := time.Now().Add(warmLimit); ; sleepCtx(ctx, 2*time.Millisecond) {
		x.mu.Lock()
		same := reflect.DeepEqual(x.ran, want)
		ready, starting, err := x.up && same, !x.up && same, x.err
		x.mu.Unlock()
		switch {
		case ready:
			return nil
		case err != nil:
			return fmt.Errorf("what should run beside its owner does not: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case !starting && time.Now().After(end):
			return errors.New("what should run beside its owner does not, yet")
		}
	}
}
