package fsm

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// apply carries out one command. Rejections change nothing.
func (s *State) apply(c Command) Result {
	res := s.carryOut(c)
	if c.Holding == nil && c.Holdings == nil && c.Report == nil { // of these there are most, and they end none
		res.Touched = append(res.Touched, s.endRegistrations()...)
	}
	return res
}

// over reports that (Name, Inc) will never be acked by a voter that has applied
// this state: it was fenced, superseded or removed.
func (s *State) over(r id.NodeRef) bool {
	n := s.Nodes[r.Name]
	return n == nil || n.Inc > r.Inc || n.Inc == r.Inc && n.Fenced
}

// endRegistrations notes in every wait whether its registration is over, and
// whether its host is known to be off. From
// the entry that ended one, EXPIRED counts against the voters' list of that
// entry: under an older list, voters of a newer one that have not applied the
// fence yet could still be a majority for the lease (R3).
func (s *State) endRegistrations() (touched []string) {
	for name, g := range s.Groups {
		for i, w := range g.Waits {
			live := !s.over(w.Node)
			if w.Live && !live {
				g.Voters = s.Voters
				touched = append(touched, name)
			}
			g.Waits[i].Live = live
			if n := s.Nodes[w.Node.Name]; n != nil && n.Off && n.Ref() == w.Node {
				g.Waits[i].Off = true // it was the owner of record when that was said
			}
		}
	}
	return touched
}

func (s *State) carryOut(c Command) Result {
	switch {
	case c.Found != nil:
		return s.found(c.Found, c.At)
	case !s.Founded():
		return rejected("the cluster is not founded yet")
	case c.Register != nil:
		return s.register(c.Register, c.At)
	case c.Takeover != nil:
		return s.takeover(c.Takeover, c.At)
	case c.Holding != nil:
		return s.holding(c.Holding)
	case c.Holdings != nil:
		return s.holdings(c.Holdings)
	case c.Released != nil:
		return s.released(c.Released, c.At)
	case c.SetGroups != nil:
		return s.setGroups(c.SetGroups, c.At)
	case c.Standby != nil:
		return s.standby(c.Standby, c.At)
	case c.Maintenance != nil:
		return s.maintenance(c.Maintenance, c.At)
	case c.Pin != nil:
		return s.pin(c.Pin)
	case c.Stopping != nil:
		return s.stopping(c.Stopping, c.At)
	case c.Leave != nil:
		return s.leave(c.Leave, c.At)
	case c.SetVoters != nil:
		return s.setVoters(c.SetVoters, c.At)
	case c.SetDisk != nil:
		return s.setDisk(c.SetDisk, c.At)
	case c.PowerOff != nil:
		return s.powerOff(c.PowerOff, c.At)
	case c.Failed != nil:
		return s.failed(c.Failed, c.At)
	case c.Clear != nil:
		return s.clear(c.Clear, c.At)
	case c.Recover != nil:
		return s.recoverAlone(c.Recover, c.At)
	case c.AddToken != nil:
		return s.addToken(c.AddToken, c.At)
	case c.RevokeToken != nil:
		return s.revokeToken(c.RevokeToken, c.At)
	case c.RotateKey != nil:
		return s.rotateKey(c.RotateKey, c.At)
	case c.AddNode != nil:
		return s.addNode(c.AddNode, c.At)
	case c.NewGeneration != nil:
		return s.newGeneration(c.NewGeneration, c.At)
	case c.Upgrade != nil:
		return s.upgrade(c.Upgrade, c.At)
	case c.Report != nil:
		s.report(c.Report.Events)
	}
	return Result{}
}

// registers reports whether the command may change who is registered, or who votes.
func (c Command) registers() bool {
	return c.Holding == nil && c.Holdings == nil && c.Report == nil && c.Released == nil && c.SetGroups == nil && c.Failed == nil &&
		(c.Takeover == nil || !c.Takeover.Fence.Zero())
}

func rejected(format string, args ...any) Result {
	return Result{Rejected: fmt.Sprintf(format, args...)}
}

func (s *State) event(e Event) {
	s.EventSeq++
	e.Index = s.EventSeq
	s.Events = append(s.Events, e)
	if over := len(s.Events) - keepEvents; over > 0 {
		s.Events = s.Events[over:] // moved only when it has no room to grow
	}
}

// report adds a proposer's events, unless they are there: a command may be
// proposed twice.
func (s *State) report(events []Event) {
	for _, e := range events {
		if !slices.ContainsFunc(s.Events, e.same) {
			s.event(e)
		}
	}
}

func (s *State) found(c *Found, at time.Time) Result {
	if s.Founded() {
		if s.Digest == c.Digest {
			return Result{} // the same founding, proposed twice
		}
		return rejected("the cluster %q is already founded", s.Cluster)
	}
	s.Cluster, s.Digest, s.Timing, s.Manual = c.Cluster, c.Digest, c.Timing, c.Manual
	for _, n := range c.Nodes {
		s.Nodes[n.Name] = &Node{Name: n.Name, Address: n.Address, Role: n.Role, Zone: n.Zone, Disk: 1}
	}
	for _, t := range c.Tokens {
		s.putToken(t)
	}
	if need := (Command{Found: c}).Needs(); need > 1 {
		s.Version = need // nothing older can read this entry
	}
	s.Voters = VoterList{Version: 1, Names: slices.Sorted(slices.Values(c.Voters))}
	s.event(Event{Time: at, Kind: "founded", Text: fmt.Sprintf("cluster %s founded with %d nodes", c.Cluster, len(c.Nodes))})
	if len(c.Groups) > 0 {
		return s.setGroups(&SetGroups{Groups: c.Groups}, at)
	}
	return Result{}
}

// register is R8. From the same host it releases every older incarnation: that
// host's agent dropped and verified everything before it asked. From another
// host (a cloned machine, or the same one rebooted) it only fences them. With
// two_node = "manual" no time ends them, so there a reboot is told from a clone.
func (s *State) register(c *Register, at time.Time) Result {
	n := s.Nodes[c.Node]
	if n == nil || n.Removed {
		res := rejected("%s is not a member of this cluster", c.Node)
		res.Gone = n != nil
		return res
	}
	if c.Nonce == "" {
		return rejected("%s registers without a nonce", c.Node)
	}
	if why := s.tooOld(c.Node, c.Version, c.Speaks); why != "" {
		return Result{Rejected: why, Inc: n.Inc}
	}
	if n.Nonce == c.Nonce {
		return Result{Inc: n.Inc} // the same registration, proposed twice
	}
	if n.Inc != c.From {
		return Result{Rejected: fmt.Sprintf("%s is registered as incarnation %d, not %d", c.Node, n.Inc, c.From), Inc: n.Inc}
	}
	n.Inc++
	n.Fenced, n.Stopped, n.Off = false, false, false
	n.Bound, n.HostID, n.Nonce, n.Version, n.Speaks = c.Bound, c.HostID, c.Nonce, c.Version, c.Speaks
	res := Result{Inc: n.Inc}
	old := func(r id.NodeRef, host string) bool {
		return r.Name == c.Node && r.Inc < n.Inc && (host == c.HostID || s.Manual && rebooted(host, c.HostID))
	}
	for name, g := range s.Groups {
		before := len(g.Waits)
		g.Waits = slices.DeleteFunc(g.Waits, func(w Wait) bool { return old(w.Node, w.HostID) })
		if old(g.Owner, g.OwnerHost) {
			g.OwnerReleased = true
			g.Started = false
			res.Touched = append(res.Touched, name)
		}
		if len(g.Waits) != before {
			res.Touched = append(res.Touched, name)
		}
		delete(g.Failed, c.Node)
	}
	s.event(Event{Time: at, Node: c.Node, Kind: "registered", Text: fmt.Sprintf("%s registered as incarnation %d", c.Node, n.Inc)})
	return res
}

// setGroups makes the wanted set c.Groups. A group whose resources change is
// stopped and started at its owner under the next epoch; one that is gone keeps
// its waits until its owner let go. An address that comes from another group
// waits for that group's holders (R11).
func (s *State) setGroups(c *SetGroups, at time.Time) Result {
	var res Result
	revision := s.Revision + 1
	want := map[string]spec.Group{}
	for _, g := range c.Groups {
		want[g.Name] = g
	}
	inherited := map[string][]Wait{}
	claims := s.claims()
	for _, w := range c.Groups {
		inherited[w.Name] = s.addressWaits(w, claims)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		if _, ok := want[name]; ok || g.Deleted {
			continue
		}
		g.advance(s.Voters, nil)
		g.Deleted, g.Cause, g.Since, g.Failed, g.Pinned = true, "removed", at, nil, false
		res.Touched = append(res.Touched, name)
		s.event(Event{Time: at, Group: name, Epoch: g.Epoch, Kind: "removed", Text: name + " removed"})
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w, g := want[name], s.Groups[name]
		if g != nil {
			g.Adopt = Adoption{}
		}
		switch {
		case g == nil:
			g = &Group{Spec: w, Cause: "new", Since: at, Voters: s.Voters}
			s.Groups[name] = g
			s.event(Event{Time: at, Group: name, Kind: "added", Text: name + " added"})
		case g.Deleted:
			g.Deleted, g.Spec, g.Cause, g.Since = false, w, "new", at
			s.event(Event{Time: at, Group: name, Epoch: g.Epoch, Kind: "added", Text: name + " added again"})
		case !reflect.DeepEqual(g.Spec.Resources, w.Resources) || g.Spec.Exclusive != w.Exclusive:
			owner, host, bound := g.Owner, g.OwnerHost, g.OwnerBound
			keep := !owner.Zero() && !g.OwnerReleased
			g.advance(s.Voters, nil)
			if keep {
				g.Owner, g.OwnerHost, g.OwnerBound = owner, host, bound
			}
			g.Spec, g.Cause, g.Since = w, "changed", at
			g.forgive("")
			s.event(Event{Time: at, Group: name, Epoch: g.Epoch, Kind: "changed", Text: name + " changed"})
		default:
			if reflect.DeepEqual(g.Spec, w) {
				g.forgive("")
				continue
			}
			g.Spec = w
			g.forgive("")
		}
		s.Revision, g.Revision = revision, revision
		for _, wait := range inherited[name] {
			if !slices.ContainsFunc(g.Waits, func(x Wait) bool { return x.Claim == wait.Claim }) {
				g.Waits = append(g.Waits, wait)
			}
		}
		res.Touched = append(res.Touched, name)
	}
	for _, a := range c.Adopt {
		g, n := s.Groups[a.Group], s.Nodes[a.Node.Name]
		if g == nil || g.Deleted || !n.Registered() || n.Ref() != a.Node {
			continue
		}
		// Also a spec that is as it was has a new revision: an owner that is told of it does
		// not start before it knows that it may.
		s.Revision, g.Revision, g.Adopt = revision, revision, Adoption{a.Node, revision}
		res.Touched = append(res.Touched, a.Group)
	}
	slices.Sort(res.Touched)
	res.Touched = slices.Compact(res.Touched)
	return res
}

// addressWaits lists the claims of other groups on addresses that w has and the
// group of that name did not have before. A claim covers the addresses that its
// group had at its epoch, whatever the group has now: an address may be taken
// from one group today and given to another tomorrow, before its holder let go.
func (s *State) addressWaits(w spec.Group, claims addressClaims) []Wait {
	had := map[string]bool{}
	if g := s.Groups[w.Name]; g != nil && !g.Deleted {
		had = addresses(g.Spec)
	}
	fresh := filter(addresses(w), func(bool) bool { return true })
	maps.DeleteFunc(fresh, func(a string, _ bool) bool { return had[a] })
	var at []int
	for a := range fresh {
		at = append(at, claims.of[a]...)
	}
	slices.Sort(at)
	var out []Wait
	for _, i := range slices.Compact(at) {
		if claims.in[i] != w.Name {
			out = append(out, claims.all[i])
		}
	}
	return out
}

// addressClaims are all claims, in the order of the groups that have or wait for them.
type addressClaims struct {
	all []Wait
	in  []string         // the group of each
	of  map[string][]int // by address
}

func (s *State) claims() addressClaims {
	out := addressClaims{of: map[string][]int{}}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		claims := slices.Clone(g.Waits)
		if !g.Owner.Zero() && !g.OwnerReleased {
			claims = append(claims, g.ownerClaim())
		}
		for _, c := range claims {
			for _, a := range c.Addresses {
				out.of[a] = append(out.of[a], len(out.all))
			}
			out.all, out.in = append(out.all, c), append(out.in, name)
		}
	}
	return out
}

func addresses(g spec.Group) map[string]bool {
	out := map[string]bool{}
	for _, r := range g.Resources {
		if r.Type == "ip" {
			out[r.Address()] = true
		}
	}
	return out
}

func (s *State) standby(c *Standby, at time.Time) Result {
	n := s.Nodes[c.Node]
	if n == nil || n.Removed {
		return rejected("%s is not a member", c.Node)
	}
	if n.Role != spec.RoleNode {
		return rejected("%s is a witness; it owns nothing, so it has no standby", c.Node)
	}
	if n.Standby != c.On {
		n.Standby = c.On
		kind := map[bool]string{true: "standby", false: "online"}[c.On]
		s.event(Event{Time: at, Node: c.Node, Kind: kind, Text: c.Node + " is " + kind})
	}
	return Result{}
}

func (s *State) maintenance(c *Maintenance, at time.Time) Result {
	if s.Maintenance != c.On {
		s.Maintenance = c.On
		word := map[bool]string{true: "on", false: "off"}[c.On]
		s.event(Event{Time: at, Kind: "maintenance", Text: "maintenance " + word})
	}
	return Result{}
}

func (s *State) pin(c *Pin) Result {
	g := s.Groups[c.Group]
	if g == nil || g.Deleted {
		return rejected("group %s does not exist", c.Group)
	}
	g.Pinned = c.On
	return Result{Touched: []string{c.Group}}
}

func (s *State) stopping(c *Stopping, at time.Time) Result {
	n := s.Nodes[c.Node.Name]
	if n == nil || n.Ref() != c.Node {
		return rejected("%s is not a registration of record", c.Node)
	}
	if !n.Stopped {
		n.Stopped = true
		s.event(Event{Time: at, Node: n.Name, Kind: "stopping", Text: n.Name + " is stopping; its groups move first"})
	}
	return Result{}
}

func (s *State) leave(c *Leave, at time.Time) Result {
	n := s.Nodes[c.Node]
	if n == nil || n.Removed {
		return Result{} // left before
	}
	if !c.Done {
		if left := filter(s.Nodes, func(o *Node) bool {
			return o.Name != c.Node && o.Role == spec.RoleNode && !o.Removed && !o.Leaving
		}); len(left) == 0 {
			return rejected("%s is the last node that can own groups", c.Node)
		}
		if n.Leaving {
			return Result{}
		}
		n.Leaving = true
		s.event(Event{Time: at, Node: c.Node, Kind: "leaving", Text: c.Node + " is leaving the cluster"})
		return Result{}
	}
	if s.Voters.Has(c.Node) {
		return rejected("%s is still a lease voter", c.Node)
	}
	for _, name := range s.GroupNames() {
		if g := s.Groups[name]; g.Owner.Name == c.Node && !g.OwnerReleased {
			return rejected("%s still owns %s", c.Node, name)
		}
	}
	n.Removed, n.Fenced = true, true
	s.event(Event{Time: at, Node: c.Node, Kind: "left", Text: c.Node + " left the cluster"})
	return Result{}
}

func (s *State) setVoters(c *SetVoters, at time.Time) Result {
	names := slices.Sorted(slices.Values(c.Names))
	if c.Version == s.Voters.Version && slices.Equal(names, s.Voters.Names) {
		return Result{}
	}
	if c.Version != s.Voters.Version+1 {
		return rejected("the lease voters are at version %d", s.Voters.Version)
	}
	if len(names) == 0 || difference(names, s.Voters.Names) != 1 {
		return rejected("lease voters change one at a time")
	}
	s.Previous, s.Voters = s.Voters, VoterList{Version: c.Version, Names: names}
	text := fmt.Sprintf("lease voters are now %v", names)
	if c.Why != "" {
		text += ": " + c.Why
	}
	s.event(Event{Time: at, Kind: "voters", Text: text})
	return Result{}
}

func difference(a, b []string) int {
	n := 0
	for _, x := range a {
		if !slices.Contains(b, x) {
			n++
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			n++
		}
	}
	return n
}

func (s *State) setDisk(c *SetDisk, at time.Time) Result {
	n := s.Nodes[c.Node]
	if n == nil || n.Removed {
		return rejected("%s is not a member", c.Node)
	}
	if n.DiskRequest == c.Request && (c.Request != "" || n.Disk == c.From+1) {
		return Result{Disk: n.Disk} // the same request, proposed twice
	}
	if n.Disk != c.From {
		return rejected("%s has data directory %d, not %d", c.Node, n.Disk, c.From)
	}
	n.Disk++
	n.DiskRequest = c.Request
	s.event(Event{Time: at, Node: c.Node, Kind: "disk", Text: fmt.Sprintf("%s came back with an empty data directory (now %d)", c.Node, n.Disk)})
	return Result{Disk: n.Disk}
}
