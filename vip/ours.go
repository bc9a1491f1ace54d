package vip

import (
	"errors"
	"fmt"
	"net/netip"

	"hanode/vip/guard"
)

// isOurs is by mark, or, for kernels that keep none, by the list: the address as it
// would stand on the device named there.
func (h *host) isOurs(x assigned) bool {
	if x.marked {
		return true
	}
	l, ok := h.known[x.prefix.Addr()]
	if !ok || x.prefix != l.onDevice() {
		return false
	}
	h.look.RLock()
	defer h.look.RUnlock()
	d := h.devs[x.index]
	return !d.loopback && (l.Dev == "" || l.Dev == d.name)
}

func (h *host) Ours() ([]Address, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found, err := h.ours()
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (h *host) ours() ([]Address, error) {
	have, err := h.rtnl.addresses()
	if err != nil {
		return nil, err
	}
	seen := map[netip.Addr]bool{}
	var out []Address
	for _, x := range have {
		a := x.prefix.Addr()
		if seen[a] || !h.isOurs(x) {
			continue
		}
		seen[a] = true
		v, ok := h.known[a]
		if !ok {
			v = x.address()
		}
		out = append(out, v)
	}
	return out, nil
}

// removeTries bounds RemoveOurs against someone who puts them back.
const removeTries = 3

func (h *host) RemoveOurs() (removed []Address, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.expected)
	for range removeTries {
		left, err := h.ours()
		if err != nil {
			return removed, err
		}
		if len(left) == 0 {
			h.settleAll()
			return removed, h.rtnl.removeRouting()
		}
		addrs := addrsOf(left)
		if err := h.guard.Set(false, addrs...); err != nil && !errors.Is(err, guard.ErrUnknown) {
			return removed, fmt.Errorf("close our addresses: %w", err)
		}
		h.ann.stop(addrs...)
		h.look.Lock()
		for _, a := range addrs {
			delete(h.placed, a) // look where it really is
		}
		h.look.Unlock()
		if err := h.del(addrs...); err != nil {
			return removed, err
		}
		removed = append(removed, left...)
	}
	left, err := h.ours()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%v came back after being removed: another program manages them; stop it", left)
	}
	return removed, err
}
