package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"hanode/internal/spec"
)

// The operations as drivers name them; a dialect may have other words.
const (
	opStart   = "start"
	opStop    = "stop"
	opMonitor = "monitor"
)

// agentDriver is a type whose programs take the operation as their last word: an
// init script, a Heartbeat script, an OCF agent. dialect is where these differ.
type agentDriver struct {
	scripted
	dialect
}

// dialect is how one family of scripts is asked, and what its answers mean. An err
// is what running the script returned; see exitCode.
type dialect interface {
	// call says how r is asked for op. A monitor that runs every so often has its
	// interval in every; 0 = it is asked once, which may find r stopped.
	call(ctx context.Context, r spec.Resource, env Env, op string, every time.Duration) (call, error)
	// refused says what a start or stop that did not succeed asks for.
	refused(r spec.Resource, op string, err error) error
	// state says what Monitor does, given the end of a monitor and what it printed.
	state(r spec.Resource, err error, printed string) error
	// forgives: a start of what runs and a stop of what does not may fail, as long as
	// the state is the one that was asked for.
	forgives() bool
	// asksFirst: a start of what runs is not even tried.
	asksFirst() bool

	Check(ctx context.Context, r spec.Resource) []Finding
	Timeouts(r spec.Resource) Timeouts
	// validates: r, or what it stands for, is an OCF agent that can be asked whether
	// its parameters are right; nil = it cannot.
	validates(r spec.Resource) (*ocf, spec.Resource)
}

// errRunsBadly is in what Monitor returns for what is broken and runs: no proof of a
// stop.
var errRunsBadly = errors.New("it runs, and not as it should")

// Check is the dialect's.
func (d agentDriver) Check(ctx context.Context, r spec.Resource) []Finding {
	return d.dialect.Check(ctx, r)
}

// Timeouts are the dialect's.
func (d agentDriver) Timeouts(r spec.Resource) Timeouts { return d.dialect.Timeouts(r) }

func (d agentDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	if (d.asksFirst() || env.Adopt) && d.ask(ctx, r, env, 0) == nil {
		return nil
	}
	c, err := d.call(ctx, r, env, opStart, 0)
	if err != nil {
		return &Failure{NotHere, fmt.Errorf("%s %q: start: %w", r.Type, r.Name, err)}
	}
	c.daemon = true
	if err := d.run(ctx, r, c, env); err != nil {
		if exitCode(err) > 0 && d.forgives() && d.ask(ctx, r, env, 0) == nil {
			_, _ = fmt.Fprintf(env.sink(), "hanode: %v; it runs all the same\n", err)
			return nil
		}
		return d.refused(r, opStart, err)
	}
	return d.up(ctx, r, env)
}

// upLimit is how long a service may take to say that it runs, after its start said
// that it was started.
const upLimit = 10 * time.Second

// up waits until a service that was started says that it runs: a script may exit 0
// and have started nothing, or return before its daemon is there.
func (d agentDriver) up(ctx context.Context, r spec.Resource, env Env) error {
	for end := time.Now().Add(upLimit); ; sleep(ctx, 100*time.Millisecond) {
		err := d.ask(ctx, r, env, 0)
		if err == nil || errors.Is(err, ErrUnknown) {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("%s %q: start: it said that it succeeded, but: %w", r.Type, r.Name, err)
		}
	}
}

func (d agentDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	c, err := d.call(ctx, r, env, opStop, 0)
	if err != nil {
		return fmt.Errorf("%s %q: stop: %w", r.Type, r.Name, err)
	}
	if err := d.run(ctx, r, c, env); err != nil {
		if exitCode(err) <= 0 || !d.forgives() || !errors.Is(d.ask(ctx, r, env, 0), ErrStopped) {
			return d.refused(r, opStop, err)
		}
		_, _ = fmt.Fprintf(env.sink(), "hanode: %v; it does not run all the same\n", err)
	}
	return d.Kill(ctx, r, env)
}

func (d agentDriver) Kill(ctx context.Context, r spec.Resource, env Env) error {
	return d.kill(ctx, r, env, limits(d, r).Monitor, func(ctx context.Context) error { return d.ask(ctx, r, env, 0) })
}

func (d agentDriver) Monitor(ctx context.Context, r spec.Resource, env Env) error {
	return d.ask(ctx, r, env, r.Every)
}

// ask runs one monitor.
func (d agentDriver) ask(ctx context.Context, r spec.Resource, env Env, every time.Duration) error {
	c, err := d.call(ctx, r, env, opMonitor, every)
	if err != nil {
		return fmt.Errorf("%s %q: monitor: %w", r.Type, r.Name, err)
	}
	printed := &tail{}
	env.Output = io.MultiWriter(printed, env.sink())
	err = d.run(ctx, r, c, env)
	return d.state(r, err, printed.String())
}

// stopped is what a dialect's state returns for what cleanly does not run, with
// what its script said about that.
func stopped(r spec.Resource, text string) error {
	return fmt.Errorf("%s %q: %w: %s", r.Type, r.Name, ErrStopped, text)
}
