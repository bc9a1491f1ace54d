// Package failover decides: Plan says what the leader should commit, Wanted what
// a node should run, Explain why. All three are pure; `hanode plan`, `hanode why`
// and the leader get their answer from the same functions. Lead is the thin loop
// that feeds Plan and proposes what it says.
//
// It does not judge who is silent (package lease and the agent's ears do that),
// and it never decides that a node may hold: that is the lease's business.
package failover

import (
	"maps"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/linkstate"
)

// Plan says what the leader should commit now. Deterministic: equal inputs give
// equal commands. An empty plan means that all is as it should be.
func Plan(in Inputs) []fsm.Command {
	if !in.State.Founded() {
		return nil
	}
	p := planner{in: in, at: PlacesOf(in), assigns: map[string]planned{}}
	p.releases()
	if !in.State.Maintenance {
		p.groups()
		p.takeovers()
	}
	return p.out
}

type planner struct {
	in      Inputs
	at      Places // with what this plan assigns
	assigns map[string]planned
	out     []fsm.Command
}

// planned is an assignment of this plan.
type planned struct {
	fsm.Assign
	cause string
	fence id.NodeRef // the dead owner that it is taken from; zero = none
}

func (p *planner) commit(c fsm.Command) {
	c.At = p.in.Wall
	p.out = append(p.out, c)
}

// releases writes down tokens, so that their holders can stop sending them.
func (p *planner) releases() {
	var claims []id.Claim
	if len(p.in.Tokens) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.in.State.Groups)) {
		g := p.in.State.Groups[name]
		for _, w := range g.Waits {
			// Two groups may wait for one claim: an address moved between them.
			if p.in.Tokens[w.Claim] && !slices.Contains(claims, w.Claim) {
				claims = append(claims, w.Claim)
			}
		}
		own := id.Claim{Group: name, Node: g.Owner, Epoch: g.Epoch}
		if !g.Owner.Zero() && !g.OwnerReleased && p.in.Tokens[own] && !slices.Contains(claims, own) {
			claims = append(claims, own)
		}
	}
	if len(claims) > 0 {
		p.commit(fsm.Command{Released: &fsm.Released{Claims: claims}})
	}
}

// fence is the owner of g if it is dead and was not fenced yet; zero = it is not. With
// two_node = "manual" silence is no reason.
func fence(in Inputs, g *fsm.Group) id.NodeRef {
	n := in.State.Nodes[g.Owner.Name]
	if in.State.Manual {
		return id.NodeRef{}
	}
	if n.Registered() && n.Ref() == g.Owner && in.Health[n.Name].Dead {
		return g.Owner
	}
	return id.NodeRef{}
}

// takeovers fences each dead owner and gives its groups away in the same entry, and
// fences each dead node that somebody waits for (it died in the middle of a move).
// A dead node that owns nothing, or whose groups have nowhere to go, is left
// alone: fencing it would help nobody, and if it was only cut off it may go on. Then
// come the moves that take no fence.
func (p *planner) takeovers() {
	from, byCause := map[id.NodeRef][]fsm.Assign{}, map[string][]fsm.Assign{}
	for _, gn := range slices.Sorted(maps.Keys(p.assigns)) {
		if a := p.assigns[gn]; a.fence.Zero() {
			byCause[a.cause] = append(byCause[a.cause], a.Assign)
		} else {
			from[a.fence] = append(from[a.fence], a.Assign)
		}
	}
	waited := map[id.NodeRef]bool{}
	for _, g := range p.in.State.Groups {
		for _, w := range g.Waits {
			waited[w.Node] = true
		}
	}
	for _, x := range p.at.nodes {
		if !x.Registered() || !x.health.Dead || p.in.State.Manual {
			continue
		}
		t := fsm.Takeover{Fence: x.Ref(), Cause: "failover", WhyFence: x.health.Why, Assigns: from[x.Ref()]}
		if len(t.Assigns) > 0 || waited[x.Ref()] {
			p.commit(fsm.Command{Takeover: &t})
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(byCause)) {
		p.commit(fsm.Command{Takeover: &fsm.Takeover{Cause: cause, Assigns: byCause[cause]}})
	}
}

// assign gives g to its best candidate; false if there is none.
func (p *planner) assign(g *fsm.Group) (fsm.Assign, bool) {
	best, ok := Best(p.at, g)
	if !ok {
		return fsm.Assign{}, false
	}
	to := p.in.State.Nodes[best.Node]
	a := fsm.Assign{Group: g.Spec.Name, Epoch: g.Epoch + 1, To: to.Ref(), Why: best.Because}
	for _, w := range g.Waits {
		if p.in.Tokens[w.Claim] {
			a.Released = append(a.Released, w.Claim)
		}
	}
	if own := (id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch}); !g.Owner.Zero() && p.in.Tokens[own] {
		a.Released = append(a.Released, own)
	}
	return a, true
}

// groups moves what has no owner, an owner that must give way, or a better one. One
// move can make room for another, so it looks again until nothing changes.
func (p *planner) groups() {
	order := p.at.inOrder()
	for range len(order) + 1 {
		changed := false
		for _, g := range order {
			changed = p.group(g) || changed
		}
		if !changed {
			return
		}
	}
}

// group plans the move of one group; false = nothing new.
func (p *planner) group(g *fsm.Group) bool {
	name := g.Spec.Name
	before, done := p.assigns[name]
	_, moves := p.assigns[g.Spec.After]
	if g.Spec.After != "" && (moves || waits(p.in, g) != "") {
		if done { // room was made for the other one meanwhile
			delete(p.assigns, name)
			p.at.lift(name)
		}
		return done
	}
	if done && p.at.forbids(g, before.To.Name) == "" {
		return false
	}
	cause, dead := "failover", fence(p.in, g)
	if dead.Zero() {
		cause = p.cause(g)
	}
	if cause == "" {
		return false
	}
	// Where it is counts for nothing: it leaves.
	was, had := p.at.at[name]
	p.at.lift(name)
	a, ok := p.assign(g)
	if !ok {
		delete(p.assigns, name)
		if had && !done {
			p.at.put(name, was)
		}
		return false
	}
	p.at.put(name, a.To.Name)
	p.assigns[name] = planned{a, cause, dead}
	return true
}

// cause says why g should move now, or "".
func (p *planner) cause(g *fsm.Group) string {
	owner := p.in.State.Nodes[g.Owner.Name]
	switch {
	case g.Owner.Zero():
		if !p.in.Formed && !p.firstChoice(g) {
			return ""
		}
		return "start"
	case owner == nil || owner.Inc != g.Owner.Inc || owner.Fenced || owner.Removed:
		if !p.in.Formed && !p.firstChoice(g) {
			return ""
		}
		return "failover" // its registration is gone: it restarted, or was fenced with nowhere to go
	case g.GaveUp():
		if TooSoon(p.in, g) > 0 {
			return ""
		}
		return "failure"
	case g.OwnerReleased || p.in.Tokens[id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch}]:
		return "failover" // it let go by itself
	case slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return !p.in.Tokens[w.Claim] }):
		return "" // a move is under way; let it end
	case owner.Standby:
		return p.ifElsewhere(g, "standby")
	case owner.Stopped:
		return p.ifElsewhere(g, "switchover")
	case owner.Leaving:
		return p.ifElsewhere(g, "leave")
	case linkDown(p.in.Health[owner.Name], g.Spec) != "":
		return p.ifElsewhere(g, "link") // where no other node has a carrier, moving would not help
	case p.cutOffWith(g):
		return "link"
	}
	if p.at.forbids(g, owner.Name) != "" {
		return p.ifElsewhere(g, "rule")
	}
	if p.failedWith(g) {
		return "failure"
	}
	if n := p.in.Health[owner.Name].Unreached; n > 0 {
		best, ok := Best(p.at, g)
		if ok && best.Node != owner.Name && p.in.Health[best.Node].Unreached < n {
			return "ping"
		}
	}
	return p.failback(g)
}

// failedWith: a group that must be with g failed on the owner of both, and there is a
// node for all of them.
func (p *planner) failedWith(g *fsm.Group) bool {
	if g.Spec.With != "" || TooSoon(p.in, g) > 0 {
		return false
	}
	if !slices.ContainsFunc(p.at.units[g], func(o *fsm.Group) bool {
		return o != g && o.GaveUp() && o.Owner == g.Owner && TooSoon(p.in, o) == 0
	}) {
		return false
	}
	best, ok := Best(p.at, g)
	return ok && !best.Alone && best.Node != g.Owner.Name
}

// TooSoon is for how much longer g does not move by itself, because it did so a
// moment ago (see Calm). 0 = it may.
func TooSoon(in Inputs, g *fsm.Group) time.Duration {
	if g.Cause != "failure" && g.Cause != "failback" {
		return 0
	}
	return max(0, Calm-in.Held[g.Spec.Name])
}

// Calming is for how much longer g runs nowhere only because it moved a moment ago.
func Calming(in Inputs, g *fsm.Group) time.Duration {
	left := TooSoon(in, g)
	if left == 0 || !g.GaveUp() {
		return 0
	}
	if _, ok := Best(PlacesOf(in), g); !ok {
		return 0
	}
	return left
}

// firstChoice: the group's most preferred node can take it right now.
func (p *planner) firstChoice(g *fsm.Group) bool {
	best, ok := Best(p.at, g)
	return ok && (g.Spec.With != "" || len(g.Spec.Prefer) > 0 && best.Node == g.Spec.Prefer[0])
}

func (p *planner) ifElsewhere(g *fsm.Group, cause string) string {
	best, ok := Best(p.at, g)
	if !ok || best.Node == g.Owner.Name {
		return ""
	}
	return cause
}

// failback goes to a node that prefer ranks above the owner, never merely for
// balance: a move costs clients something.
func (p *planner) failback(g *fsm.Group) string {
	if !g.Spec.Failback.On || g.Pinned || !g.Started || TooSoon(p.in, g) > 0 {
		return ""
	}
	rank := func(node string) int {
		if i := slices.Index(g.Spec.Prefer, node); i >= 0 {
			return i
		}
		return len(g.Spec.Prefer)
	}
	if rank(g.Owner.Name) == 0 {
		return ""
	}
	best, ok := Best(p.at, g)
	if !ok || rank(best.Node) >= rank(g.Owner.Name) {
		return ""
	}
	h := p.in.Health[best.Node]
	if h.Hung || h.Unreached > 0 || h.Regained || h.Healthy < g.Spec.Failback.After {
		return ""
	}
	if l, ok := linkstate.Of(h.Links, g.Spec); ok && (l.State != linkstate.Up || l.For < g.Spec.Failback.After) {
		return ""
	}
	return "failback"
}
