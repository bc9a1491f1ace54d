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
	"testing/synctest"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

var (
	simSeeds = flag.Int("sim.seeds", 100, "how many fault schedules TestSim runs")
	simSeed  = flag.Uint64("sim.seed", 0, "run only this fault schedule; 0 = all")
	simLog   = flag.Bool("sim.log", false, "log every node of a lab to standard error")
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
//	I5 nobody answers while a wait is unsatisfied
//
// and beside them: all copies of the replicated state are equal entry by entry,
// what was acknowledged is never lost, and once all faults are over every group is
// held again soon. I4 (a registration that a majority called expired never gets a
// lease again) cannot be seen from outside a voter; package lease checks it.
//
// A seed gives the same faults and commands each time, but not the same order of
// goroutines: run a failing seed a few times (-count).
func TestSim(t *testing.T) {
	total := newTally()
	var heals []time.Duration
	var mu sync.Mutex
	one := func(t *testing.T, seed uint64) {
		s := &simRun{seed: seed, tally: newTally()}
		synctest.Test(t, s.run)
		total.merge(s.tally)
		mu.Lock()
		defer mu.Unlock()
		heals = append(heals, s.healed)
	}
	begin := time.Now()
	t.Run("schedules", func(t *testing.T) {
		if *simSeed > 0 {
			one(t, *simSeed)
			return
		}
		n := *simSeeds
		if testing.Short() {
			n = min(n, 20)
		}
		for seed := range uint64(n) {
			t.Run(fmt.Sprint(seed+1), func(t *testing.T) {
				t.Parallel()
				one(t, seed+1)
			})
		}
	})
	if len(heals) == 0 {
		return
	}
	slices.Sort(heals)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(total.rows)) {
		fmt.Fprintf(&b, "  %-28s %6d fired %6d took hold\n", k, total.rows[k].fired, total.rows[k].took)
	}
	t.Logf("%d schedules in %v; whole again after all faults: median %v, longest %v\n%s",
		len(heals), time.Since(begin).Round(time.Second), heals[len(heals)/2], heals[len(heals)-1], b.String())
}

type simRun struct {
	seed   uint64
	tally  *tally
	healed time.Duration
}

func (s *simRun) run(t *testing.T) {
	rng := rand.New(rand.NewPCG(s.seed, 1))
	names := []string{"primary", "secondary", "arbiter", "third", "fourth"}[:[]int{3, 3, 3, 4, 5}[rng.IntN(5)]]
	var owners []string
	for _, n := range names {
		if n != "arbiter" {
			owners = append(owners, n)
		}
	}
	length := 20*time.Second + span(rng, 0, time.Duration(rng.Float64()*float64(20*time.Second)))
	faults := schedule(rng, length)
	l := newLabOf(t, spec.Profiles["fast"], s.seed, names, variant(rng, owners))
	for _, n := range names {
		l.hosts[n].clk.setRates(0.95+0.1*rng.Float64(), 0.95+0.1*rng.Float64())
	}
	defer s.report(t, l, faults)
	defer l.close()
	for _, n := range names {
		l.hosts[n].start()
		time.Sleep(span(rng, 0, 200*time.Millisecond))
	}
	c := &chaos{lab: l, tally: s.tally, ended: make(chan struct{})}
	o := &operator{lab: l, tally: s.tally, rng: rand.New(rand.NewPCG(s.seed, 2))}
	var busy sync.WaitGroup
	busy.Go(func() { o.work(c.ended) })
	busy.Go(func() { s.supervise(l, c.ended) })
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
	n := l.ledger.count("fenced", "")
	s.tally.add("fences", n, n)
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
			s.tally.add("agents that ended by themselves", 1, 1)
			h.start()
		}
		h.give()
	}
}

func (h *host) selfEnded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wanted && h.life.dead()
}

// heal ends all faults and waits until all is well.
func (s *simRun) heal(l *lab, o *operator) {
	l.net.Heal()
	l.note("all faults are over")
	for _, n := range l.nodes {
		h := l.hosts[n.Name]
		h.steer <- struct{}{}
		if !h.up() {
			h.start()
		}
		h.give()
	}
	begin := time.Now()
	why := "maintenance or standby cannot be ended"
	ok := o.calm(healWithin)
	if ok {
		_, ok = l.within(healWithin-time.Since(begin), func() bool {
			s.revive(l)
			why = l.unwell(o.done)
			return why == "" || len(l.violations()) > 0
		})
	}
	s.healed = time.Since(begin)
	if !ok {
		l.fail("liveness: %v after the last fault: %s\n%s", healWithin, why, l.dump())
	}
}

// unwell says what is not as it should be when nothing is wrong: "" = all is well.
func (l *lab) unwell(done uint64) string {
	var first *fsm.State
	for _, n := range l.nodes {
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
	t.Logf("seed %d; again: go test ./agent -run 'TestSim$' -sim.seed=%d -sim.log -count=1\nlog: %s\n%s", s.seed, s.seed, path, b.String())
}
