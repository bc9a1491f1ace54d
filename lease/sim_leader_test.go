package lease_test

import (
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
)

// simLeader is one term of leadership at one voter. It decides by what that
// voter has applied, which may be old, and forgets everything when it ends.
type simLeader struct {
	term, proc int
	voter      *simVoter
	tokens     map[id.Claim]bool
	expired    map[id.NodeRef][]string
	applied    map[uint64][]string // voters' list version -> who reported to have applied it
	since      map[uint64]clock.Instant
}

func (l *simLeader) heard(ref id.NodeRef, voter string) {
	if !slices.Contains(l.expired[ref], voter) {
		l.expired[ref] = append(l.expired[ref], voter)
	}
}

func (s *sim) elect() {
	s.term++
	var up []*simVoter
	for _, v := range s.voters {
		if v.up {
			up = append(up, v)
		}
	}
	if len(up) == 0 {
		s.at(s.span(50*time.Millisecond, 500*time.Millisecond), s.elect)
		return
	}
	s.count["elections"]++
	v := up[s.IntN(len(up))]
	l := &simLeader{
		term: s.term, proc: v.proc, voter: v,
		tokens: map[id.Claim]bool{}, expired: map[id.NodeRef][]string{},
		applied: map[uint64][]string{}, since: map[uint64]clock.Instant{},
	}
	s.leaders = append(s.leaders, l)
	s.at(s.delay(), func() { s.leadLoop(l) })
}

func (s *sim) leadLoop(l *simLeader) {
	v := l.voter
	if !v.up || v.proc != l.proc || s.term != l.term && s.p(.05) {
		s.leaders = slices.DeleteFunc(s.leaders, func(x *simLeader) bool { return x == l })
		return
	}
	if v.hung <= s.now {
		if s.p(.7) {
			s.applyTo(v, len(s.log))
		}
		s.step(l)
	}
	s.at(s.span(5*time.Millisecond, 50*time.Millisecond), func() { s.leadLoop(l) })
}

// commit proposes, if l still leads.
func (s *sim) commit(l *simLeader, c fsm.Command) (fsm.Result, bool) {
	if l.term != s.term {
		s.count["proposal of an old leader"]++
		return fsm.Result{}, false
	}
	return s.propose(c), true
}

// push sends the records of an entry to the agents: as they stand after Apply.
func (s *sim) push(c fsm.Takeover) {
	for _, a := range c.Assigns {
		rec, ok := s.recordAt(groupIndex(a.Group), len(s.log))
		if !ok {
			continue
		}
		if s.bug == bugPushCommand && rec.Epoch == a.Epoch {
			rec.Owner, rec.Waits = a.To, nil
			for g := range simGroups {
				if prev, ok := s.recordAt(g, len(s.log)-1); ok && prev.Group == a.Group && !prev.Owner.Zero() {
					rec.Waits = append(slices.Clone(prev.Waits), fsm.Wait{Claim: id.Claim{Group: a.Group, Node: prev.Owner, Epoch: a.Epoch - 1}})
				}
			}
		}
		for _, h := range s.hosts {
			if h.agent != nil && s.p(.7) {
				agent := h.agent
				s.send(func() { s.agentGets(agent, func() { s.see(agent, rec) }) })
			}
		}
	}
}

// targets are the registrations that may be given a group.
func (s *sim) targets(st *fsm.State, not id.NodeRef) []id.NodeRef {
	var out []id.NodeRef
	for n := range simNodes {
		if m := st.Nodes[nodeName(n)]; m.Registered() && m.Ref() != not {
			out = append(out, m.Ref())
		}
	}
	return out
}

// out reports evidence that a claim is not in use: its token, or EXPIRED from a
// majority of the voters of a state in which it is fenced. The second is not for a
// claim that an exclusive group waits for, whichever group is looked at: an address
// that moved lets two wait for one claim.
func (s *sim) out(l *simLeader, g *fsm.Group, c id.Claim) bool {
	st := l.voter.st
	n := 0
	for _, v := range l.expired[c.Node] {
		if st.Voters.Has(v) {
			n++
		}
	}
	exclusive := g.Spec.Exclusive
	for _, o := range st.Groups {
		exclusive = exclusive || o.Spec.Exclusive && slices.ContainsFunc(o.Waits, func(w fsm.Wait) bool { return w.Claim == c })
	}
	return l.tokens[c] || !exclusive && fencedIn(st, c.Node) && n >= st.Voters.Majority()
}

func (s *sim) step(l *simLeader) {
	st := l.voter.st
	if !st.Founded() {
		return
	}
	s.changeVoters(l)
	for i := range simGroups {
		st = l.voter.st
		g := st.Groups[groupName(i)]
		if g == nil {
			continue
		}
		s.clearWaits(l, g)
		if g.Deleted {
			continue
		}
		targets := s.targets(st, g.Owner)
		if len(targets) == 0 || len(g.Waits) > 6 && !s.calm {
			continue
		}
		s.place(l, g, targets[s.IntN(len(targets))])
	}
}

// clearWaits turns evidence into the record, and asks for more.
func (s *sim) clearWaits(l *simLeader, g *fsm.Group) {
	for _, w := range slices.Clone(g.Waits) {
		fenced := fencedIn(l.voter.st, w.Node)
		switch {
		case s.out(l, g, w.Claim):
			if s.p(.5) {
				s.commit(l, fsm.Command{Released: &fsm.Released{Claims: []id.Claim{w.Claim}}})
			}
		case fenced && s.p(.5):
			s.revoke(l.voter.name, w.Node, w.Bound, g.Owner.Name, both(g.Voters.Names, l.voter.st.Voters.Names))
		case !fenced && s.p(.02):
			s.count["old owner fenced later"]++
			s.commit(l, fsm.Command{Takeover: &fsm.Takeover{Fence: w.Node, Cause: "failover"}})
		}
	}
}

func both(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// place moves a group: because it has no owner, its owner is suspected, fenced
// or gone, or just so.
func (s *sim) place(l *simLeader, g *fsm.Group, to id.NodeRef) {
	st := l.voter.st
	if g.Owner.Zero() {
		s.assign(l, g, to, "start")
		return
	}
	current := st.Nodes[g.Owner.Name].Ref() == g.Owner
	fenced := fencedIn(st, g.Owner)
	switch {
	case s.suspect && current && !fenced && s.p(.15):
		s.takeover(l, g.Owner)
	case fenced:
		s.count["takeovers of a fenced owner"]++
		s.assign(l, g, to, "failover")
	case s.calm:
		if g.OwnerReleased || l.tokens[id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch}] {
			s.assign(l, g, to, "start")
		}
	case s.p(.02):
		s.count["switchovers"]++
		if len(g.Waits) > 0 {
			s.count["switchovers while another is under way"]++
		}
		s.assign(l, g, to, "switchover")
	case s.p(.003) || len(g.Waits) > 0 && s.p(.03):
		s.askToLetGo(recordOf(g))
	}
}

func (s *sim) assign(l *simLeader, g *fsm.Group, to id.NodeRef, cause string) {
	a := fsm.Assign{Group: g.Spec.Name, Epoch: g.Epoch + 1, To: to}
	a.Released = append(a.Released, s.released(l, g)...)
	t := fsm.Takeover{Assigns: []fsm.Assign{a}, Cause: cause}
	if res, ok := s.commit(l, fsm.Command{Takeover: &t}); ok && (res.Rejected == "" || s.bug == bugPushCommand) {
		s.push(t)
	}
}

// released lists the claims of g whose exact token the leader has.
func (s *sim) released(l *simLeader, g *fsm.Group) []id.Claim {
	var out []id.Claim
	for _, w := range g.Waits {
		if l.tokens[w.Claim] {
			out = append(out, w.Claim)
		}
	}
	if own := (id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch}); l.tokens[own] {
		out = append(out, own)
	}
	return out
}

// takeover is one entry: the fence and every assignment that follows from it;
// REVOKE only after it.
func (s *sim) takeover(l *simLeader, owner id.NodeRef) {
	st := l.voter.st
	if !l.voter.up || l.voter.proc != l.proc {
		return
	}
	t := fsm.Takeover{Fence: owner, Cause: "failover", WhyFence: "suspected"}
	targets := s.targets(st, owner)
	for i := range simGroups {
		g := st.Groups[groupName(i)]
		if g != nil && !g.Deleted && g.Owner == owner && len(targets) > 0 {
			t.Assigns = append(t.Assigns, fsm.Assign{Group: g.Spec.Name, Epoch: g.Epoch + 1, To: targets[s.IntN(len(targets))]})
		}
	}
	bound := st.Nodes[owner.Name].Bound
	if _, ok := s.commit(l, fsm.Command{Takeover: &t}); !ok || !fencedIn(s.state, owner) {
		return
	}
	s.count["takeovers in one entry"]++
	s.push(t)
	for _, a := range t.Assigns {
		s.revoke(l.voter.name, owner, bound, a.To.Name, s.state.Voters.Names)
	}
}

// askToLetGo asks an owner to stop a group that it owns.
func (s *sim) askToLetGo(rec record) {
	s.count["owner asked to let go"]++
	g := groupIndex(rec.Group)
	for _, h := range s.hosts {
		if h.name != rec.Owner.Name || h.agent == nil {
			continue
		}
		a := h.agent
		s.send(func() {
			s.agentGets(a, func() {
				if a.ref == rec.Owner && a.rec[g].Epoch == rec.Epoch && a.rec[g].Owner == a.ref && !a.busy[g] && !a.dying {
					s.letGo(a, g, rec.Epoch)
				}
			})
		})
	}
}

// changeVoters is R7: one at a time, after a majority of the previous list
// reported the current one, plus the largest bound.
func (s *sim) changeVoters(l *simLeader) {
	st := l.voter.st
	for _, v := range s.voters {
		if s.p(.3) {
			s.send(func() {
				if !v.up {
					return
				}
				version := v.st.Voters.Version
				s.send(func() {
					for x := version; x > 0 && x+3 > version; x-- {
						if !slices.Contains(l.applied[x], v.name) {
							l.applied[x] = append(l.applied[x], v.name)
						}
					}
				})
			})
		}
	}
	version, now := st.Voters.Version, s.instant(l.voter)
	if s.bug != bugVotersJump {
		if _, ok := l.since[version]; !ok && (version == 1 || reported(l.applied[version], st.Previous)) {
			l.since[version] = now
		}
		since, ok := l.since[version]
		if !ok || version > 1 && now.Elapsed(since) < st.MaxBound() {
			return
		}
	}
	if s.calm || !s.p(.2) {
		return
	}
	name := voterName(s.IntN(simVoters))
	names := slices.Clone(st.Voters.Names)
	if i := slices.Index(names, name); i < 0 {
		names = append(names, name)
	} else if len(names) > 1 {
		names = slices.Delete(names, i, i+1)
	} else {
		return
	}
	if res, ok := s.commit(l, fsm.Command{SetVoters: &fsm.SetVoters{Version: version + 1, Names: names}}); ok && res.Rejected == "" {
		s.count["voters' list changes"]++
		if len(names) == 1 {
			s.count["voters' list of one"]++
		}
	}
}

func reported(by []string, list fsm.VoterList) bool {
	n := 0
	for _, v := range by {
		if list.Has(v) {
			n++
		}
	}
	return n >= list.Majority()
}
