package vip

import (
	"maps"
	"net/netip"
	"time"

	"hanode/internal/clock"
)

// Between the moment in which a node learns that an address comes to it and the moment in
// which it may have it, the holder before lets go. What Add has to look at and to set
// first is done meanwhile: which device it is, and the settings of that device. This is
// most of what Add takes (0.4 ms where the settings have to be raised, 0.1 ms where not);
// the address itself takes 0.06 ms.
//
// The address is not among what is done early, though the guard would keep it silent. A
// local address wins in the host's own routing table: for as long as the holder before
// still serves, what runs here would talk to this host instead of to it. And an address
// that is on is an address to take off again when the switchover comes to nothing, to
// keep alive, to miss when it goes: for a twentieth of what the move takes.

// expectFor is how long what was made ready counts as being so. A bare address moves within
// milliseconds; where the services of its group have to stop first, nobody misses the rest.
const expectFor = 2 * time.Second

// expected is where an address is to go, as seen at that time.
type expected struct {
	place
	at clock.Instant
}

// tuned is when a device was last found to have the settings that it needs, and whether it
// forwarded IPv6 then.
type tuned struct {
	at     clock.Instant
	router bool
}

// fresh reports whether what was seen at that time still counts.
func (h *host) fresh(at clock.Instant) bool { return h.opts.Clock.Now().Elapsed(at) < expectFor }

func (h *host) Expect(as ...Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Address
	h.look.RLock()
	for _, a := range as {
		_, prepared := h.universe[a.Addr]
		if _, on := h.placed[a.Addr]; prepared && !on {
			list = append(list, a)
		}
	}
	h.look.RUnlock()
	if len(list) == 0 {
		return
	}
	places, errs := h.ready(list...)
	now := h.opts.Clock.Now()
	for i, a := range list {
		if errs[i] != nil {
			continue // Add finds it too, and says so
		}
		h.expected[a.Addr] = expected{places[i], now}
	}
}

func (h *host) Dismiss(as ...Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for index := range h.dismiss(addrsOf(as)) {
		h.settle(index)
	}
}

// dismiss forgets what was expected, and returns on which devices that was. mu is held.
func (h *host) dismiss(addrs []netip.Addr) map[int]bool {
	on := map[int]bool{}
	for _, a := range addrs {
		if x, ok := h.expected[a]; ok {
			on[x.index] = true
			delete(h.expected, a)
		}
	}
	return on
}

// foreseen is where a was expected to go, if that still holds. mu is held.
func (h *host) foreseen(a Address) (place, bool) {
	x, ok := h.expected[a.Addr]
	if !ok || !h.fresh(x.at) || x.on != a.onDevice() || !h.guard.Attached(x.index) {
		return place{}, false
	}
	h.look.RLock()
	defer h.look.RUnlock()
	d, there := h.devs[x.index]
	return x.place, there && h.devs.guarded(d) && (a.Dev == "" || a.Dev == d.name)
}

// forgetGone forgets what was seen of devices that are not there: one that returns, under
// the same number too, has other settings. mu is held.
func (h *host) forgetGone(now devices) {
	maps.DeleteFunc(h.tuned, func(index int, _ tuned) bool { _, there := now[index]; return !there })
	maps.DeleteFunc(h.expected, func(_ netip.Addr, x expected) bool { _, there := now[x.index]; return !there })
}
