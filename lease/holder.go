// Package lease decides who may hold: Holder is the side that holds (every
// node), Grantor the side that grants (every voter), and Message what they say
// to each other.
//
// Both are pure state machines: no goroutine, no timer, no socket, and time is
// an argument. They are not safe for concurrent use, the Lease inside a Holder
// apart; the agent guards each with one mutex. What is replicated (registrations,
// epochs, waits, the voters' list) is told to them; they never change it.
// DESIGN.md tells the protocol as a story; the rules R1 to R13 stand beside the
// code that keeps them.
package lease

import (
	"maps"
	"slices"
	"time"

	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// Right is a group's record as it stands after it was applied, as far as holding
// goes. Never build one from a command: a command may be rejected (R1).
type Right struct {
	Group string
	Epoch id.Epoch
	Owner id.NodeRef // zero = nobody
	// Waits are claims that may still be in use. The bound of each is what a voter
	// waits after its last ack before it calls the claim expired.
	Waits []Wait
	// Voters is the lease voters' list as of the entry that made Epoch, or of a
	// later one that fenced somebody in Waits.
	Voters []string
	// Exclusive groups never start on an expired lease alone (R4): a guard
	// silences an address, not a writer.
	Exclusive bool
}

// Wait is a claim and the bound of its registration.
type Wait struct {
	id.Claim
	Bound time.Duration
	// Live: as of this record the registration was neither fenced nor superseded.
	// EXPIRED says nothing about it yet: Voters may be older than its fence will
	// be, and voters that joined since may grant it a lease.
	Live bool
	// Off: the registration's host has had no power since, somebody who knows said.
	// It makes EXPIRED enough for an exclusive group, and takes the place of EXPIRED
	// where a registration has no bound.
	Off bool
}

// Holder is one registration's right to hold. A new registration is a new
// Holder; nothing carries over (R8, R9). Its Lease alone may be used by several
// goroutines at once.
type Holder struct {
	*Lease

	rights   map[string]Right
	waiting  map[string]bool     // groups of ours whose record has waits
	claimed  map[string]bool     // groups whose record waits for claims of ours
	released map[string]id.Epoch // group -> newest epoch that we let go of
	owing    map[string][]Owed   // group -> tokens that its record still waits for
	tokens   map[id.Claim]bool
	expired  map[id.NodeRef]map[string]bool // registration -> voters that said EXPIRED
}

// NewHolder returns the holder of registration ref with lease length D
// (spec.Timing.LeaseLength). now is the time of registration.
func NewHolder(ref id.NodeRef, length time.Duration, now clock.Instant) *Holder {
	return &Holder{
		Lease:  newLease(ref, length, now),
		rights: map[string]Right{}, waiting: map[string]bool{}, claimed: map[string]bool{},
		released: map[string]id.Epoch{}, owing: map[string][]Owed{},
		tokens: map[id.Claim]bool{}, expired: map[id.NodeRef]map[string]bool{},
	}
}

// Adopt takes a record and reports whether it said something new. Records may
// arrive late, twice and out of order: an older epoch, or the same epoch with
// more waits or less known about them, is old news.
func (h *Holder) Adopt(r Right) bool {
	old, known := h.rights[r.Group]
	if known && (r.Epoch < old.Epoch ||
		r.Epoch == old.Epoch && (len(r.Waits) > len(old.Waits) || r.unsettled() > old.unsettled())) {
		return false
	}
	h.rights[r.Group] = r
	mark(h.waiting, r.Group, r.Owner == h.ref && len(r.Waits) > 0)
	mark(h.claimed, r.Group, slices.ContainsFunc(r.Waits, func(w Wait) bool { return w.Node == h.ref }))
	if owes := h.owes(r); len(owes)+len(h.owing[r.Group]) > 0 {
		h.owe(r.Group, owes)
	}
	maps.DeleteFunc(h.tokens, func(c id.Claim, _ bool) bool { return c.Group == r.Group && c.Epoch+16 < r.Epoch })
	return !known || old.Epoch != r.Epoch || old.Owner != r.Owner || len(old.Waits) != len(r.Waits) || old.unsettled() != r.unsettled()
}

// mark puts name into a set, or takes it out.
func mark(set map[string]bool, name string, in bool) {
	if in {
		set[name] = true
	} else {
		delete(set, name)
	}
}

// unsettled counts what the record may yet say about its waits: of each, that it is
// not live any more, and that its host is off. It only decreases.
func (r Right) unsettled() (n int) {
	for _, w := range r.Waits {
		if w.Live {
			n++
		}
		if !w.Off {
			n++
		}
	}
	return n
}

// Right returns the group's record.
func (h *Holder) Right(group string) (Right, bool) {
	r, ok := h.rights[group]
	return r, ok
}

// Token takes the exact claim that its holder says it let go of. Tokens that
// come before their record are kept. It returns the groups of ours that wait for it.
func (h *Holder) Token(c id.Claim) (waiting []string) {
	h.tokens[c] = true
	for g := range h.waiting {
		if slices.ContainsFunc(h.rights[g].Waits, func(w Wait) bool { return w.Claim == c }) {
			waiting = append(waiting, g)
		}
	}
	return waiting
}

// Expired takes a voter's word that it will never ack ref again and that ref's
// bound has passed since it last did. It reports whether the voter had not said so yet.
func (h *Holder) Expired(ref id.NodeRef, voter string) (news bool) {
	if h.expired[ref] == nil {
		h.expired[ref] = map[string]bool{}
	}
	news = !h.expired[ref][voter]
	h.expired[ref][voter] = true
	return news
}

// Verdict says whether a group may be held, and if not, why.
type Verdict struct {
	OK    bool
	Epoch id.Epoch
	Why   Reason
	Wait  Wait // what is waited for, if Why is Waiting or Blocked
}

// Reason is why a group may not be held.
type Reason string

// The reasons, in the order in which they are looked at.
const (
	NotOwner Reason = "not-owner" // somebody else owns it, or nobody
	LetGo    Reason = "released"  // we own it by record but let this epoch go
	Waiting  Reason = "waiting"   // an earlier holder may still hold
	Blocked  Reason = "blocked"   // as Waiting, and expiry is not enough (R4)
	NoLease  Reason = "no-lease"  // no majority of voters promised
)

// May answers R1 for one group: owner of record, at an epoch we never let go
// of, every wait satisfied, and a lease that runs by both clocks. Who is leader
// does not enter (I6).
func (h *Holder) May(group string, now clock.Instant) Verdict {
	r, ok := h.rights[group]
	v := Verdict{Epoch: r.Epoch}
	switch {
	case !ok || r.Owner != h.ref || h.Fenced():
		v.Why = NotOwner
		return v
	case r.Epoch <= h.released[group]:
		v.Why = LetGo
		return v
	}
	for _, w := range r.Waits {
		if h.satisfied(r, w) {
			continue
		}
		v.Why, v.Wait = Waiting, w
		if r.Exclusive && h.ended(r, w) {
			v.Why = Blocked
		}
		return v
	}
	if !h.Leased(now) {
		v.Why = NoLease
		return v
	}
	v.OK = true
	return v
}

// satisfied is R3: the exact token, or EXPIRED from a majority of the voters of
// the entry that made the wait or, later, fenced it. A token that only names the
// node is not enough (395 of 2,000 runs broke): the node may have been given the
// group anew since. One voter's word is not enough (995 of 2,000): the others may
// have acked later.
func (h *Holder) satisfied(r Right, w Wait) bool {
	own := w.Node == h.ref && w.Epoch <= h.released[w.Group] // we are the next owner ourselves
	return own || h.tokens[w.Claim] || h.ended(r, w) && (w.Off || !r.Exclusive)
}

// ended reports that the lease behind a wait is over: a majority said so, or the
// host of a registration that no lease bounds is off.
func (h *Holder) ended(r Right, w Wait) bool {
	return h.majorityExpired(r, w) || w.Off && !w.Live && w.Bound >= spec.Unbounded
}

func (h *Holder) majorityExpired(r Right, w Wait) bool {
	n := 0
	for _, v := range r.Voters {
		if h.expired[w.Node][v] {
			n++
		}
	}
	return !w.Live && w.Bound < spec.Unbounded && len(r.Voters) > 0 && n >= len(r.Voters)/2+1
}

// Release remembers that this node let group go up to and including epoch upto.
// Call it after the guard is closed (where there is none: the address gone), never
// before: a token sent before the close let two hosts answer in 1,964 of 2,000 runs.
func (h *Holder) Release(group string, upto id.Epoch) {
	if upto <= h.released[group] {
		return
	}
	h.released[group] = upto
	again := func(r Right) {
		if owes := h.owes(r); len(owes) != len(h.owing[r.Group]) {
			h.owe(r.Group, owes)
		}
	}
	if r, ok := h.rights[group]; ok {
		again(r)
	}
	for g := range h.claimed { // an address may have moved: claims on group stand in other records too
		if r := h.rights[g]; g != group && slices.ContainsFunc(r.Waits, func(w Wait) bool { return w.Group == group }) {
			again(r)
		}
	}
}

// ReleasedUpTo is the newest epoch of group that was let go of.
func (h *Holder) ReleasedUpTo(group string) id.Epoch { return h.released[group] }

// Owed is a token that somebody waits for.
type Owed struct {
	id.Claim
	To id.NodeRef // who owns the group now; zero = only the leader needs it
}

// Owed lists tokens to send, again and again until the record clears them: a
// lost one must not cost a takeover. The leader gets a copy of each.
func (h *Holder) Owed() []Owed {
	var out []Owed
	for _, g := range slices.Sorted(maps.Keys(h.owing)) {
		out = append(out, h.owing[g]...)
	}
	return out
}

// owes are the tokens that one record waits for.
func (h *Holder) owes(r Right) (out []Owed) {
	for _, w := range r.Waits {
		if w.Node == h.ref && w.Epoch <= h.released[w.Group] {
			out = append(out, Owed{w.Claim, r.Owner})
		}
	}
	if r.Owner == h.ref && r.Epoch <= h.released[r.Group] {
		out = append(out, Owed{Claim: id.Claim{Group: r.Group, Node: h.ref, Epoch: r.Epoch}})
	}
	return out
}

// owe notes what a record waits for, and gives it to the beats.
func (h *Holder) owe(group string, owes []Owed) {
	if len(owes) == 0 {
		delete(h.owing, group)
	} else {
		h.owing[group] = owes
	}
	var claims []id.Claim
	for _, o := range h.Owed() {
		claims = append(claims, o.Claim)
	}
	h.setOwed(claims)
}

// Due lists claims on group that this node must let go of: it may have held them, and
// by record it does not own the group any more at that epoch.
func (h *Holder) Due(group string) (out []id.Claim) {
	for _, g := range slices.Sorted(maps.Keys(h.claimed)) {
		for _, w := range h.rights[g].Waits {
			if w.Group == group && w.Node == h.ref && w.Epoch > h.released[group] {
				out = append(out, w.Claim)
			}
		}
	}
	return out
}

// Unsatisfied lists the registrations that the groups this node owns wait for:
// whom to send REVOKE about.
func (h *Holder) Unsatisfied() []Wait {
	var out []Wait
	for _, g := range slices.Sorted(maps.Keys(h.waiting)) {
		r := h.rights[g]
		for _, w := range r.Waits {
			if !h.satisfied(r, w) {
				out = append(out, w)
			}
		}
	}
	return out
}
