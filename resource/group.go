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
	// Operations are the newest run of each kind, the newest first.
	Operations []Operation
}

// Operation is one run of start, stop, monitor or kill.
type Operation struct {
	Name   string
	At     time.Time // when it began
	Took   time.Duration
	Err    string // "" = success
	Output string // its end, at most 64 KiB
	// Running: it has not ended. Took and Output are so far, Err is "".
	Running bool

	live *tail // what it prints while it runs
}

// Group runs one group's resources. Start, Stop and Watch are called by one
// goroutine, one after the other; Status by anybody.
type Group struct {
	s *Services
	// Restarted is told of each restart that counts: what failed, why, and how often
	// that was within its span. It may be told of several resources at once. nil = nobody
	// wants to know. Set it before Watch.
	Restarted func(r spec.Resource, times int, why error)
	// Admit is asked before anything of a Start is begun; its error refuses the start, and
	// is of this host. nil = everything is admitted. Set it before the first Start.
	Admit func(ctx context.Context, res []spec.Resource, env Env) error

	mu        sync.Mutex
	status    []Status
	checks    []checkOf
	rechecked chan struct{} // closed when checks change; nil = nobody waits for it

	res []spec.Resource // what was started, or tried
	env Env
}

// Status lists the resources in order, then the checks.
func (g *Group) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(g.status)
	for _, c := range g.checks {
		out = append(out, c.status)
	}
	for i := range out {
		out[i].Operations = slices.Clone(out[i].Operations)
		for k := range out[i].Operations {
			if op := &out[i].Operations[k]; op.Running {
				op.Took, op.Output = time.Since(op.At), op.live.String()
			}
		}
	}
	return out
}

// LastFailure is the newest operation that failed; zero = none did.
func (g *Group) LastFailure() (newest Operation) {
	for _, s := range g.Status() {
		for _, op := range s.Operations {
			if op.Err != "" && !op.At.Before(newest.At) {
				newest = op
			}
		}
	}
	return newest
}

// End is the end of what it printed, at most limit bytes, cut at a line where there is one.
func (o Operation) End(limit int) string { return lastLines(o.Output, limit) }

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
	if g.Admit != nil {
		if err := g.Admit(ctx, res, env); err != nil {
			return &Failure{NotHere, err}
		}
	}
	for i := 0; i < len(res); {
		n := together(res[i:])
		g.res = append(g.res, res[i:i+n]...) // from here on Stop covers them
		if err := g.startAt(ctx, i, n); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func (g *Group) start(ctx context.Context, i int) error {
	r := g.res[i]
	d, err := g.s.drivers.of(r)
	if err == nil && r.Type != "ip" {
		err = g.s.journal.note(g.env.Group, r, g.s.scripts.groups.dir(key(g.env.Group, r)))
	}
	if err == nil {
		g.set(i, Starting, nil)
		err = g.do(ctx, i, "start", limits(d, r).Start, d.Start)
	}
	if err != nil {
		g.set(i, Failed, err)
		return err
	}
	g.set(i, Running, nil)
	return nil
}

// do runs one operation in its time, and remembers how it went.
func (g *Group) do(ctx context.Context, i int, name string, limit time.Duration, fn func(context.Context, spec.Resource, Env) error) error {
	if _, ok := g.s.drivers[g.res[i].Type].(interface{ isScripted() }); ok {
		// The limit is of the operation, not of the wait for its turn.
		room := map[string]chan struct{}{"start": g.s.starts, "monitor": g.s.monitors}[name]
		if room != nil {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	out := &tail{}
	env := g.env
	env.Output = out
	op := Operation{Name: name, At: time.Now()}
	g.noteOperation(i, Operation{Name: name, At: op.At, Running: true, live: out})
	err := bounded(ctx, limit, func(ctx context.Context) error { return fn(ctx, g.res[i], env) })
	g.note(i, op, err, out.String())
	return err
}

// note remembers how an operation that began at op.At went.
func (g *Group) note(i int, op Operation, err error, output string) {
	op.Took, op.Output = time.Since(op.At), output
	if err != nil {
		op.Err = err.Error()
	}
	g.noteOperation(i, op)
}

// noteOperation makes op the newest. It takes the place of the one before of its name,
// which stays while op runs.
func (g *Group) noteOperation(i int, op Operation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ops := slices.DeleteFunc(g.status[i].Operations, func(o Operation) bool { return o.Name == op.Name && !op.Running })
	g.status[i].Operations = slices.Insert(ops, 0, op)
}

func (scripted) isScripted() {}

// stopTries is how often a stop is tried before what is left of the resource is
// killed.
const stopTries = 3

// Stop stops what was started, right to left. One that does not stop is killed;
// one that survives this does not keep the rest from stopping: the error then says
// which.
func (g *Group) Stop(ctx context.Context) error {
	g.stopChecks()
	if errs := g.stopDownTo(ctx, 0); len(errs) > 0 {
		return fmt.Errorf("stop: %w", errors.Join(errs...))
	}
	return nil
}

func (g *Group) stop(ctx context.Context, i int) error {
	r := g.res[i]
	d, err := g.s.drivers.of(r)
	if err != nil {
		return nil // it never started either
	}
	g.set(i, Stopping, nil)
	limit := limits(d, r).Stop
	end := time.Now().Add(limit)
	for try := range stopTries {
		err = g.do(ctx, i, "stop", limit, d.Stop)
		if err == nil || ctx.Err() != nil || !time.Now().Before(end) {
			break
		}
		if try < stopTries-1 {
			sleep(ctx, 100*time.Millisecond)
		}
	}
	if err != nil {
		if kill := g.do(ctx, i, "kill", killLimit, d.Kill); kill != nil {
			err = errors.Join(err, fmt.Errorf("killing it: %w", kill))
		} else {
			err = nil
		}
	}
	if err == nil {
		err = g.s.journal.drop(g.env.Group, r)
	}
	if err != nil {
		g.set(i, Failed, err)
		return err
	}
	g.set(i, Stopped, nil)
	return nil
}

// StopLimit is how long Stop can take at most, by the time-outs of what runs.
func (g *Group) StopLimit() time.Duration { return g.s.StopLimit(g.res) }

// StopLimit is how long the stop of a group of these can take at most.
func (s *Services) StopLimit(resources []spec.Resource) time.Duration {
	sum := time.Second
	for _, r := range resources {
		if d, err := s.drivers.of(r); err == nil {
			// A try that begins just before the limit has its whole time.
			sum += 2*limits(d, r).Stop + killLimit
		}
	}
	return sum
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
