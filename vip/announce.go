package vip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// announcer sends announcements when their schedule says so. send must not block, nor
// call the announcer; device says which device an address is on.
type announcer struct {
	send   func(Address)
	device func(netip.Addr) int
	begin  time.Time
	kick   chan struct{} // one slot: the schedule has something earlier

	mu    sync.Mutex // held while sending too: what is stopped is sent no more
	sched *schedule
}

func newAnnouncer(send func(Address), device func(netip.Addr) int) *announcer {
	return &announcer{
		send: send, device: device, begin: time.Now(), kick: make(chan struct{}, 1), sched: newSchedule(rand.Int64N),
	}
}

func (n *announcer) now() time.Duration { return time.Since(n.begin) }

// run sends what is due, until ctx ends.
func (n *announcer) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.kick:
		case <-t.C:
		}
		n.mu.Lock()
		n.sendDue()
		wait := n.sched.wait(n.now())
		n.mu.Unlock()
		if wait >= 0 {
			t.Reset(wait)
		} else {
			t.Stop()
		}
	}
}

// sendDue sends all that is due. mu is held.
func (n *announcer) sendDue() {
	for {
		a, ok := n.sched.pop(n.now())
		if !ok {
			return
		}
		n.send(a)
	}
}

// start sends the first before it returns, unless many are on their way on that
// device, and leaves the rest to run.
func (n *announcer) start(as ...Address) {
	n.mu.Lock()
	for _, a := range as {
		n.sched.start(a, n.device(a.Addr), n.now())
	}
	n.sendDue()
	n.mu.Unlock()
	n.wake()
}

func (n *announcer) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// stop ends schedules. When it returns nothing of them is sent any more.
func (n *announcer) stop(as ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range as {
		n.sched.stop(a)
	}
}

func (n *announcer) stopAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range n.sched.m {
		n.sched.stop(a)
	}
}

// once sends one for an address that is being announced, beside its schedule.
func (n *announcer) once(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.sched.m[a]; t != nil {
		n.send(t.addr)
	}
}

// again restarts every schedule that is accepted by which, and says how many.
func (n *announcer) again(which func(Address) bool) (count int) {
	n.mu.Lock()
	var list []Address
	for _, d := range n.sched.m {
		if which(d.addr) {
			list = append(list, d.addr)
		}
	}
	for _, a := range list {
		n.sched.start(a, n.device(a.Addr), n.now())
	}
	n.sendDue()
	n.mu.Unlock()
	n.wake()
	return len(list)
}
