package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hanode/internal/linkstate"
	"hanode/internal/spec"
	"hanode/resource"
	"hanode/vip"
)

// prepare tells the guard which addresses exist: listed means guarded and closed
// until opened.
func (a *Agent) prepare(all []spec.Resource) {
	var addrs []vip.Address
	for _, r := range all {
		ad, err := vip.Of(r)
		if err != nil {
			a.problems.set("bad-address", fmt.Sprintf("%s: %v", r.Name, err))
			continue
		}
		addrs = append(addrs, ad)
	}
	if err := a.kernel.Prepare(addrs); err != nil {
		a.problems.set("guard", err.Error())
	}
}

// addresses carries ip resources to the kernel.
type addresses struct{ a *Agent }

// errNotClosed means that an address may still answer: its group must not be
// released, whatever else was stopped.
var errNotClosed = errors.New("the address could not be silenced")

// prepareLimit is how long an address may be unknown to the guard before that is a
// failure to start.
const prepareLimit = 2 * time.Second

// errLost means that the right to hold went away on the way to the kernel.
var errLost = errors.New("the right to hold this group went away")

// Up adds the address behind the closed guard, opens it if the group may still be
// held at that epoch, and announces: a switch that learns of the address before it
// answers would lose the client's first packets.
func (x addresses) Up(ctx context.Context, r spec.Resource, env resource.Env) error {
	a := x.a
	ad, err := vip.Of(r)
	if err != nil {
		return err
	}
	err = a.kernel.Add(ad)
	for end := time.Now().Add(prepareLimit); errors.Is(err, vip.ErrNotPrepared) && time.Now().Before(end) && ctx.Err() == nil; {
		sleepCtx(ctx, 2*time.Millisecond) // the guard is told by another goroutine, which may be the later one
		err = a.kernel.Add(ad)
	}
	if err != nil {
		return err
	}
	a.hold.Lock()
	ok := false
	if h := a.hold.holder; h != nil && !a.drain.Load() {
		v := h.May(env.Group, a.host.Clock.Now())
		ok = v.OK && v.Epoch == env.Epoch
	}
	if ok {
		err = a.kernel.Open(ad)
	}
	a.hold.Unlock()
	if !ok {
		return errLost
	}
	if err != nil {
		return fmt.Errorf("open the guard for %s: %w", ad.Addr, err)
	}
	a.kernel.Announce(ad)
	if w := a.groups.get(env.Group); w != nil {
		w.mu.Lock()
		if w.opened.IsZero() {
			w.opened = a.host.Clock.Now()
		}
		w.mu.Unlock()
	}
	return nil
}

// Down closes the guard first: from here on nothing answers, whatever happens next.
func (x addresses) Down(_ context.Context, r spec.Resource, env resource.Env) error {
	a := x.a
	ad, err := vip.Of(r)
	if err != nil {
		return err
	}
	a.hold.Lock()
	err = a.kernel.Close(ad)
	a.hold.Unlock()
	if w := a.groups.get(env.Group); w != nil {
		w.mu.Lock()
		w.closed = a.host.Clock.Now()
		w.mu.Unlock()
	}
	a.kernel.Silence(ad)
	if del := a.kernel.Del(ad); del != nil && err != nil {
		return fmt.Errorf("%w: %w", errNotClosed, errors.Join(err, del))
	} else if del != nil {
		a.log.Warn("a silenced address could not be taken off", "addr", ad.Addr, "err", del)
	}
	return nil
}

// Device asks the host below, where there is one to ask.
func (x addresses) Device(r spec.Resource) error {
	ad, err := vip.Of(r)
	if err != nil || x.a.host.Fits == nil {
		return err
	}
	return x.a.host.Fits(ad)
}

// Check fails if the address is not on the host although the lease runs. Without a
// lease it goes by its lifetime and returns with the next, and without its device with
// that: neither is a fault of the group (R10; failover.Plan moves it if that helps).
func (x addresses) Check(_ context.Context, r spec.Resource) error {
	a := x.a
	ad, err := vip.Of(r)
	if err != nil {
		return err
	}
	ours, err := a.kernel.Ours()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(ours, func(o vip.Address) bool { return o.Addr == ad.Addr }) {
		return nil
	}
	links, _ := a.kernel.Links()
	if slices.ContainsFunc(links, func(l linkstate.Link) bool { return l.State == linkstate.Down && l.Carries(r) }) {
		return nil
	}
	a.hold.Lock()
	defer a.hold.Unlock()
	if h := a.hold.holder; h == nil || !h.Leased(a.host.Clock.Now()) {
		return nil
	}
	return resource.ErrStopped
}
