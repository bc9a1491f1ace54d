package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// beatLoop sends one keepalive per interval to every voter over every link. It
// shares nothing with the rest of the agent but the holder's short lock.
func (a *Agent) beatLoop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Timing.Keepalive)
	defer tick.Stop()
	for {
		a.beat()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// beat sends one keepalive now.
func (a *Agent) beat() {
	var b lease.Beat
	now := a.host.Clock.Now() // the send time: before the datagram leaves
	a.hold.Lock()
	if h := a.hold.holder; h != nil && !h.Fenced() {
		b.Ref = h.Ref()
		b.Seq, b.Version = h.Beat(now)
		b.Unleased = h.Unleased(now)
		if h.Leased(now) {
			b.Left = now.Remaining(h.End())
		}
		for _, o := range h.Owed() {
			b.Tokens = append(b.Tokens, o.Claim)
		}
	} else {
		b.Ref.Name = a.cfg.Name // alive, not registered
		b.Seq = uint64(now.Boot)
	}
	a.hold.Unlock()
	a.grant.Lock()
	if a.grant.voter {
		b.Applied, _ = a.grant.List()
		b.Ready = a.grant.IsReady()
	}
	a.grant.Unlock()
	a.ears.mu.Lock()
	b.Silent = a.ears.silent
	a.ears.mu.Unlock()
	a.gossip.Send(b.Append(nil), a.voters()...)
}

// voters are whom beats go to: the lease voters, or the founders before there is
// a cluster.
func (a *Agent) voters() []string {
	a.grant.Lock()
	_, names := a.grant.List()
	a.grant.Unlock()
	if len(names) > 0 {
		return names
	}
	var out []string
	for _, n := range a.cfg.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// election is this voter's elector and what it needs besides.
type election struct {
	mu   sync.Mutex
	e    *cluster.Elector
	told clock.Instant // when we last said that the leader is late
	none clock.Instant // since when no leader is known; zero = one is
	last string        // the newest leader known
}

func (e *election) init(self string) { e.e = cluster.NewElector(self) }

func (e *election) hear(from string, l cluster.Late, now clock.Instant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.e.Hear(from, l, now)
}

// voterLoop is the voter's clock: who is silent, whose promise has ended, is the
// leader late. It sleeps until the next of these can be.
func (a *Agent) voterLoop(ctx context.Context) {
	limit := max(a.cfg.Timing.Keepalive/2, time.Millisecond)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	last := a.host.Clock.Now()
	for {
		now := a.host.Clock.Now()
		a.excuse(now, now.Elapsed(last)-limit)
		last = now
		a.tellExpired(now)
		a.tellSilent(now)
		a.watchLeader(now)
		dead := a.timing().Deadtime
		a.grant.Lock()
		next := a.grant.Next(a.host.Clock.Now(), dead, limit)
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

// excuse: this process itself was stalled, so what it did not hear says nothing
// about others. Without it a resumed leader would fence the whole cluster.
func (a *Agent) excuse(now clock.Instant, late time.Duration) {
	if late < a.cfg.Timing.Warntime/2 {
		return
	}
	a.log.Warn("I was stalled; blaming nobody else for it", "ms", late.Milliseconds())
	a.problems.stalled(late)
	a.grant.Lock()
	a.grant.Excuse(now)
	a.grant.Unlock()
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
	a.grant.Unlock()
	silent = slices.DeleteFunc(silent, func(r id.NodeRef) bool { return r.Name == a.cfg.Name })
	a.ears.mu.Lock()
	changed := !slices.Equal(silent, a.ears.silent)
	a.ears.silent = silent
	a.ears.mu.Unlock()
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

// electStep is how long each rank of candidate waits for the one before it.
func (a *Agent) electStep() time.Duration { return max(a.cfg.Timing.Warntime/2, 50*time.Millisecond) }

// watchLeader is the fast election of design section 4: a majority of voters must
// miss the leader's beats for warntime, then the best of them stands.
func (a *Agent) watchLeader(now clock.Instant) {
	n := a.node.Load()
	if n == nil {
		return
	}
	leader, term := n.Leader()
	e := &a.elect
	e.mu.Lock()
	defer e.mu.Unlock()
	if leader == a.cfg.Name {
		e.e.Clear()
		e.none, e.last = clock.Instant{}, leader
		return
	}
	if leader == "" && e.none.IsZero() {
		e.none = now
	} else if leader != "" {
		e.none, e.last = clock.Instant{}, leader
	}
	// An election that fails leaves nobody known to lead; the one that was missed is
	// missed all the same, and the next try need not wait for warntime again.
	late := leader == "" && now.Elapsed(e.none) >= a.cfg.Timing.Warntime
	if e.last != "" && e.last != a.cfg.Name {
		a.grant.Lock()
		late = late || now.Elapsed(a.grant.Heard(e.last)) >= a.cfg.Timing.Warntime
		a.grant.Unlock()
	}
	if !late {
		e.e.Clear()
		return
	}
	if e.told.IsZero() || now.Elapsed(e.told) >= a.cfg.Timing.Keepalive {
		e.told = now
		voters := a.raftVoters(n)
		if !slices.Contains(voters, a.cfg.Name) {
			return
		}
		e.e.SetVoters(voters)
		l := cluster.Late{Term: term, Position: n.Position(), Owns: a.owns()}
		e.e.Hear(a.cfg.Name, l, now)
		others := slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == a.cfg.Name })
		a.gossip.Send(l.Encode([]byte{byte(lease.KindLate)}), others...)
	}
	if e.e.Decide(now, 4*a.cfg.Timing.Keepalive+20*time.Millisecond, a.electStep()) {
		a.log.Info("the leader is silent for warntime; standing for election", "leader", leader, "term", term)
		a.goLoop(func(context.Context) { n.Stand() })
	}
}

func (a *Agent) raftVoters(n *cluster.Node) []string {
	ms, err := n.Members()
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range ms {
		if m.Voter {
			out = append(out, m.Name)
		}
	}
	return out
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
