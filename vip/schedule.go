package vip

import (
	"container/heap"
	"net/netip"
	"time"
)

// early are the first announcements after the one at once: dense while switches
// and clients still hold the old path, then sparse. One that is lost, or muted
// by a lease not yet running, is made good by the next.
var early = [...]time.Duration{
	20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	1100 * time.Millisecond, 2200 * time.Millisecond, 5 * time.Second,
}

// Those that follow are between lateLeast and lateMost apart, drawn each time, for
// neighbours that were away: a thousand that began together do not stay together.
const (
	lateLeast = time.Minute
	lateMost  = 2 * time.Minute
)

// paceGap is the distance of two announcements on one device when there are many, and
// paceBurst how many may go at once before. A first announcement has a lane of its
// own: it does not wait for the repeats of others.
const (
	paceGap   = 100 * time.Microsecond
	paceBurst = 32
)

// schedule says which address is to be announced when. It is pure: time, which counts
// from anywhere, and chance are arguments.
type schedule struct {
	chance func(n int64) int64 // 0 <= result < n
	m      map[netip.Addr]*turn
	next   dueHeap
	lanes  map[lane]*pace
}

// turn is the next announcement of one address.
type turn struct {
	addr    Address
	dev     int           // whose pace it keeps; 0 = none known
	start   time.Duration // of this round
	n       int           // its number in the round, from 0
	at      time.Duration // when it is to go
	granted bool          // at is a place in its lane
	index   int           // in the heap
}

type lane struct {
	dev   int
	first bool
}

// pace is a lane: free is when the next one may go if all before went as late as they
// had to.
type pace struct{ free time.Duration }

// take is the place in the lane of one who comes at now.
func (p *pace) take(now time.Duration) time.Duration {
	p.free = max(p.free, now-(paceBurst-1)*paceGap)
	at := max(p.free, now)
	p.free += paceGap
	return at
}

func newSchedule(chance func(int64) int64) *schedule {
	return &schedule{chance: chance, m: map[netip.Addr]*turn{}, lanes: map[lane]*pace{}}
}

// start begins a round of a, or begins it anew: the first is due at once.
func (s *schedule) start(a Address, dev int, now time.Duration) {
	s.stop(a.Addr)
	d := &turn{addr: a, dev: dev, start: now, at: now}
	s.m[a.Addr] = d
	heap.Push(&s.next, d)
}

func (s *schedule) stop(a netip.Addr) {
	if d := s.m[a]; d != nil {
		heap.Remove(&s.next, d.index)
		delete(s.m, a)
	}
}

// pop returns an address that is to be announced by now; false if there is none.
func (s *schedule) pop(now time.Duration) (Address, bool) {
	for len(s.next) > 0 && s.next[0].at <= now {
		d := s.next[0]
		if !d.granted {
			k := lane{d.dev, d.n == 0}
			if s.lanes[k] == nil {
				s.lanes[k] = &pace{free: now - time.Hour}
			}
			d.at, d.granted = s.lanes[k].take(now), true
			heap.Fix(&s.next, 0)
			continue
		}
		d.at, d.granted = s.after(d, now), false
		heap.Fix(&s.next, 0)
		return d.addr, true
	}
	return Address{}, false
}

// after is when the one after d, which goes now, is due: those of the round whose time
// has passed while it waited are left out.
func (s *schedule) after(d *turn, now time.Duration) time.Duration {
	for d.n < len(early) {
		d.n++
		if at := d.start + early[d.n-1]; at > now {
			return at
		}
	}
	d.n++
	return now + lateLeast + time.Duration(s.chance(int64(lateMost-lateLeast)))
}

// wait is how long until pop may return something; negative: never.
func (s *schedule) wait(now time.Duration) time.Duration {
	if len(s.next) == 0 {
		return -1
	}
	return max(s.next[0].at-now, 0)
}

// dueHeap is container/heap's, the earliest first; of two alike the first of a round.
type dueHeap []*turn

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].n < h[j].n
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	d := x.(*turn)
	d.index = len(*h)
	*h = append(*h, d)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	*h = old[:len(old)-1]
	return d
}
