package gossip

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hanode/internal/clock"
)

// routes say how each node is reached and what each link last carried of it. Beats
// read them on every datagram, so nothing here waits: the table and the addresses
// are replaced, never changed, and only those who replace them share a lock.
type routes struct {
	table   atomic.Pointer[map[string]*route]
	replace sync.Mutex
}

// route is one node.
type route struct {
	name  string
	addrs atomic.Pointer[[]netip.Addr] // one per link; invalid = unknown
	heard []lastHeard                  // one per link
}

// lastHeard is when a link last carried a lane message of a node. Its two halves
// are written one after the other: a reader in between sees an instant that is up
// to one beat old, which matters to nobody who asks whether a link is silent.
type lastHeard struct{ boot, raw atomic.Int64 }

func (l *lastHeard) set(now clock.Instant) {
	l.boot.Store(int64(now.Boot))
	l.raw.Store(int64(now.Raw))
}

// at is zero if it never was.
func (l *lastHeard) at() clock.Instant {
	return clock.Instant{Boot: time.Duration(l.boot.Load()), Raw: time.Duration(l.raw.Load())}
}

func (r *routes) all() map[string]*route {
	if t := r.table.Load(); t != nil {
		return *t
	}
	return nil
}

func (r *routes) get(name string) *route { return r.all()[name] }

// add returns the route of name, a new one if there is none.
func (r *routes) add(name string, links int) *route {
	r.replace.Lock()
	defer r.replace.Unlock()
	if x := r.get(name); x != nil {
		return x
	}
	x := &route{name: name, heard: make([]lastHeard, links)}
	none := make([]netip.Addr, links)
	x.addrs.Store(&none)
	t := maps.Clone(r.all())
	if t == nil {
		t = map[string]*route{}
	}
	t[name] = x
	r.table.Store(&t)
	return x
}

// remove reports whether name was there.
func (r *routes) remove(name string) bool {
	r.replace.Lock()
	defer r.replace.Unlock()
	if r.get(name) == nil {
		return false
	}
	t := maps.Clone(r.all())
	delete(t, name)
	r.table.Store(&t)
	return true
}

// to lists the addresses per link; do not change them. nil = nothing is known.
func (x *route) to() []netip.Addr {
	if x == nil {
		return nil
	}
	return *x.addrs.Load()
}

// reachable reports whether any address is known.
func (x *route) reachable() bool {
	for _, a := range x.to() {
		if a.IsValid() {
			return true
		}
	}
	return false
}

// alive reports whether the link carried something lately.
func (x *route) alive(link int, now clock.Instant, dead time.Duration) bool {
	if x == nil {
		return false
	}
	at := x.heard[link].at()
	return !at.IsZero() && now.Elapsed(at) < dead
}
