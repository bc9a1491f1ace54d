package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hanode/internal/spec"
)

// State is what a resource is doing.
type State string

// The states a resource can be in.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed"
)

// Status is one resource's state.
type Status struct {
	Type, Name string
	State      State
	Err        string
}

// Group runs one group's resources. Start, Stop and Watch are called by one
// goroutine, one after the other; Status by anybody.
type Group struct {
	drivers Drivers

	mu     sync.Mutex
	status []Status

	res []spec.Resource // what was started, or tried
	env Env
}

// NewGroup returns a group of which nothing runs.
func NewGroup(d Drivers) *Group { return &Group{drivers: d} }

// Status lists the resources in order.
func (g *Group) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.status)
}

func (g *Group) set(i int, s State, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status[i].State, g.status[i].Err = s, ""
	if err != nil {
		g.status[i].Err = err.Error()
	}
}

// Start starts res left to right. On an error it stops there; the caller unwinds
// with Stop, which also covers the one that failed half-way.
func (g *Group) Start(ctx context.Context, res []spec.Resource, env Env) error {
	g.res, g.env = nil, env
	g.mu.Lock()
	g.status = nil
	for _, r := range res {
		g.status = append(g.status, Status{Type: r.Type, Name: r.Name, State: Stopped})
	}
	g.mu.Unlock()
	for i, r := range res {
		g.res = append(g.res, r) // from here on Stop covers it
		d, err := g.drivers.of(r)
		if err == nil {
			g.set(i, Starting, nil)
			err = d.Start(ctx, r, env)
		}
		if err != nil {
			g.set(i, Failed, err)
			return err
		}
		g.set(i, Running, nil)
	}
	return nil
}

// stopTries is how often a stop is tried before it is given up.
const stopTries = 3

// Stop stops what was started, right to left. One that does not stop does not
// keep the rest from stopping; the error then says which.
func (g *Group) Stop(ctx context.Context) error {
	var errs []error
	for i := len(g.res) - 1; i >= 0; i-- {
		r := g.res[i]
		d, err := g.drivers.of(r)
		if err != nil {
			continue // it never started either
		}
		g.set(i, Stopping, nil)
		for try := range stopTries {
			if err = d.Stop(ctx, r, g.env); err == nil || ctx.Err() != nil {
				break
			}
			if try < stopTries-1 {
				sleep(ctx, 100*time.Millisecond)
			}
		}
		if err != nil {
			g.set(i, Failed, err)
			errs = append(errs, err)
			continue
		}
		g.set(i, Stopped, nil)
	}
	if len(errs) > 0 {
		return fmt.Errorf("stop: %w", errors.Join(errs...))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Watch monitors what runs until ctx ends (nil) or a resource failed more often
// than it may be restarted (the error). A restart starts the failed one and all
// after it anew.
func (g *Group) Watch(ctx context.Context) error {
	restarts := make([]int, len(g.res))
	next := make([]time.Time, len(g.res))
	now := time.Now()
	for i, r := range g.res {
		next[i] = now.Add(r.Every)
	}
	for {
		i := g.soonest(next)
		if i < 0 {
			<-ctx.Done()
			return nil
		}
		sleep(ctx, time.Until(next[i]))
		if ctx.Err() != nil {
			return nil
		}
		r := g.res[i]
		d, err := g.drivers.of(r)
		if err != nil {
			return err
		}
		err = d.Monitor(ctx, r, g.env)
		next[i] = time.Now().Add(r.Every)
		if err == nil || ctx.Err() != nil {
			continue
		}
		g.set(i, Failed, err)
		if restarts[i]++; restarts[i] > r.Restarts {
			return fmt.Errorf("%s %q failed: %w", r.Type, r.Name, err)
		}
		if err := g.restart(ctx, i); err != nil {
			return err
		}
	}
}

// soonest is the resource to monitor next; -1 = none is monitored.
func (g *Group) soonest(next []time.Time) int {
	best := -1
	for i, r := range g.res {
		if r.Every > 0 && (best < 0 || next[i].Before(next[best])) {
			best = i
		}
	}
	return best
}

// restart stops everything from i on, right to left, and starts it again.
func (g *Group) restart(ctx context.Context, i int) error {
	for j := len(g.res) - 1; j >= i; j-- {
		d, err := g.drivers.of(g.res[j])
		if err == nil {
			err = d.Stop(ctx, g.res[j], g.env)
		}
		if err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
	for j := i; j < len(g.res); j++ {
		d, err := g.drivers.of(g.res[j])
		if err == nil {
			err = d.Start(ctx, g.res[j], g.env)
		}
		if err != nil {
			g.set(j, Failed, err)
			return fmt.Errorf("restart: %w", err)
		}
		g.set(j, Running, nil)
	}
	return nil
}
