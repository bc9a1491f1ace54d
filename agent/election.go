package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanode/cluster"
	"hanode/internal/clock"
	"hanode/lease"
)

// election is this voter's elector and what it needs besides.
type election struct {
	says atomic.Pointer[reign] // what our beats say of ourselves; never nil

	mu   sync.Mutex
	e    *cluster.Elector
	told clock.Instant // when we last said that the leader is late
	none clock.Instant // since when no leader is known; zero = one is
	last string        // the newest leader known
	term uint64        // in which it led
}

// reign is what a node says about its own leadership.
type reign struct {
	term  uint64 // newest in which it led; 0 = none
	leads bool   // it does still, and can commit as far as it knows
	hung  bool   // its disk does not finish a write
}

func (e *election) init(self string) {
	e.e = cluster.NewElector(self)
	e.says.Store(&reign{})
}

func (e *election) hear(from string, l cluster.Late, now clock.Instant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.e.Hear(from, l, now)
}

// electStep is how long each rank of candidate waits for the one before it.
func (a *Agent) electStep() time.Duration { return max(a.cfg.Timing.Warntime/2, 50*time.Millisecond) }

// watchReign keeps what our beats say about our own leadership true, and sends one
// at once when it changes: a leader that cannot commit any more (it lost its
// followers, it hears no majority for warntime, its disk hangs) is replaced as if
// its beats had stopped, while they and its groups' leases go on.
func (a *Agent) watchReign(now clock.Instant, n *cluster.Node) {
	var r reign
	r.term, r.leads = n.Reign()
	age, _ := n.DiskHangs()
	r.hung = age > 0
	r.leads = r.leads && a.hearsMajority(now, n)
	old := a.elect.says.Swap(&r)
	if *old == r {
		return
	}
	if old.leads && !r.leads && old.term == r.term {
		a.log.Warn("this leader cannot lead any more; it tells the voters", "term", r.term, "disk hangs", r.hung)
	}
	a.beat()
}

// hearsMajority reports whether a majority of raft's voters was heard within
// warntime: a leader that is deaf to them commits nothing.
func (a *Agent) hearsMajority(now clock.Instant, n *cluster.Node) bool {
	voters := a.raftVoters(n)
	have := 0
	a.grant.Lock()
	defer a.grant.Unlock()
	for _, v := range voters {
		if v == a.cfg.Name || now.Elapsed(a.grant.Heard(v)) < a.cfg.Timing.Warntime {
			have++
		}
	}
	return have > len(voters)/2
}

// gaveUp is the newest term in which the node led and says that it cannot any
// more; 0 = it does not say so.
func (a *Agent) gaveUp(name string) uint64 {
	r := a.elect.says.Load()
	if name != a.cfg.Name {
		h, _ := a.ears.get(name)
		r = &reign{term: h.beat.Term, leads: h.beat.Leads}
	}
	if r.leads {
		return 0
	}
	return r.term
}

// leader is who leads and in which term, as far as this node knows: a disk that
// hangs keeps raft here from learning of a newer leader, whose beats come all the
// same. "" = nobody.
func (a *Agent) leader(n *cluster.Node) (string, uint64) {
	name, term := n.Leader()
	for from, h := range a.ears.all() {
		if h.beat.Leads && h.beat.Term > term && a.hearsLately(from) {
			name, term = from, h.beat.Term
		}
	}
	if told, in := a.leaderTold(); told != "" && in > term || name == "" && told != "" {
		name, term = told, in
	}
	return name, term
}

// watchLeader is the fast election of design section 4: a majority of voters must
// miss the leader's beats for warntime, or hear from itself that it gave up; then
// the best of them stands.
func (a *Agent) watchLeader(now clock.Instant, n *cluster.Node) {
	leader, term := n.Leader()
	if a.denies(leader, term) {
		leader = ""
	}
	e := &a.elect
	e.mu.Lock()
	defer e.mu.Unlock()
	if leader == "" && e.none.IsZero() {
		e.none = now
	} else if leader != "" {
		e.none, e.last, e.term = clock.Instant{}, leader, term
	}
	if leader == a.cfg.Name || e.says.Load().hung || a.onlyFollows() || !a.late(now, leader, term) {
		e.e.Clear(term) // a voter whose disk hangs can neither vote nor lead
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
		a.gossip.Send(l.Encode([]byte{byte(lease.KindLate)}), without(raftServers(n, anyServer), a.cfg.Name)...)
	}
	if e.e.Decide(now, 4*a.cfg.Timing.Keepalive+20*time.Millisecond, a.electStep()) {
		a.log.Info("the leader is silent for warntime, or gave up; standing for election", "leader", leader, "term", term)
		a.goLoop(func(context.Context) { n.Stand() })
	}
}

// denies reports whether the node that raft here takes for the leader of this term
// says in its beats that it led an older one, and does not any more, or that it is no
// member yet. A candidate that still writes its new term hears heartbeats of the old
// leader, notes it, and keeps it into the new term; and for ever, if that one came back
// with an empty disk and waits for a leader itself.
func (a *Agent) denies(leader string, term uint64) bool {
	h, ok := a.ears.get(leader)
	older := h.beat.Term > 0 && h.beat.Term < term || h.beat.Term == 0 && h.beat.Ref.Inc == 0
	return ok && leader != a.cfg.Name && !h.beat.Leads && older
}

// late reports whether this voter misses a leader. The caller holds e.mu.
func (a *Agent) late(now clock.Instant, leader string, term uint64) bool {
	e := &a.elect
	patience := a.cfg.Timing.Warntime
	switch gaveUp := a.gaveUp(e.last); {
	case e.last == "":
	case gaveUp >= term:
		return true // nobody has begun a newer term
	case gaveUp >= e.term:
		patience = a.electStep() // for the election that follows it
	}
	// An election that fails leaves nobody known to lead; the one that was missed is
	// missed all the same, and the next try need not wait for warntime again.
	if leader == "" && now.Elapsed(e.none) >= patience {
		return true
	}
	if e.last == "" || e.last == a.cfg.Name {
		return false
	}
	a.grant.Lock()
	defer a.grant.Unlock()
	return now.Elapsed(a.grant.Heard(e.last)) >= a.cfg.Timing.Warntime
}

// raftVoters are those that vote by raft's newest configuration here.
func (a *Agent) raftVoters(n *cluster.Node) []string {
	return raftServers(n, func(m cluster.Member) bool { return m.Voter })
}

// anyServer is for raftServers: one that has no vote in the configuration here may have been
// given it meanwhile, and be the best candidate.
func anyServer(cluster.Member) bool { return true }

// raftServers are the servers of raft's newest configuration here that are like that.
func raftServers(n *cluster.Node, like func(cluster.Member) bool) []string {
	ms, err := n.Members()
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range ms {
		if like(m) {
			out = append(out, m.Name)
		}
	}
	return out
}
