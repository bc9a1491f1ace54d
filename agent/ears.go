package agent

import (
	"encoding/json"
	"maps"
	"sync"
	"time"

	"hanode/cluster"
	"hanode/failover"
	"hanode/fsm"
	"hanode/gossip"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// ears remember what others last said about themselves. For liveness and for
// people only: nothing here decides who may hold.
type ears struct {
	mu sync.Mutex
	m  map[string]heard
	// answered is when each voter last answered a beat of ours, whatever it said.
	answered map[string]clock.Instant
	silent   []id.NodeRef // whom this voter misses, as told in its beats
}

type heard struct {
	beat lease.Beat
	at   clock.Instant
	// gap is the longest time between two beats lately; for `status`.
	gap time.Duration
	// registered is when it was last heard with a registration.
	registered clock.Instant
	// ready is since when the sender, a voter, says that it answers beats.
	ready clock.Instant
}

func (e *ears) init() { e.m, e.answered = map[string]heard{}, map[string]clock.Instant{} }

func (e *ears) note(from string, b lease.Beat, now clock.Instant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, known := e.m[from]
	if known && b.Ref == h.beat.Ref && (b.Seq == h.beat.Seq || b.Seq < h.beat.Seq && b.Ref.Inc > 0) {
		// The copy that came over another link, or an old one. Beats before the
		// registration are numbered by the boot clock, which a reboot sets back.
		return
	}
	if known {
		h.gap = max(now.Elapsed(h.at), h.gap-h.gap/1024)
	}
	if !b.Ready {
		h.ready = clock.Instant{}
	} else if h.ready.IsZero() {
		h.ready = now
	}
	if b.Ref.Inc > 0 {
		h.registered = now
	}
	h.beat, h.at = b, now
	e.m[from] = h
}

func (e *ears) all() map[string]heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.m)
}

// hearsLately reports whether a beat of the node came within deadtime.
func (a *Agent) hearsLately(node string) bool {
	now := a.host.Clock.Now()
	a.ears.mu.Lock()
	defer a.ears.mu.Unlock()
	h, ok := a.ears.m[node]
	return ok && now.Elapsed(h.at) < a.timing().Deadtime
}

// handle takes one authenticated datagram. It runs on the socket's goroutine and
// must not block: no call out of here waits for a disk or a peer.
func (a *Agent) handle(p gossip.Packet) {
	if len(p.Payload) == 0 {
		return
	}
	switch lease.Kind(p.Payload[0]) {
	case lease.KindBeat:
		if b, err := lease.ParseBeat(p.Payload); err == nil && b.Ref.Name == p.From {
			a.onBeat(b)
		}
	case lease.KindAnswer:
		if r, err := lease.ParseReply(p.Payload); err == nil {
			a.onReply(p.From, r)
		}
	case lease.KindRevoke:
		if r, err := lease.ParseRevoke(p.Payload); err == nil {
			a.onRevoke(p.From, r)
		}
	case lease.KindExpired:
		if e, err := lease.ParseExpired(p.Payload); err == nil {
			a.onExpired(p.From, e)
		}
	case lease.KindToken:
		if t, err := lease.ParseToken(p.Payload); err == nil && t.Node.Name == p.From {
			a.onTokens(t.Ago, t.Claim)
		}
	case lease.KindRecord:
		var r fsm.Record
		if err := json.Unmarshal(p.Payload[1:], &r); err == nil {
			a.adopt(r)
		}
	case lease.KindLate:
		if l, err := cluster.ParseLate(p.Payload[1:]); err == nil {
			a.elect.hear(p.From, l, a.host.Clock.Now())
			signal(a.ring)
		}
	}
}

// onBeat is R2 on the voter's side, and the liveness of everybody.
func (a *Agent) onBeat(b lease.Beat) {
	now := a.host.Clock.Now() // after the datagram, never before
	a.ears.note(b.Ref.Name, b, now)
	if len(b.Silent) > 0 {
		signal(a.lead.wake)
	}
	if len(b.Tokens) > 0 {
		a.onTokens(0, b.Tokens...)
	}
	a.grant.Lock()
	answer := a.grant.Beat(b.Ref, b.Seq, b.Version, now)
	voter := a.grant.voter
	version, names := a.grant.List()
	a.grant.Unlock()
	if !voter {
		return
	}
	r := lease.Reply{Ref: b.Ref, Seq: b.Seq, Answer: answer, Version: version}
	if answer == lease.Behind {
		r.Voters = names
	}
	a.gossip.Send(r.Append(nil), b.Ref.Name)
}

// onReply is R1: an ack moves the lease to what was promised when the beat was
// *sent*.
func (a *Agent) onReply(from string, r lease.Reply) {
	now := a.host.Clock.Now()
	a.ears.mu.Lock()
	a.ears.answered[from] = now
	a.ears.mu.Unlock()
	a.hold.Lock()
	h := a.hold.holder
	if h == nil || h.Ref() != r.Ref {
		a.hold.Unlock()
		return
	}
	var grew, had bool
	var end clock.Instant
	switch r.Answer {
	case lease.Ack:
		had = h.Leased(now)
		grew = h.Acked(from, r.Seq)
		end = h.End()
	case lease.Behind:
		h.SetVoters(r.Version, r.Voters)
	case lease.Fenced:
		signal(a.fenced) // under the lock: it is about this registration
		a.hold.Unlock()
		return
	case lease.Unknown, lease.NotReady:
	}
	a.hold.Unlock()
	if !grew {
		return
	}
	if err := a.kernel.Renew(end); err != nil {
		a.problems.set("guard-renewal", err.Error())
	}
	if !had {
		a.groups.wakeAll() // the first lease, or one that came back
	}
}

func (a *Agent) onRevoke(from string, r lease.Revoke) {
	tell := []string{from}
	if r.Tell != "" && r.Tell != from {
		tell = append(tell, r.Tell)
	}
	a.grant.Lock()
	a.grant.Revoke(r.Ref, r.Bound, tell...)
	a.grant.Unlock()
	signal(a.ring)
}

// onExpired wakes the groups only if a wait ended by it: they answer a wake with
// REVOKE while one is left, and every REVOKE is answered with EXPIRED.
func (a *Agent) onExpired(from string, e lease.Expired) {
	a.hold.Lock()
	news := false
	if h := a.hold.holder; h != nil {
		before := len(h.Unsatisfied())
		h.Expired(e.Ref, from)
		news = len(h.Unsatisfied()) < before
	}
	a.hold.Unlock()
	if news {
		a.groups.wakeAll()
	}
}

func (a *Agent) onTokens(ago time.Duration, claims ...id.Claim) {
	now := a.host.Clock.Now()
	a.hold.Lock()
	for _, c := range claims {
		if a.hold.holder != nil {
			a.hold.holder.Token(c)
		}
		if _, known := a.hold.tokens[c]; !known {
			a.hold.tokens[c] = tokenAt{now, ago}
		}
	}
	a.hold.Unlock()
	a.groups.wakeAll()
	signal(a.lead.wake)
}

// adopt takes a group's record, from our own FSM or pushed by the leader.
func (a *Agent) adopt(r fsm.Record) {
	right := lease.Right{Group: r.Group, Epoch: r.Epoch, Owner: r.Owner, Voters: r.Voters.Names}
	for _, w := range r.Waits {
		right.Waits = append(right.Waits, lease.Wait{Claim: w.Claim, Bound: w.Bound, Live: w.Live})
	}
	a.machine.View(func(s *fsm.State) {
		if g := s.Groups[r.Group]; g != nil {
			right.Exclusive = g.Spec.Exclusive
		}
	})
	a.hold.Lock()
	if a.hold.holder != nil {
		a.hold.holder.Adopt(right)
	}
	a.hold.Unlock()
	a.groups.record(a, r)
}

// onChange follows the FSM. It runs in log order with the state locked: note and
// signal, nothing more.
func (a *Agent) onChange(c fsm.Change) {
	if c.State.Founded() {
		t := c.State.Timing
		a.tm.Store(&t)
	}
	regs := make(map[string]lease.Registration, len(c.State.Nodes))
	for name, n := range c.State.Nodes {
		regs[name] = lease.Registration{Inc: n.Inc, Fenced: n.Fenced, Bound: n.Bound}
	}
	a.grant.Lock()
	a.grant.Applied(c.State.Voters.Version, c.State.Voters.Names, regs)
	a.grant.voter = c.State.Voters.Has(a.cfg.Name)
	a.grant.Unlock()
	a.hold.Lock()
	if a.hold.holder != nil {
		a.hold.holder.SetVoters(c.State.Voters.Version, c.State.Voters.Names)
	}
	a.hold.Unlock()
	signal(a.changed)
	signal(a.lead.wake)
}

// opinions are what each voter says about who is silent, as the leader heard it.
func (a *Agent) opinions(now clock.Instant) map[string]failover.Opinion {
	out := map[string]failover.Opinion{}
	for name, h := range a.ears.all() {
		o := failover.Opinion{Age: now.Elapsed(h.at), Silent: map[id.NodeRef]bool{}}
		for _, r := range h.beat.Silent {
			o.Silent[r] = true
		}
		out[name] = o
	}
	a.ears.mu.Lock()
	own := failover.Opinion{Silent: map[id.NodeRef]bool{}}
	for _, r := range a.ears.silent {
		own.Silent[r] = true
	}
	a.ears.mu.Unlock()
	out[a.cfg.Name] = own
	return out
}
