package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"hanode/internal/clock"
)

// hooks attaches programs to one device; tcx and clsact are the two kinds.
type hooks interface {
	// ensure makes our program the first at both hooks of dev. again says that
	// it was so before; then what is found missing is returned as text.
	ensure(dev Device, again bool) (repaired string, err error)
	// drop detaches from a device, which may be gone.
	drop(index int) error
	// leftover lists devices an older incarnation attached to.
	leftover() []int
	// kind is "tcx" or "clsact".
	kind() string
	// close gives back what the process holds.
	close()
}

type ebpfGuard struct {
	clk   clock.Clock
	lease words

	// mu guards the slots; it is held across map writes only.
	mu     sync.Mutex
	slots  map[netip.Addr]uint32
	free   []uint32 // slots given back
	next   uint32   // slots from here on were never used
	opened words
	objs   progObjects

	// attachMu guards attached and serialises Attach.
	attachMu sync.Mutex
	attached map[int]bool
	hooks    hooks
	cfg      Config
}

// OpenEBPF loads fresh maps with every address of cfg.Closed closed, attaches
// them to cfg.Devs in place of an older incarnation's, and takes away what an
// older incarnation left elsewhere.
func OpenEBPF(cfg Config) (Guard, error) {
	// Kernels before 5.11 count maps as locked memory. Newer ones need nothing,
	// and where it is needed and refused the load says so.
	_ = rlimit.RemoveMemlock()
	g := &ebpfGuard{clk: cfg.Clock, cfg: cfg, slots: map[netip.Addr]uint32{}, attached: map[int]bool{}}
	if err := loadProgObjects(&g.objs, nil); err != nil {
		return nil, fmt.Errorf("load the eBPF guard: %w", err)
	}
	if err := g.start(); err != nil {
		g.Release()
		return nil, err
	}
	return g, nil
}

func (g *ebpfGuard) start() (err error) {
	if err := checkClock(g.clk); err != nil {
		return err
	}
	if g.lease, err = mapWords(g.objs.Lease); err != nil {
		return err
	}
	if g.opened, err = mapWords(g.objs.Opened); err != nil {
		return err
	}
	if err := g.Know(g.cfg.Closed); err != nil {
		return err
	}
	if g.hooks, err = newHooks(g.cfg, &g.objs); err != nil {
		return err
	}
	for _, index := range g.hooks.leftover() {
		g.attached[index] = false
	}
	if _, err := g.Attach(g.cfg.Devs); err != nil {
		if !g.anyAttached() {
			return err
		}
		// The caller's next Attach tries those again and reports.
		g.cfg.Log.Warn("a device is not guarded", "err", err)
	}
	return g.removeOthers()
}

func (g *ebpfGuard) anyAttached() bool {
	g.attachMu.Lock()
	defer g.attachMu.Unlock()
	for _, ok := range g.attached {
		if ok {
			return true
		}
	}
	return false
}

// newHooks prefers tcx, which needs Linux 6.6 and a place for pins.
func newHooks(cfg Config, objs *progObjects) (hooks, error) {
	if !cfg.Clsact {
		t, err := newTCX(cfg, objs)
		if err == nil {
			return t, nil
		}
		cfg.Log.Info("guard uses clsact filters", "why", err)
	}
	return newClsact(cfg, objs)
}

// removeOthers takes away the guards of other kinds an older incarnation left:
// they are closed for ever, and nobody would renew them.
func (g *ebpfGuard) removeOthers() error {
	var errs []error
	if _, ok := g.hooks.(*tcx); ok {
		errs = append(errs, removeClsact(g.cfg))
	} else {
		errs = append(errs, removePins(g.cfg))
	}
	return errors.Join(append(errs, removeTable(g.cfg))...)
}

func mapKey(a netip.Addr) (k progAddr) {
	b := a.As16()
	for i := range k.W {
		k.W[i] = nativeUint32(b[4*i:])
	}
	return k
}

func (g *ebpfGuard) Know(addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if _, ok := g.slots[a]; ok {
			continue
		}
		var slot uint32
		switch {
		case len(g.free) > 0:
			slot = g.free[len(g.free)-1]
			g.free = g.free[:len(g.free)-1]
		case g.next < MaxAddrs:
			slot = g.next
			g.next++
		default:
			return fmt.Errorf("guard %s: more than %d addresses", a, MaxAddrs)
		}
		g.opened.at(slot).Store(0)
		if err := g.objs.Vips.Put(mapKey(a), slot); err != nil {
			g.free = append(g.free, slot)
			return fmt.Errorf("guard %s: %w", a, err)
		}
		g.slots[a] = slot
	}
	return nil
}

func (g *ebpfGuard) Forget(addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		slot, ok := g.slots[a]
		if !ok {
			continue
		}
		g.opened.at(slot).Store(0)
		if err := g.objs.Vips.Delete(mapKey(a)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget %s: %w", a, err)
		}
		delete(g.slots, a)
		g.free = append(g.free, slot)
	}
	return nil
}

func (g *ebpfGuard) Set(open bool, addrs ...netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	addrs, err := settable(g.slots, open, addrs)
	var bit uint64
	if open {
		bit = 1
	}
	for _, a := range addrs {
		g.opened.at(g.slots[a]).Store(bit)
	}
	return err
}

func (g *ebpfGuard) Renew(end clock.Instant) error {
	if err := checkEnd(g.clk, time.Duration(g.lease.at(0).Load()), end); err != nil {
		return err
	}
	g.lease.forward(uint64(max(end.Boot, 0)))
	return nil
}

func (g *ebpfGuard) Attach(devs []Device) ([]Repair, error) {
	g.attachMu.Lock()
	defer g.attachMu.Unlock()
	var (
		repairs []Repair
		errs    []error
		want    = make(map[int]bool, len(devs))
	)
	for _, d := range devs {
		want[d.Index] = true
		what, err := g.hooks.ensure(d, g.attached[d.Index])
		g.attached[d.Index] = err == nil
		if err != nil {
			errs = append(errs, fmt.Errorf("guard %s: %w", d.Name, err))
		}
		if what != "" {
			repairs = append(repairs, Repair{d, what})
		}
	}
	for index := range g.attached {
		if want[index] {
			continue
		}
		if err := g.hooks.drop(index); err != nil {
			errs = append(errs, fmt.Errorf("stop guarding device %d: %w", index, err))
			continue
		}
		delete(g.attached, index)
	}
	return repairs, errors.Join(errs...)
}

func (g *ebpfGuard) Attached(index int) bool {
	g.attachMu.Lock()
	defer g.attachMu.Unlock()
	return g.attached[index]
}

func (g *ebpfGuard) Kind() string { return g.hooks.kind() }

func (g *ebpfGuard) Drops() (d Drops, err error) {
	for i, p := range []*uint64{&d.ARPIn, &d.ARPOut, &d.NDIn, &d.NDOut, &d.IPIn, &d.IPOut} {
		var perCPU []uint64
		if err := g.objs.Drops.Lookup(uint32(i), &perCPU); err != nil {
			return Drops{}, fmt.Errorf("read the guard's counters: %w", err)
		}
		for _, n := range perCPU {
			*p += n
		}
	}
	return d, nil
}

// Release leaves the two mappings in place: Renew may be in flight in another
// goroutine and must not fault.
func (g *ebpfGuard) Release() {
	g.attachMu.Lock()
	defer g.attachMu.Unlock()
	if g.hooks != nil {
		g.hooks.close()
	}
	g.objs.Close()
}
