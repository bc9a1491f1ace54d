// Package id holds the small names that every other package speaks: which
// registration of a node (NodeRef), which change of owner (Epoch), and the
// right of one to hold a group at the other (Claim).
//
// It decides nothing and imports nothing of ours.
package id

import "fmt"

// Epoch counts changes of owner of a group. Invariant: never decreases and is
// never used again, not even after the group is deleted and added anew.
// 0 = never assigned.
type Epoch uint64

// NodeRef is one registration of a node: its name and its incarnation k.
// A fence, a lease and a wait always speak of a NodeRef, never of a bare name,
// so that what an older incarnation still says cannot touch a newer one.
type NodeRef struct {
	Name string `json:"name"`
	// Inc counts registrations of the node, from 1. 0 = not registered.
	Inc uint64 `json:"inc"`
}

// String renders "primary/3".
func (r NodeRef) String() string {
	if r.Name == "" {
		return "nobody"
	}
	return fmt.Sprintf("%s/%d", r.Name, r.Inc)
}

// Zero reports whether r names nobody.
func (r NodeRef) Zero() bool { return r == NodeRef{} }

// Claim is the right of Node to hold Group at Epoch. The same three facts are a
// wait while the right may still be in use, and a token once its holder says
// that it is not.
type Claim struct {
	Group string  `json:"group"`
	Node  NodeRef `json:"node"`
	Epoch Epoch   `json:"epoch"`
}

// String renders "web@7 by primary/3".
func (c Claim) String() string { return fmt.Sprintf("%s@%d by %s", c.Group, c.Epoch, c.Node) }
