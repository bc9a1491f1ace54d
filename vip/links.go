package vip

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hanode/internal/clock"
	"hanode/internal/linkstate"
)

// The kernel reports a lost carrier at once, or, if any device of the machine, in any
// network namespace, had changed in the second before, up to a second later. So the few
// devices that matter are looked at by themselves, too. All else is only looked at in
// case a report was lost.
const (
	linkEvery = time.Second
	linkQuick = 50 * time.Millisecond
)

// links knows how the devices of the prepared addresses are. It shares no lock with
// what writes to the kernel or to the disk: a lost carrier is told although either
// hangs.
type links struct {
	clk  clock.Clock
	log  *slog.Logger
	kick chan struct{} // one slot: look at all

	up    func(dev string) // told of a device that carries again
	flags *flagReader
	index map[string]int // of the devices that matter, as last seen; only watchLinks touches it

	mu      sync.Mutex
	want    []Address
	tracker linkstate.Tracker
	changed chan struct{} // closed when something changes
}

func newLinks(clk clock.Clock, log *slog.Logger, up func(dev string)) *links {
	return &links{clk: clk, log: log, up: up, kick: make(chan struct{}, 1), index: map[string]int{}, changed: make(chan struct{})}
}

// Links implements Kernel.
func (h *host) Links() ([]linkstate.Link, <-chan struct{}) {
	l := h.links
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tracker.Links(l.clk.Now()), l.changed
}

// prepared notes which addresses there are.
func (l *links) prepared(addrs []Address) {
	l.mu.Lock()
	l.want = slices.Clone(addrs)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// tell wakes those who wait for a change. mu is held.
func (l *links) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// note takes facts about devices; those that no address needs are left out.
func (l *links) note(facts ...linkstate.Fact) {
	for _, dev := range l.take(facts) {
		l.up(dev)
	}
}

// take is note, and lists the devices that carry again.
func (l *links) take(facts []linkstate.Fact) (up []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clk.Now()
	before := l.tracker.Links(now)
	changed := false
	for _, f := range facts {
		if l.needs(f.Dev, f.Nets) {
			changed = l.tracker.See(f, now) || changed
		}
	}
	if !changed {
		return nil
	}
	for _, x := range l.tracker.Links(now) {
		i := slices.IndexFunc(before, func(b linkstate.Link) bool { return b.Dev == x.Dev })
		if i < 0 || before[i].State == x.State {
			continue
		}
		l.log.Warn("the device of virtual addresses changed", "dev", x.Dev, "state", x.State, "why", x.Why)
		if before[i].State == linkstate.Down {
			up = append(up, x.Dev)
		}
	}
	l.tell()
	return up
}

// needs reports whether an address lives on the device. nets are its subnets; nil =
// those it had. mu is held.
func (l *links) needs(dev string, nets []netip.Prefix) bool {
	if nets == nil {
		nets = l.tracker.Nets(dev)
	}
	return slices.ContainsFunc(l.want, func(a Address) bool {
		if a.Dev != "" {
			return a.Dev == dev
		}
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a.Addr) })
	})
}

// tracked lists the devices that matter, and whether any address names none.
func (l *links) tracked() (devs []string, unnamed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.tracker.Links(l.clk.Now()) {
		devs = append(devs, x.Dev)
	}
	for _, a := range l.want {
		switch {
		case a.Dev == "":
			unnamed = true
		case !slices.Contains(devs, a.Dev):
			devs = append(devs, a.Dev)
		}
	}
	return devs, unnamed
}

// because says why a device carries nothing; "" = it does.
func because(there, admin, carrier bool) string {
	switch {
	case !there:
		return "does not exist"
	case !admin:
		return "is switched off"
	case !carrier:
		return "has no carrier"
	}
	return ""
}

// watchLinks follows the devices until ctx ends: at each report of the kernel, and by
// itself in case one was held back or lost.
func (h *host) watchLinks(ctx context.Context) {
	l := h.links
	var sub *subscription
	defer func() { sub.close() }()
	full := h.opts.Grid.Ticker(linkEvery)
	defer full.Stop()
	for {
		if sub == nil {
			s, err := h.subscribe()
			if err != nil {
				h.log.Warn("cannot hear of device changes; looking each second", "err", err)
			}
			sub = s
		}
		quick := time.NewTimer(l.wait(h.opts.Grid.Until))
		select {
		case <-ctx.Done():
			quick.Stop()
			return
		case u, ok := <-sub.changes():
			if !ok { // overrun: some were lost
				sub.close()
				sub = nil
				h.lookLinks()
				break
			}
			l.heard(u)
		case <-quick.C:
			l.glance()
		case <-full.C:
			full.Next()
			h.lookLinks()
		case <-l.kick:
			h.lookLinks()
		}
		quick.Stop()
	}
}

// wait is how long until the next look at what matters, or until a device is trusted
// again, which those who wait for it are told.
func (l *links) wait(until func(every time.Duration) time.Duration) time.Duration {
	if len(l.index) == 0 {
		return until(linkEvery)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if next := l.tracker.Next(l.clk.Now()); next >= 0 {
		return min(until(linkQuick), max(next, time.Millisecond))
	}
	return until(linkQuick)
}

// heard takes one report. Those of a bridge about its ports are none about the device.
func (l *links) heard(u netlink.LinkUpdate) {
	if u.Family == unix.AF_BRIDGE || u.Link == nil {
		return
	}
	at := u.Attrs()
	there := u.Header.Type != unix.RTM_DELLINK
	l.note(linkstate.Fact{Dev: at.Name, Why: because(there, at.Flags&net.FlagUp != 0, at.RawFlags&unix.IFF_LOWER_UP != 0)})
}

// glance looks at the devices that matter, one by one, and tells of those whose time
// has come.
func (l *links) glance() {
	for dev, index := range l.index {
		flags, err := l.flags.flags(index)
		if err != nil && !errors.Is(err, unix.ENODEV) {
			continue
		}
		l.note(linkstate.Fact{Dev: dev, Why: because(err == nil, flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0)})
	}
	l.ripen()
}

// ripen tells of devices that were settling until now.
func (l *links) ripen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tracker.Ripe(l.clk.Now()) {
		l.tell()
	}
}

// lookLinks looks at all devices, and at the subnets if an address names no device.
func (h *host) lookLinks() {
	l := h.links
	devs, unnamed := l.tracked()
	have, err := h.rtnl.links()
	if err != nil {
		h.log.Debug("looking at the devices", "err", err)
		return
	}
	nets := map[int][]netip.Prefix{}
	if unnamed {
		nets, err = h.linkNets(have)
		if err != nil {
			h.log.Debug("looking at the addresses", "err", err)
			return
		}
	}
	var facts []linkstate.Fact
	for _, d := range have {
		f := linkstate.Fact{Dev: d.name, Why: because(true, d.admin, d.up)}
		if d.admin && have.guarded(d) { // one that is switched off has lost its IPv6 subnets
			f.Nets = nets[d.index]
		}
		facts = append(facts, f)
	}
	for _, dev := range devs {
		if _, ok := have.named(dev); !ok {
			facts = append(facts, linkstate.Fact{Dev: dev, Why: because(false, false, false)})
		}
	}
	l.note(facts...)
	clear(l.index)
	l.mu.Lock()
	for _, d := range have {
		if l.needs(d.name, nil) {
			l.index[d.name] = d.index
		}
	}
	if l.tracker.Forget(func(dev string) bool { return l.needs(dev, nil) }) {
		l.tell()
	}
	l.mu.Unlock()
	l.ripen()
}

// linkNets lists the networks on each device's link, as far as addresses need to know.
func (h *host) linkNets(ds devices) (map[int][]netip.Prefix, error) {
	l := h.links
	l.mu.Lock()
	want := slices.Clone(l.want)
	l.mu.Unlock()
	have, err := h.rtnl.networks(want...)
	if err != nil {
		return nil, err
	}
	var on []assigned
	for _, x := range have {
		if !x.route {
			on = append(on, x)
		}
	}
	for _, a := range want { // a route counts only for what it alone tells
		if a.Dev == "" {
			if fits, byRoute := ds.subnets(a.Addr, have); byRoute {
				on = append(on, fits...)
			}
		}
	}
	return subnets(on), nil
}

// subnets lists what each device has a subnet of, sorted.
func subnets(have []assigned) map[int][]netip.Prefix {
	out := map[int][]netip.Prefix{}
	for _, x := range have {
		if p := x.prefix.Masked(); !p.IsSingleIP() && !slices.Contains(out[x.index], p) {
			out[x.index] = append(out[x.index], p)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b netip.Prefix) int {
			if c := a.Addr().Compare(b.Addr()); c != 0 {
				return c
			}
			return a.Bits() - b.Bits()
		})
	}
	return out
}
