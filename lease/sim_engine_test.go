package lease_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
)

// The simulation is a model of a cluster around the real Holder, Grantor, fsm
// and wire format. The log is atomic (raft's own safety is raft's); everything
// else is hostile: clocks, delay, loss, duplicates, one-way cuts, hangs between
// a decision and its kernel write, restarts, lost disks, clones of a machine.
const (
	simNodes  = 4 // hosts n0..n3; one more host is a clone of n0
	simHosts  = simNodes + 1
	simVoters = 5
	simGroups = 3
	simAddrs  = 3

	simRate      = 0.05 // bound on the error of a clock's rate
	simKeepalive = 40 * time.Millisecond
	simLength    = 20 * time.Second
	simCalm      = 5 * time.Second // at the end: no more faults
	// simGuardLate is how late the weaker guard of n3 may close, by its own clock.
	simGuardLate = 80 * time.Millisecond
)

// simTimings are the two deadtimes in use: registrations differ in their bound.
var simTimings = [2]spec.Timing{
	{Keepalive: simKeepalive, Warntime: 100 * time.Millisecond, Deadtime: 230 * time.Millisecond, Initdead: time.Second},
	{Keepalive: simKeepalive, Warntime: 150 * time.Millisecond, Deadtime: 390 * time.Millisecond, Initdead: time.Second},
}

type event struct {
	at time.Duration
	n  int
	do func()
}

func (e event) before(f event) bool { return e.at < f.at || e.at == f.at && e.n < f.n }

// eventQueue is a binary heap, earliest first.
type eventQueue []event

func (q *eventQueue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*q = h
}

func (q *eventQueue) pop() event {
	h := *q
	top, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(h[i]) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	*q = h
	return top
}

// simClock is one host's two clocks: rates and jumps of their own.
type simClock struct {
	rate     [2]float64
	at, base [2]time.Duration
}

func (c *simClock) read(i int, now time.Duration) time.Duration {
	return c.base[i] + time.Duration(c.rate[i]*float64(now-c.at[i]))
}

func (c *simClock) now(t time.Duration) clock.Instant {
	return clock.Instant{Boot: c.read(0, t), Raw: c.read(1, t)}
}

// set makes clock i run at rate from now on, jump ahead of where it is.
func (c *simClock) set(i int, now, jump time.Duration, rate float64) {
	c.base[i], c.at[i], c.rate[i] = c.read(i, now)+jump, now, rate
}

// change is a group's record as of a log index.
type change struct {
	index int
	rec   record
}

// record is a replicated record and the spec of its revision.
type record struct {
	fsm.Record
	spec spec.Group
}

type snapshot struct {
	index int
	data  []byte
}

type sim struct {
	*rand.Rand
	human *rand.Rand // the operator's own source
	bug   bug
	now   time.Duration
	queue eventQueue
	n     int

	log   [][]byte     // entry i is at index i+1; nil = an entry of raft's own
	truth *fsm.Machine // applies every entry at once
	state *fsm.State   // truth's
	hist  [simGroups][]change
	snaps []snapshot

	term    int
	voters  [simVoters]*simVoter
	hosts   [simHosts]*simHost
	leaders []*simLeader

	loss    float64
	cutTo   [simHosts][simVoters]bool // beats
	cutFrom [simHosts][simVoters]bool // answers
	cutRec  [simHosts]bool            // records
	suspect bool
	manual  bool // two_node = "manual": registrations hold alone, and have no bound
	hot     bool // every fourth schedule: quick restarts of voters, slow applies
	calm    bool // no more faults: what is held must stay held

	ghost    ghost
	viol     string
	count    map[string]int
	answered [simAddrs]time.Duration // when somebody last answered
	held     time.Duration           // sum over groups of the time somebody answered

	trace bool
	lines []string
}

func (s *sim) logf(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf("%9.4f ", s.now.Seconds())+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	if s.viol == "" {
		s.viol = fmt.Sprintf("at %.4f s: ", s.now.Seconds()) + fmt.Sprintf(format, args...)
	}
}

func (s *sim) p(prob float64) bool { return s.Float64() < prob }

func (s *sim) span(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.Float64()*float64(hi-lo))
}

func (s *sim) at(d time.Duration, do func()) {
	s.n++
	s.queue.push(event{s.now + d, s.n, do})
}

// delay of one message: mostly short, at times up to three lease lengths.
func (s *sim) delay() time.Duration {
	switch x := s.Float64(); {
	case x < .8:
		return s.span(100*time.Microsecond, 2*time.Millisecond)
	case x < .97:
		return s.span(2*time.Millisecond, 150*time.Millisecond)
	}
	s.count["delay of D or more"]++
	return s.span(200*time.Millisecond, 3*simTimings[1].LeaseLength())
}

// stall is the time between a decision and the kernel write that carries it out.
func (s *sim) stall() time.Duration {
	if s.p(.97) {
		return s.span(0, time.Millisecond)
	}
	s.count["hang before a kernel write"]++
	return s.span(time.Millisecond, 900*time.Millisecond)
}

// send delivers a datagram late, twice or never.
func (s *sim) send(do func()) {
	if s.p(s.loss) {
		s.count["datagram lost"]++
		return
	}
	s.at(s.delay(), do)
	if s.p(.05) {
		s.count["datagram twice"]++
		s.at(s.delay()+s.span(0, 1500*time.Millisecond), do)
	}
}

// propose appends a command to the log. What it returns is the verdict that the
// proposer's apply future carries.
func (s *sim) propose(c fsm.Command) fsm.Result {
	c.At = time.Unix(1_700_000_000, int64(s.now)).UTC()
	data, err := fsm.Encode(c)
	if err != nil {
		s.fail("encode: %v", err)
		return fsm.Result{}
	}
	s.log = append(s.log, data)
	before := s.epochs()
	res := s.truth.Apply(uint64(len(s.log)), data)
	if s.trace {
		s.logf("commit #%d %s %+v", len(s.log), data[1:], res)
	}
	s.checkEpochs(before)
	if len(s.log)%64 == 0 {
		s.snap()
	}
	return res
}

// barrier appends an entry of raft's own and returns its index.
func (s *sim) barrier() int {
	s.log = append(s.log, nil)
	s.truth.Advance(uint64(len(s.log)))
	return len(s.log)
}

func (s *sim) snap() {
	data, err := s.truth.Snapshot()
	if err != nil {
		s.fail("snapshot: %v", err)
	}
	s.snaps = append(s.snaps, snapshot{len(s.log), data})
}

// machineAt builds a machine as of index: from a snapshot and the log behind it.
func (s *sim) machineAt(index int) *fsm.Machine {
	m, from := fsm.NewMachine(), 0
	for _, sn := range slices.Backward(s.snaps) {
		if sn.index <= index {
			if err := m.Restore(sn.data); err != nil {
				s.fail("restore: %v", err)
			}
			from = sn.index
			break
		}
	}
	s.replay(m, from, index)
	return m
}

func (s *sim) replay(m *fsm.Machine, from, to int) {
	for i := from; i < to; i++ {
		if s.log[i] == nil {
			m.Advance(uint64(i + 1))
		} else {
			m.Apply(uint64(i+1), s.log[i])
		}
	}
}

// loseLog forgets the newest entries: what raft may do when a voter with an
// emptied disk votes again under its old identity.
func (s *sim) loseLog(entries int) {
	keep := len(s.log) - entries
	if entries == 0 || keep < 1 {
		return
	}
	if s.trace {
		s.logf("LOG LOSES its last %d entries", entries)
	}
	s.log = s.log[:keep]
	s.snaps = slices.DeleteFunc(s.snaps, func(sn snapshot) bool { return sn.index > keep })
	for g := range s.hist {
		s.hist[g] = slices.DeleteFunc(s.hist[g], func(c change) bool { return c.index > keep })
	}
	s.truth = s.machineAt(keep)
	s.watchTruth()
	for _, v := range s.voters {
		if v.applied > keep {
			v.load(s, keep)
		}
	}
	for _, h := range s.hosts {
		if h.agent != nil {
			h.agent.seen = min(h.agent.seen, keep)
		}
	}
	s.elect()
}

func (s *sim) watchTruth() {
	s.truth.Watch(func(c fsm.Change) {
		s.state = c.State
		for _, name := range c.Groups {
			g := groupIndex(name)
			s.hist[g] = append(s.hist[g], change{len(s.log), recordOf(c.State.Groups[name])})
		}
	})
}

// recordAt is group g's record as of index.
func (s *sim) recordAt(g, index int) (record, bool) {
	for _, c := range slices.Backward(s.hist[g]) {
		if c.index <= index {
			return c.rec, true
		}
	}
	return record{}, false
}

func groupName(g int) string     { return string([]byte{'g', byte('0' + g)}) }
func groupIndex(name string) int { return int(name[1] - '0') }
func nodeName(n int) string      { return string([]byte{'n', byte('0' + n)}) }
func voterName(v int) string     { return string([]byte{'v', byte('0' + v)}) }
func voterIndex(name string) int { return int(name[1] - '0') }
func addressName(a int) string {
	return string([]byte{'1', '0', '.', '0', '.', '0', '.', byte('1' + a)})
}
func addressIndex(name string) int { return int(name[len(name)-1] - '1') }
func isVoter(name string) bool     { return strings.HasPrefix(name, "v") }
func fencedIn(st *fsm.State, r id.NodeRef) bool {
	n := st.Nodes[r.Name]
	return n == nil || n.Inc > r.Inc || n.Inc == r.Inc && n.Fenced
}

func recordOf(g *fsm.Group) record { return record{g.Record(), g.Spec} }

// rightOf renders a record the way an agent does.
func rightOf(r record) lease.Right {
	out := lease.Right{Group: r.Group, Epoch: r.Epoch, Owner: r.Owner, Voters: r.Voters.Names, Exclusive: r.Exclusive}
	for _, w := range r.Waits {
		out.Waits = append(out.Waits, lease.Wait{Claim: w.Claim, Bound: w.Bound, Live: w.Live, Off: w.Off})
	}
	return out
}

// newSim wires a cluster with three lease voters and boots every host but the
// clone.
func newSim(seed uint64, b bug, trace bool) *sim {
	return newSimAs(seed, b, trace, b == bugAloneBounded || b == bugCloneReboots)
}

func newSimAs(seed uint64, b bug, trace, manual bool) *sim {
	s := &sim{
		manual: manual,
		Rand:   rand.New(rand.NewPCG(seed, 1)), human: rand.New(rand.NewPCG(seed, 2)), bug: b, trace: trace, loss: .05,
		hot: seed%4 == 0, count: map[string]int{}, truth: fsm.NewMachine(), ghost: newGhost(),
	}
	s.watchTruth()
	s.found()
	for v := range s.voters {
		s.voters[v] = &simVoter{index: v, name: voterName(v), clock: s.newClock()}
		s.voters[v].start(s, 0)
		s.at(s.span(0, 20*time.Millisecond), func() { s.applySome(s.voters[v]) })
	}
	for h := range s.hosts {
		s.hosts[h] = &simHost{index: h, name: nodeName(h % simNodes), clock: s.newClock()}
		s.newHostID(s.hosts[h])
	}
	for h := range simNodes {
		s.boot(s.hosts[h])
	}
	s.elect()
	s.at(s.span(500*time.Millisecond, 2*time.Second), s.chaos)
	s.at(s.later(0, time.Second), s.operate)
	return s
}

func (s *sim) newClock() simClock {
	var c simClock
	for i := range c.rate {
		c.rate[i] = 1 + (2*s.Float64()-1)*simRate
		c.base[i] = s.span(time.Second, 100*time.Second)
	}
	return c
}

func (s *sim) found() {
	f := &fsm.Found{Cluster: "sim", Digest: "d", Timing: simTimings[1], Groups: s.layout(true), Manual: s.manual}
	for n := range simNodes {
		f.Nodes = append(f.Nodes, spec.Node{Name: nodeName(n), Address: "192.0.2.1", Role: spec.RoleNode})
	}
	for v := range simVoters {
		f.Nodes = append(f.Nodes, spec.Node{Name: voterName(v), Address: "192.0.2.2", Role: spec.RoleWitness})
		if v < 3 {
			f.Voters = append(f.Voters, voterName(v))
		}
	}
	s.propose(fsm.Command{Found: f})
	s.snap()
}

// layout deals the addresses out to the groups anew; a group may be missing.
func (s *sim) layout(all bool) []spec.Group {
	var out []spec.Group
	for g := range simGroups {
		if all || s.p(.8) {
			out = append(out, spec.Group{Name: groupName(g), Exclusive: g == simGroups-1 && !all && s.p(.3)})
		}
	}
	if len(out) == 0 {
		return s.layout(true)
	}
	for a := range simAddrs {
		if !all && s.p(.2) {
			continue // nobody's for now: it may come back to another group later
		}
		g := &out[s.IntN(len(out))]
		g.Resources = append(g.Resources, spec.Resource{Type: "ip", Name: addressName(a) + "/24", Dev: "eth0"})
	}
	return out
}

// run plays the schedule to its end or to the first violation.
func (s *sim) run() {
	answering := 0
	for len(s.queue) > 0 && s.now < simLength && s.viol == "" {
		e := s.queue.pop()
		s.held += (e.at - s.now) * time.Duration(answering)
		s.now = e.at
		e.do()
		answering = s.check()
	}
	s.held /= simAddrs
	if s.viol == "" && s.bug == bugNone {
		s.checkRest()
	}
}
