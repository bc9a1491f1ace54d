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

	"hanode/internal/id"
	"hanode/internal/spec"
)

// ErrStopped is what Monitor returns for a resource that is cleanly not running.
var ErrStopped = errors.New("not running")

// Env is what a driver may tell a service about why it runs.
type Env struct {
	Group  string
	Node   string
	Epoch  id.Epoch // only grows: usable as a fencing token
	Reason string   // cause of the assignment
	VIP    string   // first address of the group; "" = none
}

// Driver starts, stops and monitors one type of resource. Start and Stop are
// idempotent: "already running" and "already stopped" are success. Every method
// returns soon after ctx ends. Safe for concurrent use on different resources.
type Driver interface {
	Start(ctx context.Context, r spec.Resource, env Env) error
	Stop(ctx context.Context, r spec.Resource, env Env) error
	// Monitor returns nil if r runs, ErrStopped if it cleanly does not, and any
	// other error if it is broken or cannot be told.
	Monitor(ctx context.Context, r spec.Resource, env Env) error
}

// Addresses is the kernel's side of an ip resource.
type Addresses interface {
	// Up makes the address answer, if group may be held at env.Epoch right now.
	Up(ctx context.Context, r spec.Resource, env Env) error
	// Down silences it and takes it away; not there is success.
	Down(ctx context.Context, r spec.Resource, env Env) error
	// Check returns nil while the address is on its device.
	Check(ctx context.Context, r spec.Resource) error
}

// Drivers maps a resource type to its driver.
type Drivers map[string]Driver

// Default returns the drivers this version has.
func Default(a Addresses, journal *Journal) Drivers {
	return Drivers{"ip": ipDriver{a}, "exec": execDriver{journal}}
}

// ErrUnknownType means that this version has no driver for a resource's type; a
// newer node may have written it.
var ErrUnknownType = errors.New("unknown resource type")

func (d Drivers) of(r spec.Resource) (Driver, error) {
	if drv, ok := d[r.Type]; ok {
		return drv, nil
	}
	return nil, fmt.Errorf("%s %q: %w", r.Type, r.Name, ErrUnknownType)
}

type ipDriver struct{ a Addresses }

func (d ipDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	return d.a.Up(ctx, r, env)
}

func (d ipDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	return d.a.Down(ctx, r, env)
}

func (d ipDriver) Monitor(ctx context.Context, r spec.Resource, _ Env) error {
	return d.a.Check(ctx, r)
}
