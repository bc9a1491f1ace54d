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
	now := k.h.clk.Now()
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

// transition checks I3 right after a write to a kernel: only writes can make a
// host answer.
func (l *lab) transition(who, op string) {
	for _, a := range l.vips {
		if by := l.answering(a); len(by) > 1 {
			l.fail("I3: after %s on %s these answer for %v: %v", op, who, a, by)
		}
	}
}

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
		for _, a := range l.vips {
			by := l.answering(a)
			if len(by) > 1 {
				l.fail("I3: these answer for %v: %v", a, by)
			}
			for _, name := range by {
				l.checkHolder(l.hosts[name], a)
			}
		}
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

// checkHolder is I2 and I5 for a host that answers.
func (l *lab) checkHolder(h *host, addr netip.Addr) {
	h.mu.Lock()
	o, ok := h.open[addr]
	h.mu.Unlock()
	if !ok {
		l.fail("I2: %s answers for %v, which its agent has not opened", h.name, addr)
		return
	}
	g, known := l.ledger.at(o.group, o.epoch)
	switch {
	case !known || g.owner != o.ref || o.ref.Name != h.name:
		l.fail("I2: %s answers for %v as %v of %s at epoch %d, which belongs to %v", h.name, addr, o.ref, o.group, o.epoch, g.owner)
	case !slices.Contains(g.addrs, addr.String()):
		l.fail("I2: %s answers for %v, which %s has not at epoch %d", h.name, addr, o.group, o.epoch)
	}
	a := o.by.agent
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
	if v := holder.May(o.group, now); r.Epoch == o.epoch && (v.Why == lease.Waiting || v.Why == lease.Blocked) {
		l.fail("I5: %s answers for %v although %s still waits for %v", h.name, addr, o.group, v.Wait)
	}
}
