package resource

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hanode/internal/spec"
)

// scripted is what all types have in common that run programs: they are bounded
// in number, and what they leave can be found and killed.
type scripted struct {
	Plain
	*scripts
}

// verify is the end of every Stop and Kill: what monitor says, read as a proof
// that nothing runs. A broken or unknown state is proof enough only where running
// twice does no harm.
func verify(r spec.Resource, env Env, monitor error) error {
	switch {
	case errors.Is(monitor, ErrStopped):
		return nil
	case monitor == nil || errors.Is(monitor, ErrRecovering) || errors.Is(monitor, errRunsBadly):
		return fmt.Errorf("%s %q: it still runs after its stop", r.Type, r.Name)
	case env.Exclusive:
		return fmt.Errorf("%s %q: it is in doubt whether it runs after its stop: %w", r.Type, r.Name, monitor)
	}
	return nil
}

// kill ends all processes of r, then asks monitor, a few times: what was killed a
// moment ago can be seen for a moment more.
//
// limit bounds each answer, as of any monitor: one that hangs has not the whole time of
// the stop.
func (s scripted) kill(ctx context.Context, r spec.Resource, env Env, limit time.Duration, monitor func(context.Context) error) error {
	if err := s.endLeftovers(ctx, r, env); err != nil {
		return err
	}
	for end := time.Now().Add(settle); ; sleep(ctx, 50*time.Millisecond) {
		err := verify(r, env, bounded(ctx, limit, monitor))
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
	}
}

// settle is how long a stopped service may seem to run.
const settle = 2 * time.Second

// execDriver runs an argument list per operation, without a shell. Exit 0 is
// success; for monitor, 7 is "cleanly stopped" as in OCF, anything else a failure.
// A start command must return: a daemon puts itself into the background.
type execDriver struct{ scripted }

// ocfNotRunning is OCF_NOT_RUNNING of the OCF resource agent API.
const ocfNotRunning = 7

func (d execDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	if env.Adopt && len(r.Monitor) > 0 && d.Monitor(ctx, r, env) == nil {
		return nil
	}
	return d.run(ctx, r, call{op: "start", argv: r.Start, daemon: true}, env)
}

func (d execDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	if err := d.run(ctx, r, call{op: "stop", argv: r.Stop}, env); err != nil {
		return err
	}
	return d.Kill(ctx, r, env)
}

func (d execDriver) Kill(ctx context.Context, r spec.Resource, env Env) error {
	return d.kill(ctx, r, env, limits(d, r).Monitor, func(ctx context.Context) error {
		if len(r.Monitor) == 0 {
			return ErrStopped // none of its processes is left, and there is nobody else to ask
		}
		return d.Monitor(ctx, r, env)
	})
}

func (d execDriver) Monitor(ctx context.Context, r spec.Resource, env Env) error {
	if len(r.Monitor) == 0 {
		return nil
	}
	err := d.run(ctx, r, call{op: "monitor", argv: r.Monitor}, env)
	if exitCode(err) == ocfNotRunning {
		return ErrStopped
	}
	return err
}

func (d execDriver) Check(_ context.Context, r spec.Resource) []Finding {
	for _, argv := range [][]string{r.Start, r.Stop, r.Monitor} {
		if len(argv) == 0 {
			continue
		}
		if why := command(argv[0]); why != "" {
			return lacks("%s", why)
		}
	}
	return nil
}
