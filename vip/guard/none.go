package guard

import (
	"net/netip"

	"hanode/internal/clock"
)

// None guards nothing: for hosts where neither tier loads. There a silent node
// is taken over only on power fencing or an operator's word.
type None struct{}

// Know does nothing.
func (None) Know([]netip.Addr) error { return nil }

// Forget does nothing.
func (None) Forget([]netip.Addr) error { return nil }

// Set does nothing.
func (None) Set(bool, ...netip.Addr) error { return nil }

// Renew does nothing.
func (None) Renew(clock.Instant) error { return nil }

// Attach does nothing.
func (None) Attach([]Device) ([]Repair, error) { return nil, nil }

// Attached reports true: there is nothing to wait for.
func (None) Attached(int) bool { return true }

// Kind is "none".
func (None) Kind() string { return "none" }

// Drops reports zeros.
func (None) Drops() (Drops, error) { return Drops{}, nil }

// Release does nothing.
func (None) Release() {}
