package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// place is where an address of ours is.
type place struct {
	index  int
	on     netip.Prefix // as it stands there
	router bool         // the device forwards IPv6
}

// failures are what went wrong with a batch.
type failures struct {
	first error
	n     int
}

func (f *failures) add(err error) {
	if err == nil {
		return
	}
	if f.n++; f.first == nil {
		f.first = err
	}
}

// err names the first alone: a thousand addresses mostly fail for one reason.
func (f *failures) err() error {
	if f.n < 2 {
		return f.first
	}
	return fmt.Errorf("%w (and %d more)", f.first, f.n-1)
}

func (h *host) Add(as ...Address) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range as {
		if _, ok := h.universe[a.Addr]; !ok {
			return fmt.Errorf("add %s: %w", a.Addr, ErrNotPrepared)
		}
	}
	var failed failures
	places, errs := h.ready(as...)
	var list []adding
	for i, a := range as {
		if errs[i] != nil {
			failed.add(fmt.Errorf("add %s: %w", a.Addr, errs[i]))
			continue
		}
		list = append(list, adding{a, places[i]})
	}
	errs = h.keep.add(list)
	var on []netip.Addr
	h.look.Lock()
	for i, x := range list {
		if errs[i] == nil {
			h.placed[x.Addr] = x.place
			delete(h.expected, x.Addr)
			on = append(on, x.Addr)
		}
	}
	h.look.Unlock()
	h.conflicts.hold(true, on...)
	for i, x := range list {
		err := errs[i]
		if err == nil {
			err = h.rtnl.furnish(x.Address, x.index)
		}
		if err != nil {
			failed.add(fmt.Errorf("add %s to %s: %w%s", x.Addr, h.nameOf(x.index), err, addHint(x.Addr, err)))
		}
	}
	return failed.err()
}

// nameOf is a device's name.
func (h *host) nameOf(index int) string {
	h.look.RLock()
	defer h.look.RUnlock()
	return h.devs[index].name
}

// ready chooses the device of each address and prepares it, but for what was made ready
// before: guarded, with the settings a virtual address needs. What is left of errs is nil
// where that went well. mu is held.
func (h *host) ready(as ...Address) (places []place, errs []error) {
	places, errs = make([]place, len(as)), make([]error, len(as))
	var rest []int
	for i, a := range as {
		var ok bool
		if places[i], ok = h.foreseen(a); !ok {
			rest = append(rest, i)
		}
	}
	if len(rest) == 0 {
		return places, errs
	}
	used, err := h.devicesOf(as, places, errs)
	if err == nil && len(used) > 0 {
		err = h.tune(used)
	}
	for _, i := range rest {
		switch {
		case err != nil && errs[i] == nil:
			errs[i] = err
		case errs[i] == nil:
			places[i].router = as[i].Addr.Is6() && used[places[i].index].router
		}
	}
	return places, errs
}

// using is a device that addresses of a batch go to.
type using struct {
	name   string
	router bool // it forwards IPv6
}

// devicesOf fills in where each address goes that has no place yet, on what is guarded.
func (h *host) devicesOf(as []Address, places []place, errs []error) (map[int]*using, error) {
	var have []assigned
	if slices.ContainsFunc(as, func(a Address) bool { return a.Dev == "" }) { // one look for all
		var err error
		if have, err = h.rtnl.networks(as...); err != nil {
			return nil, err
		}
	}
	used := map[int]*using{}
	var attachErr error
	for try := range 2 {
		missing := false
		for i, a := range as {
			if places[i].index != 0 {
				continue
			}
			h.look.RLock()
			d, err := h.devs.choose(a, have)
			h.look.RUnlock()
			if err == nil && !h.guard.Attached(d.index) {
				err = errors.Join(fmt.Errorf("%s is not guarded", d.name), attachErr)
			}
			if errs[i] = err; err != nil {
				missing = true
				continue
			}
			places[i] = place{index: d.index, on: a.onDevice()}
			used[d.index] = &using{name: d.name}
		}
		if !missing || try == 1 {
			break
		}
		attachErr = h.attach() // it may have appeared a moment ago
	}
	return used, nil
}

// tune gives devices the settings that a virtual address needs, and looks whether they
// forward IPv6. One that was looked at a moment ago is as it was. mu is held.
func (h *host) tune(used map[int]*using) error {
	todo := make(map[int]*using, len(used))
	for index, u := range used {
		if t, ok := h.tuned[index]; ok && h.fresh(t.at) {
			u.router = t.router
		} else {
			todo[index] = u
		}
	}
	if len(todo) == 0 {
		return nil
	}
	var bad []error
	err := h.thread.Do(func() error {
		news := false
		low, noted := map[int][]setting{}, map[int]error{}
		for index, u := range todo {
			low[index], noted[index] = h.settings.note(u.name)
			news = news || len(low[index]) > 0
		}
		if news { // before it is changed, for this process may be killed at any instant
			h.saveSettings()
		}
		for index, u := range todo {
			err := errors.Join(noted[index], raise(u.name, low[index]))
			u.router = forwards6(u.name)
			if err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", u.name, err))
				continue
			}
			h.tuned[index] = tuned{h.opts.Clock.Now(), u.router}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(bad) == 0 {
		h.problem(ProblemSysctl, "")
	} else {
		h.problem(ProblemSysctl, fmt.Sprintf("%v; set arp_ignore=1, arp_announce=2 and promote_secondaries=1 there", errors.Join(bad...)))
	}
	return nil
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

func (h *host) Del(as ...Address) error {
	addrs := addrsOf(as)
	h.ann.stop(addrs...)
	h.mu.Lock()
	defer h.mu.Unlock()
	var failed failures
	for _, a := range as {
		h.look.RLock()
		p, there := h.placed[a.Addr]
		h.look.RUnlock()
		if there {
			failed.add(h.rtnl.strip(a, p.index))
		}
	}
	failed.add(h.del(addrs...))
	return failed.err()
}

// del takes addresses of ours off wherever they are. mu is held.
func (h *host) del(addrs ...netip.Addr) error {
	emptied := h.dismiss(addrs)
	h.keep.drop(addrs...) // first, or a refresh would bring them back
	where, err := h.where(addrs)
	if err != nil {
		return err
	}
	var failed failures
	gone := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		gone[a] = true
	}
	for i, err := range h.keep.takeOff(where...) {
		if a := where[i].on.Addr(); err != nil {
			failed.add(fmt.Errorf("delete %s: %w", a, err))
			delete(gone, a)
		}
	}
	h.look.Lock()
	for a := range gone {
		delete(h.placed, a)
	}
	h.look.Unlock()
	for _, p := range where {
		emptied[p.index] = true
	}
	for index := range emptied {
		h.settle(index)
	}
	h.forgetFlows(gone)
	h.conflicts.hold(false, keys(gone)...)
	if n, err := h.rtnl.destroySockets(gone); err != nil || n > 0 {
		h.log.Debug("ended the connections of released addresses", "count", n, "err", err)
	}
	return failed.err()
}

// where lists the places that carry addresses as ours. Those that this incarnation put
// on need no listing.
func (h *host) where(addrs []netip.Addr) (out []place, err error) {
	look := map[netip.Addr]bool{}
	h.look.RLock()
	for _, a := range addrs {
		if p, ok := h.placed[a]; ok {
			out = append(out, p)
		} else {
			look[a] = true
		}
	}
	h.look.RUnlock()
	if len(look) == 0 {
		return out, nil
	}
	have, err := h.rtnl.addresses()
	if err != nil {
		return nil, err
	}
	for _, x := range have {
		if look[x.prefix.Addr()] && h.isOurs(x) {
			out = append(out, place{index: x.index, on: x.prefix})
		}
	}
	return out, nil
}
