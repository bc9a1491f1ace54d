package vip

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// early are the first announcements after the one at once: dense while switches
// and clients still hold the old path, then sparse. One that is lost, or muted
// by a lease not yet running, is made good by the next.
var early = [...]time.Duration{
	20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	1100 * time.Millisecond, 2200 * time.Millisecond, 5 * time.Second,
}

// late is the distance of those that follow, for neighbours that were away.
const late = time.Minute

// announceAt is when announcement n goes out, since the first, which is n = 0.
func announceAt(n int) time.Duration {
	switch {
	case n <= 0:
		return 0
	case n <= len(early):
		return early[n-1]
	}
	return early[len(early)-1] + time.Duration(n-len(early))*late
}

// announcer repeats announcements. send must be safe for concurrent use.
type announcer struct {
	send func(Address)

	mu      sync.Mutex
	running map[netip.Addr]*schedule
}

type schedule struct {
	addr   Address
	cancel context.CancelFunc
	done   chan struct{}
}

func newAnnouncer(send func(Address)) *announcer {
	return &announcer{send: send, running: map[netip.Addr]*schedule{}}
}

// start sends the first before it returns, and the rest from a goroutine that
// stop waits for.
func (n *announcer) start(a Address) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.startLocked(a)
}

func (n *announcer) startLocked(a Address) {
	n.stopLocked(a.Addr)
	n.send(a)
	ctx, cancel := context.WithCancel(context.Background())
	s := &schedule{a, cancel, make(chan struct{})}
	n.running[a.Addr] = s
	go func() {
		defer close(s.done)
		n.repeat(ctx, a)
	}()
}

func (n *announcer) repeat(ctx context.Context, a Address) {
	start := time.Now()
	for i := 1; ; i++ {
		t := time.NewTimer(time.Until(start.Add(announceAt(i))))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			n.send(a)
		}
	}
}

// stop ends one schedule and waits until nothing of it is under way.
func (n *announcer) stop(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopLocked(a)
}

func (n *announcer) stopLocked(a netip.Addr) {
	if s, ok := n.running[a]; ok {
		s.cancel()
		<-s.done
		delete(n.running, a)
	}
}

func (n *announcer) stopAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range n.running {
		n.stopLocked(a)
	}
}

// again restarts every schedule that is accepted by which.
func (n *announcer) again(which func(Address) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []Address
	for _, s := range n.running {
		if which(s.addr) {
			list = append(list, s.addr)
		}
	}
	for _, a := range list {
		n.startLocked(a)
	}
}
