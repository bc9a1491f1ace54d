package lease_test

import (
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// simVoter is a voter's process: a machine that applies the log with lag, and
// the Grantor that answers beats by what was applied.
type simVoter struct {
	index int
	name  string
	clock simClock
	up    bool
	proc  int // counts its processes

	machine *fsm.Machine
	st      *fsm.State
	applied int
	ready   int // index of the barrier asked for after the start; 0 = no answer yet
	grantor *lease.Grantor
	waking  bool
	hung    time.Duration // until when the process does nothing
}

func (s *sim) instant(v *simVoter) clock.Instant {
	i := v.clock.now(s.now)
	if s.bug == bugOneClock {
		i.Raw = i.Boot
	}
	return i
}

// start brings the process up with what its disk kept.
func (v *simVoter) start(s *sim, applied int) {
	v.up, v.ready = true, 0
	v.proc++
	began := s.instant(v)
	if s.bug == bugNoQuarantine {
		began = clock.Instant{}
	}
	v.grantor = lease.NewGrantor(began)
	v.load(s, applied)
	proc := v.proc
	s.at(s.delay(), func() {
		index := s.barrier() // commits even if the process died meanwhile
		s.at(s.delay(), func() {
			if v.up && v.proc == proc {
				v.ready = index
				v.tell(s)
			}
		})
	})
}

func (v *simVoter) load(s *sim, applied int) {
	v.machine, v.applied = s.machineAt(applied), applied
	v.machine.Watch(func(c fsm.Change) { v.st = c.State })
	v.tell(s)
}

// tell gives the Grantor what the machine knows now.
func (v *simVoter) tell(s *sim) {
	regs := make(map[string]lease.Registration, simNodes)
	for n := range simNodes {
		if m := v.st.Nodes[nodeName(n)]; m != nil {
			regs[m.Name] = lease.Registration{Inc: m.Inc, Fenced: m.Fenced, Bound: m.Bound}
		}
	}
	v.grantor.Applied(s.instant(v), v.st.Voters.Version, v.st.Voters.Names, regs)
	if v.ready > 0 && v.applied >= v.ready {
		v.grantor.Ready()
	}
}

func (s *sim) applyTo(v *simVoter, to int) {
	if to > v.applied {
		s.replay(v.machine, v.applied, to)
		v.applied = to
		v.tell(s)
	}
}

// applySome is the voter's apply loop: it lags, at times by seconds.
func (s *sim) applySome(v *simVoter) {
	if v.up && v.hung <= s.now && v.applied < len(s.log) && !s.p(.1) {
		s.applyTo(v, v.applied+1+s.IntN(len(s.log)-v.applied))
	}
	d := s.delay()
	if s.p(.02) {
		s.count["voter applies late"]++
		d += s.span(200*time.Millisecond, 1500*time.Millisecond)
	}
	if s.hot && !s.calm && s.p(.03) {
		d += s.span(500*time.Millisecond, 4*time.Second)
	}
	s.at(d, func() { s.applySome(v) })
}

// voterGets hands a datagram to the voter's process, when it runs.
func (s *sim) voterGets(v *simVoter, do func()) {
	if !v.up {
		return
	}
	if v.hung > s.now {
		proc := v.proc
		s.at(v.hung-s.now, func() {
			if v.up && v.proc == proc {
				do()
			}
		})
		return
	}
	do()
}

func (s *sim) gotBeat(v *simVoter, from *simHost, data []byte) {
	m, err := lease.ParseBeat("", data)
	if err != nil {
		s.fail("beat: %v", err)
		return
	}
	version, now := m.Version, s.instant(v)
	list, names := v.grantor.List()
	switch {
	case s.bug == bugAnyList:
		version = list
	case s.bug == bugClockEarly && s.p(.05):
		d := s.span(0, 500*time.Millisecond)
		now = clock.Later(now.Add(-d), clock.Instant{Boot: 1, Raw: 1})
	}
	r := lease.Reply{Ref: m.Ref, Seq: m.Seq, Answer: v.grantor.Beat(m.Ref, m.Seq, version, now), Version: list}
	if r.Answer == lease.Behind {
		r.Voters = names
	}
	for _, l := range s.leaders {
		if l.voter == v {
			for _, c := range m.Tokens {
				l.tokens[c] = true
			}
		}
	}
	if s.cutFrom[from.index][v.index] {
		s.count["answer cut"]++
		return
	}
	out := r.Append(nil)
	s.send(func() { s.gotReply(from, v.name, out) })
}

// revoke sends a REVOKE to the voters in names.
func (s *sim) revoke(from string, ref id.NodeRef, bound time.Duration, tell string, names []string) {
	data := lease.Revoke{Ref: ref, Bound: bound, Tell: tell}.Append(nil)
	for _, name := range names {
		v := s.voters[voterIndex(name)]
		s.send(func() { s.voterGets(v, func() { s.gotRevoke(v, from, data) }) })
	}
}

func (s *sim) gotRevoke(v *simVoter, from string, data []byte) {
	m, err := lease.ParseRevoke(data)
	if err != nil {
		s.fail("revoke: %v", err)
		return
	}
	tell := []string{from}
	if m.Tell != "" {
		tell = append(tell, m.Tell)
	}
	if s.bug == bugOwnTiming {
		m.Bound = simTimings[0].Deadtime
	}
	v.grantor.Revoke(m.Ref, m.Bound, tell...)
	s.voterDue(v)
}

// voterDue sends what expired and comes back when more may have.
func (s *sim) voterDue(v *simVoter) {
	now := s.instant(v)
	for _, e := range v.grantor.Due(now) {
		if s.trace {
			s.logf("%s EXPIRED %s to %v", v.name, e.Ref, e.To)
		}
		s.ghost.expired(e.Ref, v.name)
		data := lease.Expired{Ref: e.Ref}.Append(nil)
		for _, to := range e.To {
			s.send(func() { s.gotExpired(to, v.name, data) })
		}
	}
	const never = time.Hour
	next := v.grantor.Next(now, never, never/2)
	if next >= never/2 || v.waking {
		return
	}
	v.waking = true
	proc := v.proc
	s.at(next+time.Microsecond, func() {
		if v.proc == proc {
			v.waking = false
			s.voterGets(v, func() { s.voterDue(v) })
		}
	})
}

func (s *sim) gotExpired(to, voter string, data []byte) {
	m, err := lease.ParseExpired(data)
	if err != nil {
		s.fail("expired: %v", err)
		return
	}
	if isVoter(to) {
		for _, l := range s.leaders {
			if l.voter.name == to {
				l.heard(m.Ref, voter)
			}
		}
		return
	}
	for _, h := range s.hosts {
		if h.name == to && h.agent != nil {
			a := h.agent
			s.agentGets(a, func() {
				a.holder.Expired(m.Ref, voter)
				if s.bug == bugOneVoter {
					for v := range simVoters {
						a.holder.Expired(m.Ref, voterName(v))
					}
				}
				s.evalAll(a)
			})
		}
	}
}

// restartVoter ends the process; diskLost forgets what it applied.
func (s *sim) restartVoter(v *simVoter, diskLost bool) {
	if !v.up {
		return
	}
	v.up = false
	v.waking = false
	v.proc++
	s.count["voter restarts"]++
	if s.trace {
		s.logf("voter %s down, disk lost: %v", v.name, diskLost)
	}
	for _, l := range s.leaders {
		if l.voter == v && l.term == s.term {
			s.at(s.span(10*time.Millisecond, 400*time.Millisecond), s.elect)
		}
	}
	if diskLost {
		s.count["voter loses its disk"]++
		if s.bug == bugSameID {
			s.loseLog(1 + s.IntN(3))
		}
	}
	down := s.span(2*time.Millisecond, 500*time.Millisecond)
	if s.hot {
		down = s.span(2*time.Millisecond, 30*time.Millisecond)
	}
	s.at(down, func() {
		keep := 0
		if !diskLost && v.applied > 0 {
			keep = s.IntN(min(v.applied, len(s.log)) + 1)
		}
		v.start(s, keep)
	})
}
