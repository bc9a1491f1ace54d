package resource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hanode/internal/spec"
)

// Watch monitors what runs, each resource beside the others, until ctx ends (nil)
// or one failed more often than it may be restarted (the error). A failed check is a
// failure of the resource that it stands behind. A restart starts the failed one and
// all after it anew.
func (g *Group) Watch(ctx context.Context) error {
	restarts := make([]budget, len(g.res))
	for {
		i, err := g.await(ctx, restarts)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			continue // the checks changed
		}
		r := g.res[i]
		g.set(i, Failed, err)
		if MeaningOf(err) != Again || !restarts[i].spend(r, time.Now()) {
			return fmt.Errorf("%s %q failed: %w", r.Type, r.Name, err)
		}
		if g.Restarted != nil {
			g.Restarted(r, len(restarts[i].spent), err)
		}
		if err := g.restart(ctx, i); err != nil {
			return err
		}
	}
}

// budget counts the failures of a resource that were answered by a restart here.
type budget struct{ spent []time.Time }

// spend notes a failure at now; false = it is one more than may be within any span of
// r.Within.
func (b *budget) spend(r spec.Resource, now time.Time) bool {
	within := cmp.Or(r.Within, spec.DefaultWithin)
	b.spent = slices.DeleteFunc(b.spent, func(t time.Time) bool { return now.Sub(t) >= within })
	if len(b.spent) >= r.Restarts {
		return false
	}
	b.spent = append(b.spent, now)
	return true
}

// await runs the monitors and checks until one says that its resource failed, and
// returns the first of those in order. When it returns none runs any more. No error
// means that ctx ended, or that there are other checks now.
func (g *Group) await(ctx context.Context, restarts []budget) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	checks, rechecked := g.begin()
	failed := make([]error, len(g.res)+len(checks))
	var wg sync.WaitGroup
	for k, c := range checks {
		wg.Go(func() {
			if failed[len(g.res)+k] = g.watchCheck(ctx, k, c.Check); failed[len(g.res)+k] != nil {
				cancel()
			}
		})
	}
	wg.Go(func() {
		select {
		case <-rechecked:
			cancel()
		case <-ctx.Done():
		}
	})
	for i := range g.res {
		wg.Go(func() {
			if failed[i] = g.monitor(ctx, i, &restarts[i]); failed[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for k, c := range checks {
		if i := min(c.of, len(g.res)-1); i >= 0 && failed[i] == nil {
			failed[i] = failed[len(g.res)+k] // the same as if its monitor had failed
		}
	}
	for i, err := range failed[:len(g.res)] {
		if err != nil {
			return i, err
		}
	}
	return 0, nil
}

// monitor looks at one resource every so often, and whenever its driver says that
// something changed, until it failed or ctx ends (nil). What its own supervisor
// restarts is left alone; if the resource may be restarted at all, that counts as
// one of the times.
func (g *Group) monitor(ctx context.Context, i int, restarts *budget) error {
	r := g.res[i]
	d, err := g.s.drivers.of(r)
	if err != nil {
		return err
	}
	look := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		d.Watch(ctx, r, func() {
			select {
			case look <- struct{}{}:
			default:
			}
		})
	})
	var tick <-chan time.Time
	if r.Every > 0 {
		t := time.NewTicker(r.Every)
		defer t.Stop()
		tick = t.C
	}
	recovering := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look:
		case <-tick:
		}
		err := g.do(ctx, i, "monitor", limits(d, r).Monitor, d.Monitor)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			recovering = false
			g.set(i, Running, nil)
		case errors.Is(err, ErrUnknown):
			g.set(i, Running, err)
		case errors.Is(err, ErrRecovering):
			g.set(i, Starting, err)
			if !recovering && r.Restarts > 0 {
				if !restarts.spend(r, time.Now()) {
					return err
				}
				if g.Restarted != nil {
					g.Restarted(r, len(restarts.spent), err) // by its supervisor, and counted
				}
			}
			recovering = true
		default:
			return err
		}
	}
}

// restart stops everything from i on, right to left, and starts it again.
func (g *Group) restart(ctx context.Context, i int) error {
	if errs := g.stopDownTo(ctx, i); len(errs) > 0 {
		return fmt.Errorf("restart: %w", errs[0])
	}
	for j := i; j < len(g.res); j++ {
		if err := g.start(ctx, j); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
	return nil
}
