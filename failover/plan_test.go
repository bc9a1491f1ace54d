package failover

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

var (
	someNodes  = []string{"a", "b", "c", "d"}
	someGroups = []string{"one", "two", "three"}
)

// drawWorld walks to a state that commands can lead to, and makes up what a leader
// may know beside it.
func drawWorld(t *rapid.T) *world {
	w := newWorld()
	w.found("a", "b", "c", "d", "w")
	for _, n := range []string{"a", "b", "c", "d", "w"} {
		if rapid.IntRange(0, 9).Draw(t, "registered") > 0 {
			w.register(n, "host-"+n)
		}
	}
	setGroups(t, w)
	for range rapid.IntRange(0, 12).Draw(t, "steps") {
		step(t, w)
	}
	for _, n := range append([]string{"w"}, someNodes...) {
		h := Health{
			Alive: rapid.IntRange(0, 5).Draw(t, "alive") > 0, Leased: rapid.IntRange(0, 5).Draw(t, "leased") > 0,
			Behind: rapid.IntRange(0, 9).Draw(t, "behind") == 0, Dead: rapid.IntRange(0, 4).Draw(t, "dead") == 0,
			Hung: rapid.IntRange(0, 5).Draw(t, "hung") == 0, Unreached: max(0, rapid.IntRange(-6, 3).Draw(t, "unreached")),
			Regained: rapid.IntRange(0, 5).Draw(t, "regained") == 0,
			Healthy:  time.Duration(rapid.IntRange(0, 10).Draw(t, "healthy")) * time.Minute, Why: "silent",
		}
		w.m.View(func(s *fsm.State) { h.Inc = s.Nodes[n].Inc })
		if rapid.IntRange(0, 9).Draw(t, "other incarnation") == 0 {
			h.Inc++
		}
		w.health[n] = h
	}
	w.m.View(func(s *fsm.State) {
		for _, name := range someGroups {
			g := s.Groups[name]
			if g == nil {
				continue
			}
			for _, c := range g.Waits {
				w.tokens[c.Claim] = rapid.IntRange(0, 2).Draw(t, "token") == 0
			}
			w.tokens[id.Claim{Group: name, Node: g.Owner, Epoch: g.Epoch}] = rapid.IntRange(0, 5).Draw(t, "own token") == 0
		}
	})
	w.formed = rapid.Bool().Draw(t, "formed")
	return w
}

func setGroups(t *rapid.T, w *world) {
	set := &fsm.SetGroups{}
	for i, name := range someGroups {
		if rapid.IntRange(0, 5).Draw(t, "left out") == 0 {
			continue
		}
		g := spec.Group{
			Name:      name,
			Prefer:    rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "w", "gone"}), 0, 3, rapid.ID[string]).Draw(t, "prefer"),
			Failback:  spec.Failback{On: rapid.Bool().Draw(t, "failback"), After: time.Duration(rapid.IntRange(0, 5).Draw(t, "after")) * time.Minute},
			Exclusive: rapid.Bool().Draw(t, "exclusive"),
		}
		if i > 0 { // only about earlier ones: a circle is refused before
			other := func(what string) string {
				if rapid.IntRange(0, 2).Draw(t, what) > 0 {
					return ""
				}
				return rapid.SampledFrom(someGroups[:i]).Draw(t, "other")
			}
			g.With, g.Apart, g.After = other("with"), other("apart"), other("after")
		}
		if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
			g.MaxPerNode = rapid.IntRange(1, 2).Draw(t, "most")
		}
		g.Weight = rapid.IntRange(0, 3).Draw(t, "weight")
		for j := range 2 {
			if rapid.Bool().Draw(t, "address") {
				g.Resources = append(g.Resources, spec.Resource{Type: "ip", Name: fmt.Sprintf("10.0.0.%d", (i+j)%3), Dev: "eth0"})
			}
		}
		set.Groups = append(set.Groups, g)
	}
	w.apply(fsm.Command{At: wall, SetGroups: set})
}

// step applies one command, as an operator, an owner or an earlier plan could.
func step(t *rapid.T, w *world) {
	name, group := rapid.SampledFrom(someNodes).Draw(t, "node"), rapid.SampledFrom(someGroups).Draw(t, "group")
	s := w.m.Copy()
	n, g := s.Nodes[name], s.Groups[group]
	if g == nil {
		g = &fsm.Group{Spec: spec.Group{Name: group}}
	}
	own := id.Claim{Group: group, Node: g.Owner, Epoch: g.Epoch}
	on := rapid.Bool().Draw(t, "on")
	switch rapid.IntRange(0, 13).Draw(t, "what") {
	case 0:
		w.register(name, rapid.SampledFrom([]string{"host-" + name, "clone"}).Draw(t, "host"))
	case 1:
		w.apply(fsm.Command{Standby: &fsm.Standby{Node: name, On: on}})
	case 2:
		w.apply(fsm.Command{Pin: &fsm.Pin{Group: group, On: on}})
	case 3:
		w.apply(fsm.Command{Stopping: &fsm.Stopping{Node: n.Ref()}})
	case 4:
		w.apply(fsm.Command{Leave: &fsm.Leave{Node: name}})
	case 5:
		w.apply(fsm.Command{Takeover: &fsm.Takeover{Fence: n.Ref(), Cause: "failover"}})
	case 6:
		w.apply(fsm.Command{Released: &fsm.Released{Claims: []id.Claim{own}, Failed: rapid.SampledFrom([]string{"", "broken"}).Draw(t, "failed")}})
	case 7:
		w.apply(fsm.Command{Holding: &fsm.Holding{Group: group, Node: g.Owner, Epoch: g.Epoch, Started: true}})
	case 8:
		setGroups(t, w)
	case 9:
		w.clock = w.clock.Add(time.Duration(rapid.IntRange(1, 1000).Draw(t, "later")) * time.Second)
	case 10:
		w.apply(fsm.Command{Clear: &fsm.Clear{Group: group}})
	case 11:
		w.apply(fsm.Command{Failed: &fsm.Failed{Group: group, Node: g.Owner, Epoch: g.Epoch, Why: "broken"}})
	case 12:
		for _, c := range Plan(w.inputs()) {
			w.apply(c)
		}
	default:
		w.apply(fsm.Command{Takeover: &fsm.Takeover{Cause: "switchover", Assigns: []fsm.Assign{{Group: group, Epoch: g.Epoch + 1, To: n.Ref(), Pin: on}}}})
	}
}

// TestPlanHolds checks what must be true of every plan.
func TestPlanHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		in := w.inputs()
		before := in.State.Clone()
		for _, g := range PlacesOf(in).groups {
			all := Candidates(PlacesOf(in), g)
			if best, ok := Best(PlacesOf(in), g); ok != all[0].Eligible || ok && best != all[0] {
				t.Fatalf("%s: the best is %+v (%v) of %+v", g.Spec.Name, best, ok, all)
			}
		}
		plan := Plan(in)
		if again := Plan(in); !cmp.Equal(plan, again) {
			t.Fatalf("equal inputs, other plan:\n%s\n%s", showPlan(plan), showPlan(again))
		}
		if d := cmp.Diff(before, in.State); d != "" {
			t.Fatalf("Plan changed its input: %s", d)
		}
		moved := map[string]bool{}
		for _, c := range plan {
			if !c.At.Equal(wall) {
				t.Fatalf("command without its time: %+v", c)
			}
			if c.Takeover == nil {
				continue
			}
			if f := c.Takeover.Fence; !f.Zero() && !in.Health[f.Name].Dead {
				t.Fatalf("fences %v, which is not dead", f)
			}
			for _, a := range c.Takeover.Assigns {
				if moved[a.Group] {
					t.Fatalf("%s is assigned twice:\n%s", a.Group, showPlan(plan))
				}
				moved[a.Group] = true
				g := before.Groups[a.Group]
				if why := unfit(in, before.Nodes[a.To.Name], g); why != "" || a.To != before.Nodes[a.To.Name].Ref() {
					t.Fatalf("%s goes to %v: %s", a.Group, a.To, why)
				}
				why := content(in, g)
				if c.Takeover.Cause == "rule" || c.Takeover.Cause == "failure" {
					if !ruled(before, g) && !g.GaveUp() {
						t.Fatalf("%s moves for a %s, and no rule is about it", a.Group, c.Takeover.Cause)
					}
					why = ""
				}
				if why != "" {
					t.Fatalf("%s moves to %v for %q, but %s\n%s", a.Group, a.To, c.Takeover.Cause, why, showState(before))
				}
			}
		}
		for _, c := range plan {
			if r := w.apply(c); r.Rejected != "" {
				t.Fatalf("rejected: %s\n%s\n%s", r.Rejected, showPlan(plan), showState(before))
			}
		}
		after := w.inputs()
		if again := Plan(after); len(again) > 0 {
			t.Fatalf("no fixed point:\n%s\nthen\n%s\n%s", showPlan(plan), showPlan(again), showState(after.State))
		}
		for name := range moved {
			keepsWaits(t, in, before.Groups[name], after.State.Groups[name])
			obeys(t, before, after.State, name)
		}
		orphans(t, after)
	})
}

// unfit is ineligible, said once more: why the node cannot serve the group.
func unfit(in Inputs, n *fsm.Node, g *fsm.Group) string {
	h := in.Health[n.Name]
	if n.Role == spec.RoleWitness || n.Removed || n.Leaving || n.Standby || n.Stopped || n.Fenced || n.Inc == 0 {
		return "the operator, or its registration, says no"
	}
	if !h.Alive || !h.Leased || h.Dead || h.Behind || h.Inc != n.Inc || h.Hung && slices.ContainsFunc(g.Spec.Resources, func(r spec.Resource) bool { return r.Type != "ip" }) {
		return "it is not well"
	}
	if g.Failed[n.Name].Count > 0 && in.Avoid[Place{g.Spec.Name, n.Name}] > 0 {
		return "it failed there"
	}
	return ""
}

// content says why the group has no cause to move, or "".
func content(in Inputs, g *fsm.Group) string {
	if in.State.Maintenance {
		return "maintenance is on"
	}
	o := in.State.Nodes[g.Owner.Name]
	if o == nil || o.Ref() != g.Owner || o.Fenced || o.Removed || in.Health[o.Name].Dead {
		return "" // nobody, or nobody any more
	}
	if g.GaveUp() && TooSoon(in, g) > 0 {
		return "it moved a moment ago"
	}
	if g.OwnerReleased || in.Tokens[id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch}] {
		return ""
	}
	if slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return !in.Tokens[w.Claim] }) {
		return "it is on its way already"
	}
	if o.Standby || o.Stopped || o.Leaving || in.Health[o.Name].Unreached > 0 {
		return ""
	}
	if !g.Spec.Failback.On || g.Pinned || !g.Started {
		return "its owner is well and it does not fall back"
	}
	for _, p := range g.Spec.Prefer {
		if p == o.Name {
			break
		}
		if n := in.State.Nodes[p]; n != nil && unfit(in, n, g) == "" && in.Health[p].Healthy >= g.Spec.Failback.After {
			return ""
		}
	}
	return "its owner is well and nobody better is"
}

// ruled: some rule is about the group.
func ruled(s *fsm.State, g *fsm.Group) bool {
	for _, o := range s.Groups {
		if o.Spec.MaxPerNode > 0 || o.Spec.Apart == g.Spec.Name || o.Spec.With == g.Spec.Name {
			return true
		}
	}
	return g.Spec.With != "" || g.Spec.Apart != ""
}

// obeys says the rules once more: the place that a plan gave to a group breaks none,
// with the others where they are then.
func obeys(t *rapid.T, before, now *fsm.State, name string) {
	g := now.Groups[name]
	bad := func(format string, args ...any) {
		t.Fatalf("%s goes to %s, but %s\n%s", name, g.Owner.Name, fmt.Sprintf(format, args...), showState(now))
	}
	is := func(o *fsm.Group) bool { return o != nil && !o.Deleted && !o.Owner.Zero() && !o.OwnerReleased }
	if o := now.Groups[g.Spec.With]; o != nil && !o.Deleted && (!is(o) || o.Owner.Name != g.Owner.Name) {
		bad("%s, which it must be with, is on %s", o.Spec.Name, o.Owner.Name)
	}
	if o := before.Groups[g.Spec.After]; o != nil && !o.Deleted && (!o.Started || now.Groups[g.Spec.After].Epoch != o.Epoch) {
		bad("%s, which it comes after, does not run", o.Spec.Name)
	}
	n, most := 0, 100
	for _, o := range now.Groups {
		if !is(o) || o.Owner.Name != g.Owner.Name {
			continue
		}
		n++
		if o.Spec.MaxPerNode > 0 {
			most = min(most, o.Spec.MaxPerNode)
		}
		if o != g && (o.Spec.Apart == name || g.Spec.Apart == o.Spec.Name) && head(now, o) != head(now, g) {
			bad("%s, which it must be apart from, is there", o.Spec.Name)
		}
	}
	if n > most {
		bad("there are %d then, and %d is the most", n, most)
	}
}

// keepsWaits: who may still hold the group after a move is waited for.
func keepsWaits(t *rapid.T, in Inputs, old, now *fsm.Group) {
	own := id.Claim{Group: old.Spec.Name, Node: old.Owner, Epoch: old.Epoch}
	want := []id.Claim{}
	for _, w := range old.Waits {
		want = append(want, w.Claim)
	}
	if !old.Owner.Zero() && !old.OwnerReleased {
		want = append(want, own)
	}
	want = slices.DeleteFunc(want, func(c id.Claim) bool { return in.Tokens[c] })
	for _, c := range want {
		if !slices.ContainsFunc(now.Waits, func(w fsm.Wait) bool { return w.Claim == c }) {
			t.Fatalf("%v is forgotten", c)
		}
	}
}

// orphans: P2, no group is left with a dead owner, or none, while somebody could
// take it.
func orphans(t *rapid.T, in Inputs) {
	if in.State.Maintenance || !in.Formed {
		return
	}
	for _, name := range in.State.GroupNames() {
		g := in.State.Groups[name]
		o := in.State.Nodes[g.Owner.Name]
		if o != nil && o.Ref() == g.Owner && !o.Fenced && !in.Health[o.Name].Dead && !g.OwnerReleased {
			continue
		}
		if g.GaveUp() && TooSoon(in, g) > 0 {
			continue
		}
		for _, n := range in.State.Nodes {
			if unfit(in, n, g) == "" && waits(in, g) == "" && PlacesOf(in).forbids(g, n.Name) == "" {
				t.Fatalf("%s has nobody, though %s is well\n%s", name, n.Name, showState(in.State))
			}
		}
	}
}

// TestWanted is every row of the decision.
func TestWanted(t *testing.T) {
	self, other := id.NodeRef{Name: "a", Inc: 3}, id.NodeRef{Name: "b", Inc: 1}
	const dead, initdead = time.Second, 10 * time.Second
	mine := fsm.Record{Group: "web", Epoch: 7, Owner: self}
	for _, c := range []struct {
		name string
		l    Local
		rec  fsm.Record
		want Step
	}{
		{"not mine", Local{}, fsm.Record{Epoch: 7, Owner: other}, Leave},
		{"nobody's", Local{}, fsm.Record{}, Leave},
		{"of an older incarnation of mine", Local{May: true}, fsm.Record{Epoch: 7, Owner: id.NodeRef{Name: "a", Inc: 2}}, Leave},
		{"mine, but it may not be held yet", Local{}, mine, Leave},
		{"mine, muted before it ran", Local{Muted: true, Elsewhere: true, Unleased: time.Hour}, mine, Leave},
		{"mine and may be held", Local{May: true}, mine, Run},
		{"deleted", Local{May: true}, fsm.Record{Epoch: 7, Owner: self, Deleted: true}, Leave},
		{"running", Local{Running: 7, May: true}, mine, Run},
		{"running, deleted", Local{Running: 7, May: true}, fsm.Record{Epoch: 8, Owner: self, Deleted: true}, Stop},
		{"running, and given away", Local{Running: 7, May: true}, fsm.Record{Epoch: 8, Owner: other}, Stop},
		{"running under an older epoch", Local{Running: 6, May: true}, mine, Stop},
		{"running under a newer epoch than the record", Local{Running: 8, May: true}, mine, Stop},
		{"running, no right for another reason than the lease", Local{Running: 7}, mine, Stop},
		{"R10: muted", Local{Running: 7, Muted: true, Unleased: dead / 2, Elsewhere: true}, mine, Leave},
		{"R10: muted for just deadtime", Local{Running: 7, Muted: true, Unleased: dead, Elsewhere: true}, mine, Leave},
		{"R10: muted beyond deadtime, others are served", Local{Running: 7, Muted: true, Unleased: dead + 1, Elsewhere: true}, mine, Stop},
		{"R10: muted beyond deadtime, nobody is served", Local{Running: 7, Muted: true, Unleased: initdead}, mine, Leave},
		{"R10: muted beyond initdead, whoever is served", Local{Running: 7, Muted: true, Unleased: initdead + 1}, mine, Stop},
		{"R10: muted, the lease is back", Local{Running: 7, May: true, Unleased: 0}, mine, Run},
		{"drain", Local{Running: 7, May: true, Drain: true}, mine, Stop},
		{"drain, muted", Local{Running: 7, Muted: true, Drain: true}, mine, Stop},
		{"drain, nothing runs", Local{May: true, Drain: true}, mine, Leave},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.l.Self, c.l.Deadtime, c.l.Initdead = self, dead, initdead
			if got := Wanted(c.l, c.rec); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestWantedNeverRunsWithoutRight is I2 and I6 as far as they are decided here.
func TestWantedNeverRunsWithoutRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := rapid.Custom(func(t *rapid.T) id.NodeRef {
			return id.NodeRef{Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), Inc: rapid.Uint64Range(1, 2).Draw(t, "inc")}
		})
		l := Local{
			Self: ref.Draw(t, "self"), Running: id.Epoch(rapid.IntRange(0, 2).Draw(t, "running")), Deadtime: time.Second, Initdead: 2 * time.Second,
			May: rapid.Bool().Draw(t, "may"), Muted: rapid.Bool().Draw(t, "muted"), Elsewhere: rapid.Bool().Draw(t, "elsewhere"),
			Unleased: time.Duration(rapid.IntRange(0, 3).Draw(t, "unleased")) * time.Second, Drain: rapid.Bool().Draw(t, "drain"),
		}
		rec := fsm.Record{Owner: ref.Draw(t, "owner"), Epoch: id.Epoch(rapid.IntRange(1, 2).Draw(t, "epoch")), Deleted: rapid.Bool().Draw(t, "deleted")}
		right := rec.Owner == l.Self && !rec.Deleted
		switch Wanted(l, rec) {
		case Run:
			if !right || !l.May || l.Drain || l.Running != 0 && l.Running != rec.Epoch {
				t.Fatalf("runs %+v by %+v", rec, l)
			}
		case Stop:
			if l.Running == 0 {
				t.Fatalf("stops what does not run: %+v", l)
			}
		case Leave:
			if l.Running != 0 && (!right || l.Drain || l.Running != rec.Epoch || !l.May && !l.Muted) {
				t.Fatalf("goes on with %+v by %+v", rec, l)
			}
		}
	})
}

func TestSilent(t *testing.T) {
	x, y := id.NodeRef{Name: "x", Inc: 1}, id.NodeRef{Name: "x", Inc: 2}
	tm := spec.Timing{Deadtime: time.Second}
	says := func(age time.Duration, refs ...id.NodeRef) Opinion {
		o := Opinion{Age: age, Silent: map[id.NodeRef]bool{}}
		for _, r := range refs {
			o.Silent[r] = true
		}
		return o
	}
	three := fsm.VoterList{Names: []string{"a", "b", "c"}}
	for _, c := range []struct {
		name     string
		voters   fsm.VoterList
		opinions map[string]Opinion
		want     bool
	}{
		{"nobody", three, nil, false},
		{"one of three", three, map[string]Opinion{"a": says(0, x)}, false},
		{"two of three", three, map[string]Opinion{"a": says(0, x), "b": says(0, x)}, true},
		{"two of four", fsm.VoterList{Names: []string{"a", "b", "c", "d"}}, map[string]Opinion{"a": says(0, x), "b": says(0, x)}, false},
		{"one of one", fsm.VoterList{Names: []string{"a"}}, map[string]Opinion{"a": says(0, x)}, true},
		{"of an empty list", fsm.VoterList{}, map[string]Opinion{"a": says(0, x)}, false},
		{"one is silent itself", three, map[string]Opinion{"a": says(0, x), "b": says(time.Second, x)}, false},
		{"one is no voter", three, map[string]Opinion{"a": says(0, x), "d": says(0, x)}, false},
		{"another incarnation", three, map[string]Opinion{"a": says(0, x), "b": says(0, y)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Silent(x, c.voters, c.opinions, tm); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
