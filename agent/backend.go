package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/config"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
	"hanode/resource"
)

// The agent is the api.Backend of its node. What only the leader knows it asks the
// leader; without one it tells what it knows itself, and who is missing.

// direct answers calls that another agent forwarded; it never forwards again.
type direct struct{ *Agent }

func fail(code, fix, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Fix: fix, Exit: api.ExitFailed}
}

// noQuorum says which voters are missing.
func (a *Agent) noQuorum() *api.Error {
	now := a.host.Clock.Now()
	heard := a.ears.all()
	var missing []string
	voters := a.voters()
	for _, v := range voters {
		if h, ok := heard[v]; v != a.cfg.Name && (!ok || now.Elapsed(h.at) >= a.timing().Deadtime) {
			missing = append(missing, v)
		}
	}
	msg := "no leader is known; an election may be under way"
	if len(missing) > 0 {
		msg = fmt.Sprintf("no quorum: of the voters %s, %s cannot be heard", strings.Join(voters, ", "), strings.Join(missing, ", "))
	}
	return &api.Error{
		Code: "no-quorum", Message: msg, Exit: api.ExitNoQuorum,
		Fix: "what is shown is what this node knows; start the missing voters or repair the network to them",
	}
}

// leaderAPI is a client of the leader; nil if this node leads.
func (a *Agent) leaderAPI() (*api.Client, error) {
	n := a.node.Load()
	if n == nil {
		return nil, a.noQuorum()
	}
	if n.IsLeader() {
		return nil, nil
	}
	to, _ := n.Leader()
	if to == "" || to == a.cfg.Name {
		return nil, a.noQuorum()
	}
	// Raft remembers a leader for as long as nobody says otherwise; the beats know
	// better, and nobody should wait for a dead one at 3 a.m.
	if h, ok := a.ears.all()[to]; ok && a.host.Clock.Now().Elapsed(h.at) >= a.timing().Deadtime {
		return nil, a.noQuorum()
	}
	return api.New("the leader "+to, func(ctx context.Context) (net.Conn, error) { return a.dialTLS(ctx, to, alpnPeer) }), nil
}

// ask runs local if this node leads, else remote at the leader. Without a leader
// it returns the no-quorum error.
func ask[T any](a *Agent, local func() (T, error), remote func(*api.Client) (T, error)) (T, error) {
	c, err := a.leaderAPI()
	if err != nil {
		var zero T
		return zero, err
	}
	if c == nil {
		return local()
	}
	defer c.Close()
	v, err := remote(c)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Exit == api.ExitUnreachable {
		return v, a.noQuorum()
	}
	return v, err
}

// Members lists the nodes. Beats go to voters only, so the leader knows best.
func (a *Agent) Members(ctx context.Context) ([]api.Member, error) {
	ms, err := ask(a, func() ([]api.Member, error) { return a.membersHere(), nil },
		func(c *api.Client) ([]api.Member, error) { return c.Members(ctx) })
	if err != nil && ms == nil {
		ms = a.membersHere()
	}
	return ms, err
}

// Members answers a forwarded call.
func (d direct) Members(context.Context) ([]api.Member, error) { return d.membersHere(), nil }

func (a *Agent) membersHere() []api.Member {
	now := a.host.Clock.Now()
	st := a.machine.Copy()
	heard := a.ears.all()
	leader := ""
	if n := a.node.Load(); n != nil {
		leader, _ = n.Leader()
	}
	nodes := st.Nodes
	if !st.Founded() {
		nodes = map[string]*fsm.Node{}
		for _, n := range a.cfg.Nodes {
			nodes[n.Name] = &fsm.Node{Name: n.Name, Address: n.Address, Role: n.Role}
		}
	}
	var out []api.Member
	for _, n := range nodes {
		if n.Removed {
			continue
		}
		h, ok := heard[n.Name]
		m := api.Member{
			Name: n.Name, Role: n.Role, Address: api.Known(n.Address),
			Voter: st.Voters.Has(n.Name), Leader: n.Name == leader,
		}
		m.State = a.memberState(n, h, ok, now.Elapsed(h.at))
		if ok {
			m.LastBeatMS = age(now, h.at)
			left := api.MS(h.beat.Left - now.Elapsed(h.at))
			m.LeaseMS = &left
		}
		if n.Name == a.cfg.Name {
			m.LastBeatMS = nil
			a.hold.Lock()
			if a.hold.holder != nil {
				left := api.MS(now.Remaining(a.hold.holder.End()))
				m.LeaseMS = &left
			}
			a.hold.Unlock()
		}
		for _, l := range a.gossip.Links(n.Name) {
			link := api.MemberLink{Name: l.Name, State: api.MemberAlive}
			if l.Address.IsValid() {
				s := l.Address.String()
				link.Address = &s
			}
			if !l.Up {
				link.State = api.MemberDead
			}
			if l.Age >= 0 && n.Name != a.cfg.Name {
				v := api.MS(l.Age)
				link.LastBeatMS = &v
			}
			m.Links = append(m.Links, link)
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y api.Member) int { return strings.Compare(x.Name, y.Name) })
	return out
}

func (a *Agent) memberState(n *fsm.Node, h heard, ok bool, silent time.Duration) api.MemberState {
	t := a.timing()
	quiet := !ok || silent >= t.Deadtime
	switch {
	case n.Name == a.cfg.Name && n.Inc > 0:
		return api.MemberAlive
	case n.Stopped && quiet:
		return api.MemberLeft
	case n.Inc == 0 || ok && !quiet && h.beat.Ref.Inc == 0:
		return api.MemberJoining
	case quiet:
		return api.MemberDead
	case silent >= t.Warntime:
		return api.MemberLate
	}
	return api.MemberAlive
}

// Status reports groups and problems; the local node's own problems are added to
// what the leader says.
func (a *Agent) Status(ctx context.Context, group string) (*api.Status, error) {
	remote := false
	s, err := ask(a, func() (*api.Status, error) { return a.statusHere(group) },
		func(c *api.Client) (*api.Status, error) { remote = true; return c.Status(ctx, group) })
	if s == nil && err != nil {
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitNoQuorum {
			return nil, err
		}
		here, hereErr := a.statusHere(group)
		if hereErr != nil {
			return nil, hereErr
		}
		here.Quorum = false
		e, _ := errors.AsType[*api.Error](err)
		here.Problems = append([]api.StatusProblem{show("no-quorum", e.Message, nil)}, here.Problems...)
		return here, err
	}
	if remote && s != nil {
		s.Problems = append(s.Problems, a.local()...)
		a.fillResources(s)
	}
	return s, err
}

// Status answers a forwarded call.
func (d direct) Status(_ context.Context, group string) (*api.Status, error) {
	return d.statusHere(group)
}

func (a *Agent) statusHere(group string) (*api.Status, error) {
	st := a.machine.Copy()
	leader, quorum := "", false
	if n := a.node.Load(); n != nil {
		leader, _ = n.Leader()
		quorum = n.IsLeader()
	}
	out := &api.Status{Cluster: a.cfg.Cluster, Leader: api.Known(leader), Quorum: quorum}
	if group != "" && (st.Groups[group] == nil || st.Groups[group].Deleted) {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "there is no group %q", group)
	}
	for _, name := range st.GroupNames() {
		if group == "" || name == group {
			out.Groups = append(out.Groups, groupStatus(st.Groups[name]))
		}
	}
	a.fillResources(out)
	out.Problems = append(a.clusterProblems(st, a.membersHere()), a.local()...)
	return out, nil
}

// groupStatus renders a group from replicated state alone.
func groupStatus(g *fsm.Group) api.GroupStatus {
	state := api.GroupRunning
	switch {
	case g.Owner.Zero() && len(g.Failed) > 0:
		state = api.GroupFailed
	case g.OwnerReleased && len(g.Failed) > 0:
		state = api.GroupFailed
	case g.Owner.Zero() || g.OwnerReleased:
		state = api.GroupStopped
	case g.Started:
	case g.Spec.Exclusive && len(g.Waits) > 0:
		state = api.GroupBlocked
	default:
		state = api.GroupStarting
	}
	since := g.Since
	out := api.GroupStatus{Name: g.Spec.Name, Owner: api.Known(g.Owner.Name), Epoch: uint64(g.Epoch), State: &state, Since: &since}
	for _, r := range g.Spec.Resources {
		rs := state
		if state == api.GroupBlocked || state == api.GroupFailed {
			rs = api.GroupStopped
		}
		out.Resources = append(out.Resources, api.ResourceStatus{Type: r.Type, Name: r.Name, State: &rs})
	}
	return out
}

// fillResources puts in what this node knows exactly: its own groups' resources.
func (a *Agent) fillResources(s *api.Status) {
	for i := range s.Groups {
		g := &s.Groups[i]
		w := a.groups.get(g.Name)
		if w == nil || g.Owner == nil || *g.Owner != a.cfg.Name {
			continue
		}
		st := w.res.Status()
		if len(st) != len(g.Resources) || w.running == 0 {
			continue
		}
		for j, r := range st {
			state := map[resource.State]api.GroupState{
				resource.Stopped: api.GroupStopped, resource.Starting: api.GroupStarting, resource.Running: api.GroupRunning,
				resource.Stopping: api.GroupStopping, resource.Failed: api.GroupFailed,
			}[r.State]
			g.Resources[j].State = &state
		}
		now := a.host.Clock.Now()
		a.hold.Lock()
		muted := a.hold.holder != nil && !a.hold.holder.Leased(now)
		a.hold.Unlock()
		if muted {
			s.Problems = append(s.Problems, show("group-muted", g.Name+" is muted: "+a.cfg.Name+" has no lease", nil))
		}
	}
}

// Export returns the wanted set.
func (a *Agent) Export(ctx context.Context) ([]spec.Group, error) {
	return ask(a, func() ([]spec.Group, error) { return direct{a}.Export(ctx) },
		func(c *api.Client) ([]spec.Group, error) { return c.Export(ctx) })
}

// Export answers a forwarded call.
func (d direct) Export(context.Context) ([]spec.Group, error) {
	var out []spec.Group
	d.machine.View(func(s *fsm.State) { out = s.Specs() })
	return out, nil
}

// Plan says what Apply would do.
func (a *Agent) Plan(ctx context.Context, groups []spec.Group) (*api.Plan, error) {
	return ask(a, func() (*api.Plan, error) { return direct{a}.Plan(ctx, groups) },
		func(c *api.Client) (*api.Plan, error) { return c.Plan(ctx, groups) })
}

// Plan answers a forwarded call. It applies the command to a copy of the state and
// looks what the planner would do with it: the very code that decides.
func (d direct) Plan(_ context.Context, groups []spec.Group) (*api.Plan, error) {
	in := d.inputs()
	if err := checkGroups(groups, in.State); err != nil {
		return nil, err
	}
	before := in.State.Clone()
	after := fsm.Preview(in.State, fsm.Command{SetGroups: &fsm.SetGroups{Groups: groups}})
	in.State = after
	moves := map[string]string{}
	for _, c := range failover.Plan(in) {
		if c.Takeover == nil {
			continue
		}
		for _, as := range c.Takeover.Assigns {
			moves[as.Group] = as.To.Name
		}
	}
	out := &api.Plan{}
	for _, ch := range failover.Compare(before, after, moves) {
		out.Changes = append(out.Changes, api.Change{
			Group: ch.Group, Action: api.Action(ch.Action), Text: ch.Text, Stops: ch.Stops, Moves: ch.Moves,
		})
	}
	return out, nil
}

func checkGroups(groups []spec.Group, st *fsm.State) error {
	var nodes []spec.Node
	for _, name := range st.NodeNames() {
		n := st.Nodes[name]
		nodes = append(nodes, spec.Node{Name: n.Name, Address: n.Address, Role: n.Role})
	}
	if err := config.CheckGroups(groups, nodes); err != nil {
		return fail("bad-groups", "correct the cluster file and apply it again", "%v", err)
	}
	return nil
}

// Apply makes the groups the whole wanted set and waits for the result.
func (a *Agent) Apply(ctx context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	return ask(a, func() (*api.ApplyResult, error) { return direct{a}.Apply(ctx, req) },
		func(c *api.Client) (*api.ApplyResult, error) { return c.Apply(ctx, req) })
}

// Apply answers a forwarded call.
func (d direct) Apply(ctx context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	plan, err := d.Plan(ctx, req.Groups)
	if err != nil {
		return nil, err
	}
	if err := d.commit(ctx, fsm.Command{SetGroups: &fsm.SetGroups{Groups: req.Groups}}); err != nil {
		return nil, err
	}
	settled := d.wait(ctx, req.Wait, func(s *fsm.State) bool {
		for _, name := range s.GroupNames() {
			g := s.Groups[name]
			if !g.Started && len(g.Failed) == 0 {
				return false
			}
		}
		return true
	})
	res := &api.ApplyResult{Changes: plan.Changes}
	var bad []string
	d.machine.View(func(s *fsm.State) {
		for _, name := range s.GroupNames() {
			g := groupStatus(s.Groups[name])
			res.Groups = append(res.Groups, g)
			if *g.State != api.GroupRunning {
				bad = append(bad, fmt.Sprintf("%s is %s", name, *g.State))
			}
		}
	})
	if req.Wait > 0 && len(bad) > 0 {
		how := "after " + req.Wait.String()
		if settled {
			how = "now"
		}
		return res, fail("not-running", "`hanode status` and `hanode why GROUP` say more", "applied, but %s %s", strings.Join(bad, ", "), how)
	}
	return res, nil
}

// commit proposes and turns a rejection into a refusal.
func (a *Agent) commit(ctx context.Context, c fsm.Command) error {
	c.At = a.host.Clock.Wall()
	res, err := a.propose(ctx, c)
	switch {
	case errors.Is(err, cluster.ErrNoLeader):
		return a.noQuorum()
	case err != nil:
		return fail("not-committed", "it may have been done all the same: look with `hanode status`, then ask again", "%v", err)
	case res.Rejected != "":
		return fail("refused", "", "%s", res.Rejected)
	}
	return nil
}

// wait polls the state until done says so, at most limit; 0 = does not wait.
func (a *Agent) wait(ctx context.Context, limit time.Duration, done func(*fsm.State) bool) bool {
	end := time.Now().Add(limit)
	for {
		ok := false
		a.machine.View(func(s *fsm.State) { ok = done(s) })
		if ok || limit == 0 || time.Now().After(end) || ctx.Err() != nil {
			return ok
		}
		sleepCtx(ctx, time.Millisecond)
	}
}

// Move is a switchover on request.
func (a *Agent) Move(ctx context.Context, req api.MoveRequest) (*api.MoveResult, error) {
	return ask(a, func() (*api.MoveResult, error) { return direct{a}.Move(ctx, req) },
		func(c *api.Client) (*api.MoveResult, error) { return c.Move(ctx, req) })
}

// Move answers a forwarded call.
func (d direct) Move(ctx context.Context, req api.MoveRequest) (*api.MoveResult, error) {
	in := d.inputs()
	g := in.State.Groups[req.Group]
	if g == nil || g.Deleted {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "there is no group %q", req.Group)
	}
	from := api.Known(g.Owner.Name)
	if req.Unpin {
		if err := d.commit(ctx, fsm.Command{Pin: &fsm.Pin{Group: req.Group}}); err != nil {
			return nil, err
		}
		return &api.MoveResult{Group: req.Group, From: from, To: g.Owner.Name, Epoch: uint64(g.Epoch)}, nil
	}
	to, err := target(in, g, req.To)
	if err != nil {
		return nil, err
	}
	if to.Name == g.Owner.Name && g.Owner.Inc == to.Inc && !g.OwnerReleased {
		if err := d.commit(ctx, fsm.Command{Pin: &fsm.Pin{Group: req.Group, On: true}}); err != nil {
			return nil, err
		}
		return &api.MoveResult{Group: req.Group, From: from, To: to.Name, Epoch: uint64(g.Epoch)}, nil
	}
	epoch := g.Epoch + 1
	err = d.commit(ctx, fsm.Command{Takeover: &fsm.Takeover{Cause: "switchover", Assigns: []fsm.Assign{{
		Group: req.Group, Epoch: epoch, To: to, Pin: true, Why: "asked by an operator",
	}}}})
	if err != nil {
		return nil, err
	}
	res := &api.MoveResult{Group: req.Group, From: from, To: to.Name, Epoch: uint64(epoch)}
	if !d.moved(ctx, req.Wait, res) {
		return nil, fail("not-moved", "`hanode status` and `hanode events` say where it is now", "%s does not run on %s after %v", req.Group, to.Name, req.Wait)
	}
	return res, nil
}

// moved waits until res is true and fills in the silence that was measured.
func (a *Agent) moved(ctx context.Context, limit time.Duration, res *api.MoveResult) bool {
	if limit == 0 {
		return true
	}
	over := false
	a.wait(ctx, limit, func(s *fsm.State) bool {
		g := s.Groups[res.Group]
		if g == nil || g.Deleted || uint64(g.Epoch) != res.Epoch || g.Failed[res.To] != "" {
			return true
		}
		over = g.Started
		return over
	})
	if over {
		a.machine.View(func(s *fsm.State) {
			for _, e := range slices.Backward(s.Events) {
				if e.Group == res.Group && uint64(e.Epoch) == res.Epoch && e.Kind == "started" {
					res.SilentMS = e.MS
					return
				}
			}
		})
	}
	return over
}

// target checks the wished owner, or picks the best other one.
func target(in failover.Inputs, g *fsm.Group, want string) (id.NodeRef, error) {
	cands := failover.Candidates(in, g, failover.Load(in.State))
	var can []string
	for _, c := range cands {
		if c.Eligible && c.Node != g.Owner.Name {
			can = append(can, c.Node)
		}
	}
	fix := "no other node can take it now; `hanode why " + g.Spec.Name + "` says why"
	if len(can) > 0 {
		fix = "it can go to: " + strings.Join(can, ", ")
	}
	if want == "" {
		if len(can) == 0 {
			return id.NodeRef{}, fail("no-target", fix, "%s has nowhere to go", g.Spec.Name)
		}
		want = can[0]
	}
	for _, c := range cands {
		if c.Node != want {
			continue
		}
		// An operator may insist on a node where it failed before.
		if !c.Eligible && (g.Failed[want] == "" || !strings.HasPrefix(c.Because, "failed here")) {
			return id.NodeRef{}, fail("bad-target", fix, "%s cannot own %s: %s", want, g.Spec.Name, c.Because)
		}
		return in.State.Nodes[want].Ref(), nil
	}
	return id.NodeRef{}, fail(api.CodeNotFound, fix, "there is no node %q", want)
}

// Standby takes a node out of, or back into, the choice of owners.
func (a *Agent) Standby(ctx context.Context, node string, on bool, wait time.Duration) (*api.NodeResult, error) {
	return ask(a, func() (*api.NodeResult, error) { return direct{a}.Standby(ctx, node, on, wait) },
		func(c *api.Client) (*api.NodeResult, error) { return c.Standby(ctx, node, on, wait) })
}

// Standby answers a forwarded call.
func (d direct) Standby(ctx context.Context, node string, on bool, limit time.Duration) (*api.NodeResult, error) {
	before := d.machine.Copy()
	if n := before.Nodes[node]; n == nil || n.Removed {
		return nil, fail(api.CodeNotFound, "the members are: "+strings.Join(before.NodeNames(), ", "), "there is no node %q", node)
	}
	if err := d.commit(ctx, fsm.Command{Standby: &fsm.Standby{Node: node, On: on}}); err != nil {
		return nil, err
	}
	res := &api.NodeResult{Node: node, Standby: on}
	if !on || limit == 0 {
		return res, nil
	}
	gone := d.wait(ctx, limit, func(s *fsm.State) bool {
		for _, name := range s.GroupNames() {
			g := s.Groups[name]
			if g.Owner.Name == node && !g.OwnerReleased {
				return false
			}
			if old := before.Groups[name]; old != nil && old.Owner.Name == node && !g.Started {
				return false
			}
		}
		return true
	})
	d.machine.View(func(s *fsm.State) {
		for _, name := range s.GroupNames() {
			old, g := before.Groups[name], s.Groups[name]
			if old == nil || old.Owner.Name != node || g.Owner.Name == node {
				continue
			}
			res.Moves = append(res.Moves, api.MoveResult{Group: name, From: api.Known(node), To: g.Owner.Name, Epoch: uint64(g.Epoch)})
		}
	})
	for i := range res.Moves {
		d.moved(ctx, limit, &res.Moves[i])
	}
	if !gone {
		return res, fail("not-moved", "`hanode why GROUP` says why; they stay where they are rather than stop",
			"%s is standby, but some of its groups have nowhere to go", node)
	}
	return res, nil
}

// Maintenance suspends or resumes everything automatic.
func (a *Agent) Maintenance(ctx context.Context, on bool) error {
	return a.commit(ctx, fsm.Command{Maintenance: &fsm.Maintenance{On: on}})
}

// Leave ends this node's membership; it returns once that is committed. The agent
// then stops and sets data_dir aside.
func (a *Agent) Leave(ctx context.Context) error {
	if err := a.commit(ctx, fsm.Command{Leave: &fsm.Leave{Node: a.cfg.Name}}); err != nil {
		return err
	}
	select {
	case <-a.removed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2*time.Minute + 4*a.timing().Deadtime):
		return fail("still-leaving", "it goes on by itself; `hanode members` on another node shows when it is done", "%s is still leaving", a.cfg.Name)
	}
}

// Leave by another agent's call is refused: a node leaves by its own agent.
func (d direct) Leave(context.Context) error {
	return fail(api.CodeNotAllowed, "run `hanode leave` on the node itself", "a node leaves by its own agent")
}

// Events hands out the history from this node's own log.
func (a *Agent) Events(ctx context.Context, after uint64, follow bool, fn func(api.Event) error) error {
	for {
		var fresh []fsm.Event
		a.machine.View(func(s *fsm.State) {
			for _, e := range s.Events {
				if e.Index > after {
					fresh = append(fresh, e)
				}
			}
		})
		for _, e := range fresh {
			after = e.Index
			if err := fn(event(e)); err != nil {
				return err
			}
		}
		if !follow {
			if _, err := a.leaderAPI(); err != nil {
				return err
			}
			return nil
		}
		sleepCtx(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func event(e fsm.Event) api.Event {
	return api.Event{
		Index: e.Index, Time: e.Time, Node: api.Known(e.Node), Group: api.Known(e.Group), Epoch: api.Known(uint64(e.Epoch)),
		Kind: e.Kind, Cause: api.Known(e.Cause), Text: e.Text, MS: e.MS,
	}
}

// Why explains a group's place.
func (a *Agent) Why(ctx context.Context, group string) (*api.Why, error) {
	w, err := ask(a, func() (*api.Why, error) { return direct{a}.Why(ctx, group) },
		func(c *api.Client) (*api.Why, error) { return c.Why(ctx, group) })
	if e, ok := errors.AsType[*api.Error](err); ok && w == nil && e.Exit == api.ExitNoQuorum {
		here, hereErr := direct{a}.Why(ctx, group)
		if hereErr != nil {
			return nil, hereErr
		}
		return here, err
	}
	return w, err
}

// Why answers a forwarded call.
func (d direct) Why(_ context.Context, group string) (*api.Why, error) {
	in := d.inputs()
	e, err := failover.Explain(in, group)
	if err != nil {
		return nil, fail(api.CodeNotFound, "`hanode status` lists the groups", "%v", err)
	}
	g := in.State.Groups[group]
	out := &api.Why{Group: group, Owner: api.Known(g.Owner.Name), Epoch: uint64(g.Epoch), IfOwnerDies: api.Known(e.IfOwnerDies)}
	for _, c := range e.Candidates {
		r := api.Reason{Node: c.Node, Eligible: c.Eligible, Because: c.Because}
		if c.Eligible {
			s := float64(c.Score)
			r.Score = &s
		}
		if c.Node == g.Owner.Name {
			r.Because = "owns it since epoch " + fmt.Sprint(g.Epoch) + " (" + g.Cause + "); " + r.Because
		}
		out.Reasons = append(out.Reasons, r)
	}
	return out, nil
}

// Version says what runs.
func (a *Agent) Version() api.Version {
	return api.Version{Version: a.opts.Version, Go: runtime.Version(), Node: a.cfg.Name, Cluster: a.cfg.Cluster}
}

// holds reports whether this node may hold the group now; for tests of I2.
func (a *Agent) holds(group string) lease.Verdict {
	a.hold.Lock()
	defer a.hold.Unlock()
	if a.hold.holder == nil {
		return lease.Verdict{Why: lease.NotOwner}
	}
	return a.hold.holder.May(group, a.host.Clock.Now())
}
