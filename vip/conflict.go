package vip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/clock"
)

// conflicts listens for other hosts that claim the prepared addresses, and asks about
// them now and then: the holder learns of a second one, and those who do not hold an
// address look from outside whether nobody, one or two answer for it.
//
// Frames are seen before the guard sees them. Nothing here decides who may hold.
type conflicts struct {
	clk   clock.Clock
	log   *slog.Logger
	every time.Duration // between two questions about one address
	socks []*os.File

	mu       sync.Mutex
	sights   *sightings
	addrs    map[netip.Addr]Address
	defended map[netip.Addr]clock.Instant
	changed  chan struct{}           // closed when a conflict begins or ends, or an address falls silent
	told     map[netip.Addr]Sighting // what was worth telling at its last change
	probes   map[chan claim]struct{}
}

func newConflicts(clk clock.Clock, log *slog.Logger, every time.Duration) *conflicts {
	if every == 0 {
		every = askEvery
	}
	return &conflicts{
		clk: clk, log: log, every: every, sights: newSightings(), addrs: map[netip.Addr]Address{},
		defended: map[netip.Addr]clock.Instant{}, changed: make(chan struct{}), told: map[netip.Addr]Sighting{},
		probes: map[chan claim]struct{}{},
	}
}

// open makes the sockets: one for ARP, one for neighbour advertisements.
func (c *conflicts) open(h *host) error {
	return h.thread.Do(func() error {
		for _, proto := range []uint16{unix.ETH_P_ARP, unix.ETH_P_IPV6} {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), "packet")
			c.socks = append(c.socks, f)
			if proto == unix.ETH_P_IPV6 {
				prog := onlyAdvertisements()
				if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
					return err
				}
			}
			if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(proto)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// onlyAdvertisements passes neighbour advertisements, so that other IPv6 traffic wakes
// nobody.
func onlyAdvertisements() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: etherLen + 6}, // next header
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: etherLen + ip6Len},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: naType, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func (c *conflicts) close() {
	for _, f := range c.socks {
		_ = f.Close()
	}
}

// listen reads one socket until it is closed.
func (h *host) listen(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 2048)
	for {
		n, index := 0, 0
		err := raw.Read(func(fd uintptr) bool {
			var from unix.Sockaddr
			var got error
			n, from, got = unix.Recvfrom(int(fd), buf, 0)
			if errors.Is(got, unix.EAGAIN) {
				return false
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); got != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING {
				n = 0 // a device that went down, or what we say ourselves
			} else {
				index = ll.Ifindex
			}
			return true
		})
		if err != nil {
			return
		}
		if cl, ok := parseClaim(buf[:n]); ok {
			h.claimed(cl, index)
		}
	}
}

// claimed takes a claim that was heard on a device.
func (h *host) claimed(cl claim, index int) {
	c := h.conflicts
	c.mu.Lock()
	a, known := c.addrs[cl.addr]
	asked := len(c.probes) > 0
	c.mu.Unlock()
	if !known && !asked || h.isOwn(cl.mac, index) {
		return
	}
	now := c.clk.Now()
	c.mu.Lock()
	for p := range c.probes {
		select {
		case p <- cl:
		default: // it has heard enough
		}
	}
	defend := known && c.sights.claim(cl, now)
	if defend && now.Elapsed(c.defended[cl.addr]) < defendEvery {
		defend = false
	} else if defend {
		c.defended[cl.addr] = now
	}
	c.tell(cl.addr, now)
	c.mu.Unlock()
	if !defend {
		return
	}
	if h.keep.yield(cl.addr) {
		h.log.Warn("another host claims an address that is muted here; it was taken off until the lease returns", "addr", cl.addr, "mac", cl.hw())
		return
	}
	h.log.Warn("another host claims an address that is held here; announcing it again", "addr", cl.addr, "mac", cl.hw())
	h.ann.once(a.Addr)
}

// defendEvery is between two announcements that answer claims: two hosts that both
// defend an address flood the network otherwise.
const defendEvery = time.Second

// isOwn reports whether a MAC address is this host's, or the device is none that
// carries virtual addresses: a port, whose frames its bridge shows again.
func (h *host) isOwn(mac [6]byte, index int) bool {
	h.look.RLock()
	defer h.look.RUnlock()
	d, ok := h.devs[index]
	if !ok || !h.devs.guarded(d) {
		return true
	}
	for _, d := range h.devs {
		if bytes.Equal(d.mac, mac[:]) {
			return true
		}
	}
	return false
}

// tell wakes who waits if what there is to tell about a changed. mu is held.
func (c *conflicts) tell(a netip.Addr, now clock.Instant) {
	news := c.sights.of(a, now)
	was, told := c.told[a]
	worth := news.Conflict() || news.Unanswered()
	switch {
	case !worth && !told:
		return
	case !worth:
		delete(c.told, a)
	case told && was.Unanswered() == news.Unanswered() && slices.EqualFunc(was.MACs, news.MACs, func(a, b net.HardwareAddr) bool { return bytes.Equal(a, b) }):
		return
	default:
		c.told[a] = news
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Sightings implements Kernel.
func (h *host) Sightings() ([]Sighting, <-chan struct{}) {
	c := h.conflicts
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sights.list(c.clk.Now()), c.changed
}

// prepared notes which addresses there are.
func (c *conflicts) prepared(known map[netip.Addr]Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addrs = maps.Clone(known)
	set := make(map[netip.Addr]bool, len(known))
	for a := range known {
		set[a] = true
	}
	c.sights.prepared(set)
	maps.DeleteFunc(c.told, func(a netip.Addr, _ Sighting) bool { return !set[a] })
}

// hold notes which addresses are on this host, or are not any more.
func (c *conflicts) hold(held bool, addrs ...netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clk.Now()
	for _, a := range addrs {
		c.sights.hold(a, held, now)
		c.tell(a, now)
	}
}

// askLoop asks about every address in turn until ctx ends.
func (h *host) askLoop(ctx context.Context) {
	var round []Address
	var have []assigned
	every := h.conflicts.every
	gap := every
	for {
		if len(round) == 0 {
			round = h.conflicts.list()
			gap = max(askGap, every/time.Duration(max(1, len(round))))
			have = nil
			if len(round) > 0 {
				have, _ = h.rtnl.networks(round...) // without them it asks about less
			}
		}
		if len(round) > 0 {
			h.ask(round[0], have)
			round = round[1:]
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(gap):
		}
	}
}

func (c *conflicts) list() []Address {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.addrs), func(a, b Address) int { return a.Addr.Compare(b.Addr) })
}

// ask sends one question about a, if its device carries.
func (h *host) ask(a Address, have []assigned) {
	d, own, ok := h.asker(a, have)
	if !ok {
		return
	}
	c := h.conflicts
	now := c.clk.Now()
	c.mu.Lock()
	c.sights.ask(a.Addr, d.name, now)
	c.tell(a.Addr, now)
	c.mu.Unlock()
	h.put(question(a.Addr, d.mac, own), d.index)
}

// asker is the device on which a is asked for, and its own link-local address.
func (h *host) asker(a Address, have []assigned) (d device, own netip.Addr, ok bool) {
	h.look.RLock()
	defer h.look.RUnlock()
	if p, on := h.placed[a.Addr]; on {
		d = h.devs[p.index]
	} else {
		var err error
		if d, err = h.devs.choose(a, have); err != nil {
			return device{}, own, false
		}
	}
	for _, x := range have {
		if x.index == d.index && !x.route && x.prefix.Addr().Is6() && x.prefix.Addr().IsLinkLocalUnicast() {
			own = x.prefix.Addr()
		}
	}
	return d, own, d.up && len(d.mac) == 6
}

// put sends one frame.
func (h *host) put(f []byte, index int) {
	to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: uint16(f[13])<<8 | uint16(f[12]), Halen: 6}
	copy(to.Addr[:], f[:6])
	if err := unix.Sendto(h.packet, f, unix.MSG_DONTWAIT, to); err != nil {
		h.log.Debug("a question was not sent", "dev", index, "err", err)
	}
}

// InUse implements Kernel.
func (h *host) InUse(ctx context.Context, addrs []Address) map[netip.Addr]net.HardwareAddr {
	c := h.conflicts
	found := make(chan claim, 2*len(addrs)+16)
	c.mu.Lock()
	c.probes[found] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.probes, found)
		c.mu.Unlock()
	}()
	wanted, out := map[netip.Addr]bool{}, map[netip.Addr]net.HardwareAddr{}
	for _, a := range addrs {
		wanted[a.Addr] = true
	}
	have, err := h.rtnl.networks(addrs...)
	if err != nil {
		h.log.Warn("cannot ask whether addresses are in use", "err", err)
		return out
	}
	for range inUseTries {
		for _, a := range addrs {
			if d, own, ok := h.asker(a, have); ok && out[a.Addr] == nil {
				h.put(question(a.Addr, d.mac, own), d.index)
			}
		}
		for end := time.After(inUseEvery); end != nil; {
			select {
			case cl := <-found:
				if wanted[cl.addr] {
					out[cl.addr] = cl.hw()
				}
			case <-ctx.Done():
				return out
			case <-end:
				end = nil
			}
		}
	}
	return out
}

// RFC 5227 asks three times, a second or two apart, and waits two more: for links of
// its time. An operator waits for this.
const (
	inUseTries = 3
	inUseEvery = 300 * time.Millisecond
)
