package agent

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"hanode/internal/clock"
	"hanode/vip"
)

// simClock is one host's clocks. Its two faces run at rates of their own, which
// may change; the wall can be stepped.
type simClock struct {
	mu        sync.Mutex
	since     time.Time        // real time of the last change
	at        clock.Instant    // reading then
	boot, raw float64          // rates from then on
	still     bool             // RAW stands still
	wall      time.Duration    // how wrong the wall clock is
	lie       func() time.Time // says what the wall clock says instead; nil = it tells the time
}

func newSimClock(off time.Duration) *simClock {
	return &simClock{since: time.Now(), at: clock.Instant{Boot: off, Raw: off}, boot: 1, raw: 1}
}

func (c *simClock) Now() clock.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *simClock) now() clock.Instant {
	d := float64(time.Since(c.since))
	i := clock.Instant{Boot: c.at.Boot + time.Duration(d*c.boot), Raw: c.at.Raw}
	if !c.still {
		i.Raw += time.Duration(d * c.raw)
	}
	return i
}

func (c *simClock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lie != nil {
		return c.lie()
	}
	return time.Now().Add(c.wall)
}

// setRates makes the clocks run at these rates from now on; no reading jumps.
func (c *simClock) setRates(boot, raw float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since = c.now(), time.Now()
	c.boot, c.raw = boot, raw
}

// stop makes RAW stand still, as in suspend, or go on.
func (c *simClock) stop(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since = c.now(), time.Now()
	c.still = on
}

// jump moves BOOT alone ahead: the host slept and nobody noticed.
func (c *simClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since = c.now(), time.Now()
	c.at.Boot += d
}

// stepWall moves the wall clock alone.
func (c *simClock) stepWall(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d
}

// reboot starts both clocks again near zero.
func (c *simClock) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since = clock.Instant{Boot: 3 * time.Second, Raw: 3 * time.Second}, time.Now()
}

// memDisk is what survives a power cut: raft's log, votes and snapshots.
type memDisk struct {
	mu    sync.Mutex
	store *raft.InmemStore
	snaps *snapshots

	stall  atomic.Int64 // how long each write of the log takes now
	stalls atomic.Int64 // writes that were so slow
	hangs  atomic.Bool  // no write returns
	fails  atomic.Int64 // syscall.Errno that each write fails with; 0 = none
	free   atomic.Int64 // bytes left
}

func newMemDisk() *memDisk {
	d := &memDisk{store: raft.NewInmemStore(), snaps: newSnapshots()}
	d.free.Store(1 << 40)
	return d
}

// empty is raft's files set aside.
func (d *memDisk) empty() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store, d.snaps = raft.NewInmemStore(), newSnapshots()
}

func (d *memDisk) mount(l *life) mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	return mount{d.store, d, l, mounted{d.snaps, l}}
}

// snapshots are a disk's. One that does not arrive whole changes nothing, as with raft's
// files; raft's store in memory takes for the newest what was only begun.
type snapshots struct {
	mu     sync.Mutex
	newest *raft.InmemSnapshotStore
}

func newSnapshots() *snapshots { return &snapshots{newest: raft.NewInmemSnapshotStore()} }

func (s *snapshots) now() *raft.InmemSnapshotStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// mounted is one process's view of them.
type mounted struct {
	disk *snapshots
	life *life
}

// Create implements raft.SnapshotStore.
func (m mounted) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, t raft.Transport) (raft.SnapshotSink, error) {
	next := raft.NewInmemSnapshotStore()
	sink, err := next.Create(version, index, term, c, at, t)
	return &coming{SnapshotSink: sink, in: m, store: next}, err
}

// List implements raft.SnapshotStore.
func (m mounted) List() ([]*raft.SnapshotMeta, error) { return m.disk.now().List() }

// Open implements raft.SnapshotStore.
func (m mounted) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return m.disk.now().Open(id)
}

// coming is a snapshot that is written.
type coming struct {
	raft.SnapshotSink
	in    mounted
	store *raft.InmemSnapshotStore
	over  bool
}

// Close implements raft.SnapshotSink: it is whole.
func (c *coming) Close() error {
	if c.over {
		return nil
	}
	c.over = true
	if c.in.life.dead() {
		return errDead
	}
	c.in.disk.mu.Lock()
	defer c.in.disk.mu.Unlock()
	c.in.disk.newest = c.store
	return nil
}

// Cancel implements raft.SnapshotSink.
func (c *coming) Cancel() error {
	c.over = true
	return nil
}

var errDead = errors.New("the process is dead")

// life is what ends with one run of an agent, at once and whatever its goroutines
// still try on their way out.
type life struct {
	over chan struct{}
	once sync.Once
}

func newLife() *life { return &life{over: make(chan struct{})} }

func (l *life) end() { l.once.Do(func() { close(l.over) }) }

func (l *life) dead() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// wait sleeps for d; it reports false if the process died meanwhile.
func (l *life) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return !l.dead()
	case <-l.over:
		return false
	}
}

// mount is one process's view of a disk.
type mount struct {
	*raft.InmemStore
	disk  *memDisk
	life  *life
	snaps mounted
}

// write is one write, as slow and as sick as the disk is now. A dead process writes
// nothing.
func (m mount) write(fn func() error) error {
	if d := time.Duration(m.disk.stall.Load()); d > 0 {
		m.disk.stalls.Add(1)
		m.life.wait(d)
	}
	for m.disk.hangs.Load() && m.life.wait(time.Millisecond) {
	}
	if m.life.dead() {
		return errDead
	}
	if errno := syscall.Errno(m.disk.fails.Load()); errno != 0 {
		return fmt.Errorf("write raft.db: %w", errno)
	}
	return fn()
}

func (m mount) probe() (uint64, error) {
	err := m.write(func() error { return nil })
	return uint64(m.disk.free.Load()), err
}

func (m mount) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

func (m mount) StoreLogs(ls []*raft.Log) error {
	return m.write(func() error { return m.InmemStore.StoreLogs(ls) })
}

func (m mount) DeleteRange(a, b uint64) error {
	return m.write(func() error { return m.InmemStore.DeleteRange(a, b) })
}

// Set and SetUint64 of a dead process are lost: raft takes an error for a reason to
// panic, and nobody hears what it concludes.
func (m mount) Set(k, v []byte) error {
	return m.unlessDead(m.write(func() error { return m.InmemStore.Set(k, v) }))
}

func (m mount) SetUint64(k []byte, v uint64) error {
	return m.unlessDead(m.write(func() error { return m.InmemStore.SetUint64(k, v) }))
}

func (m mount) unlessDead(err error) error {
	if m.life.dead() {
		return nil
	}
	return err
}

// simKernel is one process's way to the kernel. Between the decision and the
// write there can be a hang (of one kind of call, or of the whole process), and a
// dead process writes nothing.
//
// Goroutines cannot be stopped in a bubble. A stopped process (SIGSTOP, a frozen
// cgroup) is modelled by what others can see of one: its writes to the kernel,
// its datagrams and its streams wait until it goes on, then all that it decided
// meanwhile happens at once, in its order; it reads nothing meanwhile, and its
// clocks go on. Some also find, on waking, that their own timers are late: see
// gatedClock.
type simKernel struct {
	vip.Kernel
	h     *host
	life  *life
	agent *Agent

	mu     sync.Mutex
	frozen bool
	gate   chan struct{} // closed when a gated process goes on; nil = not gated
	late   int           // looks at the clock that waited for that
	queue  []func()
	hangOp string
	hung   time.Time // calls of hangOp hang until then
	hangs  int       // that did
}

// do carries out one write.
func (k *simKernel) do(op string, fn func() error) error {
	k.mu.Lock()
	wait := time.Duration(0)
	if op == k.hangOp {
		wait = time.Until(k.hung)
	}
	if wait > 0 {
		k.hangs++
	}
	k.mu.Unlock()
	if wait > 0 {
		k.life.wait(wait)
	}
	if k.life.dead() {
		return errDead
	}
	k.mu.Lock()
	if k.frozen {
		k.queue = append(k.queue, func() { _ = fn() })
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	err := fn()
	k.h.lab.transition(k.h.name, op)
	return err
}

// hang makes calls of op hang for d. Open and Close are called under a lock, and
// a lock that is waited for stops virtual time, so for them there is only freeze.
func (k *simKernel) hang(op string, d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangOp, k.hung = op, time.Now().Add(d)
}

func (k *simKernel) freeze(gated bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frozen = true
	if gated && k.gate == nil {
		k.gate = make(chan struct{})
	}
}

// thaw carries out what waited. It reports how much that was, and how many loops
// found that they are late.
func (k *simKernel) thaw() (held, late int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held, late = len(k.queue), k.late
	if k.gate != nil {
		close(k.gate)
		k.gate, k.late = nil, 0
	}
	for _, fn := range k.queue {
		if !k.life.dead() {
			fn()
			k.h.lab.transition(k.h.name, "thaw")
		}
	}
	k.frozen, k.queue = false, nil
	return held, late
}

func (k *simKernel) isFrozen() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.frozen
}

func (k *simKernel) Prepare(as []vip.Address) error {
	return k.do("prepare", func() error { return k.Kernel.Prepare(as) })
}

func (k *simKernel) Expect(as ...vip.Address) {
	_ = k.do("expect", func() error { k.Kernel.Expect(as...); return nil })
}

func (k *simKernel) Dismiss(as ...vip.Address) {
	_ = k.do("dismiss", func() error { k.Kernel.Dismiss(as...); return nil })
}

func (k *simKernel) Add(as ...vip.Address) error {
	return k.do("add", func() error { return k.Kernel.Add(as...) })
}

func (k *simKernel) Del(as ...vip.Address) error {
	return k.do("del", func() error { return k.Kernel.Del(as...) })
}

// Open is called with the agent's hold locked: what it may hold is looked up in
// that very step.
func (k *simKernel) Open(as ...vip.Address) error {
	rights := make([]opened, len(as))
	for i, a := range as {
		rights[i] = k.h.lab.opening(k, a.Addr)
	}
	return k.do("open", func() error {
		for i, a := range as {
			k.h.setOpen(a.Addr, &rights[i])
		}
		return k.Kernel.Open(as...)
	})
}

func (k *simKernel) Close(as ...vip.Address) error {
	return k.do("close", func() error {
		err := k.Kernel.Close(as...)
		if err == nil {
			for _, a := range as {
				k.h.setOpen(a.Addr, nil)
			}
		}
		return err
	})
}

func (k *simKernel) Renew(end clock.Instant) error {
	return k.do("renew", func() error { return k.Kernel.Renew(end) })
}

func (k *simKernel) Announce(as ...vip.Address) {
	_ = k.do("announce", func() error { k.Kernel.Announce(as...); return nil })
}

func (k *simKernel) Silence(as ...vip.Address) {
	_ = k.do("silence", func() error { k.Kernel.Silence(as...); return nil })
}

func (k *simKernel) RemoveOurs() (out []vip.Address, err error) {
	err = k.do("removeours", func() error { out, err = k.Kernel.RemoveOurs(); return err })
	return out, err
}

func (k *simKernel) Shutdown() error {
	return k.do("shutdown", k.Kernel.Shutdown)
}

// gatedClock is a process's own view of its host's clocks. While the process is
// stopped behind a gate, the loops that look at the clock first thing when their
// timer fires do not get an answer until it goes on: then they find themselves
// late, as after SIGCONT, and before they have read what waits in their sockets.
//
// A goroutine that holds a lock must not wait here, for one that waits for a lock
// stops virtual time. So only loops that ask without one are held up, and only if
// nobody holds the locks that matter. raft's and memberlist's own timers are not
// gated; what they decide meanwhile leaves when the process goes on.
type gatedClock struct {
	clock.Clock
	k *simKernel
}

// gatedLoops ask for the time before they do anything else, and hold no lock then.
var gatedLoops = []string{"sayBeat", "voterLoop", "look", "inputs"}

func (c gatedClock) Now() clock.Instant {
	c.k.mu.Lock()
	gate := c.k.gate
	c.k.mu.Unlock()
	if gate != nil && inGatedLoop() && c.k.agent.unlocked() {
		c.k.mu.Lock()
		c.k.late++
		c.k.mu.Unlock()
		select {
		case <-gate:
		case <-c.k.life.over:
		}
	}
	return c.Clock.Now()
}

// inGatedLoop: the caller of Now, or its caller (the agent has a wrapper of its
// own), is one of gatedLoops.
func inGatedLoop() bool {
	var pc [2]uintptr
	n := runtime.Callers(3, pc[:])
	for frames := runtime.CallersFrames(pc[:n]); ; {
		f, more := frames.Next()
		if slices.ContainsFunc(gatedLoops, func(n string) bool { return strings.HasSuffix(f.Function, ")."+n) }) {
			return true
		}
		if !more {
			return false
		}
	}
}

// unlocked: nobody holds one of the locks under which the agent looks at the clock.
func (a *Agent) unlocked() bool {
	for _, l := range []interface {
		TryLock() bool
		Unlock()
	}{&a.hold, &a.grant, &a.elect.mu, &a.lead.mu} {
		if !l.TryLock() {
			return false
		}
		l.Unlock()
	}
	return true
}
