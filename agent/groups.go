package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
	"hanode/resource"
	"hanode/vip"
)

// groups are this node's workers, one per group.
type groups struct {
	mu sync.Mutex
	m  map[string]*worker
}

func (g *groups) init() { g.m = map[string]*worker{} }

// worker makes one group what Wanted says. One goroutine; the fields behind mu
// are read by others.
type worker struct {
	a    *Agent
	name string
	wake chan struct{}
	// hooks are due, oldest first.
	hooks chan hook
	res   *resource.Group
	warm  *warm

	mu      sync.Mutex
	rec     fsm.Record
	running id.Epoch // at which it runs here, whole or in part; 0 = not
	started bool     // every resource runs
	problem string   // why it could not start or stop
	stuckAt id.Epoch // at which it did not stop, and the cluster was told
	since   time.Time
	closed  clock.Instant // when its guard was last closed
	opened  clock.Instant // when its first address was last announced; zero = not since the start
	ready   clock.Instant // when all of it ran; zero = not since the start
	broken  error         // a resource failed for good; the loop gives the group up
	adopted uint64        // the newest permission to adopt that was used

	blockedAt id.Epoch // at which it did not start because it is blocked, and that was told; only the loop touches it

	expected   []vip.Address // what the host was told to expect; only the loop touches it
	expectedAt id.Epoch      // at which it was told; 0 = nothing is expected

	checked uint64 // revision of the spec whose checks are made; only the loop touches it
	unwatch func() // ends the monitors and waits for them; only the loop touches it
}

func (g *groups) record(a *Agent, r fsm.Record) {
	g.mu.Lock()
	w := g.m[r.Group]
	if w == nil {
		w = &worker{a: a, name: r.Group, wake: make(chan struct{}, 1), hooks: make(chan hook, maxHooks), res: a.services.NewGroup()}
		w.warm = &warm{w: w, res: a.services.NewGroup(), wake: make(chan struct{}, 1)}
		w.res.Admit, w.warm.res.Admit = w.admit, w.admit
		g.m[r.Group] = w
		a.goLoop(w.warm.run)
		a.goLoop(w.run)
		a.goLoop(w.runHooks)
	}
	g.mu.Unlock()
	w.mu.Lock()
	if r.Epoch > w.rec.Epoch || r.Epoch == w.rec.Epoch && r.Revision >= w.rec.Revision && len(r.Waits) <= len(w.rec.Waits) || w.rec.Group == "" {
		w.rec = r
	}
	w.mu.Unlock()
	signal(w.wake)
}

func (g *groups) wakeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.m {
		signal(w.wake)
		signal(w.warm.wake)
	}
}

// wakeThese wakes the named groups.
func (g *groups) wakeThese(names ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		if w := g.m[name]; w != nil {
			signal(w.wake)
		}
	}
}

// wakeRunning wakes the groups that run here, whole or in part.
func (g *groups) wakeRunning() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.m {
		if w.here() {
			signal(w.wake)
		}
	}
}

// wakeWarm wakes what runs beside the owners of the named groups, or of all.
func (g *groups) wakeWarm(all bool, names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if all {
		names = slices.Collect(maps.Keys(g.m))
	}
	for _, name := range names {
		if w := g.m[name]; w != nil {
			signal(w.warm.wake)
		}
	}
}

func (g *groups) get(name string) *worker {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.m[name]
}

// names lists the groups this node knows.
func (g *groups) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.m))
}

// here reports whether the group runs on this node, whole or in part.
func (w *worker) here() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running != 0
}

func (w *worker) isStarted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started
}

// running counts groups that run here, whole or in part.
func (g *groups) running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, w := range g.m {
		w.mu.Lock()
		if w.running != 0 {
			n++
		}
		w.mu.Unlock()
	}
	return n
}

// idle reports whether nothing runs here, not even beside its owner.
func (g *groups) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.m {
		if w.here() || !w.warm.idle() {
			return false
		}
	}
	return true
}

// waitIdle returns when nothing runs here, or after limit.
func (g *groups) waitIdle(limit time.Duration) {
	for end := time.Now().Add(limit); !g.idle() && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond) // a stop: rare, bounded, nobody waits for a signal of it
	}
}

// touched are groups whose records changed. Safe for concurrent use.
type touched struct {
	mu    sync.Mutex
	all   bool
	names map[string]bool
}

func (t *touched) add(c fsm.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = t.all || c.All
	for _, name := range c.Groups {
		if t.names == nil {
			t.names = map[string]bool{}
		}
		t.names[name] = true
	}
}

// take returns what was added since the last time.
func (t *touched) take() (all bool, names map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, names = t.all, t.names
	t.all, t.names = false, nil
	return all, names
}

// groupsLoop feeds the workers from replicated state, level-triggered: what changed at
// once, and all of it each second.
func (a *Agent) groupsLoop(ctx context.Context) {
	tick := a.grid.Ticker(time.Second)
	defer tick.Stop()
	w := wanted{a: a}
	full := true
	for {
		a.turn(loopGroups)
		all, names := a.touched.take()
		news := w.look(full)
		for _, r := range a.records(full || all, names) {
			a.adopt(r)
		}
		a.groups.wakeWarm(news, w.warm) // it depends on the nodes, too
		full = false
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-tick.C:
			tick.Next()
			full = true
			a.sendOwed("")
			a.forgetTokens()
		}
	}
}

// records are those of the named groups, or of all.
func (a *Agent) records(all bool, names map[string]bool) (out []fsm.Record) {
	a.machine.View(func(s *fsm.State) {
		if all {
			for _, g := range s.Groups {
				out = append(out, g.Record())
			}
			return
		}
		for name := range names {
			if g := s.Groups[name]; g != nil {
				out = append(out, g.Record())
			}
		}
	})
	return out
}

// wanted is what the host is told of all groups together: it changes with the wanted
// set only. One goroutine.
type wanted struct {
	a        *Agent
	known    bool
	revision uint64 // of the wanted set that the host was told of
	addrs    []spec.Resource
	units    []spec.Resource
	warm     []string  // groups of which something runs beside their owner
	again    time.Time // when the guard is told anew, changed or not
}

// prepareEvery is how often the guard is told which addresses there are although
// nothing changed: what it could not forget then, it may forget now. What failed is
// tried again each second.
const prepareEvery = 10 * time.Second

// look tells the host what there is to tell, and reports whether the wanted set changed.
func (w *wanted) look(full bool) (news bool) {
	a := w.a
	a.machine.View(func(s *fsm.State) {
		news = !w.known || s.Revision != w.revision
		if !news {
			return
		}
		w.known, w.revision, w.addrs, w.units, w.warm = true, s.Revision, nil, nil, nil
		for name, g := range s.Groups {
			if len(g.Spec.Warm()) > 0 {
				w.warm = append(w.warm, name)
			}
			for _, r := range g.Spec.Resources {
				switch r.Type {
				case "ip":
					w.addrs = append(w.addrs, r)
				case "systemd":
					w.units = append(w.units, r)
				}
			}
		}
	})
	if news {
		signal(a.fit.wake)
	}
	if news || full && !time.Now().Before(w.again) {
		w.again = time.Now().Add(prepareEvery)
		if !a.prepare(w.addrs) {
			w.again = time.Time{}
		}
	}
	a.arrange(w.units)
	return news
}

// forgetTokens drops tokens of claims that were settled long ago.
func (a *Agent) forgetTokens() {
	epochs := map[string]id.Epoch{}
	a.machine.View(func(s *fsm.State) {
		for name, g := range s.Groups {
			epochs[name] = g.Epoch
		}
	})
	a.hold.Lock()
	defer a.hold.Unlock()
	maps.DeleteFunc(a.hold.tokens, func(c id.Claim, _ tokenAt) bool { return c.Epoch+16 < epochs[c.Group] })
}

// sendOwed sends every token of group, or of all with "", that somebody waits for, to the
// next owner and to the leader; again and again, until the record is cleared. While nobody
// is known to lead, each voter gets them: one of them will, and keeps what it was told.
func (a *Agent) sendOwed(group string) {
	now := a.host.Clock.Now()
	a.hold.Lock()
	var owed []lease.Owed
	if a.hold.holder != nil {
		owed = a.hold.holder.Owed()
	}
	a.hold.Unlock()
	if group != "" {
		owed = slices.DeleteFunc(owed, func(o lease.Owed) bool { return o.Group != group })
	}
	if len(owed) == 0 {
		return
	}
	leaders := a.voters()
	if n := a.node.Load(); n != nil {
		if leader, _ := a.leader(n); leader != "" {
			leaders = []string{leader}
		}
	}
	for _, o := range owed {
		t := lease.Token{Claim: o.Claim}
		if w := a.groups.get(o.Group); w != nil {
			w.mu.Lock()
			if !w.closed.IsZero() {
				t.Ago = now.Elapsed(w.closed)
			}
			w.mu.Unlock()
		}
		var to []string
		for _, name := range append([]string{o.To.Name}, leaders...) {
			if name != "" && !slices.Contains(to, name) {
				to = append(to, name)
			}
		}
		a.gossip.Send(t.Append(nil), to...)
	}
}

func sleepCtx(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
