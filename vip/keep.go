package vip

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/vip/guard"
)

const (
	// lifeEvery is how often lifetimes are looked at.
	lifeEvery = 500 * time.Millisecond
	// A lifetime outlives the lease by lifeSpare at least: it may not take the address
	// of a healthy holder whose refresh had to wait for the kernel's routing lock.
	// Where refreshing all takes long it is lifeShare times that, up to lifeMost, so that
	// refreshing takes two hundredths of one processor at most. That is so with hundreds
	// of IPv6 addresses: for each one that is written the kernel joins the multicast
	// groups of all others on the device anew, and reports them to the network (MLD).
	// Because of these reports IPv6 addresses are written less often in any case.
	lifeSpare  = time.Second
	lifeSpare6 = 10 * time.Second
	lifeShare  = 100
	lifeMost   = time.Minute
	// lifeFuzz is more than the kernel's timer takes an address off early by.
	lifeFuzz = 50 * time.Millisecond
	// LifeBound is how long after the end of the last lease an address may still be
	// on a host whose agent is hung or dead, silent as it is: the spare, rounded up
	// to the kernel's whole seconds, and by how much the kernel was seen to be late.
	LifeBound = lifeSpare + time.Second + 430*time.Millisecond
	// LifeBound6 is the same for IPv6. With hundreds of addresses the spare is longer;
	// see lifeMost.
	LifeBound6 = lifeSpare6 + time.Second + 430*time.Millisecond
	// batch is how many addresses are written in one message to the kernel at most, and
	// batchTime how long that may take: a release has to wait for it.
	batch     = 64
	batchTime = 2 * time.Millisecond
)

// lifetime is the valid_lft, in whole seconds, of an address written now under a
// lease that ends at end. With no lease it is the shortest: the caller wants the
// address on, and what it does not renew goes away.
func lifetime(now, end, spare time.Duration) uint32 {
	left := min(max(end-now, 0), guard.TooFar)
	return uint32((left + spare + time.Second - 1) / time.Second)
}

// due reports whether an address that lives until must be written again at now, so
// that half of the spare is left.
func due(now, end, until, spare time.Duration) bool {
	return until-spare/2 < max(end, now+time.Second)
}

// Upkeep counts what keeping the addresses on took, since Open.
type Upkeep struct {
	Refreshed uint64 // lifetimes moved forward
	Restored  uint64 // put back after their lifetime or their device had gone
	Removed   uint64 // taken off by another program, and put back
}

// keeper keeps the addresses that were added on their devices while the lease runs,
// and lets them go by their lifetime when nobody renews it: refreshed in time, put
// back when the lease returns, and put back at once when somebody took one away.
//
// It is not on the way of a renewal, which only stores the end and at most fills a
// one-slot channel.
type keeper struct {
	clk   clock.Clock
	grid  *grid.Grid
	log   *slog.Logger
	rtnl  *rtnl    // to look; shared
	sock  *batcher // to write; its own, under mu
	kick  chan struct{}
	again func(which func(Address) bool) // announce anew

	end  atomic.Int64 // the newest lease end, boot time
	over atomic.Bool  // the loop saw the lease over: Renew wakes it

	refreshed, restored, removed atomic.Uint64
	// taken is told of an address that another program took off.
	taken func(a Address, index int)

	mu   sync.Mutex // held across one batch
	kept map[netip.Addr]*kept
	cost time.Duration // of writing one address, lately
	last time.Duration // of the newest one
}

// kept is one address that was added.
type kept struct {
	addr  Address
	index int           // its device; 0 = gone or down, it waits to be moved
	until time.Duration // nominal end of its lifetime, boot time
	off   bool          // not on the host, as far as is known
}

// place is where it belongs.
func (x *kept) place() place { return place{index: x.index, on: x.addr.onDevice()} }

// renewed notes a lease end. It never blocks.
func (k *keeper) renewed(end time.Duration) {
	for {
		old := k.end.Load()
		if int64(end) <= old || k.end.CompareAndSwap(old, int64(end)) {
			break
		}
	}
	if k.over.Load() {
		k.wake()
	}
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// lease is the time and the newest end.
func (k *keeper) lease() (now, end time.Duration) {
	// The end first: it only grows, so a stall in between makes the lease look shorter.
	end = time.Duration(k.end.Load())
	return k.clk.Now().Boot, end
}

// spare is by how much the lifetime of a outlives the lease now. mu is held.
func (k *keeper) spare(a netip.Addr) time.Duration {
	least := lifeSpare
	if a.Is6() {
		least = lifeSpare6
	}
	return min(max(least, lifeShare*k.cost*time.Duration(len(k.kept))), lifeMost)
}

// batch is how many addresses may be written at once now. mu is held.
func (k *keeper) batch() int {
	return int(min(max(1, batchTime/max(1, k.cost)), batch))
}

// send writes to the kernel and notes what it costs. mu is held.
func (k *keeper) send(ms ...message) []error {
	if len(ms) == 0 {
		return nil
	}
	begin := k.clk.Now()
	errs := k.sock.send(ms)
	c := k.clk.Now().Elapsed(begin) / time.Duration(len(ms))
	k.cost = (7*k.cost + min(c, k.last)) / 8 // one that had to wait says nothing
	k.last = c
	return errs
}

// bring writes to the kernel as send does, and has what is new there delivered at once:
// fresh says which messages put on an address that was not there. mu is held.
func (k *keeper) bring(ms []message, fresh map[int]place) []error {
	all, at := make([]message, 0, len(ms)+len(fresh)), make([]int, len(ms))
	for i, m := range ms {
		at[i] = len(all)
		all = append(all, m)
		if p, ok := fresh[i]; ok {
			if b, ok := bridge(unix.RTM_NEWROUTE, p.index, p.on.Addr()); ok {
				all = append(all, b)
			}
		}
	}
	got := k.send(all...)
	errs := make([]error, len(ms))
	for i := range ms { // without the bridge it answers a little later
		errs[i] = got[at[i]]
	}
	return errs
}

// adding is an address and where it is to go.
type adding struct {
	Address
	place
}

// add puts addresses on their devices and keeps them there. One that is there in
// another form goes first: the kernel changes no more than the lifetime of what is there.
func (k *keeper) add(list []adding) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var other []place
	for _, x := range list {
		if was := k.kept[x.Addr]; was != nil && !was.off && was.index == x.index && !was.addr.standsAs(x.Address) {
			other = append(other, was.place())
			was.off = true
		}
	}
	k.send(takeOffAll(other...)...)
	now, end := k.lease()
	msgs, lives := make([]message, len(list)), make([]uint32, len(list))
	for i, x := range list {
		lives[i] = lifetime(now, end, k.spare(x.Addr))
		msgs[i] = put(x.index, x.Address, lives[i], unix.NLM_F_REPLACE)
	}
	fresh := map[int]place{}
	for i, x := range list {
		if was := k.kept[x.Addr]; was == nil || was.off || was.index != x.index {
			fresh[i] = x.place
		}
	}
	errs := k.bring(msgs, fresh)
	for i, x := range list {
		if errs[i] == nil {
			k.kept[x.Addr] = &kept{addr: x.Address, index: x.index, until: now + seconds(lives[i])}
		}
	}
	return errs
}

// addresses lists what is kept, on the host or off.
func (k *keeper) addresses() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.kept))
}

// drop lets go of addresses. When it returns, nothing here writes them any more.
func (k *keeper) drop(addrs ...netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range addrs {
		delete(k.kept, a)
	}
}

// takeOff takes addresses off their devices. What is gone already is success.
func (k *keeper) takeOff(where ...place) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := k.send(takeOffAll(where...)...)[:len(where)]
	for i, err := range errs {
		if err != nil && isGone(err) {
			errs[i] = nil
		}
	}
	return errs
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// run is the keeper's loop.
func (k *keeper) run(ctx context.Context) {
	tick := k.grid.Ticker(lifeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		case <-k.kick:
		}
		k.look(ctx)
	}
}

// look writes what is due while the lease runs.
func (k *keeper) look(ctx context.Context) {
	k.mu.Lock()
	now, end := k.lease()
	was, runs := k.over.Load(), now < end
	if runs {
		k.over.Store(false)
	} else {
		k.lapsed()
	}
	k.mu.Unlock()
	if !runs {
		return
	}
	back := k.write(ctx)
	switch {
	case was: // muted until now: nobody may have asked for longer than neighbours remember
		k.again(func(Address) bool { return true })
	case len(back) > 0:
		k.again(func(a Address) bool { return slices.Contains(back, a.Addr) })
	}
}

// lapsed makes the next renewal wake the loop. mu is held.
func (k *keeper) lapsed() {
	k.over.Store(true)
	if now, end := k.lease(); now < end {
		k.wake() // it came in between, and saw nobody waiting
	}
}

// write puts back what is off and refreshes what is due, a batch at a time. It
// leaves the kernel's routing lock to others between batches, and stops when woken:
// the loop then looks again. It returns what was put back.
func (k *keeper) write(ctx context.Context) (back []netip.Addr) {
	for {
		begin := k.clk.Now()
		b, rest := k.writeBatch()
		back = append(back, b...)
		if rest < 0 {
			return back
		}
		if len(b) > 0 {
			continue // clients wait for those
		}
		select {
		case <-ctx.Done():
			return back
		case <-k.kick:
			k.wake()
			return back
		case <-time.After(min(rest, 4*k.clk.Now().Elapsed(begin))):
		}
	}
}

// writeBatch returns what it put back, and for how long the next batch can wait;
// negative: there is none.
func (k *keeper) writeBatch() (back []netip.Addr, rest time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, end := k.lease()
	if now >= end {
		k.lapsed()
		return nil, -1
	}
	var list []*kept
	for _, x := range k.kept {
		if x.index != 0 && (x.off || due(now, end, x.until, k.spare(x.addr.Addr))) {
			list = append(list, x)
		}
	}
	slices.SortStableFunc(list, func(a, b *kept) int { // what is off first, then what goes first
		if a.off != b.off {
			if a.off {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.until, b.until)
	})
	rest = -1
	if n, most := len(list), k.batch(); n > most {
		rest = max(0, list[most].until-now) / time.Duration(4*(n/most))
		list = list[:most]
	}
	if len(list) == 0 {
		return nil, -1
	}
	msgs, lives := make([]message, len(list)), make([]uint32, len(list))
	for i, x := range list {
		lives[i] = lifetime(now, end, k.spare(x.addr.Addr))
		msgs[i] = put(x.index, x.addr, lives[i], unix.NLM_F_REPLACE)
	}
	fresh := map[int]place{}
	for i, x := range list {
		if x.off {
			fresh[i] = x.place()
		}
	}
	for i, err := range k.bring(msgs, fresh) {
		x := list[i]
		if err != nil {
			k.log.Warn("an address could not be kept on its device", "addr", x.addr.Addr, "err", err)
			if x.off = true; errors.Is(err, unix.ENODEV) {
				x.index = 0
			}
			continue
		}
		x.until = now + seconds(lives[i])
		k.refreshed.Add(1)
		if x.off {
			x.off = false
			k.restored.Add(1)
			back = append(back, x.addr.Addr)
		}
	}
	if k.tooLate(list) {
		return nil, -1
	}
	return back, rest
}

// tooLate takes off again what was written while the lease ended: the kernel
// creates what it was to refresh, if that had just expired. mu is held.
func (k *keeper) tooLate(list []*kept) bool {
	now, end := k.lease()
	if now < end {
		return false
	}
	where := make([]place, len(list))
	for i, x := range list {
		where[i], x.off = x.place(), true
	}
	for i, err := range k.send(takeOffAll(where...)...)[:len(where)] {
		if err != nil && !isGone(err) {
			k.log.Warn("an address that was written too late stays for its lifetime", "addr", list[i].addr.Addr, "err", err)
		}
	}
	k.log.Info("the lease ended while addresses were refreshed; they were taken off", "count", len(list))
	k.lapsed()
	return true
}

// deleted is told by the kernel that a left a device. It is put back at once, if the
// lease runs and the device is there; otherwise it stays off until look or moved.
func (k *keeper) deleted(index int, p netip.Prefix) {
	a := p.Addr()
	x, by := k.restore(index, p)
	if x == nil {
		return
	}
	if by {
		k.taken(x.addr, index)
	}
	k.again(func(b Address) bool { return b.Addr == a })
}

// restore puts a back where it was taken from. It returns nil if it did nothing;
// by says that another program had taken it.
func (k *keeper) restore(index int, p netip.Prefix) (x *kept, by bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := p.Addr()
	x = k.kept[a]
	if x == nil || x.index != index || x.off || x.addr.onDevice() != p {
		return nil, false
	}
	now, end := k.lease()
	if !k.rtnl.isUp(index) {
		// Going down takes IPv6 addresses off. What comes back may not be guarded yet.
		x.index, x.off = 0, true
		return nil, false
	}
	if now >= end { // its lifetime was over, or nobody may hold it anyway
		x.off = true
		k.lapsed()
		return nil, false
	}
	life := lifetime(now, end, k.spare(a))
	err := k.bring([]message{put(index, x.addr, life, unix.NLM_F_EXCL)}, map[int]place{0: x.place()})[0]
	if errors.Is(err, unix.EEXIST) {
		return nil, false // the news is older than the address
	}
	if err != nil {
		k.log.Warn("an address could not be put back", "addr", a, "err", err)
		x.off = true
		return nil, false
	}
	by = now < x.until-lifeFuzz
	x.until = now + seconds(life)
	if k.tooLate([]*kept{x}) {
		return nil, false
	}
	if by {
		k.removed.Add(1)
	} else {
		k.restored.Add(1)
	}
	return x, by
}

// yield takes a off at once if no lease runs: it is put back with the next. false: one
// runs, or it is not here.
func (k *keeper) yield(a netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	x := k.kept[a]
	if x == nil || x.off || x.index == 0 {
		return false
	}
	if now, end := k.lease(); now < end {
		return false
	}
	if err := k.send(takeOffAll(x.place())...)[0]; err != nil && !isGone(err) {
		k.log.Warn("an address could not be taken off", "addr", a, "err", err)
		return false
	}
	x.off = true
	k.lapsed()
	return true
}

// homeless lists the addresses whose device is gone or down, after noting which
// those are.
func (k *keeper) homeless(now devices) (list []Address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, x := range k.kept {
		if _, ok := now[x.index]; !ok {
			x.index, x.off = 0, true
			list = append(list, x.addr)
		}
	}
	return list
}

// move says where a is to be from now on.
func (k *keeper) move(a netip.Addr, index int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.kept[a]; x != nil {
		x.index, x.off = index, true
	}
}

// resync compares with what is on the host: news were lost.
func (k *keeper) resync() {
	have, err := k.rtnl.addresses()
	if err != nil {
		k.log.Warn("cannot see whether our addresses are on", "err", err)
		return
	}
	on := map[spot]bool{}
	for _, x := range have {
		on[spot{x.index, x.prefix.Addr()}] = true
	}
	k.mu.Lock()
	var gone []kept
	for a, x := range k.kept {
		if !x.off && !on[spot{x.index, a}] {
			gone = append(gone, *x)
		}
	}
	k.mu.Unlock()
	for _, x := range gone {
		k.deleted(x.index, x.addr.onDevice())
	}
}

// spot is an address on a device.
type spot struct {
	index int
	addr  netip.Addr
}
