package vip

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// place is where an address of ours is.
type place struct {
	index  int
	on     netip.Prefix // as it stands there
	router bool         // the device forwards IPv6
}

func (h *host) Add(a Address) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.universe[a.Addr]; !ok {
		return fmt.Errorf("add %s: %w", a.Addr, ErrNotPrepared)
	}
	d, p, err := h.ready(a)
	if err != nil {
		return fmt.Errorf("add %s: %w", a.Addr, err)
	}
	if err := h.keep.add(a, d.index); err != nil {
		return fmt.Errorf("add %s to %s: %w%s", a.Addr, d.name, err, addHint(a.Addr, err))
	}
	h.look.Lock()
	h.placed[a.Addr] = p
	h.look.Unlock()
	if err := h.rtnl.furnish(a, d.index); err != nil {
		return fmt.Errorf("add %s to %s: %w", a.Addr, d.name, err)
	}
	h.conflicts.hold(a.Addr, true)
	return nil
}

// ready chooses the device of a and prepares it: guarded, with the settings a
// virtual address needs. mu is held.
func (h *host) ready(a Address) (d device, p place, err error) {
	if d, err = h.device(a); err != nil {
		return d, p, err
	}
	var settings error
	news := false
	err = h.thread.Do(func() error {
		news, settings = h.settings.apply(d.name)
		p = place{d.index, a.onDevice(), a.Addr.Is6() && forwards6(d.name)}
		return nil
	})
	if err != nil {
		return d, p, err
	}
	if news {
		h.wg.Go(h.saveSettings) // the disk may take its time
	}
	if settings == nil {
		h.problem(ProblemSysctl, "")
	} else {
		h.problem(ProblemSysctl, fmt.Sprintf("%s: %v; set arp_ignore=1, arp_announce=2 and promote_secondaries=1 there", d.name, settings))
	}
	return d, p, nil
}

func addHint(a netip.Addr, err error) string {
	switch {
	case errors.Is(err, unix.EACCES) && a.Is6():
		return " (IPv6 is disabled on the device: see net.ipv6.conf.*.disable_ipv6)"
	case errors.Is(err, unix.EPERM):
		return " (CAP_NET_ADMIN is missing)"
	}
	return ""
}

// device chooses where a goes and sees to it that the guard is there first.
func (h *host) device(a Address) (device, error) {
	var have []assigned
	if a.Dev == "" {
		var err error
		if have, err = h.rtnl.addresses(); err != nil {
			return device{}, err
		}
	}
	h.look.RLock()
	d, err := h.devs.choose(a, have)
	h.look.RUnlock()
	if err == nil && h.guard.Attached(d.index) {
		return d, nil
	}
	// It may have appeared a moment ago.
	attachErr := h.attach()
	h.look.RLock()
	d, err = h.devs.choose(a, have)
	h.look.RUnlock()
	if err != nil {
		return device{}, err
	}
	if !h.guard.Attached(d.index) {
		return device{}, errors.Join(fmt.Errorf("%s is not guarded", d.name), attachErr)
	}
	return d, nil
}

func (h *host) Del(a Address) error {
	h.ann.stop(a.Addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look.RLock()
	p, there := h.placed[a.Addr]
	h.look.RUnlock()
	var errs []error
	if there {
		errs = append(errs, h.rtnl.strip(a, p.index))
	}
	return errors.Join(append(errs, h.del(a.Addr))...)
}

// del takes an address of ours off wherever it is.
func (h *host) del(a netip.Addr) error {
	h.keep.drop(a) // first, or a refresh would bring it back
	where, err := h.where(a)
	if err != nil {
		return err
	}
	for _, p := range where {
		if err := h.rtnl.delAddress(p.index, p.on); err != nil {
			return fmt.Errorf("delete %s: %w", a, err)
		}
	}
	h.look.Lock()
	delete(h.placed, a)
	h.look.Unlock()
	for _, p := range where {
		h.settle(p.index)
	}
	h.forgetFlows(a)
	h.conflicts.hold(a, false)
	if n, err := h.rtnl.destroySockets(a); err != nil || n > 0 {
		h.log.Debug("ended the connections of a released address", "addr", a, "count", n, "err", err)
	}
	return nil
}

// where lists the devices that carry a as ours. One that this incarnation put on
// needs no listing.
func (h *host) where(a netip.Addr) ([]place, error) {
	h.look.RLock()
	p, ok := h.placed[a]
	h.look.RUnlock()
	if ok {
		return []place{p}, nil
	}
	have, err := h.rtnl.addresses()
	if err != nil {
		return nil, err
	}
	var out []place
	for _, x := range have {
		if x.prefix.Addr() == a && h.isOurs(x) {
			out = append(out, place{index: x.index, on: x.prefix})
		}
	}
	return out, nil
}
