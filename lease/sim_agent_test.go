package lease_test

import (
	"fmt"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
)

// simKernel is what a host's kernel does without its agent: it answers for an
// address that is on it and open, until the lease word passes.
type simKernel struct {
	guard bool
	lease time.Duration // E by the BOOTTIME clock
	on    [simAddrs]bool
	open  [simAddrs]bool
	until [simAddrs]time.Duration // only with bugPerAddress: a deadline per address
}

type simHost struct {
	index  int
	name   string // of its node; the clone has n0's
	hostID string
	boots  int
	clock  simClock
	kernel simKernel
	agent  *simAgent
	runs   [simGroups]bool // an exclusive group's services: they outlive their agent
	proc   int
	booted bool
}

func (s *sim) newHostID(h *simHost) {
	h.boots++
	h.hostID = fmt.Sprintf("host%d-boot%d", h.index, h.boots)
	if !s.manual {
		return
	}
	machine := fmt.Sprintf("machine%d", h.index)
	if s.bug == bugCloneReboots {
		machine = h.name
	}
	h.hostID += fsm.RebootMark(fmt.Sprintf("boot%d-%d", h.index, h.boots), machine)
}

// held is a group that the agent opened.
type held struct {
	on    bool
	epoch id.Epoch
	addrs []int
}

// simAgent is one registration's process.
type simAgent struct {
	host   *simHost
	ref    id.NodeRef
	timing spec.Timing
	up     bool
	holder *lease.Holder
	rec    [simGroups]record
	held   [simGroups]held
	busy   [simGroups]bool // a step of the group is under way
	seen   int             // log index up to which records were streamed
	dying  bool
	muted  bool
	hung   time.Duration

	own ownLease // only for rules about E broken on purpose
}

func (s *sim) hostNow(h *simHost) clock.Instant { return h.clock.now(s.now) }

func (h *simHost) answers(s *sim, a int) bool {
	k := &h.kernel
	switch {
	case !k.on[a] && (s.bug != bugPerAddress || !k.guard): // there the address stays on the host
		return false
	case !k.guard:
		return true
	case !k.open[a] && s.bug != bugPerAddress:
		return false
	}
	end := k.lease
	if s.bug == bugPerAddress {
		end = k.until[a]
	}
	if h.index == 3 {
		end += simGuardLate
	}
	return h.clock.read(0, s.now) < end
}

// boot is R8: close and remove everything, then register.
func (s *sim) boot(h *simHost) {
	h.proc++
	if s.calm && h == s.hosts[simNodes] {
		return // the clone is gone for good
	}
	h.booted = true
	if s.bug != bugNoCleanUp {
		h.kernel, h.runs = simKernel{}, [simGroups]bool{}
	}
	h.kernel.guard = true
	proc := h.proc
	s.at(s.delay(), func() { s.register(h, proc) })
}

func (s *sim) register(h *simHost, proc int) {
	if h.proc != proc {
		return
	}
	timing := simTimings[s.IntN(100)/70]
	bound := timing.Deadtime
	if h.index == 3 && s.bug != bugTierIgnored {
		bound += simGuardLate * 105 / 95
	}
	if s.manual && s.bug != bugAloneBounded {
		bound = spec.Unbounded
	}
	s.n++
	r := fsm.Register{Node: h.name, From: s.state.Nodes[h.name].Inc, Nonce: fmt.Sprint(s.n), HostID: h.hostID, Bound: bound}
	if s.bug == bugOneHostID {
		r.HostID = "host"
	}
	commit := func() fsm.Result {
		if s.bug == bugNoCAS {
			s.n++
			r.From, r.Nonce = s.state.Nodes[h.name].Inc, fmt.Sprint(s.n)
		}
		return s.propose(fsm.Command{Register: &r})
	}
	s.at(s.delay(), func() { // the process may die while its proposal is under way
		res := commit()
		if s.p(.1) {
			s.count["registration proposed twice"]++
			s.at(s.span(0, 1500*time.Millisecond), func() { commit() })
		}
		now := s.hostNow(h)
		s.at(s.delay(), func() {
			switch {
			case h.proc != proc:
			case res.Rejected != "":
				s.register(h, proc)
			default:
				s.registered(h, id.NodeRef{Name: h.name, Inc: res.Inc}, timing, now)
			}
		})
	})
}

func (s *sim) registered(h *simHost, ref id.NodeRef, timing spec.Timing, now clock.Instant) {
	if h.boots > 1 || h.index == simNodes {
		s.count["registered from another host"]++
	} else if ref.Inc > 1 {
		s.count["registered from the same host"]++
	}
	a := &simAgent{host: h, ref: ref, timing: timing, up: true, holder: lease.NewHolder(ref, timing.LeaseLength(), now)}
	if s.manual {
		a.holder.Alone()
	}
	if s.p(.5) { // else it learns the list from an answer
		a.holder.SetVoters(s.state.Voters.Version, s.state.Voters.Names)
	} else {
		a.holder.SetVoters(1, []string{"v0", "v1", "v2"})
	}
	h.agent = a
	s.ghost.registered(h, ref)
	s.beatLoop(a)
	s.streamLoop(a)
	s.tendLoop(a)
}

func (s *sim) alive(a *simAgent) bool { return a.up && a.host.agent == a }

// agentDoes runs do in the agent's process: after a hang, or never.
func (s *sim) agentGets(a *simAgent, do func()) {
	switch {
	case !s.alive(a):
	case a.hung > s.now:
		s.at(a.hung-s.now, func() { s.agentGets(a, do) })
	default:
		do()
	}
}

func (s *sim) beatLoop(a *simAgent) {
	s.agentGets(a, func() {
		s.beat(a)
		s.at(time.Duration(float64(simKeepalive)/a.host.clock.rate[0]), func() { s.beatLoop(a) })
	})
}

func (s *sim) beat(a *simAgent) {
	now := s.hostNow(a.host)
	had := a.holder.Leased(now)
	seq, version := a.holder.Beat(now)
	if s.manual {
		s.renew(a, a.holder.End().Boot)
		if a.muted = a.muted && !a.holder.Leased(now); !had {
			s.evalAll(a)
		}
	}
	a.own.beat(s, seq, now.Boot)
	m := lease.Beat{Ref: a.ref, Seq: seq, Version: version, Unleased: a.holder.Unleased(now)}
	if a.holder.Leased(now) {
		m.Left = now.Remaining(a.holder.End())
	} else if !a.muted && !a.holder.End().IsZero() {
		a.muted = true
		s.count["owner muted"]++
		if s.trace {
			s.logf("host %d %s muted", a.host.index, a.ref)
		}
	}
	if m.Unleased > a.timing.Deadtime {
		for _, o := range a.holder.Owed() {
			m.Tokens = append(m.Tokens, o.Claim)
		}
	}
	var late time.Duration
	if s.p(.02) {
		s.count["hang before a beat leaves"]++
		late = s.span(0, 300*time.Millisecond)
	}
	data := m.Append(nil)
	_, names := a.holder.Voters()
	for _, name := range names {
		v := s.voters[voterIndex(name)]
		if s.cutTo[a.host.index][v.index] {
			s.count["beat cut"]++
			continue
		}
		s.at(late, func() { s.send(func() { s.voterGets(v, func() { s.gotBeat(v, a.host, data) }) }) })
	}
}

func (s *sim) gotReply(h *simHost, voter string, data []byte) {
	if h.agent == nil {
		return
	}
	a := h.agent
	s.agentGets(a, func() {
		m, err := lease.ParseReply("", data)
		if err != nil {
			s.fail("reply: %v", err)
			return
		}
		if m.Ref != a.ref {
			return
		}
		switch m.Answer {
		case lease.Fenced:
			s.registerAnew(a)
		case lease.Behind:
			a.holder.SetVoters(m.Version, m.Voters)
		case lease.Ack:
			grew := a.holder.Acked(voter, m.Seq)
			end := a.holder.End().Boot
			if s.bug.aboutE() {
				end, grew = a.own.acked(s, a, voter, m.Seq)
			}
			if !grew {
				return
			}
			s.checkLease(a)
			if a.muted && a.holder.Leased(s.hostNow(h)) {
				a.muted = false
				s.count["owner unmuted"]++
				if s.trace {
					s.logf("host %d %s leased again", h.index, a.ref)
				}
			}
			s.renew(a, end)
			s.evalAll(a)
		}
	})
}

// renew moves the kernel's lease word forward. It runs beside the groups' steps.
func (s *sim) renew(a *simAgent, end time.Duration) {
	held := a.held
	s.at(s.stall(), func() {
		s.agentGets(a, func() {
			k := &a.host.kernel
			k.lease = max(k.lease, end)
			if s.bug == bugPerAddress {
				for g := range held {
					for _, i := range held[g].addrs {
						k.until[i] = max(k.until[i], end)
					}
				}
			}
		})
	})
}

func (s *sim) evalAll(a *simAgent) {
	for g := range simGroups {
		s.eval(a, g)
	}
}

// eval takes the group's next step: let go of it, or open it.
func (s *sim) eval(a *simAgent, g int) {
	if a.busy[g] || a.dying {
		return
	}
	rec, open := &a.rec[g], a.held[g]
	v := a.holder.May(groupName(g), s.hostNow(a.host))
	if open.on && (v.Why == lease.NotOwner || v.Why == lease.LetGo || v.Epoch != open.epoch) {
		s.letGo(a, g, max(open.epoch, rec.Epoch)-1)
		return
	}
	if due := a.holder.Due(groupName(g)); len(due) > 0 {
		s.letGo(a, g, due[0].Epoch)
		return
	}
	if v.OK && !open.on {
		s.open(a, g)
	}
}

func (s *sim) open(a *simAgent, g int) {
	a.busy[g] = true
	rec := a.rec[g]
	s.checkOpen(a, rec)
	end := a.holder.End().Boot
	s.at(s.stall(), func() {
		s.agentGets(a, func() {
			k := &a.host.kernel
			h := held{on: true, epoch: rec.Epoch}
			for _, r := range rec.spec.Resources {
				i := addressIndex(r.Address())
				h.addrs = append(h.addrs, i)
				k.on[i], k.open[i] = true, true
				k.until[i] = max(k.until[i], end)
			}
			a.held[g], a.busy[g] = h, false
			s.checkAlone(a.host, rec)
			a.host.runs[g] = rec.spec.Exclusive
			s.count["opened"]++
			if len(rec.Waits) > 0 {
				s.count["opened after a wait"]++
			}
			if s.trace {
				s.logf("host %d %s OPEN %s@%d %v", a.host.index, a.ref, rec.Group, rec.Epoch, h.addrs)
			}
			if s.p(.7) {
				s.reportHolding(a, g, rec.Epoch)
			}
			s.eval(a, g)
		})
	})
}

func (s *sim) reportHolding(a *simAgent, g int, epoch id.Epoch) {
	c := fsm.Command{Holding: &fsm.Holding{Group: groupName(g), Node: a.ref, Epoch: epoch, Started: true}}
	s.at(s.delay(), func() { s.propose(c) })
	if s.p(.1) {
		s.at(s.span(0, 1500*time.Millisecond), func() { s.propose(c) })
	}
}

// letGo stops the group: close, remember, then tell.
func (s *sim) letGo(a *simAgent, g int, upto id.Epoch) {
	a.busy[g] = true
	d := s.span(0, 20*time.Millisecond)
	if s.p(.1) && !s.calm {
		s.count["slow stop"]++
		d = s.span(100*time.Millisecond, 1500*time.Millisecond)
		if s.p(.1) {
			d *= 2
		}
	}
	if s.bug == bugTokenFirst {
		a.holder.Release(groupName(g), upto)
		s.tokens(a)
	}
	s.at(d+s.stall(), func() {
		s.agentGets(a, func() {
			for _, i := range a.held[g].addrs {
				a.host.kernel.open[i], a.host.kernel.on[i] = false, false
				a.host.kernel.until[i] = 0
			}
			a.held[g], a.busy[g], a.host.runs[g] = held{}, false, false
			a.holder.Release(groupName(g), upto)
			s.ghost.released(a.ref, groupName(g), upto)
			if s.trace {
				s.logf("host %d %s CLOSED %s up to @%d", a.host.index, a.ref, groupName(g), upto)
			}
			s.tokens(a)
			s.eval(a, g)
		})
	})
}

// tokens sends what is owed to the next owner and to whoever leads.
func (s *sim) tokens(a *simAgent) {
	for _, o := range a.holder.Owed() {
		data := lease.Token{Claim: o.Claim}.Append(nil)
		for _, h := range s.hosts {
			if h.name == o.To.Name {
				s.send(func() { s.gotToken(h, data) })
			}
		}
		for _, l := range s.leaders {
			s.send(func() { l.tokens[o.Claim] = true })
		}
	}
}

func (s *sim) gotToken(h *simHost, data []byte) {
	if h.agent == nil {
		return
	}
	a := h.agent
	s.agentGets(a, func() {
		m, err := lease.ParseToken(data)
		if err != nil {
			s.fail("token: %v", err)
			return
		}
		a.holder.Token(m.Claim)
		if s.bug == bugLooseToken {
			for e := range a.rec[groupIndex(m.Group)].Epoch + 1 {
				a.holder.Token(id.Claim{Group: m.Group, Node: m.Node, Epoch: e})
			}
		}
		s.evalAll(a)
	})
}

// tendLoop does again what a lost datagram may have undone.
func (s *sim) tendLoop(a *simAgent) {
	s.agentGets(a, func() {
		s.tokens(a)
		for _, w := range a.holder.Unsatisfied() {
			if fencedIn(s.state, w.Node) && s.p(.3) { // a record it was sent says so
				r, _ := a.holder.Right(w.Group)
				s.revoke(a.host.name, w.Node, w.Bound, "", r.Voters)
			}
		}
		if a.holder.Unleased(s.hostNow(a.host)) > a.timing.Deadtime && s.p(.05) {
			for g, h := range a.held {
				if h.on && !a.busy[g] {
					s.count["muted owner let go"]++
					s.letGo(a, g, h.epoch)
				}
			}
		}
		s.evalAll(a)
		s.at(s.span(20*time.Millisecond, 100*time.Millisecond), func() { s.tendLoop(a) })
	})
}

func (s *sim) streamLoop(a *simAgent) {
	s.agentGets(a, func() {
		if !s.cutRec[a.host.index] && a.seen < len(s.log) {
			a.seen += 1 + s.IntN(len(s.log)-a.seen)
			for g := range simGroups {
				if rec, ok := s.recordAt(g, a.seen); ok {
					s.see(a, rec)
				}
			}
		}
		s.at(s.delay(), func() { s.streamLoop(a) })
	})
}

// see adopts a record, unless it is old news.
func (s *sim) see(a *simAgent, rec record) {
	r := rightOf(rec)
	if s.bug == bugExpiredIsEnough {
		r.Exclusive = false
	}
	if s.bug == bugNoAddressWaits {
		r.Waits = slices.DeleteFunc(r.Waits, func(w lease.Wait) bool { return w.Group != rec.Group })
	}
	if a.holder.Adopt(r) {
		g := groupIndex(rec.Group)
		a.rec[g] = rec
		s.eval(a, g)
	}
}

// registerAnew is R9.
func (s *sim) registerAnew(a *simAgent) {
	if a.dying {
		return
	}
	a.dying = true
	a.holder.Fence()
	s.count["fenced: registered anew"]++
	again := s.span(0, 50*time.Millisecond)
	if a.ref.Name == nodeName(0) && s.hosts[simNodes].booted {
		again = s.span(200*time.Millisecond, 1500*time.Millisecond)
		if a.host.index == simNodes && s.p(.5) {
			again = -1 // the clone is switched off
		}
	}
	s.at(s.stall(), func() { s.agentGets(a, func() { s.kill(a.host, again) }) })
}

// kill ends the agent's process and nothing else; the host boots it again, or
// never if again < 0.
func (s *sim) kill(h *simHost, again time.Duration) {
	if h.agent == nil || !h.agent.up {
		return
	}
	h.agent.up = false
	s.count["agent restarts"]++
	if s.trace {
		s.logf("host %d %s dies", h.index, h.agent.ref)
	}
	if s.bug == bugUnpinned {
		h.kernel.guard = false
	}
	if again >= 0 {
		s.at(again, func() { s.boot(h) })
	} else {
		h.proc++
		h.booted = false
	}
}
