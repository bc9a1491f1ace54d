package lease

import (
	"slices"
	"time"

	"hanode/internal/clock"
	"hanode/internal/id"
)

// Registration is what the voter's own FSM has applied of a node.
type Registration struct {
	Inc    uint64
	Fenced bool
	Bound  time.Duration // what to wait after the last ack to it
}

// Answer is a voter's verdict on a beat.
type Answer byte

// The answers. Fenced means "drop everything and register anew" (R9); Unknown and
// Behind mean only that this voter does not know enough yet.
const (
	Ack      Answer = iota + 1
	Fenced          // this registration will never hold again
	Unknown         // this voter has not applied the registration yet
	Behind          // the voters' list differs; the answer carries the voter's
	NotReady        // this voter has not caught up since its start (R5)
)

// Grantor is one voter's memory of what it promised.
type Grantor struct {
	start clock.Instant
	ready bool

	version uint64
	voters  []string
	regs    map[string]Registration

	last    map[id.NodeRef]promise
	revoked map[id.NodeRef]*revocation
	heard   map[string]hearing // by node
	floor   clock.Instant      // nobody counts as silent from before this
}

// hearing is what this voter last heard of a node, acked or not. Only a beat that
// is newer than any before it counts: a recorded one that is sent again must not
// make a dead node look alive.
type hearing struct {
	inc, seq uint64        // the registration of record, once it is heard, and its newest beat
	at       clock.Instant // when that came
	// ahead is the newest registration heard that is newer than the one of record, and
	// not applied here yet; or nobody has it, and the sender lies or is a copy of a
	// machine: it must not make the one of record seem silent.
	ahead, aheadSeq uint64
	aheadAt         clock.Instant
	// known is when the registration of record, knownInc, was applied here. Its beats
	// may have come before.
	knownInc uint64
	known    clock.Instant
	// loose is the number of the newest beat without a registration, and looseAt when
	// it came. They are numbered by the boot clock, which a reboot sets back, so any
	// other number is news. They say that the node is there, not that a registration is.
	loose   uint64
	looseAt clock.Instant
}

type promise struct {
	seq uint64
	at  clock.Instant // voter's clock, read after the datagram
}

type revocation struct {
	bound time.Duration
	tell  []string // who asked; sorted
	told  bool
}

// NewGrantor returns a voter that starts now. It acks nothing before Ready.
func NewGrantor(now clock.Instant) *Grantor {
	return &Grantor{
		start: now, floor: now,
		regs: map[string]Registration{}, last: map[id.NodeRef]promise{},
		revoked: map[id.NodeRef]*revocation{}, heard: map[string]hearing{},
	}
}

// Ready is R5: the voter has applied the index of a barrier that the leader
// made after this voter's start. Without it a voter that restarts with an old
// log acks a registration that was fenced long ago (19 of 2,500 runs).
func (g *Grantor) Ready() { g.ready = true }

// IsReady reports whether Ready was called.
func (g *Grantor) IsReady() bool { return g.ready }

// Applied takes what the FSM knows now. A registration that is new has all the time
// from now on to be heard.
func (g *Grantor) Applied(now clock.Instant, version uint64, voters []string, regs map[string]Registration) {
	g.version, g.voters, g.regs = version, voters, regs
	for name, reg := range regs {
		if h := g.heard[name]; h.knownInc != reg.Inc {
			h.knownInc, h.known = reg.Inc, now
			if h.ahead == reg.Inc {
				h.inc, h.seq, h.at = h.ahead, h.aheadSeq, h.aheadAt
			}
			if h.ahead <= reg.Inc {
				h.ahead, h.aheadSeq, h.aheadAt = 0, 0, clock.Instant{}
			}
			g.heard[name] = h
		}
	}
}

// Inc is the registration of record of a node, as far as was applied; 0 = none.
func (g *Grantor) Inc(name string) uint64 { return g.regs[name].Inc }

// List is the voters' list this voter has applied.
func (g *Grantor) List() (uint64, []string) { return g.version, g.voters }

// Beat is R2: ack only a registration of record that is neither fenced nor
// revoked, and only if its sender counts by exactly the voters' list that we
// have applied. Check and record are one step, also with Revoke. now must be
// read *after* the datagram was received (15 of 2,000 runs broke otherwise).
func (g *Grantor) Beat(ref id.NodeRef, seq, version uint64, now clock.Instant) Answer {
	g.hear(ref, seq, now)
	if !g.ready {
		return NotReady
	}
	reg := g.regs[ref.Name]
	switch {
	case ref.Inc == 0:
		return Unknown // alive, and not registered yet
	case g.revoked[ref] != nil || reg.Inc > ref.Inc || reg.Inc == ref.Inc && reg.Fenced:
		return Fenced
	case reg.Inc != ref.Inc:
		return Unknown
	case version != g.version:
		return Behind
	}
	// Only a higher number moves the promise; a repeat is acked again but not
	// recorded, or a replayed datagram could keep a dead node's lease alive here.
	if p := g.last[ref]; seq > p.seq {
		g.last[ref] = promise{seq, now}
	}
	return Ack
}

func (g *Grantor) hear(ref id.NodeRef, seq uint64, now clock.Instant) {
	h := g.heard[ref.Name]
	switch {
	case ref.Inc == 0:
		if seq != h.loose {
			h.loose, h.looseAt = seq, now
		}
	case ref.Inc > h.knownInc:
		if ref.Inc > h.ahead || ref.Inc == h.ahead && seq > h.aheadSeq {
			h.ahead, h.aheadSeq, h.aheadAt = ref.Inc, seq, now
		}
	case ref.Inc > h.inc, ref.Inc == h.inc && seq > h.seq:
		h.inc, h.seq, h.at = ref.Inc, seq, now
	}
	g.heard[ref.Name] = h
}

// Revoke takes a REVOKE: from now on ref is never acked. tell is who wants to
// hear EXPIRED. It must follow the commit of a fence of ref, or of a registration
// that supersedes it; a REVOKE sent before that broke 53 of 2,000 runs.
func (g *Grantor) Revoke(ref id.NodeRef, bound time.Duration, tell ...string) {
	r := g.revoked[ref]
	if r == nil {
		r = &revocation{}
		g.revoked[ref] = r
	}
	r.bound = max(r.bound, bound)
	for _, t := range tell {
		if i, found := slices.BinarySearch(r.tell, t); !found {
			r.tell = slices.Insert(r.tell, i, t)
		}
	}
	r.told = false
}

// remaining is how long until ref's lease has certainly ended as far as this
// voter's promises go. Every lease counts as acked at the voter's start (R5):
// what it promised before a restart is forgotten.
func (g *Grantor) remaining(ref id.NodeRef, bound time.Duration, now clock.Instant) time.Duration {
	since := clock.Later(g.start, g.last[ref].at)
	return bound - now.Elapsed(since)
}

// Expiry is one EXPIRED to send.
type Expiry struct {
	Ref id.NodeRef
	To  []string
}

// Due lists what expired by now and was not told since it was last asked for.
func (g *Grantor) Due(now clock.Instant) []Expiry {
	var out []Expiry
	for ref, r := range g.revoked {
		if r.told && g.regs[ref.Name].Inc > ref.Inc+16 {
			delete(g.revoked, ref) // so long superseded that Inc alone refuses it
			delete(g.last, ref)
			continue
		}
		if !r.told && g.remaining(ref, r.bound, now) <= 0 {
			r.told = true
			out = append(out, Expiry{ref, slices.Clone(r.tell)})
		}
	}
	slices.SortFunc(out, func(a, b Expiry) int {
		return slices.Compare([]string{a.Ref.String()}, []string{b.Ref.String()})
	})
	return out
}

// Heard is when name was last heard, registered or not; never before the voter
// could listen.
func (g *Grantor) Heard(name string) clock.Instant {
	h := g.heard[name]
	return clock.Later(g.floor, clock.Later(h.at, clock.Later(h.aheadAt, h.looseAt)))
}

// missed is since when the registration of record is missed: its own newest beat
// counts, and nothing else that its node says. An agent that starts anew and does
// not come to register holds nothing.
func (g *Grantor) missed(name string, inc uint64) clock.Instant {
	h := g.heard[name]
	at := clock.Later(g.floor, h.known)
	if h.inc == inc {
		at = clock.Later(at, h.at)
	}
	return at
}

// Excuse forgives everybody's silence up to now: this voter itself was stalled,
// so what it did not hear says nothing about others.
func (g *Grantor) Excuse(now clock.Instant) { g.floor = now }

// Silent lists registrations of record that were not heard for at least after.
func (g *Grantor) Silent(now clock.Instant, after time.Duration) []id.NodeRef {
	var out []id.NodeRef
	for name, reg := range g.regs {
		if reg.Inc > 0 && !reg.Fenced && now.Elapsed(g.missed(name, reg.Inc)) >= after {
			out = append(out, id.NodeRef{Name: name, Inc: reg.Inc})
		}
	}
	slices.SortFunc(out, func(a, b id.NodeRef) int { return slices.Compare([]string{a.Name}, []string{b.Name}) })
	return out
}

// Next is how long until something may become due or somebody silent, at most
// limit.
func (g *Grantor) Next(now clock.Instant, after, limit time.Duration) time.Duration {
	next := limit
	for ref, r := range g.revoked {
		if !r.told {
			next = min(next, g.remaining(ref, r.bound, now))
		}
	}
	for name, reg := range g.regs {
		if left := after - now.Elapsed(g.missed(name, reg.Inc)); reg.Inc > 0 && !reg.Fenced && left > 0 {
			next = min(next, left)
		}
	}
	return max(next, 0)
}
