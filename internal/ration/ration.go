// Package ration says how much of something that anybody can ask for is given, to one
// source and to all of them together. Its memory does not grow with the number of
// sources. What is rationed, and what becomes of the rest, is the caller's.
package ration

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Rate is so many a second, and as many at once as come to Burst; both above 0.
type Rate struct{ PerSecond, Burst float64 }

// slots is how many sources are told apart. Two that fall on one slot share it: which
// do, nobody outside can know.
const slots = 1024

// Ration is safe for concurrent use.
type Ration struct {
	each, all Rate
	seed      maphash.Seed

	mu    sync.Mutex
	total bucket
	of    [slots]bucket
}

// bucket is how much was taken and has not run out again. The zero bucket is full.
type bucket struct {
	taken float64
	at    time.Duration
}

// New makes a ration of each for one source, and all for all of them.
func New(each, all Rate) *Ration { return &Ration{each: each, all: all, seed: maphash.MakeSeed()} }

// Take reports whether the source may have one now. now is any clock that only goes
// forward.
func (r *Ration) Take(who netip.Addr, now time.Duration) bool {
	i := maphash.Comparable(r.seed, who.Unmap()) % slots
	r.mu.Lock()
	defer r.mu.Unlock()
	// What one source is denied must not be taken from the others.
	if !r.of[i].has(r.each, now) || !r.total.has(r.all, now) {
		return false
	}
	r.of[i].taken++
	r.total.taken++
	return true
}

// Has reports whether Take would give one.
func (r *Ration) Has(who netip.Addr, now time.Duration) bool {
	i := maphash.Comparable(r.seed, who.Unmap()) % slots
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[i].has(r.each, now) && r.total.has(r.all, now)
}

func (b *bucket) has(r Rate, now time.Duration) bool {
	if now > b.at {
		b.taken = max(0, b.taken-(now-b.at).Seconds()*r.PerSecond)
		b.at = now
	}
	return b.taken+1 <= r.Burst
}
