// Package resource makes the host run what is wanted, in order: a Group starts
// its resources left to right, stops them right to left, and watches them in
// between. A Driver knows one type of resource.
//
// It decides neither where nor whether a group runs (packages failover and lease
// do), and it puts no address on the kernel itself: that is behind Addresses.
// Nothing here is on the path of a keepalive.
package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

var (
	// ErrStopped is what Monitor returns for a resource that is cleanly not running.
	ErrStopped = errors.New("not running")
	// ErrUnknown is in what Monitor returns when it could not ask: nothing is known
	// to be wrong with the resource. A bus that restarts is no reason to move a
	// healthy service; a stop that ends so is not verified.
	ErrUnknown = errors.New("its state cannot be told")
	// ErrRecovering is in what Monitor returns for a resource that failed and that
	// its own supervisor is starting again (Restart= of a unit). It is counted as a
	// failure and otherwise left alone.
	ErrRecovering = errors.New("failed and is being restarted by its own supervisor")
	// ErrUnknownType means that this version has no driver for a resource's type; a
	// newer node may have written it.
	ErrUnknownType = errors.New("unknown resource type")
)

// Env is what a driver may tell a service about why it runs.
type Env struct {
	Group  string
	Node   string
	Epoch  id.Epoch // only grows: usable as a fencing token
	Reason string   // cause of the assignment
	VIP    string   // first address of the group; "" = none
	// Problem is what is wrong, for the hook that is told so; "" = nothing.
	Problem string
	// Exclusive: the group must never run twice. A stop then counts only if Monitor
	// says ErrStopped; otherwise "does not say that it runs" is enough.
	Exclusive bool
	// Adopt: what runs although nobody started it is taken for started.
	Adopt bool
	// Output takes what the operation prints. nil = nobody wants it. It is written
	// by one goroutine at a time and keeps the end only.
	Output io.Writer
}

// Timeouts bound one run of each operation. Zero = 20 s.
type Timeouts struct{ Start, Stop, Monitor time.Duration }

// Driver starts, stops and monitors one type of resource. Start and Stop are
// idempotent: "already running" and "already stopped" are success. Every method
// returns soon after ctx ends; Group sees to it that ctx does. Safe for concurrent
// use on different resources. Embed Plain for what a type has no use for.
type Driver interface {
	// Start returns nil once r runs. What its error asks for: see MeaningOf.
	Start(ctx context.Context, r spec.Resource, env Env) error
	// Stop returns nil once r is verified not to run.
	Stop(ctx context.Context, r spec.Resource, env Env) error
	// Monitor returns nil if r runs, ErrStopped if it cleanly does not, and any
	// other error if it is broken; see also ErrUnknown and ErrRecovering.
	Monitor(ctx context.Context, r spec.Resource, env Env) error
	// Kill ends by force what Stop could not. nil = verified that nothing of r runs.
	Kill(ctx context.Context, r spec.Resource, env Env) error
	// Check looks, before anything is started, whether this host has what r needs.
	// It changes nothing and says all that it finds.
	Check(ctx context.Context, r spec.Resource) []Finding
	// Watch calls look whenever something about r changed, until ctx ends: r is then
	// monitored at once. A type that is told nothing just waits for ctx.
	Watch(ctx context.Context, r spec.Resource, look func())
	// Timeouts are the type's own for r, where the cluster file does not say.
	Timeouts(r spec.Resource) Timeouts
}

// Plain has the answers of a type that needs nothing of the host, is told nothing,
// and cannot be forced. For embedding.
type Plain struct{}

// Kill cannot.
func (Plain) Kill(_ context.Context, r spec.Resource, _ Env) error {
	return fmt.Errorf("%s %q has nothing that could be killed", r.Type, r.Name)
}

// Check finds nothing.
func (Plain) Check(context.Context, spec.Resource) []Finding { return nil }

// Watch waits for ctx.
func (Plain) Watch(ctx context.Context, _ spec.Resource, _ func()) { <-ctx.Done() }

// Timeouts are the defaults.
func (Plain) Timeouts(spec.Resource) Timeouts { return Timeouts{} }

// Meaning is what a failed start or monitor asks for.
type Meaning int

// The meanings, from mild to hard.
const (
	Again   Meaning = iota // it may work when tried again here
	NotHere                // this host cannot run it: something is missing
	Nowhere                // no host can: it is configured wrongly
)

// Failure is an error with a meaning. An error that is none means Again.
type Failure struct {
	Meaning Meaning
	Err     error
}

func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// MeaningOf says what err asks for.
func MeaningOf(err error) Meaning {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Meaning
	}
	return Again
}

// Finding is something that Check saw.
type Finding struct {
	// Meaning: NotHere = this host cannot run the resource; Nowhere = no host can;
	// Again = it can be run, and an operator should know Text all the same.
	Meaning Meaning
	// Code of the problem, where Meaning is Again; see docs/problems.md.
	Code string
	Text string // a sentence without the resource's name
	// Unsure: it could not be told now, because somebody does not answer. What was
	// known before still counts.
	Unsure bool
}

// lacks is the finding that this host has not what it takes.
func lacks(format string, args ...any) []Finding {
	return []Finding{{Meaning: NotHere, Text: fmt.Sprintf(format, args...)}}
}

// unsure is the finding that something could not be judged now.
func unsure(format string, args ...any) []Finding {
	return []Finding{{Unsure: true, Text: fmt.Sprintf(format, args...)}}
}

// Addresses is the kernel's side of an ip resource.
type Addresses interface {
	// Up makes addresses of a group answer, if it may be held at env.Epoch right now.
	Up(ctx context.Context, rs []spec.Resource, env Env) error
	// Down silences them; they are taken away then, or soon after. Not there is success.
	Down(ctx context.Context, rs []spec.Resource, env Env) error
	// Check returns nil while the address is on its device.
	Check(ctx context.Context, r spec.Resource) error
	// Device says why this host has no device for the address, or nil.
	Device(r spec.Resource) error
	// Strays names, by address, the devices that have it although we did not put it
	// there; an address that is on none is left out. RemoveStray takes one off them.
	Strays(rs []spec.Resource) map[string]string
	RemoveStray(r spec.Resource) error
}

// ipDriver has nothing to kill that Stop would not: a failed Down means that the
// kernel refused.
type ipDriver struct {
	Plain
	a Addresses
	s *scripts // runs on_acquire
}

func (d ipDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	if len(r.OnAcquire) > 0 {
		// Before the address answers: what is told of its new place here must not be
		// overtaken by packets that go to the old one.
		if err := d.s.run(ctx, r, call{op: "on_acquire", argv: r.OnAcquire}, env); err != nil {
			return err
		}
	}
	return d.a.Up(ctx, []spec.Resource{r}, env)
}

func (d ipDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	return d.a.Down(ctx, []spec.Resource{r}, env)
}

func (d ipDriver) Kill(ctx context.Context, r spec.Resource, env Env) error {
	return d.a.Down(ctx, []spec.Resource{r}, env)
}

func (d ipDriver) Monitor(ctx context.Context, r spec.Resource, _ Env) error {
	return d.a.Check(ctx, r)
}

func (d ipDriver) Check(_ context.Context, r spec.Resource) []Finding {
	if err := d.a.Device(r); err != nil {
		return lacks("%v", err)
	}
	if len(r.OnAcquire) > 0 {
		if why := command(r.OnAcquire[0]); why != "" {
			return lacks("%s", why)
		}
	}
	return nil
}
