package agent

import (
	"net/netip"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/lease"
)

// opened is the right under which a host opened an address.
type opened struct {
	group string
	epoch id.Epoch
	ref   id.NodeRef
	by    *simKernel // of the process that opened it
}

// opening looks up, in the very step of the decision (the agent's hold is locked
// by the caller), under which right an address is opened.
func (l *lab) opening(k *simKernel, addr netip.Addr) opened {
	h := k.agent.hold.holder
	if h == nil {
		l.fail("I2: %s opens %v without a registration", k.h.name, addr)
		return opened{by: k}
	}
	now := agentClock{k.h}.Now() // what a process that is stopped decides, it decided before
	for _, name := range l.ledger.groups() {
		v := h.May(name, now)
		if !v.OK {
			continue
		}
		g, known := l.ledger.at(name, v.Epoch)
		if known && g.owner == h.Ref() && slices.Contains(g.addrs, addr.String()) {
			return opened{name, v.Epoch, h.Ref(), k}
		}
	}
	l.fail("I2: %s opens %v, but no group with that address is its own", k.h.name, addr)
	return opened{by: k}
}

// transition looks right after a write to a kernel: only writes can make a host
// answer.
func (l *lab) transition(who, op string) {
	l.look(func() string { return "after " + op + " on " + who })
}

// look checks I3 and writes down for porcupine who answers. It returns, by address,
// the hosts that do.
func (l *lab) look(when func() string) (by [maxVips][]*host) {
	l.hist.mu.Lock()
	defer l.hist.mu.Unlock()
	var buf [maxVips]netip.Addr
	var holds [maxVips][]hold
	for _, h := range l.order {
		for _, a := range h.kernel.ExpectedHere() {
			l.fail("%s %s has %v on a device, which it only expects", when(), h.name, a)
		}
		for _, a := range h.kernel.Answering(buf[:0]) {
			o, noted := h.openedAs(a)
			if !noted && !h.kernel.Answers(a) {
				continue // closed at this very instant: it is forgotten only after that
			}
			i := int(a.As4()[3]) - firstVIP
			by[i], holds[i] = append(by[i], h), append(holds[i], hold{o.group, o.epoch})
		}
	}
	changed := false
	for i, hosts := range by {
		if len(hosts) > 1 {
			l.fail("I3: %s these answer for %v: %v", when(), l.vips[i], hosts)
		}
		if !l.sameHolds(i, hosts, holds[i]) {
			now := map[string]hold{}
			changed = true
			for j, h := range hosts {
				now[h.name] = holds[i][j]
			}
			l.hist.sawLocked(i, l.vips[i].String(), now)
		}
	}
	if changed {
		l.hist.now++
	}
	l.hist.now++
	return by
}

// sameHolds: the hosts answer under the very rights that were last seen.
func (l *lab) sameHolds(i int, hosts []*host, holds []hold) bool {
	seen := l.hist.seen[i]
	if len(seen) != len(hosts) {
		return false
	}
	for j, h := range hosts {
		if was, ok := seen[h.name]; !ok || was != holds[j] {
			return false
		}
	}
	return true
}

func (h *host) String() string { return h.name }

// watch is the checker of every millisecond.
func (l *lab) watch() {
	defer close(l.ended)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		if n%1000 == 0 {
			l.checkRate()
		}
		by := l.look(func() string { return "by themselves" })
		for i, hosts := range by {
			for _, h := range hosts {
				l.checkHolder(h, l.vips[i])
			}
		}
		l.checkGone()
	}
}

// checkRate sees to it that no message is answered in a circle. In a calm second
// every node sends a beat and an answer to every voter over every link.
func (l *lab) checkRate() {
	sent := l.net.Stats().Sent
	calm := len(l.nodes) * len(l.nodes) * 2 * 2 * int(time.Second/l.tm.Keepalive)
	if n := sent - l.sent; n > 4*calm {
		l.fail("storm: %d datagrams in a second, a calm one has %d", n, calm)
	}
	l.sent = sent
}

// passed notes the registrations that a holder has got past although they never
// let go: they were called expired.
func (l *lab) passed(r lease.Right) {
	for _, w := range r.Waits {
		if l.gone[w.Claim] == nil && w.Node != r.Owner {
			l.gone[w.Claim] = &expired{by: r.Owner}
		}
	}
}

// expired is a registration that somebody holds in spite of.
type expired struct {
	by  id.NodeRef
	let bool // it did let go, its token was just not seen in the log yet
}

// checkGone is I4: after a majority called a registration expired, it never has a
// lease again. The watch's own goroutine calls it.
func (l *lab) checkGone() {
	for c, x := range l.gone {
		h := l.hosts[c.Node.Name]
		h.mu.Lock()
		a, lf := h.agent, h.life
		h.mu.Unlock()
		if x.let || lf == nil || lf.dead() {
			continue
		}
		a.hold.Lock()
		holder := a.hold.holder
		switch {
		case holder == nil || holder.Ref() != c.Node:
		case holder.ReleasedUpTo(c.Group) >= c.Epoch:
			x.let = true
		case holder.Leased(h.clk.Now()):
			l.fail("I4: %v holds %s although %v, which did not let go of it, has a lease", x.by, c.Group, c.Node)
			x.let = true
		}
		a.hold.Unlock()
	}
}

func (h *host) openedAs(addr netip.Addr) (o opened, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok = h.open[addr]
	return o, ok
}

// registeredSince reports whether a later run of the agent than was has registered:
// by then nothing may be left of that one (R8).
func (h *host) registeredSince(was *life) bool {
	h.mu.Lock()
	a, now := h.agent, h.life
	h.mu.Unlock()
	if now == was || now.dead() || a == nil {
		return false
	}
	a.hold.Lock()
	defer a.hold.Unlock()
	return a.hold.holder != nil
}

// checkHolder is I2 and I5 for a host that answers.
func (l *lab) checkHolder(h *host, addr netip.Addr) {
	o, ok := h.openedAs(addr)
	if !ok {
		// It may have been closed since it was seen to answer, at this very instant: an
		// address is noted before it is opened, and forgotten after it is closed.
		answers := h.kernel.Answers(addr)
		if o, ok = h.openedAs(addr); !ok && answers && h.kernel.Answers(addr) {
			l.fail("I2: %s answers for %v, which its agent has not opened", h.name, addr)
		}
		if !ok {
			return
		}
	}
	a := o.by.agent
	if o.by.life.dead() && h.registeredSince(o.by.life) && h.kernel.Answers(addr) {
		l.fail("I2: %s answers for %v, which an agent that is dead opened, and registered anew", h.name, addr)
		return
	}
	if o.by.life.dead() || o.by.isFrozen() {
		return // its guard alone decides now, and the writes it made are still to come
	}
	a.hold.Lock()
	defer a.hold.Unlock()
	holder := a.hold.holder
	if holder == nil || holder.Ref() != o.ref {
		l.fail("I2: %s answers for %v as %v, but is registered otherwise", h.name, addr, o.ref)
		return
	}
	now := h.clk.Now()
	if !h.kernel.Answers(addr) {
		return // it let go between the two looks
	}
	if now.Boot >= holder.End().Boot {
		l.fail("I2: %s answers for %v, but its lease ended %v ago", h.name, addr, now.Boot-holder.End().Boot)
	}
	if holder.ReleasedUpTo(o.group) >= o.epoch {
		l.fail("I2: %s answers for %v, but told that it let epoch %d go", h.name, addr, o.epoch)
	}
	r, _ := holder.Right(o.group)
	if r.Epoch == o.epoch {
		l.passed(r)
	}
	if v := holder.May(o.group, now); r.Epoch == o.epoch && (v.Why == lease.Waiting || v.Why == lease.Blocked) {
		l.fail("I5: %s answers for %v although %s still waits for %v", h.name, addr, o.group, v.Wait)
	}
}
