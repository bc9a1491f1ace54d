// Package linkstate says how the devices of virtual addresses are: what a node
// tells the cluster of them, and the damping of those that flap.
//
// It neither listens to the kernel (package vip does) nor decides who should own
// what (package failover does). Nothing here bears on who may hold: a wrong word
// about a device costs a move, never a second holder.
package linkstate

import (
	"net/netip"
	"slices"
	"time"

	"hanode/internal/spec"
)

// State is how far a device can be relied on.
type State string

// The states.
const (
	// Up: it carries frames, and did for long enough.
	Up State = "up"
	// Settling: it carries frames again, but lost its carrier too lately, or too often,
	// to get a group back for it. It is better than no device.
	Settling State = "settling"
	// Down: clients cannot be reached over it.
	Down State = "down"
)

// Link is one device that carries, or should carry, virtual addresses.
type Link struct {
	Dev   string `json:"dev"`
	State State  `json:"state"`
	// Why says in words what is wrong with a device that is Down: "has no carrier".
	Why string `json:"why,omitempty"`
	// For is how long the device has been in State.
	For time.Duration `json:"for"`
	// Nets are its subnets: an address that names no device belongs to the one whose
	// subnet holds it. A device that is down keeps those it had.
	Nets []netip.Prefix `json:"nets,omitempty"`
}

// Carries reports whether r, an ip resource, lives on the device.
func (l Link) Carries(r spec.Resource) bool {
	if r.Type != "ip" {
		return false
	}
	if r.Dev != "" {
		return r.Dev == l.Dev
	}
	a, err := netip.ParseAddr(r.Address())
	return err == nil && slices.ContainsFunc(l.Nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Rank orders states, the worst last; 0 = no state.
func (s State) Rank() int {
	switch s {
	case Up:
		return 1
	case Settling:
		return 2
	case Down:
		return 3
	}
	return 0
}

// Of is the worst among the devices that group g needs, and of two alike the one that
// is so for the shorter time. ok is false if nothing is said of any of them.
func Of(links []Link, g spec.Group) (worst Link, ok bool) {
	for _, l := range links {
		if !slices.ContainsFunc(g.Resources, l.Carries) {
			continue
		}
		if !ok || l.State.Rank() > worst.State.Rank() || l.State == worst.State && l.For < worst.For {
			worst, ok = l, true
		}
	}
	return worst, ok
}
