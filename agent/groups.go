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

	checked uint64 // revision of the spec whose checks are made; only the loop touches it
	unwatch func() // ends the monitors and waits for them; only the loop touches it
}

func (g *groups) record(a *Agent, r fsm.Record) {
	g.mu.Lock()
	w := g.m[r.Group]
	if w == nil {
		w = &worker{a: a, name: r.Group, wake: make(chan struct{}, 1), hooks: make(chan hook, maxHooks), res: a.services.NewGroup()}
		w.warm = &warm{w: w, res: a.services.NewGroup(), wake: make(chan struct{}, 1)}
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
	signal(w.warm.wake)
}

func (g *groups) wakeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.m {
		signal(w.wake)
		signal(w.warm.wake)
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

// groupsLoop feeds the workers from replicated state, level-triggered.
func (a *Agent) groupsLoop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	revision := uint64(0)
	for {
		var recs []fsm.Record
		var all, units []spec.Resource
		a.turn(loopGroups)
		a.machine.View(func(s *fsm.State) {
			if s.Revision != revision {
				revision = s.Revision
				signal(a.fit.wake)
			}
			for _, g := range s.Groups {
				recs = append(recs, g.Record())
				for _, r := range g.Spec.Resources {
					switch r.Type {
					case "ip":
						all = append(all, r)
					case "systemd":
						units = append(units, r)
					}
				}
			}
		})
		a.prepare(all)
		a.arrange(units)
		for _, r := range recs {
			a.adopt(r)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-tick.C:
			a.sendOwed()
			a.forgetTokens()
		}
	}
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

// sendOwed sends every token that somebody waits for, to the next owner and to
// the leader; again and again, until the record is cleared. While nobody is known to
// lead, each voter gets them: one of them will, and keeps what it was told.
func (a *Agent) sendOwed() {
	now := a.host.Clock.Now()
	a.hold.Lock()
	var owed []lease.Owed
	if a.hold.holder != nil {
		owed = a.hold.holder.Owed()
	}
	a.hold.Unlock()
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
