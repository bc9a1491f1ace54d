// Package clock reads the two clocks a lease is measured with and does the
// arithmetic on both at once.
//
// One clock is not enough: CLOCK_BOOTTIME counts suspend but is slewed by NTP,
// CLOCK_MONOTONIC_RAW is never slewed but stops in suspend. A holder must give
// up by whichever ran faster, a waiter must wait by whichever ran slower; then
// one clock that goes wrong alone breaks nothing.
package clock

import "time"

// Instant is one reading of both clocks. The zero Instant is "never": earlier
// than anything a running host reads.
type Instant struct {
	Boot time.Duration // CLOCK_BOOTTIME
	Raw  time.Duration // CLOCK_MONOTONIC_RAW
}

// Add moves both clocks by d.
func (i Instant) Add(d time.Duration) Instant { return Instant{i.Boot + d, i.Raw + d} }

// Before reports that i is before end on *both* clocks: the holder's rule, so
// the faster clock ends a lease.
func (i Instant) Before(end Instant) bool { return i.Boot < end.Boot && i.Raw < end.Raw }

// Elapsed is the time from since to i by the *slower* clock: the waiter's rule.
func (i Instant) Elapsed(since Instant) time.Duration {
	return min(i.Boot-since.Boot, i.Raw-since.Raw)
}

// Remaining is the time from i to end by the clock that gets there first.
// Negative once either clock passed it.
func (i Instant) Remaining(end Instant) time.Duration {
	return min(end.Boot-i.Boot, end.Raw-i.Raw)
}

// Later returns the later of the two, clock by clock.
func Later(a, b Instant) Instant { return Instant{max(a.Boot, b.Boot), max(a.Raw, b.Raw)} }

// IsZero reports whether i is "never".
func (i Instant) IsZero() bool { return i == Instant{} }

// A Clock tells the time of one host. Implementations are safe for concurrent
// use. Wall is for people (events, logs) and for the nftables tier of the guard;
// no decision reads it.
type Clock interface {
	Now() Instant
	Wall() time.Time
}
