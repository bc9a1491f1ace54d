package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/internal/linkstate"
	"hanode/internal/spec"
	"hanode/resource"
	"hanode/vip"
)

// prepare tells the guard which addresses exist: listed means guarded and closed
// until opened. It reports whether the guard knows them now.
func (a *Agent) prepare(all []spec.Resource) bool {
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
		return false
	}
	return true
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

// atOnce is how many addresses of a group are put on, opened and announced before the
// next: the first of a thousand need not wait for the last.
const atOnce = 64

// Up adds addresses behind the closed guard, opens them if the group may still be
// held at that epoch, and announces them: a switch that learns of an address before it
// answers would lose the client's first packets.
func (x addresses) Up(ctx context.Context, rs []spec.Resource, env resource.Env) error {
	ads, err := addressesOf(rs)
	if err != nil {
		return err
	}
	x.a.leaving.stay(ads)
	for part := range slices.Chunk(ads, atOnce) {
		if err := x.up(ctx, part, env); err != nil {
			return err
		}
	}
	return nil
}

func addressesOf(rs []spec.Resource) ([]vip.Address, error) {
	ads := make([]vip.Address, len(rs))
	for i, r := range rs {
		var err error
		if ads[i], err = vip.Of(r); err != nil {
			return nil, err
		}
	}
	return ads, nil
}

func (x addresses) up(ctx context.Context, ads []vip.Address, env resource.Env) error {
	a := x.a
	err := a.kernel.Add(ads...)
	for end := time.Now().Add(prepareLimit); errors.Is(err, vip.ErrNotPrepared) && time.Now().Before(end) && ctx.Err() == nil; {
		sleepCtx(ctx, 2*time.Millisecond) // the guard is told by another goroutine, which may be the later one
		err = a.kernel.Add(ads...)
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
		err = a.kernel.Open(ads...)
	}
	a.hold.Unlock()
	if !ok {
		return errLost
	}
	if err != nil {
		return fmt.Errorf("open the guard: %w", err)
	}
	a.kernel.Announce(ads...)
	if w := a.groups.get(env.Group); w != nil {
		w.mu.Lock()
		if w.opened.IsZero() {
			w.opened = a.host.Clock.Now()
		}
		w.mu.Unlock()
	}
	return nil
}

// Down closes the guard, and nothing answers from here on, whatever happens next. The
// addresses are taken off by the worker once the next owner was told (leaving), but
// for where nothing guards them.
func (x addresses) Down(_ context.Context, rs []spec.Resource, env resource.Env) error {
	a := x.a
	ads, err := addressesOf(rs)
	if err != nil {
		return err
	}
	a.hold.Lock()
	err = a.kernel.Close(ads...)
	a.hold.Unlock()
	if w := a.groups.get(env.Group); w != nil {
		w.mu.Lock()
		w.closed = a.host.Clock.Now()
		w.mu.Unlock()
	}
	a.kernel.Silence(ads...)
	if err == nil && a.kernel.Tier() != vip.TierNone {
		a.leaving.add(env.Group, ads)
		return nil
	}
	del := a.kernel.Del(ads...)
	switch {
	case del == nil:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errNotClosed, errors.Join(err, del))
	case a.kernel.Tier() == vip.TierNone:
		return fmt.Errorf("%w: %w", errNotClosed, del)
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

// present is what Host.Present said lately.
type present struct {
	mu   sync.Mutex
	at   time.Time
	what map[netip.Addr][]string
}

// presentFor is how long that is believed: all groups ask at once, each for its own.
const presentFor = 100 * time.Millisecond

// Strays asks the host below, where there is one to ask. What is ours there is none.
func (x addresses) Strays(rs []spec.Resource) map[string]string {
	if x.a.host.Present == nil {
		return nil
	}
	p := &x.a.present
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) >= presentFor {
		// Ours before and after: one may come or go meanwhile.
		before, err := x.a.kernel.Ours()
		what, presentErr := x.a.host.Present()
		after, afterErr := x.a.kernel.Ours()
		if errors.Join(err, presentErr, afterErr) != nil {
			return nil
		}
		for _, o := range slices.Concat(before, after) {
			delete(what, o.Addr)
		}
		p.at, p.what = time.Now(), what
	}
	out := map[string]string{}
	for _, r := range rs {
		if ad, err := vip.Of(r); err == nil && len(p.what[ad.Addr]) > 0 {
			out[r.Address()] = strings.Join(p.what[ad.Addr], ", ")
		}
	}
	return out
}

// RemoveStray takes the address off, silenced already by the guard, which knows it.
func (x addresses) RemoveStray(r spec.Resource) error {
	ad, err := vip.Of(r)
	if err != nil || x.a.host.RemoveStray == nil {
		return err
	}
	defer func() {
		x.a.present.mu.Lock()
		defer x.a.present.mu.Unlock()
		x.a.present.at = time.Time{} // look anew
	}()
	return x.a.host.RemoveStray(ad.Addr)
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
