package robustness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/internal/spec"
	"hanode/test/livelab"
)

// run is one fault on a running cluster, and its judgement.
type run struct {
	*world
	job    job
	draw   *draw
	target *livelab.Node   // what a fault of one node is about; nil = a fault of more
	broken map[string]bool // nodes that a fault is on now
	begun  time.Time
	out    outcome
	proofs int
	owners []ownership // the history at the end
}

// heldWithin is how long after healing every group must be held again.
const heldWithin = 5 * time.Second

// settleWithin is how long the cluster may take until all is as it was.
const settleWithin = 40 * time.Second

// calm is how long the observers look before a fault and after the last thing.
const calm = 100 * time.Millisecond

// do runs the job on w. A false second result means that the cluster is of no use
// any more.
func (j job) do(w *world, long bool) (outcome, bool) {
	rng := rand.New(rand.NewPCG(j.seed, 0))
	x := &run{
		world: w, job: j, begun: time.Now(), broken: map[string]bool{},
		draw: &draw{Rand: rng, timing: spec.Profiles[*flagProfile], long: long},
		out:  outcome{row: j.name, took: true},
	}
	if j.needs != nil {
		if x.out.skipped = x.cannot(*j.needs); x.out.skipped != "" {
			return x.out, true
		}
	}
	w.line = timeline{}
	w.line.now("check", "%s on %s, seed %d", j.name, w.shape, j.seed)
	if err := x.fire(); err != nil {
		x.fail(nil, "%v", err)
	}
	x.judge()
	usable := true
	if err := w.Settled(settleWithin); err != nil {
		x.fail(nil, "after the fault: %v", err)
		usable = false
	}
	x.leftovers()
	x.histories()
	x.wire()
	if x.proofs == 0 {
		x.out.took = false
	}
	if len(x.out.violations) > 0 || *flagKeep {
		x.keep()
	}
	return x.out, usable
}

// fire watches, gives commands, and lets the fault happen.
func (x *run) fire() error {
	kind := traffics[x.draw.IntN(len(traffics))]
	if err := x.resolve(); err != nil {
		x.out.took = false
		x.line.now("check", "%v", err)
	}
	if err := x.watch(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Second); len(x.unheld()) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	busy := ""
	if x.target != nil {
		busy = x.target.Node
	}
	x.line.now("operator", "traffic: %s", kind)
	op := x.operate(rand.New(rand.NewPCG(x.job.seed, 1)), kind, busy)
	x.wait(calm + x.draw.between(0, calm))
	for _, o := range x.watchers {
		o.Mark("fault")
	}
	err := x.job.fault(x)
	healed := time.Now()
	x.line.now("fault", "all is healed")
	x.held(healed)
	op.end()
	return err
}

// resolve finds the target that the job asks for.
func (x *run) resolve() error {
	var last string
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		leader := x.leader()
		if leader == nil {
			last = "there is no leader"
			continue
		}
		switch x.job.role {
		case "":
			return nil
		case roleLeader:
			x.target = leader
			if x.shape == threeNodes || leader.Node == "arbiter" {
				return nil
			}
			last = "the leader still owns something"
		case roleOwner:
			x.target = x.Get("primary")
			if x.target != leader {
				return nil
			}
			last = "the owner leads"
		case roleFollower:
			x.target = x.Get("secondary")
			if x.target != leader {
				return nil
			}
			last = "secondary leads"
		case roleWitness:
			x.target = x.Get("arbiter")
			return nil
		}
	}
	if x.target == nil {
		x.target = x.Nodes[0]
	}
	return fmt.Errorf("no target as asked for (%s): %s", x.job.role, last)
}

// held waits until every group is held, and counts those that are not in time.
func (x *run) held(healed time.Time) {
	var missing []string
	for {
		x.revive()
		if missing = x.unheld(); len(missing) == 0 {
			x.line.now("check", "every group is held %.0f ms after healing", ms(time.Since(healed)))
			return
		}
		if time.Since(healed) > heldWithin {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, g := range missing {
		x.fail(&x.out.unheld, "nobody holds %s %v after healing", g, heldWithin)
	}
}

// revive starts agents that ended: those that may, because their disk hung, and
// those that must not, which is a violation.
func (x *run) revive() {
	for _, n := range x.Nodes {
		if !n.On() || x.is(x.down, n) {
			continue
		}
		select {
		case <-n.Agent().Done:
		default:
			continue
		}
		if x.is(x.mayExit, n) {
			x.line.now("check", "%s's agent ended itself because its disk hung: %v", n.Node, n.Agent().Wait())
		} else {
			x.fail(nil, "%s's agent ended by itself: %v", n.Node, n.Agent().Wait())
		}
		if err := x.start(n); err != nil {
			x.fail(nil, "start %s again: %v", n.Node, err)
		}
	}
}

// judge looks at what the commands left, while all else settles.
func (x *run) judge() {
	x.revive()
	acks, lost := x.kept(x.Nodes)
	x.out.acked += acks
	for _, l := range lost {
		x.fail(&x.out.lost, "%s", l)
	}
	if err := x.tidy(settleWithin); err != nil {
		x.fail(nil, "%v", err)
	}
	x.revive()
}

// leftovers looks for addresses on hosts that do not own them.
func (x *run) leftovers() {
	var left []string
	for end := time.Now().Add(time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = x.strays(); len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			x.fail(nil, "addresses are where they must not be: %s", strings.Join(left, "; "))
			break
		}
	}
	for _, n := range x.Nodes {
		x.set(x.mayExit, n, false)
	}
}

func (x *run) strays() []string {
	s, err := x.status(x.Nodes[0])
	if err != nil {
		return []string{err.Error()}
	}
	owner := map[string]string{}
	for _, g := range s.Groups {
		owner[g.Name] = *orElse(g.Owner, new(string))
	}
	var left []string
	for _, n := range x.Nodes {
		addrs, err := n.Addrs("eth1")
		if err != nil {
			return []string{err.Error()}
		}
		for group, vip := range vips {
			has := false
			for _, a := range addrs {
				has = has || a.Addr() == vip
			}
			if has != (owner[group] == n.Node) {
				left = append(left, fmt.Sprintf("%s owns %s (%s) = %v, its kernel has it = %v", n.Node, group, vip, owner[group] == n.Node, has))
			}
		}
	}
	return left
}

func orElse[T any](p, q *T) *T {
	if p != nil {
		return p
	}
	return q
}

// histories checks each node's events and logs, and acknowledged moves against
// them.
func (x *run) histories() {
	x.owners = nil
	told := map[string][]ownership{}
	for _, n := range x.Nodes {
		list, err := x.history(n)
		for end := time.Now().Add(heldWithin); err != nil && time.Now().Before(end); list, err = x.history(n) {
			time.Sleep(20 * time.Millisecond) // without a leader it does not tell
		}
		if err != nil {
			x.fail(nil, "%s does not tell its events: %v", n.Node, err)
			continue
		}
		told[n.Node] = list
		x.owners = list // all tell the same, or it is a violation
		for _, bad := range rising(list) {
			x.fail(nil, "%s: %s", n.Node, bad)
		}
		for _, bad := range differ(x.Nodes[0].Node, n.Node, told[x.Nodes[0].Node], list) {
			x.fail(nil, "%s", bad)
		}
		log := tail(n.LogFile(), x.read[n.Node])
		x.read[n.Node] += int64(len(log))
		for _, bad := range x.took.read(n.Node, log) {
			x.fail(nil, "%s", bad)
		}
	}
	x.moved()
}

// moved looks for every acknowledged move in every node's history. A node may learn of
// it a little later than its operator did.
func (x *run) moved() {
	x.wanted.mu.Lock()
	moves := x.wanted.moves
	x.wanted.moves = nil
	x.wanted.mu.Unlock()
	x.out.acked += len(moves)
	var lost []string
	for end := time.Now().Add(heldWithin); ; time.Sleep(20 * time.Millisecond) {
		if lost = x.missing(moves); len(lost) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	for _, l := range lost {
		x.fail(&x.out.lost, "%s", l)
	}
}

// missing lists the moves that a node's history lacks.
func (x *run) missing(moves []api.MoveResult) []string {
	var lost []string
	for _, n := range x.Nodes {
		list, err := x.history(n)
		if err != nil {
			return []string{fmt.Sprintf("%s does not tell its events: %v", n.Node, err)}
		}
		for _, m := range moves {
			there := slices.ContainsFunc(list, func(o ownership) bool {
				return o.group == m.Group && o.epoch == m.Epoch && o.node == m.To
			})
			if !there && oldestEpoch(list, m.Group) <= m.Epoch {
				lost = append(lost, fmt.Sprintf("move of %s to %s at epoch %d was acknowledged, and %s has no such event",
					m.Group, m.To, m.Epoch, n.Node))
			}
		}
	}
	return lost
}

// oldestEpoch of a group that the history still has; 0 = it has none.
func oldestEpoch(list []ownership, group string) uint64 {
	i := slices.IndexFunc(list, func(o ownership) bool { return o.group == group })
	if i < 0 {
		return 0
	}
	return list[i].epoch
}

func (x *run) history(n *livelab.Node) ([]ownership, error) {
	ctx, cancel := withTimeout(5 * time.Second)
	defer cancel()
	c := n.API()
	defer c.Close()
	var list []ownership
	err := c.Events(ctx, 0, false, func(e api.Event) error {
		if e.Kind == "assigned" && e.Group != nil && e.Epoch != nil && e.Node != nil {
			list = append(list, ownership{e.Index, *e.Epoch, *e.Group, *e.Node, e.Time.UnixNano()})
		}
		return nil
	})
	return list, err
}

// wire reads the observers' reports.
func (x *run) wire() {
	for group, r := range x.unwatch() {
		overlaps := slices.DeleteFunc(r.Overlaps, func(o watch.Overlap) bool {
			return !o.SameRequest && twoMoves(x.owners, group, x.name(o.First), x.name(o.Second), o.At)
		})
		for i, o := range overlaps {
			x.line.add(o.At, "wire", "%s: TWO HOLDERS, %s and %s, %v apart, same request %v",
				group, x.name(o.First), x.name(o.Second), o.Apart, o.SameRequest)
			if i < 5 {
				x.fail(nil, "two hosts answered for %s: %s and %s", group, x.name(o.First), x.name(o.Second))
			}
		}
		x.out.twoHolders += len(overlaps)
		if r.Lost > 0 {
			x.out.incomplete = fmt.Sprintf("the observer of %s lost %d answers", group, r.Lost)
		}
		if group == "tag" {
			continue // the operator moves it all the time
		}
		p := r.UDP.Phase("fault")
		x.line.now("wire", "%s: longest silence %.1f ms by UDP, %.1f ms by ARP or UDP; longest pause of the observer %.1f ms",
			group, ms(p.LongestSilence), ms(r.Phase("fault").LongestSilence), ms(p.LongestPause))
		x.out.outage = max(x.out.outage, p.LongestSilence)
	}
}

// proof notes whether the fault took hold.
func (x *run) proof(ok bool, format string, args ...any) {
	word := "proof"
	if !ok {
		word = "NO PROOF"
		x.out.took = false
	}
	x.proofs++
	x.line.now("fault", "%s: %s", word, fmt.Sprintf(format, args...))
}

// fail notes a violation, and counts it if it has a counter.
func (x *run) fail(count *int, format string, args ...any) {
	if count != nil {
		*count++
	}
	text := fmt.Sprintf(format, args...)
	x.out.violations = append(x.out.violations, text)
	x.line.now("check", "VIOLATION: %s", text)
}

func (x *run) wait(d time.Duration) { time.Sleep(d) }

// cannot says why this machine does not have what a breakage needs, or "".
func (x *run) cannot(b breakage) string {
	if b.root && !netlab.Privileged() {
		return "it takes root, not a user namespace"
	}
	return ""
}

// keep writes logs and the merged timeline to a folder.
func (x *run) keep() {
	dir := filepath.Join(keepDir(), fmt.Sprintf("%s-%d", slug(x.job.name), x.job.k))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		x.out.violations = append(x.out.violations, err.Error())
		return
	}
	lists := [][]entry{x.line.copy()}
	for _, n := range x.Nodes {
		lists = append(lists, agentEntries(n.Node, tail(n.LogFile(), 0)))
	}
	f, err := os.Create(filepath.Join(dir, "timeline"))
	if err == nil {
		fmt.Fprintf(f, "%s on %s\n%s\n", x.job.name, x.shape, x.job.again())
		for _, v := range x.out.violations {
			fmt.Fprintf(f, "VIOLATION: %s\n", v)
		}
		write(f, merge(lists...), x.begun.Add(-time.Second), x.begun)
		err = f.Close()
	}
	if err == nil {
		err = x.logs(dir)
	}
	if err != nil {
		x.out.violations = append(x.out.violations, err.Error())
	}
	if len(x.out.violations) > 0 {
		x.out.violations = append(x.out.violations, "timeline and logs: "+dir, "again: "+x.job.again())
	}
}

func keepDir() string {
	if *flagDir != "" {
		return *flagDir
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("hanode-robust-seed-%d", *flagSeed))
}

// slug makes a name fit for a folder.
func slug(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}), "-")
}
