package vip

import (
	"net/netip"
	"sync"
)

// Tally counts what happened to one address since Open.
type Tally struct {
	Announced uint64 // announcements that left
	Muted     uint64 // that the guard denied, because no lease ran
	Unsent    uint64 // that the device or the kernel refused
	Taken     uint64 // times another program took it off, and it was put back
}

// tallies are the counts of all addresses. Safe for concurrent use.
type tallies struct {
	mu sync.Mutex
	m  map[netip.Addr]*Tally
}

// count changes the tally of a.
func (t *tallies) count(a netip.Addr, change func(*Tally)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.m[a]
	if x == nil {
		if t.m == nil {
			t.m = map[netip.Addr]*Tally{}
		}
		x = &Tally{}
		t.m[a] = x
	}
	change(x)
}

func (t *tallies) all() map[netip.Addr]Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[netip.Addr]Tally, len(t.m))
	for a, x := range t.m {
		out[a] = *x
	}
	return out
}

// keep drops the addresses that are not among these.
func (t *tallies) keep(known map[netip.Addr]Address) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.m {
		if _, ok := known[a]; !ok {
			delete(t.m, a)
		}
	}
}
