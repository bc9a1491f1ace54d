package resource

import (
	"context"
	"time"

	"hanode/internal/spec"
)

// HookLimit bounds one run of a hook.
const HookLimit = time.Minute

// Hook runs a command that a group has for the case that something happens to it:
// name is on_acquire, on_release or on_problem. It is killed after HookLimit. What it
// leaves running is left alone; it is no service of the group.
func (s *Services) Hook(ctx context.Context, name string, argv []string, env Env) Operation {
	out := &tail{}
	env.Output = out
	op := Operation{Name: name, At: time.Now()}
	err := bounded(ctx, HookLimit, func(ctx context.Context) error {
		return s.scripts.run(ctx, spec.Resource{Type: "hook", Name: name}, call{op: name, argv: argv}, env)
	})
	op.Took, op.Output = time.Since(op.At), out.String()
	if err != nil {
		op.Err = err.Error()
	}
	return op
}
