package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"hanode/internal/clock"
	"hanode/vip/guard"
	"hanode/vip/internal/nsthread"
)

// host is the Kernel of a real host.
type host struct {
	opts   Options
	log    *slog.Logger
	thread *nsthread.Thread
	rtnl   *rtnl
	guard  guard.Guard
	tier   Tier
	why    string
	ann    *announcer
	keep   *keeper
	news   *news
	links  *links
	tally  tallies
	macs   map[int]net.HardwareAddr // that neighbours were told of; only watch touches it
	packet int                      // AF_PACKET socket that only sends

	saving  sync.Mutex             // serialises writing what devices had before
	listing sync.Mutex             // serialises Prepare; held while the disk writes
	listed  map[netip.Addr]Address // what vips.json lists: known, and more while Prepare runs; guarded by listing

	// mu serialises what changes addresses and devices.
	mu       sync.Mutex
	universe map[netip.Addr]Address // as last prepared
	known    map[netip.Addr]Address // what the guard knows
	settings changed                // of devices, by us

	told   sync.Mutex                     // guards the three below
	raised map[string]string              // problems that stand, by code
	flows  []netip.Addr                   // released, and their connections still tracked
	robbed map[netip.Addr][]clock.Instant // when another program took an address off, lately

	// look guards what sending needs; it is held for map accesses only.
	look   sync.RWMutex
	devs   devices
	placed map[netip.Addr]place

	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
}

// place is where an address of ours is.
type place struct {
	index  int
	on     netip.Prefix // as it stands there
	router bool         // the device forwards IPv6
}

// Open takes hold of this host: every address that an older incarnation may have
// left is closed when it returns. Next come Prepare and RemoveOurs.
func Open(opts Options) (Kernel, error) {
	if opts.Dir == "" {
		return nil, errors.New("vip: no data directory given")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		clk, err := clock.System()
		if err != nil {
			return nil, err
		}
		opts.Clock = clk
	}
	h := &host{
		opts: opts, log: opts.Log, packet: -1,
		universe: map[netip.Addr]Address{}, known: map[netip.Addr]Address{},
		raised: map[string]string{}, robbed: map[netip.Addr][]clock.Instant{}, placed: map[netip.Addr]place{},
	}
	h.links = newLinks(opts.Clock, opts.Log, h.linkUp)
	h.ann = newAnnouncer(h.send, h.deviceOf)
	h.keep = &keeper{
		clk: opts.Clock, log: opts.Log, kick: make(chan struct{}, 1), kept: map[netip.Addr]*kept{},
		again: func(which func(Address) bool) {
			h.refurnish(which)
			h.ann.again(which)
		},
		taken: h.taken,
	}
	if err := h.open(); err != nil {
		h.release()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.wg.Go(func() { h.watch(ctx) })
	h.wg.Go(func() { h.watchLinks(ctx) })
	h.wg.Go(func() { h.ann.run(ctx) })
	h.wg.Go(func() { h.keep.run(ctx) })
	h.wg.Go(func() { h.news.run(h.keep.deleted, h.keep.resync) })
	context.AfterFunc(ctx, h.news.close)
	return h, nil
}

func (h *host) open() (err error) {
	if h.thread, err = nsthread.New(); err != nil {
		return err
	}
	if h.rtnl, err = openRTNL(h.thread); err != nil {
		return err
	}
	if h.keep.sock, err = newBatcher(h.thread); err != nil {
		return err
	}
	h.keep.rtnl = h.rtnl
	if h.news, err = newNews(h.thread); err != nil {
		return err
	}
	if h.links.flags, err = newFlagReader(h.thread); err != nil {
		return err
	}
	err = h.thread.Do(func() (err error) {
		h.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("open a packet socket for announcements (CAP_NET_RAW): %w", err)
	}
	listed, err := loadList(h.opts.Dir)
	if err != nil {
		return err
	}
	h.listed = map[netip.Addr]Address{}
	for _, a := range listed {
		h.known[a.Addr], h.listed[a.Addr] = a, a
	}
	if h.settings, err = loadSettings(h.opts.Dir); err != nil {
		return err
	}
	have, err := h.rtnl.addresses()
	if err != nil {
		return err
	}
	for _, x := range have {
		if _, ok := h.known[x.prefix.Addr()]; x.marked && !ok {
			h.known[x.prefix.Addr()] = x.address()
		}
	}
	return h.openGuard()
}

// guardTries is for devices that vanish between being listed and guarded.
const guardTries = 3

func (h *host) openGuard() (err error) {
	tiers := []Tier{TierEBPF, TierNftables, TierNone}
	if h.opts.Force != TierAuto {
		tiers = []Tier{h.opts.Force}
	}
	for _, t := range tiers {
		for range guardTries {
			if err = h.tryGuard(t); err == nil {
				break
			}
		}
		if err == nil {
			h.tier = t
			h.log.Info("guard ready", "tier", t, "by", h.guard.Kind(), "why", h.why)
			return nil
		}
		if h.why != "" {
			h.why += "; "
		}
		h.why += t.String() + ": " + err.Error()
	}
	return fmt.Errorf("no guard: %w", err)
}

func (h *host) tryGuard(t Tier) (err error) {
	if h.devs, err = h.rtnl.links(); err != nil {
		return err
	}
	cfg := guard.Config{
		Thread: h.thread, Clock: h.opts.Clock, Log: h.log, Devs: h.devs.toGuard(), Clsact: h.opts.clsact,
	}
	for a := range h.known {
		cfg.Closed = append(cfg.Closed, a)
	}
	switch t {
	case TierEBPF:
		h.guard, err = guard.OpenEBPF(cfg)
	case TierNftables:
		h.guard, err = guard.OpenNft(cfg)
	case TierNone:
		h.guard = guard.None{}
		if err := guard.RemoveAll(cfg); err != nil {
			h.log.Warn("an older guard may keep addresses closed", "err", err)
		}
	default:
		return fmt.Errorf("there is no tier %d", t)
	}
	return err
}

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

func (h *host) Open(a Address) error { return h.set(a, true) }

func (h *host) Close(a Address) error { return h.set(a, false) }

func (h *host) set(a Address, open bool) error {
	err := h.guard.Set(a.Addr, open)
	if errors.Is(err, guard.ErrUnknown) {
		return fmt.Errorf("%s: %w", a.Addr, ErrNotPrepared)
	}
	return err
}

func (h *host) Renew(end clock.Instant) error {
	err := h.guard.Renew(end)
	if !errors.Is(err, ErrTooFar) {
		h.keep.renewed(end.Boot)
	}
	return err
}

func (h *host) Upkeep() Upkeep {
	k := h.keep
	return Upkeep{Refreshed: k.refreshed.Load(), Restored: k.restored.Load(), Removed: k.removed.Load()}
}

func (h *host) Announce(a Address) { h.ann.start(a) }

func (h *host) AnnounceAgain() int { return h.ann.again(func(Address) bool { return true }) }

func (h *host) Tallies() map[netip.Addr]Tally { return h.tally.all() }

func (h *host) Silence(a Address) { h.ann.stop(a.Addr) }

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
	for range removeTries {
		left, err := h.ours()
		if err != nil {
			return removed, err
		}
		if len(left) == 0 {
			h.settleAll()
			return removed, h.rtnl.removeRouting()
		}
		for _, a := range left {
			if err := h.guard.Set(a.Addr, false); err != nil && !errors.Is(err, guard.ErrUnknown) {
				return removed, fmt.Errorf("close %s: %w", a.Addr, err)
			}
			h.ann.stop(a.Addr)
			h.look.Lock()
			delete(h.placed, a.Addr) // look where it really is
			h.look.Unlock()
			if err := h.del(a.Addr); err != nil {
				return removed, err
			}
			removed = append(removed, a)
		}
	}
	left, err := h.ours()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%v came back after being removed: another program manages them; stop it", left)
	}
	return removed, err
}

func (h *host) Tier() Tier { return h.tier }

func (h *host) Why() string { return h.why }

func (h *host) Drops() (guard.Drops, error) { return h.guard.Drops() }

func (h *host) Shutdown() error {
	h.ann.stopAll()
	var errs []error
	h.mu.Lock()
	all := keys(h.known)
	h.mu.Unlock()
	for _, a := range all {
		if err := h.guard.Set(a, false); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", a, err))
		}
	}
	_, err := h.RemoveOurs()
	h.release()
	return errors.Join(append(errs, err)...)
}

// release gives back what the process holds and leaves the kernel as it is.
func (h *host) release() {
	h.once.Do(func() {
		if h.cancel != nil {
			h.cancel()
		}
		h.wg.Wait()
		h.news.close()
		h.keep.sock.close()
		h.links.flags.close()
		h.ann.stopAll()
		if h.guard != nil {
			h.guard.Release()
		}
		if h.packet >= 0 {
			unix.Close(h.packet)
		}
		if h.rtnl != nil {
			h.rtnl.close()
		}
		if h.thread != nil {
			h.thread.Close()
		}
	})
}

func keys(m map[netip.Addr]Address) []netip.Addr {
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
