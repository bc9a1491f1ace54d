// Package vipfake is package vip on hosts made of memory, for tests in virtual
// time. It keeps what a real host keeps when an agent dies: its addresses, the
// list of them, and the newest guard with its lease; and it forgets what a real
// one forgets.
//
// It has no network: a test asks Answers.
package vipfake

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hanode/internal/clock"
	"hanode/internal/linkstate"
	"hanode/vip"
	"hanode/vip/guard"
)

// Host is one host. All methods are safe for concurrent use.
type Host struct {
	clk clock.Clock

	mu         sync.Mutex
	addrs      map[netip.Addr]placed      // on its devices, until their lifetime ends
	expected   map[netip.Addr]*Kernel     // made ready for, and not on
	listed     map[netip.Addr]vip.Address // in vips.json
	guard      *guardState                // the one that is attached; nil before the first Open
	announcing map[netip.Addr]*Kernel
	before     func(op string)
	onAnnounce func(vip.Address)
	tier       vip.Tier
	links      linkstate.Tracker // what SetLink said
	sights     []vip.Sighting    // what SetSightings said
	changed    chan struct{}     // closed when either changes
}

// placed is an address as one incarnation put it on.
type placed struct {
	vip.Address
	by    *Kernel       // keeps it on while the lease runs
	until time.Duration // boot time; not looked at on vip.TierNone, where no time is a bound
}

// lifetime is how long an address outlives the lease at most.
const lifetime = 2 * time.Second

// guardState is one incarnation's maps.
type guardState struct {
	open  map[netip.Addr]bool // a key is a known address
	lease time.Duration       // boot time
}

// NewHost makes a host with no addresses and no guard, on the eBPF tier.
func NewHost(clk clock.Clock) *Host {
	return &Host{
		clk: clk, tier: vip.TierEBPF,
		addrs: map[netip.Addr]placed{}, expected: map[netip.Addr]*Kernel{}, listed: map[netip.Addr]vip.Address{}, announcing: map[netip.Addr]*Kernel{},
		changed: make(chan struct{}),
	}
}

// SetLink says how a device is from now on, why being what is wrong with it; "" = it
// carries. A device of which nothing was said carries.
func (h *Host) SetLink(dev, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clk.Now()
	if !h.links.Has(dev) {
		h.links.See(linkstate.Fact{Dev: dev}, now) // it was there and well
	}
	if h.links.See(linkstate.Fact{Dev: dev, Why: why}, now) {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// SetTier says what later Opens get. On vip.TierNone nothing is guarded: an
// address answers while it is on the host.
func (h *Host) SetTier(t vip.Tier) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tier = t
}

// SetHook makes fn run, without locks, in each Kernel call before it changes
// anything: to delay or hang a write. op is the method's name in lower case, such
// as "add" or "renew". nil takes it away.
func (h *Host) SetHook(fn func(op string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = fn
}

// OnAnnounce makes fn run at each Announce of an address that answers: one that
// is muted reaches nobody. It runs without locks.
func (h *Host) OnAnnounce(fn func(vip.Address)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onAnnounce = fn
}

// SetSightings says what the network claims from now on.
func (h *Host) SetSightings(list ...vip.Sighting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sights = list
	close(h.changed)
	h.changed = make(chan struct{})
}

// Open is vip.Open on this host: fresh maps, every listed address closed. An
// older Kernel's writes to its own maps have no effect from here on; addresses
// belong to the host, and it can still put some on.
func (h *Host) Open() vip.Kernel {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := &guardState{open: map[netip.Addr]bool{}}
	for a := range h.listed {
		g.open[a] = false
	}
	h.guard = g
	return &Kernel{host: h, guard: g, tier: h.tier, universe: map[netip.Addr]vip.Address{}}
}

// Reboot is a power cut and a boot: addresses and guard are gone, the list in
// the data directory stays.
func (h *Host) Reboot() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.addrs)
	clear(h.expected)
	clear(h.announcing)
	h.guard = nil
}

// Answers reports whether the host now answers for a: it has the address, and
// the attached guard has it open, and the lease runs.
func (h *Host) Answers(a netip.Addr) bool {
	now := h.clk.Now().Boot
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answers(a, now)
}

// Answering appends to out every address that the host now answers for, in no
// order.
func (h *Host) Answering(out []netip.Addr) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.addrs) == 0 {
		return out
	}
	now := h.clk.Now().Boot
	for a := range h.addrs {
		if h.answers(a, now) {
			out = append(out, a)
		}
	}
	return out
}

// on reports whether a is on a device. mu is held.
func (h *Host) on(a netip.Addr, now time.Duration) bool {
	p, ok := h.addrs[a]
	return ok && (h.tier == vip.TierNone || now < p.until)
}

func (h *Host) answers(a netip.Addr, now time.Duration) bool {
	if !h.on(a, now) {
		return false
	}
	if h.tier == vip.TierNone {
		return true
	}
	g := h.guard
	return g != nil && g.open[a] && now < g.lease && g.lease-now < guard.TooFar
}

// Has reports whether a is on one of the host's devices, open or not: it was added,
// and its lifetime, which ends soon after the lease, runs.
func (h *Host) Has(a netip.Addr) bool {
	now := h.clk.Now().Boot
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on(a, now)
}

// Expected lists the addresses that an incarnation expects: its devices have the settings
// for them, and they are on none. None of them answers.
func (h *Host) Expected() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Keys(h.expected), netip.Addr.Compare)
}

// ExpectedHere lists the addresses that are expected and on a device, at one instant. There
// are never any.
func (h *Host) ExpectedHere() (out []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.expected) == 0 {
		return nil
	}
	now := h.clk.Now().Boot
	for a := range h.expected {
		if h.on(a, now) {
			out = append(out, a)
		}
	}
	return out
}

// Announcing reports whether a's announcements are being repeated.
func (h *Host) Announcing(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.announcing[a] != nil
}

// Kernel is one incarnation's vip.Kernel.
type Kernel struct {
	host  *Host
	guard *guardState // its own maps, attached or not
	tier  vip.Tier

	universe map[netip.Addr]vip.Address // guarded by host.mu
	upkeep   vip.Upkeep                 // guarded by host.mu
}

var _ vip.Kernel = (*Kernel)(nil)

// step runs the hook, then fn under the host's lock.
func (k *Kernel) step(op string, fn func() error) error {
	k.host.mu.Lock()
	hook := k.host.before
	k.host.mu.Unlock()
	if hook != nil {
		hook(op)
	}
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return fn()
}

// Prepare implements vip.Kernel.
func (k *Kernel) Prepare(addrs []vip.Address) error {
	return k.step("prepare", func() error {
		want := map[netip.Addr]vip.Address{}
		for _, a := range addrs {
			if b, ok := want[a.Addr]; ok && b != a {
				return fmt.Errorf("prepare: %s is asked for as %q and as %q", a.Addr, b, a)
			}
			want[a.Addr] = a
		}
		for a, v := range want {
			if _, known := k.guard.open[a]; !known {
				k.guard.open[a] = false
			}
			k.host.listed[a] = v
		}
		for a := range k.guard.open {
			_, wanted := want[a]
			if _, on := k.host.addrs[a]; !wanted && !on {
				delete(k.guard.open, a)
				delete(k.host.listed, a)
			}
		}
		k.universe = want
		return nil
	})
}

// Expect implements vip.Kernel.
func (k *Kernel) Expect(as ...vip.Address) {
	_ = k.step("expect", func() error {
		for _, a := range as {
			_, prepared := k.universe[a.Addr]
			if _, on := k.host.addrs[a.Addr]; prepared && !on {
				k.host.expected[a.Addr] = k
			}
		}
		return nil
	})
}

// Dismiss implements vip.Kernel.
func (k *Kernel) Dismiss(as ...vip.Address) {
	_ = k.step("dismiss", func() error {
		for _, a := range as {
			if k.host.expected[a.Addr] == k {
				delete(k.host.expected, a.Addr)
			}
		}
		return nil
	})
}

// Add implements vip.Kernel.
func (k *Kernel) Add(as ...vip.Address) error {
	return k.step("add", func() error {
		for _, a := range as {
			if _, ok := k.universe[a.Addr]; !ok {
				return fmt.Errorf("add %s: %w", a.Addr, vip.ErrNotPrepared)
			}
		}
		now := k.host.clk.Now().Boot
		for _, a := range as {
			k.host.addrs[a.Addr] = placed{a, k, max(now, k.guard.lease) + lifetime}
			delete(k.host.expected, a.Addr)
		}
		return nil
	})
}

// Del implements vip.Kernel.
func (k *Kernel) Del(as ...vip.Address) error {
	return k.step("del", func() error {
		for _, a := range as {
			delete(k.host.addrs, a.Addr)
			delete(k.host.expected, a.Addr)
			delete(k.host.announcing, a.Addr)
		}
		return nil
	})
}

// Open implements vip.Kernel.
func (k *Kernel) Open(as ...vip.Address) error { return k.set("open", true, as) }

// Close implements vip.Kernel.
func (k *Kernel) Close(as ...vip.Address) error { return k.set("close", false, as) }

func (k *Kernel) set(op string, open bool, as []vip.Address) error {
	return k.step(op, func() (err error) {
		known := as[:0:0]
		for _, a := range as {
			if _, ok := k.guard.open[a.Addr]; ok {
				known = append(known, a)
			} else if err == nil {
				err = fmt.Errorf("%s: %w", a.Addr, vip.ErrNotPrepared)
			}
		}
		if err != nil && open {
			return err
		}
		for _, a := range known {
			k.guard.open[a.Addr] = open
		}
		return err
	})
}

// Renew implements vip.Kernel.
func (k *Kernel) Renew(end clock.Instant) error {
	return k.step("renew", func() error {
		now := k.host.clk.Now().Boot
		if end.Boot-now > guard.TooFar {
			return vip.ErrTooFar
		}
		k.guard.lease = max(k.guard.lease, end.Boot)
		k.keep(now)
		return nil
	})
}

// keep refreshes what this incarnation put on, and puts back what went by its
// lifetime. mu is held.
func (k *Kernel) keep(now time.Duration) {
	if now >= k.guard.lease {
		return
	}
	for a, p := range k.host.addrs {
		if p.by != k {
			continue
		}
		if now >= p.until {
			k.upkeep.Restored++
		} else {
			k.upkeep.Refreshed++
		}
		p.until = k.guard.lease + lifetime
		k.host.addrs[a] = p
	}
}

// Upkeep implements vip.Kernel.
func (k *Kernel) Upkeep() vip.Upkeep {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return k.upkeep
}

// Announce implements vip.Kernel. Only the first announcement is shown.
func (k *Kernel) Announce(as ...vip.Address) {
	var heard func(vip.Address)
	var which []vip.Address
	now := k.host.clk.Now().Boot
	_ = k.step("announce", func() error {
		heard = k.host.onAnnounce
		for _, a := range as {
			k.host.announcing[a.Addr] = k
			if k.host.answers(a.Addr, now) {
				which = append(which, a)
			}
		}
		return nil
	})
	if heard == nil {
		return
	}
	for _, a := range which {
		heard(a)
	}
}

// AnnounceAgain implements vip.Kernel. It is heard as Announce is.
func (k *Kernel) AnnounceAgain() int {
	k.host.mu.Lock()
	var list []vip.Address
	for a, by := range k.host.announcing {
		if p, on := k.host.addrs[a]; on && by == k {
			list = append(list, p.Address)
		}
	}
	k.host.mu.Unlock()
	k.Announce(list...)
	return len(list)
}

// Sightings implements vip.Kernel: what SetSightings said.
func (k *Kernel) Sightings() ([]vip.Sighting, <-chan struct{}) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return slices.Clone(k.host.sights), k.host.changed
}

// InUse implements vip.Kernel: what SetSightings said of addresses that are not held.
func (k *Kernel) InUse(_ context.Context, addrs []vip.Address) map[netip.Addr]net.HardwareAddr {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	out := map[netip.Addr]net.HardwareAddr{}
	for _, s := range k.host.sights {
		if len(s.MACs) > 0 && !s.Held && slices.ContainsFunc(addrs, func(a vip.Address) bool { return a.Addr == s.Addr }) {
			out[s.Addr] = s.MACs[0]
		}
	}
	return out
}

// Tallies implements vip.Kernel: nothing is counted.
func (k *Kernel) Tallies() map[netip.Addr]vip.Tally { return nil }

// Silence implements vip.Kernel.
func (k *Kernel) Silence(as ...vip.Address) {
	_ = k.step("silence", func() error {
		for _, a := range as {
			delete(k.host.announcing, a.Addr)
		}
		return nil
	})
}

// Ours implements vip.Kernel.
func (k *Kernel) Ours() ([]vip.Address, error) {
	now := k.host.clk.Now().Boot
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return k.host.ours(now), nil
}

func (h *Host) ours(now time.Duration) []vip.Address {
	out := make([]vip.Address, 0, len(h.addrs))
	for a, p := range h.addrs {
		if h.on(a, now) {
			out = append(out, p.Address)
		}
	}
	slices.SortFunc(out, func(a, b vip.Address) int { return cmp.Compare(a.Addr.String(), b.Addr.String()) })
	return out
}

// RemoveOurs implements vip.Kernel.
func (k *Kernel) RemoveOurs() (removed []vip.Address, err error) {
	err = k.step("removeours", func() error {
		removed = k.host.ours(k.host.clk.Now().Boot)
		for _, a := range removed {
			if _, known := k.guard.open[a.Addr]; known {
				k.guard.open[a.Addr] = false
			}
		}
		clear(k.host.addrs)
		clear(k.host.expected)
		clear(k.host.announcing)
		return nil
	})
	return removed, err
}

// Links implements vip.Kernel. A device that has settled is not news: ask again.
func (k *Kernel) Links() ([]linkstate.Link, <-chan struct{}) {
	now := k.host.clk.Now()
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return k.host.links.Links(now), k.host.changed
}

// Tier implements vip.Kernel.
func (k *Kernel) Tier() vip.Tier { return k.tier }

// Why implements vip.Kernel.
func (k *Kernel) Why() string {
	if k.tier == vip.TierEBPF {
		return ""
	}
	return "the test asked for tier " + k.tier.String()
}

// Drops implements vip.Kernel: there are no packets.
func (k *Kernel) Drops() (guard.Drops, error) { return guard.Drops{}, nil }

// Shutdown implements vip.Kernel.
func (k *Kernel) Shutdown() error {
	return k.step("shutdown", func() error {
		for a := range k.guard.open {
			k.guard.open[a] = false
		}
		clear(k.host.addrs)
		clear(k.host.expected)
		clear(k.host.announcing)
		return nil
	})
}
