package lease_test

import (
	"slices"
	"time"

	"hanode/internal/id"
)

// ghost is what the checker knows and no node does.
type ghost struct {
	let    map[id.NodeRef]map[string]id.Epoch // group -> newest epoch really let go of
	said   map[id.NodeRef][]string            // voters that said EXPIRED
	gone   map[id.NodeRef]bool                // some owner holds because this one expired
	host   map[id.NodeRef]string
	newest map[string]uint64 // host id -> newest incarnation it registered
}

func newGhost() ghost {
	return ghost{
		let: map[id.NodeRef]map[string]id.Epoch{}, said: map[id.NodeRef][]string{}, gone: map[id.NodeRef]bool{},
		host: map[id.NodeRef]string{}, newest: map[string]uint64{},
	}
}

func (g *ghost) registered(h *simHost, ref id.NodeRef) {
	g.host[ref] = h.hostID
	g.newest[h.hostID] = max(g.newest[h.hostID], ref.Inc)
}

func (g *ghost) released(ref id.NodeRef, group string, upto id.Epoch) {
	if g.let[ref] == nil {
		g.let[ref] = map[string]id.Epoch{}
	}
	g.let[ref][group] = max(g.let[ref][group], upto)
}

func (g *ghost) expired(ref id.NodeRef, voter string) {
	if !slices.Contains(g.said[ref], voter) {
		g.said[ref] = append(g.said[ref], voter)
	}
}

// check is I3: at this instant at most one host answers per address. A kernel
// starts to answer only by an event and stops by itself, so looking after each
// event misses nothing. It returns how many addresses are answered for.
func (s *sim) check() int {
	n := 0
	for a := range simAddrs {
		first := -1
		for _, h := range s.hosts {
			if !h.answers(s, a) {
				continue
			}
			if first >= 0 {
				s.fail("I3: hosts %d and %d both answer for %s", first, h.index, addressName(a))
			}
			first = h.index
		}
		if first >= 0 {
			n++
			s.answered[a] = s.now
		}
	}
	return n
}

// checkAlone is R4: no other host still runs an exclusive group's services, with or
// without an agent, when they start here. It is about groups that were exclusive
// when they started there: who began before the group was made so, and was given up
// as expired, is not waited for.
func (s *sim) checkAlone(on *simHost, rec record) {
	if !rec.spec.Exclusive {
		return
	}
	s.count["exclusive group opened"]++
	g := groupIndex(rec.Group)
	for _, h := range s.hosts {
		if h != on && h.runs[g] {
			s.fail("R4: host %d starts exclusive %s@%d, which host %d still runs", on.index, rec.Group, rec.Epoch, h.index)
		}
	}
}

// checkRest is P2: with the faults over, every address is answered for.
func (s *sim) checkRest() {
	for g := range simGroups {
		x := s.state.Groups[groupName(g)]
		if x == nil || x.Deleted {
			continue
		}
		for _, r := range x.Spec.Resources {
			if s.now-s.answered[addressIndex(r.Address())] > time.Second {
				s.fail("P2: nobody answers for %s of %s@%d (owner %s, waits %v)", r.Name, groupName(g), x.Epoch, x.Owner, x.Waits)
			}
		}
	}
}

type epochs [simGroups]struct {
	epoch id.Epoch
	owner id.NodeRef
}

func (s *sim) epochs() (out epochs) {
	for g := range out {
		if x := s.state.Groups[groupName(g)]; x != nil {
			out[g].epoch, out[g].owner = x.Epoch, x.Owner
		}
	}
	return out
}

// checkEpochs is I1: an epoch never decreases, and an owner changes only with it.
func (s *sim) checkEpochs(before epochs) {
	for g, now := range s.epochs() {
		was := before[g]
		if now.epoch < was.epoch || now.epoch == was.epoch && now.owner != was.owner {
			s.fail("I1: %s went from %v to %v", groupName(g), was, now)
		}
	}
}

// checkOpen is I2 and I5: at the moment an agent decides to hold, it is the owner
// of record at that epoch, its lease runs, and nobody it waits for can hold.
func (s *sim) checkOpen(a *simAgent, rec record) {
	if s.bug != bugNone {
		return // a broken rule must show to clients: I3 alone judges it
	}
	i := groupIndex(rec.Group)
	if !slices.ContainsFunc(s.hist[i], func(c change) bool { return c.rec.Epoch == rec.Epoch && c.rec.Owner == a.ref }) {
		s.fail("I2: %s opens %s@%d, which it never owned", a.ref, rec.Group, rec.Epoch)
	}
	if !a.holder.Leased(s.hostNow(a.host)) {
		s.fail("I2: %s opens %s@%d without a lease", a.ref, rec.Group, rec.Epoch)
	}
	for _, w := range rec.Waits {
		switch {
		case s.ghost.let[w.Node][w.Group] >= w.Epoch:
		case s.ghost.newest[w.HostID] > w.Node.Inc: // registered anew after a clean start
		case s.manual && w.Off:
			s.count["opened by an operator's word"]++
			s.ghost.gone[w.Node] = true
			s.checkGone(w.Node)
		case s.manual:
			s.fail("I5: %s opens %s@%d although nobody said that %s is off", a.ref, rec.Group, rec.Epoch, w.Claim)
		case rec.spec.Exclusive && !w.Off:
			s.fail("R4: %s opens exclusive %s@%d though %s never let go", a.ref, rec.Group, rec.Epoch, w.Claim)
		default:
			n := 0
			for _, v := range s.ghost.said[w.Node] {
				if slices.Contains(rec.Voters.Names, v) {
					n++
				}
			}
			if n < rec.Voters.Majority() {
				s.fail("I5: %s opens %s@%d while %s may hold", a.ref, rec.Group, rec.Epoch, w.Claim)
			}
			s.ghost.gone[w.Node] = true
			s.count["opened by expiry"]++
			s.checkGone(w.Node)
		}
	}
}

// checkLease is I4: after a majority said EXPIRED, no beat reaches a majority.
func (s *sim) checkLease(a *simAgent) {
	if s.bug == bugNone && s.ghost.gone[a.ref] && a.holder.Leased(s.hostNow(a.host)) {
		s.fail("I4: %s has a lease after it was declared expired", a.ref)
	}
}

func (s *sim) checkGone(ref id.NodeRef) {
	for _, h := range s.hosts {
		if h.agent != nil && h.agent.up && h.agent.ref == ref && h.agent.holder.Leased(s.hostNow(h)) {
			s.fail("I4: %s is declared expired while its lease runs", ref)
		}
	}
}
