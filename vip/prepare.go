package vip

import (
	"fmt"
	"maps"
	"net/netip"
)

func (h *host) Prepare(addrs []Address) error {
	want := make(map[netip.Addr]Address, len(addrs))
	for _, a := range addrs {
		if b, ok := want[a.Addr]; ok && b != a {
			return fmt.Errorf("prepare: %s is asked for as %q and as %q", a.Addr, b, a)
		}
		want[a.Addr] = a
	}
	h.listing.Lock()
	defer h.listing.Unlock()
	// The list first: nothing may be on the host that is in no list. What may go from
	// it goes last.
	more := maps.Clone(h.listed)
	maps.Copy(more, want)
	if err := h.list(more); err != nil {
		return err
	}
	known, err := h.know(want)
	if err != nil {
		return err
	}
	h.links.prepared(addrs)
	return h.list(known)
}

// list makes vips.json name these. It waits for the disk: of the locks only listing
// is held, which nothing but Prepare takes.
func (h *host) list(as map[netip.Addr]Address) error {
	if maps.Equal(as, h.listed) {
		return nil
	}
	if err := saveList(h.opts.Dir, values(as)); err != nil {
		return err
	}
	h.listed = as
	return nil
}

// know makes these the addresses that may be added, and returns all that are guarded.
func (h *host) know(want map[netip.Addr]Address) (known map[netip.Addr]Address, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, err := h.rtnl.addresses()
	if err != nil {
		return nil, err
	}
	known, gone := h.split(want, have, h.keep.addresses())
	if err := h.guard.Know(keys(want)); err != nil {
		return nil, err
	}
	if err := h.guard.Forget(gone); err != nil {
		return nil, err
	}
	h.known, h.universe = known, want
	h.tally.keep(known)
	h.conflicts.prepared(want)
	return known, h.attach()
}

// split says what is known from now on, and what need not be guarded any more:
// what is neither wanted, nor on the host, nor kept, which may be off and come back.
func (h *host) split(want map[netip.Addr]Address, have []assigned, kept []netip.Addr) (known map[netip.Addr]Address, gone []netip.Addr) {
	on := map[netip.Addr]bool{}
	for _, x := range have {
		on[x.prefix.Addr()] = true
	}
	for _, a := range kept {
		on[a] = true
	}
	known = make(map[netip.Addr]Address, len(want))
	for a, v := range want {
		known[a] = v
	}
	for a, v := range h.known {
		if _, ok := want[a]; ok {
			continue
		}
		if on[a] {
			known[a] = v
		} else {
			gone = append(gone, a)
		}
	}
	return known, gone
}

func keys[T any](m map[netip.Addr]T) []netip.Addr {
	out := make([]netip.Addr, 0, len(m))
	for a := range m {
		out = append(out, a)
	}
	return out
}

func values(m map[netip.Addr]Address) []Address {
	out := make([]Address, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
