package agent

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

var (
	simSeeds   = flag.Int("sim.seeds", 100, "how many fault schedules TestSim runs")
	simFrom    = flag.Uint64("sim.from", 1, "the first of them")
	simSeed    = flag.Uint64("sim.seed", 0, "run only this fault schedule; 0 = all")
	simFor     = flag.Duration("sim.for", 0, "begin no schedule after this much real time; 0 = no limit")
	simWorkers = flag.Int("sim.workers", 0, "schedules that run at the same time; 0 = one per processor")
	simLog     = flag.Bool("sim.log", false, "log every node of a lab to standard error")
	simServers = flag.Int("sim.servers", 0, "how many nodes of TestSim's clusters have the log, see Options.Servers; the rest follow a voter. 0 = 3 or 4 in each fourth schedule, else as many as usual")
)

// healWithin is how long a cluster may take, once nothing is wrong any more, until
// every group is held and all copies of the state are equal.
const healWithin = 10 * time.Second

// TestSim runs whole agents through random faults and checks the invariants at
// each write to a kernel and at each millisecond:
//
//	I1 epochs only grow, and an epoch of a group has one owner
//	I2 who answers is owner of record, with a lease that runs
//	I3 at most one host answers for an address
//	I4 a registration that somebody holds in spite of never has a lease again
//	I5 nobody answers while a wait is unsatisfied
//	I6 who leads is no part of it: nothing above asks, and leaders die often
//
// and beside them: all copies of the replicated state are equal entry by entry,
// what was acknowledged is never lost, porcupine finds the history of who held what
// and of what operators asked and read linearizable (see history), and once all
// faults are over every group is held again soon.
//
// A seed gives the same faults and commands each time, but not the same order of
// goroutines: run a failing seed a few times (-count).
func TestSim(t *testing.T) {
	campaignOf(t, false)
}

// campaignOf is TestSim of two nodes and no third vote, or of clusters of more.
func campaignOf(t *testing.T, two bool) {
	c := &campaign{t: t, first: *simFrom, n: *simSeeds, two: two, total: newTally(), begin: time.Now()}
	if testing.Short() {
		c.n = min(c.n, 8)
	}
	if *simSeed > 0 {
		c.first, c.n = *simSeed, 1
	}
	c.run()
	fmt.Fprint(os.Stderr, c.summary())
	c.checkUseful()
}

type simRun struct {
	seed   uint64
	two    bool
	tally  *tally
	healed time.Duration
	hist   *history
	length time.Duration // in virtual time, up to the last fault
}

func (s *simRun) run(t *testing.T) {
	rng := rand.New(rand.NewPCG(s.seed, 1))
	names := []string{"primary", "secondary", "arbiter", "third", "fourth", "fifth", "sixth"}[:[]int{3, 3, 3, 3, 3, 4, 4, 5, 5, 7}[rng.IntN(10)]]
	if s.two {
		names = []string{"primary", "secondary"}
	}
	grows := !s.two && rng.IntN(3) == 0
	var owners []string
	for _, n := range names {
		if n != "arbiter" {
			owners = append(owners, n)
		}
	}
	x := rng.Float64()
	length := 8*time.Second + span(rng, 0, time.Duration(x*x*float64(32*time.Second)))
	faults := schedule(rng, length)
	if grows {
		names = append(slices.Clip(names), newcomer)
	}
	l := newLabOf(t, spec.Profiles["fast"], s.seed, names, variant(rng, owners))
	if grows {
		l.hosts[newcomer].joins = true
	}
	if l.servers = *simServers; l.servers == 0 && s.seed%4 == 0 && !s.two {
		l.servers = 3 + int(s.seed/4%2)
	}
	s.hist, s.length = l.hist, length
	for _, n := range names {
		l.hosts[n].clk.setRates(0.95+0.1*rng.Float64(), 0.95+0.1*rng.Float64())
	}
	defer s.report(t, l, faults)
	defer l.close()
	for _, n := range names {
		if l.hosts[n].joins {
			continue
		}
		l.hosts[n].start()
		time.Sleep(span(rng, 0, 200*time.Millisecond))
	}
	c := &chaos{lab: l, tally: s.tally, ended: make(chan struct{}), lost: map[string]bool{}}
	o := &operator{lab: l, tally: s.tally, rng: rand.New(rand.NewPCG(s.seed, 2))}
	var busy sync.WaitGroup
	busy.Go(func() { o.work(c.ended) })
	busy.Go(func() { o.readOn(rand.New(rand.NewPCG(s.seed, 3)), c.ended) })
	busy.Go(func() { s.supervise(l, c.ended) })
	busy.Go(func() { c.rotateKey(rand.New(rand.NewPCG(s.seed, 5)), length) })
	if s.two {
		busy.Go(func() { s.confirmOff(l, rand.New(rand.NewPCG(s.seed, 4)), c.ended) })
	}
	if l.servers > 0 {
		busy.Go(func() { s.cutStreams(l, rand.New(rand.NewPCG(s.seed, 5)), c.ended) })
	}
	time.AfterFunc(length, func() { close(c.ended) })
	c.run(faults)
	<-c.ended
	busy.Wait()
	if len(l.violations()) == 0 {
		s.heal(l, o)
	}
	for _, cause := range []string{"failover", "failback", "switchover", "standby", "start"} {
		n := l.ledger.count("assigned", cause)
		s.tally.add("assignments: "+cause, n, n)
	}
	if !s.two {
		n := len(l.plain())
		s.tally.add("nodes that are no servers in the end", n, n)
	}
	n := l.ledger.count("fenced", "")
	s.tally.add("fences", n, n)
}

// cutStreams takes a host's streams away now and then, and leaves it its beats: it lives, and
// hears no news.
func (s *simRun) cutStreams(l *lab, rng *rand.Rand, stop <-chan struct{}) {
	wait := func(least, most time.Duration) bool {
		select {
		case <-stop:
			return false
		case <-time.After(span(rng, least, most)):
			return true
		}
	}
	for wait(500*time.Millisecond, 4*time.Second) {
		name := l.nodes[rng.IntN(len(l.nodes))].Name
		took := 0
		if l.follows(name) != "" {
			took = 1
		}
		l.note("streams cut: %s", name)
		l.net.CutStreams(name, true)
		wait(100*time.Millisecond, 8*time.Second)
		l.net.CutStreams(name, false)
		s.tally.add("streams cut of a node that follows", 1, took)
	}
}

// supervise starts agents again that ended by themselves, as systemd would.
func (s *simRun) supervise(l *lab, stop <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		s.revive(l)
	}
}

func (s *simRun) revive(l *lab) {
	for _, n := range l.nodes {
		h := l.hosts[n.Name]
		if !h.take() {
			continue
		}
		if h.selfEnded() {
			if h.endedMembership() {
				// Somebody starts it again by accident. Its data directory was set aside.
				s.tally.add("  and the node was gone", 1, 1)
				h.loseDisk()
			} else {
				s.tally.add("agents that ended by themselves", 1, 1)
			}
			if h.outside() {
				h.rest()
			} else {
				h.start()
			}
		}
		h.give()
	}
}

func (h *host) selfEnded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wanted && h.life.dead()
}

// endedMembership: the newest agent ended because its node left.
func (h *host) endedMembership() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.agent.removed:
		return true
	default:
		return false
	}
}

// heal ends all faults and waits until all is well.
func (s *simRun) heal(l *lab, o *operator) {
	l.net.Heal()
	l.note("all faults are over")
	for _, n := range l.nodes {
		h := l.hosts[n.Name]
		h.steer <- struct{}{}
		if !h.up() && !h.outside() {
			h.start()
		}
		h.give()
	}
	begin := time.Now()
	why := "maintenance or standby cannot be ended"
	if s.two { // whom nobody but an operator can help, before commands are asked of them
		l.within(healWithin/2, func() bool {
			s.revive(l)
			s.lookAt(l, l.order[0], l.order[1])
			s.lookAt(l, l.order[1], l.order[0])
			return l.leader() != ""
		})
	}
	ok := o.calm(healWithin)
	if ok {
		_, ok = l.within(healWithin-time.Since(begin), func() bool {
			s.revive(l)
			if s.two {
				s.lookAt(l, l.order[0], l.order[1])
				s.lookAt(l, l.order[1], l.order[0])
			}
			why = l.unwell(o.done)
			return why == "" || len(l.violations()) > 0
		})
	}
	s.healed = time.Since(begin)
	for _, h := range l.order {
		if a, _ := h.running(); a != nil && ok {
			o.read(a)
		}
	}
	if !ok {
		l.fail("liveness: %v after the last fault: %s\n%s", healWithin, why, l.dump())
	}
}

// unwell says what is not as it should be when nothing is wrong: "" = all is well.
func (l *lab) unwell(done uint64) string {
	var newest, first *fsm.State
	l.view(func(s *fsm.State) { newest = s.Clone() })
	if newest == nil || !newest.Founded() {
		return "nobody has a cluster"
	}
	for _, n := range l.nodes {
		x := newest.Nodes[n.Name]
		if l.hosts[n.Name].outside() {
			continue // not a member, or one that never heard that it is
		}
		if x.Leaving && !x.Removed {
			return n.Name + " is still leaving"
		}
		if x.Removed {
			continue
		}
		a, _ := l.hosts[n.Name].running()
		if a == nil {
			return n.Name + " does not run"
		}
		st := a.machine.Copy()
		switch {
		case first == nil:
			first = st
		case st.Index != first.Index:
			return fmt.Sprintf("%s is at index %d, another at %d", n.Name, st.Index, first.Index)
		case digestOf(st) != digestOf(first):
			l.fail("copies of the state differ at index %d: %s and %s", st.Index, digestOf(st), digestOf(first))
		}
		if n := a.node.Load(); n == nil {
			return a.cfg.Name + " is not in raft"
		}
		a.grant.Lock()
		ready := a.grant.IsReady()
		a.grant.Unlock()
		if !ready {
			return n.Name + " is not ready as a voter"
		}
	}
	if _, last := l.ledger.position(); first.Index < max(last, done) {
		return fmt.Sprintf("entries up to %d were applied once, but all are at %d", last, first.Index)
	}
	if first.Rotation != nil {
		return fmt.Sprintf("the key is still being changed: %+v", first.Rotation)
	}
	active := map[string]bool{}
	for _, name := range first.NodeNames() {
		if l.hosts[name].outside() {
			continue
		}
		have := l.hosts[name].keysOf()
		active[have[0]] = true
		// A key that is to be next goes to the leader's disk before the change begins. If it
		// never does, that key waits there for the next change.
		if len(have) > 2 || slices.ContainsFunc(have, first.IsRetired) {
			return fmt.Sprintf("%s has the keys %q, of which %+v are over", name, have, first.Retired)
		}
	}
	if len(active) != 1 {
		return fmt.Sprintf("not one active key on all nodes: %q", slices.Sorted(maps.Keys(active)))
	}
	used := map[string]bool{}
	for _, name := range first.GroupNames() {
		g := first.Groups[name]
		n := first.Nodes[g.Owner.Name]
		if n == nil || !n.Registered() || n.Role != spec.RoleNode || n.Standby || g.Owner.Inc != n.Inc || !g.Started {
			return fmt.Sprintf("%s belongs to %v, started %v", name, g.Owner, g.Started)
		}
		for _, r := range g.Spec.Resources {
			used[r.Address()] = true
			if by := l.answers(r.Address()); !slices.Equal(by, []string{n.Name}) {
				return fmt.Sprintf("%s of %s answers on %v, its owner is %s", r.Address(), name, by, n.Name)
			}
		}
	}
	for _, a := range l.vips {
		if by := l.answering(a); !used[a.String()] && len(by) > 0 {
			return fmt.Sprintf("%v belongs to no group, but answers on %v", a, by)
		}
	}
	for _, n := range l.nodes {
		if h := l.hosts[n.Name]; !h.outside() && len(h.kernel.Expected()) > 0 {
			return fmt.Sprintf("%s expects %v, which nobody brings", n.Name, h.kernel.Expected())
		}
	}
	return ""
}

// report keeps what is needed to find out why a run failed.
func (s *simRun) report(t *testing.T, l *lab, faults []fault) {
	if !t.Failed() {
		return
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("hanode-sim-%d.log", s.seed))
	l.log.mu.Lock()
	defer l.log.mu.Unlock()
	if err := os.WriteFile(path, l.log.buf.Bytes(), 0o600); err != nil {
		t.Log(err)
	}
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "  %v\n", f)
	}
	t.Logf("seed %d\nlog: %s\n%s", s.seed, path, b.String())
}
