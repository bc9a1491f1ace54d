package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/vip/guard"
	"hanode/vip/internal/nsthread"
)

// host is the Kernel of a real host.
type host struct {
	opts      Options
	log       *slog.Logger
	thread    *nsthread.Thread
	rtnl      *rtnl
	guard     guard.Guard
	tier      Tier
	why       string
	ann       *announcer
	keep      *keeper
	news      *news
	links     *links
	conflicts *conflicts
	tally     tallies
	macs      map[int]net.HardwareAddr // that neighbours were told of; only watch touches it
	packet    int                      // AF_PACKET socket that only sends

	listing sync.Mutex             // serialises Prepare; held while the disk writes
	listed  map[netip.Addr]Address // what vips.json lists: known, and more while Prepare runs; guarded by listing

	// mu serialises what changes addresses and devices.
	mu       sync.Mutex
	universe map[netip.Addr]Address // as last prepared
	known    map[netip.Addr]Address // what the guard knows
	settings changed                // of devices, by us
	expected map[netip.Addr]expected
	tuned    map[int]tuned           // by device
	saving   sync.Mutex              // serialises writing what devices had before
	unsaved  atomic.Pointer[changed] // the newest of it

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
	if opts.Grid == nil {
		opts.Grid = grid.New()
	}
	h := &host{
		opts: opts, log: opts.Log, packet: -1,
		universe: map[netip.Addr]Address{}, known: map[netip.Addr]Address{},
		raised: map[string]string{}, robbed: map[netip.Addr][]clock.Instant{}, placed: map[netip.Addr]place{},
		expected: map[netip.Addr]expected{}, tuned: map[int]tuned{},
	}
	h.links = newLinks(opts.Clock, opts.Log, h.linkUp)
	h.conflicts = newConflicts(opts.Clock, opts.Log, opts.ask)
	h.ann = newAnnouncer(h.send, h.deviceOf)
	h.keep = &keeper{
		clk: opts.Clock, grid: opts.Grid, log: opts.Log, kick: make(chan struct{}, 1), kept: map[netip.Addr]*kept{},
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
	for _, f := range h.conflicts.socks {
		h.wg.Go(func() { h.listen(f) })
	}
	context.AfterFunc(ctx, h.conflicts.close)
	h.wg.Go(func() { h.askLoop(ctx) })
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
	if err = h.conflicts.open(h); err != nil {
		return fmt.Errorf("open packet sockets to listen for conflicts (CAP_NET_RAW): %w", err)
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

func (h *host) Open(as ...Address) error { return h.set(true, as) }

func (h *host) Close(as ...Address) error { return h.set(false, as) }

func (h *host) set(open bool, as []Address) error {
	err := h.guard.Set(open, addrsOf(as)...)
	if errors.Is(err, guard.ErrUnknown) {
		return fmt.Errorf("%w: %w", ErrNotPrepared, err)
	}
	return err
}

// addrsOf are the bare addresses.
func addrsOf(as []Address) []netip.Addr {
	out := make([]netip.Addr, len(as))
	for i, a := range as {
		out[i] = a.Addr
	}
	return out
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

func (h *host) Announce(as ...Address) { h.ann.start(as...) }

func (h *host) AnnounceAgain() int { return h.ann.again(func(Address) bool { return true }) }

func (h *host) Tallies() map[netip.Addr]Tally { return h.tally.all() }

func (h *host) Silence(as ...Address) { h.ann.stop(addrsOf(as)...) }

func (h *host) Tier() Tier { return h.tier }

func (h *host) Why() string { return h.why }

func (h *host) Drops() (guard.Drops, error) { return h.guard.Drops() }

func (h *host) Shutdown() error {
	h.ann.stopAll()
	var errs []error
	h.mu.Lock()
	all := keys(h.known)
	h.mu.Unlock()
	if err := h.guard.Set(false, all...); err != nil {
		errs = append(errs, fmt.Errorf("close the addresses: %w", err))
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
		h.conflicts.close()
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
