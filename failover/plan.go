// Package failover decides: Plan says what the leader should commit, Wanted what
// a node should run, Explain why. All three are pure; `hanode plan`, `hanode why`
// and the leader get their answer from the same functions. Lead is the thin loop
// that feeds Plan and proposes what it says.
//
// It does not judge who is silent (package lease and the agent's ears do that),
// and it never decides that a node may hold: that is the lease's business.
package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/linkstate"
	"hanode/internal/spec"
)

// Health is what the leader knows of a node now. The zero value is "never
// heard".
type Health struct {
	Inc    uint64 // incarnation in its newest beat
	Alive  bool   // not silent for deadtime
	Leased bool   // says that its lease runs
	Behind bool   // its log has not caught up since it started
	Hung   bool   // its disk does not finish a write: addresses need none, services do
	// Dead: a majority of voters has not heard it for deadtime, or it is heard but
	// had no lease for deadtime although voters answer (R6).
	Dead bool
	Why  string // why Dead
	// Healthy is for how long it has been Alive and Leased without a break.
	Healthy time.Duration
	// Links are its devices that virtual addresses need, as it says itself. One of
	// which nothing is said carries.
	Links []linkstate.Link
}

// Inputs is all that a decision depends on. State is read only.
type Inputs struct {
	Wall   time.Time // stamps commands; decides nothing
	State  *fsm.State
	Health map[string]Health
	// Tokens are claims the leader was told were let go.
	Tokens map[id.Claim]bool
	// Avoid is for how much longer a node is not given a group that failed there; Held
	// for how long a group is at its epoch. Both as this leader saw it: see [Sight].
	Avoid map[Place]time.Duration
	Held  map[string]time.Duration
	// Formed: all members were alive at once since this process started, or
	// initdead has passed. Until then a group waits for its most preferred node.
	Formed bool
	// Lacks says for each node and group what that node has not got that the group
	// takes. It keeps a group from going there, never moves one away.
	Lacks map[string]map[string]string
}

// Candidate is one node's standing for one group.
type Candidate struct {
	Node     string
	Eligible bool
	Score    int // higher wins; equal: by name
	Because  string
	// Failed: it would be eligible, had the group not failed there lately.
	Failed bool
	// Alone: another group that must be with it could not be there.
	Alone bool
}

// preferStep is what one place in the prefer list is worth: more than any load.
const preferStep = 100_000

// hungStep is what a disk that hangs costs: more than any preference.
const hungStep = 1000 * preferStep

// aloneStep is what it costs that a group which must be with it cannot be there: more
// than all of these, because half of what belongs together is of little use.
const aloneStep = 10 * hungStep

// settleStep is what a device costs that lost its carrier lately: more than any
// preference too, and less than a disk that hangs.
const settleStep = hungStep / 2

// Candidates lists every member's standing for group g, best first, while the other
// groups are at their places.
func Candidates(in Inputs, g *fsm.Group, at Places) []Candidate {
	var out []Candidate
	for _, name := range in.State.NodeNames() {
		n := in.State.Nodes[name]
		c := Candidate{Node: name}
		if why := ineligible(in, n, g); why != "" {
			c.Because = why
			out = append(out, c)
			continue
		}
		f := g.Failed[name]
		if left := in.Avoid[Place{g.Spec.Name, name}]; left > 0 && f.Count > 0 {
			c.Because = fmt.Sprintf("failed here (%s): %s; it is tried again in %v", times(f.Count), f.Why, Seconds(left))
			c.Failed = true
			out = append(out, c)
			continue
		}
		if why := at.forbids(g, name); why != "" {
			c.Because = why
			out = append(out, c)
			continue
		}
		c.Eligible = true
		weight, others := at.load(g, name)
		c.Score = -weight
		c.Because = fmt.Sprintf("not in prefer; owns %d other groups", others)
		if weight != others {
			c.Because += fmt.Sprintf(" of weight %d", weight)
		}
		if i := slices.Index(g.Spec.Prefer, name); i >= 0 {
			c.Score += preferStep * (len(g.Spec.Prefer) - i)
			c.Because = fmt.Sprintf("number %d in prefer", i+1)
		}
		if f.Count > 0 {
			c.Because += fmt.Sprintf("; failed here before (%s)", times(f.Count))
		}
		if g.Spec.With != "" {
			c.Because = "with " + g.Spec.With
		}
		if why := at.misses(in, g, name); why != "" && g.Spec.With == "" {
			c.Alone = true
			c.Score -= aloneStep
			c.Because += ", but " + why
		}
		if in.Health[name].Hung {
			c.Score -= hungStep
			c.Because += ", but its disk hangs"
		}
		if l, ok := linkstate.Of(in.Health[name].Links, g.Spec); ok && l.State == linkstate.Settling {
			c.Score -= settleStep
			c.Because += fmt.Sprintf(", but its %s was without a carrier lately", l.Dev)
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b Candidate) int {
		if a.Eligible != b.Eligible {
			if a.Eligible {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Node, b.Node))
	})
	return out
}

// ineligible says why node n cannot be given group g now, or "".
func ineligible(in Inputs, n *fsm.Node, g *fsm.Group) string {
	h := in.Health[n.Name]
	switch {
	case n.Role != spec.RoleNode:
		return "a witness owns nothing"
	case n.Inc == 0:
		return "never registered"
	case n.Leaving:
		return "leaving the cluster"
	case n.Standby:
		return "standby"
	case n.Stopped:
		return "stopped in order"
	case n.Fenced:
		return "fenced; it has not registered anew"
	case h.Dead:
		return "dead: " + h.Why
	case !h.Alive || h.Inc != n.Inc:
		return "not heard"
	case !h.Leased:
		return "alive but without a lease"
	case h.Behind:
		return "alive, still catching up"
	case h.Hung && g != nil && needsDisk(g.Spec):
		return "its disk hangs, and a service is noted there before it starts"
	case g != nil && linkDown(h, g.Spec) != "":
		return "its " + linkDown(h, g.Spec)
	case g != nil && in.Lacks[n.Name][g.Spec.Name] != "":
		return "it lacks something: " + in.Lacks[n.Name][g.Spec.Name]
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}

// Seconds is d in whole seconds, never less than d: for people who wait for its end.
func Seconds(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

// needsDisk: all but addresses are noted on the disk before they start, so that an
// agent that was killed finds them again.
func needsDisk(g spec.Group) bool {
	return slices.ContainsFunc(g.Resources, func(r spec.Resource) bool { return r.Type != "ip" })
}

// Load counts the groups each node owns.
func Load(s *fsm.State) map[string]int {
	load := map[string]int{}
	for _, g := range s.Groups {
		if !g.Deleted && !g.Owner.Zero() {
			load[g.Owner.Name]++
		}
	}
	return load
}

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

// fence is the owner of g if it is dead and was not fenced yet; zero = it is not.
func fence(in Inputs, g *fsm.Group) id.NodeRef {
	n := in.State.Nodes[g.Owner.Name]
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
	names := slices.Sorted(maps.Keys(p.assigns))
	for _, name := range p.in.State.NodeNames() {
		n := p.in.State.Nodes[name]
		h := p.in.Health[name]
		if !n.Registered() || !h.Dead {
			continue
		}
		t := fsm.Takeover{Fence: n.Ref(), Cause: "failover", WhyFence: h.Why}
		for _, gn := range names {
			if a := p.assigns[gn]; a.fence == n.Ref() {
				t.Assigns = append(t.Assigns, a.Assign)
			}
		}
		waited := false
		for _, g := range p.in.State.Groups {
			waited = waited || slices.ContainsFunc(g.Waits, func(w fsm.Wait) bool { return w.Node == n.Ref() })
		}
		if len(t.Assigns) > 0 || waited {
			p.commit(fsm.Command{Takeover: &t})
		}
	}
	byCause := map[string][]fsm.Assign{}
	for _, gn := range names {
		if a := p.assigns[gn]; a.fence.Zero() {
			byCause[a.cause] = append(byCause[a.cause], a.Assign)
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(byCause)) {
		p.commit(fsm.Command{Takeover: &fsm.Takeover{Cause: cause, Assigns: byCause[cause]}})
	}
}

// assign gives g to its best candidate; false if there is none.
func (p *planner) assign(g *fsm.Group) (fsm.Assign, bool) {
	best := Candidates(p.in, g, p.at)
	if len(best) == 0 || !best[0].Eligible {
		return fsm.Assign{}, false
	}
	to := p.in.State.Nodes[best[0].Node]
	a := fsm.Assign{Group: g.Spec.Name, Epoch: g.Epoch + 1, To: to.Ref(), Why: best[0].Because}
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
	order := inOrder(p.in)
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
	if _, moves := p.assigns[g.Spec.After]; moves || waits(p.in, g) != "" {
		if done { // room was made for the other one meanwhile
			delete(p.assigns, name)
			delete(p.at.at, name)
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
	delete(p.at.at, name)
	a, ok := p.assign(g)
	if !ok {
		delete(p.assigns, name)
		if had && !done {
			p.at.at[name] = was
		}
		return false
	}
	p.at.at[name] = a.To.Name
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
	return p.failback(g)
}

// failedWith: a group that must be with g failed on the owner of both, and there is a
// node for all of them.
func (p *planner) failedWith(g *fsm.Group) bool {
	if g.Spec.With != "" || TooSoon(p.in, g) > 0 {
		return false
	}
	if !slices.ContainsFunc(p.at.units[g.Spec.Name], func(o *fsm.Group) bool {
		return o != g && o.GaveUp() && o.Owner == g.Owner && TooSoon(p.in, o) == 0
	}) {
		return false
	}
	best := Candidates(p.in, g, p.at)
	return len(best) > 0 && best[0].Eligible && !best[0].Alone && best[0].Node != g.Owner.Name
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
	if best := Candidates(in, g, PlacesOf(in)); len(best) == 0 || !best[0].Eligible {
		return 0
	}
	return left
}

// firstChoice: the group's most preferred node can take it right now.
func (p *planner) firstChoice(g *fsm.Group) bool {
	best := Candidates(p.in, g, p.at)
	return len(best) > 0 && best[0].Eligible && (g.Spec.With != "" || len(g.Spec.Prefer) > 0 && best[0].Node == g.Spec.Prefer[0])
}

func (p *planner) ifElsewhere(g *fsm.Group, cause string) string {
	best := Candidates(p.in, g, p.at)
	if len(best) == 0 || !best[0].Eligible || best[0].Node == g.Owner.Name {
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
	best := Candidates(p.in, g, p.at)
	if len(best) == 0 || !best[0].Eligible || rank(best[0].Node) >= rank(g.Owner.Name) {
		return ""
	}
	h := p.in.Health[best[0].Node]
	if h.Hung || h.Healthy < g.Spec.Failback.After {
		return ""
	}
	if l, ok := linkstate.Of(h.Links, g.Spec); ok && (l.State != linkstate.Up || l.For < g.Spec.Failback.After) {
		return ""
	}
	return "failback"
}

// Explanation answers `hanode why`.
type Explanation struct {
	Candidates  []Candidate
	IfOwnerDies string
}

// Explain says how every node stands for the group and what would happen if its
// owner died now.
func Explain(in Inputs, group string) (Explanation, error) {
	g := in.State.Groups[group]
	if g == nil || g.Deleted {
		return Explanation{}, fmt.Errorf("group %q does not exist", group)
	}
	e := Explanation{Candidates: Candidates(in, g, PlacesOf(in))}
	if why := waits(in, g); why != "" {
		for i := range e.Candidates {
			if e.Candidates[i].Eligible {
				e.Candidates[i].Because += "; but " + why
			}
		}
	}
	if g.Owner.Zero() {
		e.IfOwnerDies = "nobody owns it"
		return e, nil
	}
	if g.OwnerReleased {
		e.IfOwnerDies = "nothing changes: it let go, and holds nothing of it"
		return e, nil
	}
	if in.State.Maintenance {
		e.IfOwnerDies = "nothing: maintenance is on"
		return e, nil
	}
	without := in
	without.Health = maps.Clone(in.Health)
	without.Health[g.Owner.Name] = Health{Dead: true, Why: "supposed dead"}
	if g.Spec.With != "" {
		e.IfOwnerDies = "it goes where " + g.Spec.With + " goes"
		return e, nil
	}
	for _, c := range Candidates(without, g, PlacesOf(in)) {
		if c.Eligible {
			e.IfOwnerDies = fmt.Sprintf("%s takes over %v after its last beat (%s)", c.Node, in.State.Timing.Deadtime, c.Because)
			if why := g.Spec.WhyExclusive(); why != "" {
				e.IfOwnerDies = fmt.Sprintf("%s gets it (%s), but the group is exclusive (%s): it starts there only once %s is known to be off",
					c.Node, c.Because, why, g.Owner.Name)
			}
			return e, nil
		}
	}
	e.IfOwnerDies = "no other node can take it: clients lose it until one can"
	return e, nil
}
