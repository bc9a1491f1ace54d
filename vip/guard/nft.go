package guard

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"hanode/internal/clock"
)

// stepBack is how far the wall clock may step back before the guard closes of
// itself until the next renewal.
const stepBack = 10 * time.Millisecond

// bit is what the kernel has for one address, as far as is known. The zero bit
// is closed.
type bit uint8

const (
	bitClosed bit = iota
	bitOpen
	bitUnsure // an exchange failed half way; a table built anew has it closed
)

type nftGuard struct {
	cfg Config
	s   *schema

	// end is the newest lease end, BOOTTIME ns; renewed says it changed.
	end     atomic.Int64
	renewed chan struct{}
	problem atomic.Pointer[error] // of the last write of the lease, nil if it went well

	// mu guards what follows and is held across exchanges with the kernel.
	mu       sync.Mutex
	conn     nftConn
	known    map[netip.Addr]bit
	devs     []Device       // as last asked for
	attached map[int]string // the name of the device by its index

	once sync.Once
	quit chan struct{}
	done chan struct{}
}

// OpenNft is OpenEBPF by means of an nftables netdev table. It reads the wall
// clock, so a clock that is stepped back while the process hangs can hold it
// open longer: the weaker tier.
func OpenNft(cfg Config) (Guard, error) {
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails
	g := &nftGuard{
		cfg: cfg, s: newSchema(hex.EncodeToString(nonce[:])),
		renewed: make(chan struct{}, 1), conn: nftConn{thread: cfg.Thread},
		known: map[netip.Addr]bit{}, attached: map[int]string{},
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	for _, a := range cfg.Closed {
		g.known[a] = bitClosed
	}
	g.mu.Lock()
	err := g.build(cfg.Devs)
	g.mu.Unlock()
	if err != nil {
		g.conn.close()
		return nil, err
	}
	if err := errors.Join(removePins(cfg), removeClsact(cfg)); err != nil {
		cfg.Log.Warn("an older guard may keep addresses closed", "err", err)
	}
	go g.renewer()
	return g, nil
}

// build replaces the whole table in one transaction: no packet sees none.
func (g *nftGuard) build(devs []Device) error {
	if len(g.known) > MaxAddrs {
		return fmt.Errorf("more than %d addresses", MaxAddrs)
	}
	err := g.conn.do(func(c *nftables.Conn) error {
		c.AddTable(g.s.table) // so that there is one to delete
		c.DelTable(g.s.table)
		if err := g.s.create(c, g.known); err != nil {
			return err
		}
		for _, d := range devs {
			g.addBase(c, d)
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("load the nftables guard: %w", err)
	}
	for a, b := range g.known {
		if b == bitUnsure {
			g.known[a] = bitClosed
		}
	}
	g.devs, g.attached = devs, map[int]string{}
	for _, d := range devs {
		g.attached[d.Index] = d.Name
	}
	return nil
}

func (g *nftGuard) addBase(c *nftables.Conn, d Device) {
	for _, in := range []bool{true, false} {
		ch, rule := g.s.base(d, in)
		c.AddChain(ch)
		c.AddRule(rule)
	}
}

func (g *nftGuard) Know(addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var fresh []netip.Addr
	for _, a := range addrs {
		if _, ok := g.known[a]; !ok {
			fresh = append(fresh, a)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if len(g.known)+len(fresh) > MaxAddrs {
		return fmt.Errorf("more than %d addresses", MaxAddrs)
	}
	err := g.conn.do(func(c *nftables.Conn) error {
		for _, a := range fresh {
			if err := g.s.know(c, a); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("guard %v: %w", fresh, err)
	}
	for _, a := range fresh {
		g.known[a] = bitClosed
	}
	return nil
}

func (g *nftGuard) Forget(addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if _, ok := g.known[a]; !ok {
			continue
		}
		if err := g.set(false, a); err != nil {
			return err
		}
		err := g.conn.do(func(c *nftables.Conn) error {
			if err := g.s.forget(c, a); err != nil {
				return err
			}
			return c.Flush()
		})
		if err != nil {
			return fmt.Errorf("forget %s: %w", a, err)
		}
		delete(g.known, a)
	}
	return nil
}

func (g *nftGuard) Set(open bool, addrs ...netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	addrs, err := settable(g.known, open, addrs)
	return errors.Join(err, g.set(open, addrs...))
}

// set is one transaction: all of it happens or nothing.
func (g *nftGuard) set(open bool, addrs ...netip.Addr) error {
	want := bitClosed
	if open {
		want = bitOpen
	}
	elements := map[*nftables.Set][]nftables.SetElement{}
	var change []netip.Addr
	for _, a := range addrs {
		if g.known[a] != want {
			change = append(change, a)
			elements[g.s.openSet(a)] = append(elements[g.s.openSet(a)], element(a)...)
		}
	}
	if len(change) == 0 {
		return nil
	}
	for _, a := range change {
		g.known[a] = bitUnsure
	}
	err := g.conn.do(func(c *nftables.Conn) error {
		set := c.SetDeleteElements
		if open {
			set = c.SetAddElements
		}
		for s, list := range elements {
			if err := set(s, list); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if !open && errors.Is(err, unix.ENOENT) {
		if len(change) > 1 { // one that was not there kept the others from going
			var errs []error
			for _, a := range change {
				errs = append(errs, g.set(false, a))
			}
			return errors.Join(errs...)
		}
		err = g.ensureClosed()
	}
	if err != nil {
		return fmt.Errorf("set %s open=%t: %w", named(change), open, err)
	}
	for _, a := range change {
		g.known[a] = want
	}
	return nil
}

// named is the first of the addresses, and how many there are.
func named(addrs []netip.Addr) string {
	if len(addrs) == 1 {
		return addrs[0].String()
	}
	return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
}

// ensureClosed follows a removal that found nothing to remove: closed already,
// or the table is gone and must be there before anyone is told "closed".
func (g *nftGuard) ensureClosed() error {
	_, whole, err := g.inspect()
	if err != nil || whole {
		return err
	}
	defer g.kick()
	return g.build(g.devs)
}

// Renew stores the end; the renewer writes the newest one.
func (g *nftGuard) Renew(end clock.Instant) error {
	if err := checkEnd(g.cfg.Clock, time.Duration(g.end.Load()), end); err != nil {
		return err
	}
	for {
		old := g.end.Load()
		if int64(end.Boot) <= old {
			break
		}
		if g.end.CompareAndSwap(old, int64(end.Boot)) {
			g.kick()
			break
		}
	}
	if p := g.problem.Load(); p != nil {
		return *p
	}
	return nil
}

func (g *nftGuard) kick() {
	select {
	case g.renewed <- struct{}{}:
	default:
	}
}

// renewer writes the lease, on its own connection.
func (g *nftGuard) renewer() {
	defer close(g.done)
	conn := nftConn{thread: g.cfg.Thread}
	defer conn.close()
	for {
		select {
		case <-g.quit:
			return
		case <-g.renewed:
		}
		err := conn.do(g.writeLease)
		if err == nil {
			g.problem.Store(nil)
			continue
		}
		err = fmt.Errorf("write the lease: %w", err)
		g.problem.Store(&err)
	}
}

func (g *nftGuard) writeLease(c *nftables.Conn) error {
	end := time.Duration(g.end.Load())
	if end == 0 {
		return nil
	}
	// Wall first: a stall between the two readings then shortens the lease.
	wall := g.cfg.Clock.Wall().UnixNano()
	boot := g.cfg.Clock.Now().Boot
	if end <= boot {
		return nil // what stands there is past as well
	}
	c.FlushChain(g.s.lease)
	c.AddRule(g.s.leaseRule(wall-int64(stepBack), wall+int64(end-boot)))
	return c.Flush()
}

func (g *nftGuard) Attach(devs []Device) ([]Repair, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	there, whole, err := g.inspect()
	if err != nil {
		return nil, err
	}
	if !whole {
		var repairs []Repair
		for _, d := range devs {
			if g.attached[d.Index] != "" {
				repairs = append(repairs, Repair{d, "the nftables table was gone or changed"})
			}
		}
		if err := g.build(devs); err != nil {
			return nil, err
		}
		g.kick()
		return repairs, nil
	}
	g.devs = devs
	return g.adjust(devs, there)
}

// adjust adds and removes the chains of single devices.
func (g *nftGuard) adjust(devs []Device, there map[string]bool) ([]Repair, error) {
	var (
		repairs []Repair
		errs    []error
		want    = map[string]bool{}
	)
	now := map[int]string{}
	for _, d := range devs {
		in, out := g.s.baseName(d.Index, true), g.s.baseName(d.Index, false)
		want[in], want[out] = true, true
		old := g.attached[d.Index]
		// Since Linux 6.16 a chain is bound to the name, and a renamed device leaves it.
		renamed := old != "" && old != d.Name
		if there[in] && there[out] && !renamed {
			now[d.Index] = d.Name
			continue
		}
		err := g.conn.do(func(c *nftables.Conn) error {
			for _, is := range []bool{true, false} {
				ch, rule := g.s.base(d, is)
				if there[ch.Name] && !renamed {
					continue
				}
				if there[ch.Name] {
					c.FlushChain(ch)
					c.DelChain(ch)
				}
				c.AddChain(ch)
				c.AddRule(rule)
			}
			return c.Flush()
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("guard %s: %w", d.Name, err))
			continue
		}
		now[d.Index] = d.Name
		if old != "" && !renamed {
			repairs = append(repairs, Repair{d, "the chain was gone"})
		}
	}
	for name := range there {
		if want[name] {
			continue
		}
		err := g.conn.do(func(c *nftables.Conn) error {
			ch := &nftables.Chain{Table: g.s.table, Name: name}
			c.FlushChain(ch)
			c.DelChain(ch)
			return c.Flush()
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // gone with its device
			errs = append(errs, fmt.Errorf("remove chain %s: %w", name, err))
		}
	}
	g.attached = now
	return repairs, errors.Join(errs...)
}

// inspect lists the base chains in our table and says whether the rest of it is
// as we made it.
func (g *nftGuard) inspect() (there map[string]bool, whole bool, err error) {
	there = map[string]bool{}
	var mine, other bool
	err = g.conn.do(func(c *nftables.Conn) error {
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
		if err != nil {
			return err
		}
		for _, ch := range chains {
			if ch.Table.Name != tableName {
				continue
			}
			switch {
			case ch.Name == g.s.leaseName:
				mine = true
			case strings.HasPrefix(ch.Name, "lease_"):
				other = true
			case strings.HasSuffix(ch.Name, g.s.basePost):
				there[ch.Name] = true
			}
		}
		if !mine {
			return nil
		}
		whole = true
		for _, f := range g.s.fixed() {
			rules, err := c.GetRules(g.s.table, f.chain)
			if err != nil {
				return err
			}
			whole = whole && len(rules) == len(f.rules)
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("inspect the nftables guard: %w", err)
	}
	if other {
		return nil, false, ErrSuperseded
	}
	return there, whole, nil
}

func (g *nftGuard) Attached(index int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.attached[index] != ""
}

func (g *nftGuard) Kind() string { return "nftables" }

func (g *nftGuard) Drops() (d Drops, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	into := map[string]*uint64{
		g.s.arpIn: &d.ARPIn, g.s.arpOut: &d.ARPOut, g.s.ndIn: &d.NDIn, g.s.ndOut: &d.NDOut, g.s.ipIn: &d.IPIn, g.s.ipOut: &d.IPOut,
	}
	err = g.conn.do(func(c *nftables.Conn) error {
		objs, err := c.GetObjects(g.s.table)
		for _, o := range objs {
			if n, ok := o.(*nftables.CounterObj); ok && into[n.Name] != nil {
				*into[n.Name] = n.Packets
			}
		}
		return err
	})
	if err != nil {
		return Drops{}, fmt.Errorf("read the guard's counters: %w", err)
	}
	return d, nil
}

func (g *nftGuard) Release() {
	g.once.Do(func() { close(g.quit) })
	<-g.done
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn.close()
}

// removeTable takes away the table an older incarnation left.
func removeTable(cfg Config) error {
	conn := nftConn{thread: cfg.Thread}
	defer conn.close()
	if err := cfg.Thread.Do(conn.dial); err != nil {
		return nil // no nftables here, so no table of ours
	}
	err := conn.do(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
		if err != nil {
			return nil // likewise
		}
		for _, t := range tables {
			if t.Name == tableName {
				c.DelTable(t)
			}
		}
		return c.Flush()
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the older nftables guard: %w", err)
	}
	return nil
}
