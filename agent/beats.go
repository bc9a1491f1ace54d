package agent

import (
	"context"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/gossip"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// The beat path (a tick, a sealed datagram out; a datagram in, an answer out; an
// answer in, E moved and the guard's word written) waits for nothing but itself.
// It takes two locks, the lease's and the grantor's, which are held for
// comparisons only; it allocates nothing; and what else a beat has to say is a
// voice, which is replaced and never changed. Everything slower goes through
// posts.

// voice is what this node says in its beats as a voter, and to whom.
type voice struct {
	voter   bool     // in the lease voters' list
	version uint64   // of that list
	voters  []string // the list, or before this node knows one whoever may be in it
	ready   bool
	silent  []id.NodeRef // whom this voter misses
}

// speak makes the voice anew. The caller has grant locked.
func (a *Agent) speak() {
	v := &voice{voter: a.grant.voter, ready: a.grant.IsReady(), silent: a.grant.silent}
	v.version, v.voters = a.grant.List()
	if len(v.voters) == 0 {
		v.voters = a.mayVote()
	}
	a.voice.Store(v)
}

// mayVote is whoever may be a voter, while this node has applied nothing yet: all that it
// knows as members, and who votes in raft by its own disk. Some may have joined long
// after the founding, and a leader that does not hear us commits nothing with us.
func (a *Agent) mayVote() (out []string) {
	for _, n := range a.everyone() {
		out = append(out, n.Name)
	}
	for _, v := range a.roll().voters {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// voters are whom beats go to: the lease voters, or whoever may be one before they are
// known. Do not change the list.
func (a *Agent) voters() []string { return a.voice.Load().voters }

// mouth is what the goroutine that beats keeps between two beats.
type mouth struct {
	*gossip.Sender
	beat lease.Beat
}

// beatLoop sends one keepalive per interval to every voter over every link, and
// one at once when asked to.
func (a *Agent) beatLoop(ctx context.Context) {
	m := &mouth{Sender: a.gossip.Sender()}
	keepalive := a.cfg.Timing.Keepalive
	tick := a.grid.Ticker(keepalive)
	defer tick.Stop()
	ticked := a.now()
	for {
		a.turn(loopBeats)
		a.sayBeat(m)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
			now := a.now()
			a.pulse.noteSent(now.Elapsed(ticked), a.timing(), now)
			ticked = now
		case <-a.beats:
		}
	}
}

// beat has a keepalive sent now.
func (a *Agent) beat() { signal(a.beats) }

func (a *Agent) sayBeat(m *mouth) {
	v := a.voice.Load()
	now := a.now() // the send time: before the datagram leaves
	to := v.voters
	b := &m.beat
	*b = lease.Beat{}
	registered := false
	if l := a.lease.Load(); l != nil {
		var list []string
		had := !l.IsAlone() || l.Leased(now)
		// A beat goes to the voters that it counts by.
		if list, registered = l.Say(b, now); registered && b.Version > v.version {
			to = list
		}
		if registered && l.IsAlone() {
			a.renew(l.End())
		}
		if registered && !had {
			signal(a.posts.leased)
		}
	}
	if !registered {
		b.Ref.Name = a.cfg.Name // alive, not registered
		b.Seq = uint64(now.Boot)
	}
	if v.voter {
		b.Applied, b.Ready = v.version, v.ready
	}
	b.Silent = v.silent
	r := a.elect.says.Load()
	b.Term, b.Leads, b.Hung = r.term, r.leads, r.hung
	m.Buf = b.Append(m.Buf[:0])
	m.Send(m.Buf, to...)
	if registered && len(v.silent) > lease.MaxSilent {
		for _, part := range lease.Silents(b.Ref.Inc, b.Seq, v.silent) {
			m.Buf = part.Append(m.Buf[:0])
			m.Send(m.Buf, to...)
		}
	}
}

// voterLoop is the voter's clock: who is silent, whose promise has ended, is the
// leader late. It sleeps until the next of these can be.
func (a *Agent) voterLoop(ctx context.Context) {
	limit := max(a.cfg.Timing.Keepalive/2, time.Millisecond)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		a.turn(loopVoter)
		now := a.now()
		a.tellExpired(now)
		a.tellSilent(now)
		if n := a.node.Load(); n != nil {
			a.watchReign(now, n) // also after a stall: it is about ourselves
			if !a.dazed(now) {
				a.watchLeader(now, n)
			}
		}
		dead := a.timing().Deadtime
		a.grant.Lock()
		next := a.grant.Next(a.host.Clock.Now(), dead, a.grid.Until(limit))
		a.grant.Unlock()
		timer.Reset(max(next, 100*time.Microsecond))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.ring:
		}
	}
}

func (a *Agent) tellExpired(now clock.Instant) {
	a.grant.Lock()
	due := a.grant.Due(now)
	a.grant.Unlock()
	for _, d := range due {
		a.gossip.Send(lease.Expired{Ref: d.Ref}.Append(nil), d.To...)
	}
}

// tellSilent puts whom this voter misses into its beats, and sends one at once
// when that changes: a takeover must not wait for the next tick.
func (a *Agent) tellSilent(now clock.Instant) {
	dead := a.deadtime(now)
	a.grant.Lock()
	silent := a.grant.Silent(now, dead)
	if !a.grant.voter || !a.grant.IsReady() {
		silent = nil
	}
	silent = slices.DeleteFunc(silent, func(r id.NodeRef) bool { return r.Name == a.cfg.Name })
	changed := !slices.Equal(silent, a.grant.silent)
	if changed {
		a.grant.silent = silent
		a.speak()
	}
	a.grant.Unlock()
	if changed {
		a.beat()
		signal(a.lead.wake)
	}
}

// deadtime is deadtime, or initdead until the cluster first formed.
func (a *Agent) deadtime(now clock.Instant) time.Duration {
	t := a.timing()
	if !a.lead.formedBy(a, now) {
		return t.Initdead
	}
	return t.Deadtime
}

// owns counts the groups this node owns by record.
func (a *Agent) owns() int {
	n := 0
	a.machine.View(func(s *fsm.State) {
		for _, g := range s.Groups {
			if g.Owner.Name == a.cfg.Name && !g.Deleted {
				n++
			}
		}
	})
	return n
}
