package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/failover"
	"hanode/fsm"
	"hanode/lease"
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
	var missing []string
	voters := a.quorumOf()
	for _, v := range voters {
		if a.isSilent(v, now) {
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
	to, _ := a.leader(n)
	if n.IsLeader() && to == a.cfg.Name {
		// A leader that was just cut off leads, as far as raft knows, for a moment more.
		if !a.majorityAnswers(a.host.Clock.Now()) {
			return nil, a.noQuorum()
		}
		return nil, nil
	}
	if to == "" || to == a.cfg.Name {
		return nil, a.noQuorum()
	}
	// Raft remembers a leader for as long as nobody says otherwise; the beats know
	// better, and nobody should wait for a dead one at 3 a.m.
	if at := a.ears.last(to); !at.IsZero() && a.host.Clock.Now().Elapsed(at) >= a.timing().Deadtime {
		return nil, a.noQuorum()
	}
	return api.New("the leader "+to, func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := a.whileHeard(ctx, to)
		defer cancel()
		return a.dialTLS(ctx, to, alpnPeer)
	}), nil
}

// whileHeard is ctx for as long as a node is not silent for deadtime: one that is just
// about to be dead would be dialled until the caller gives up. A stream to it that stands
// already is closed by gossip.
func (a *Agent) whileHeard(ctx context.Context, node string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(a.cfg.Timing.Keepalive)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if at := a.ears.last(node); !at.IsZero() && a.host.Clock.Now().Elapsed(at) >= a.timing().Deadtime {
				cancel()
				return
			}
		}
	}()
	return ctx, cancel
}

// ask runs local if this node leads, else remote at the leader. An election takes
// a moment: while a majority of voters is heard it is waited out, up to patience.
// Without a leader it returns the no-quorum error.
func ask[T any](ctx context.Context, a *Agent, patience time.Duration, local func() (T, error), remote func(*api.Client) (T, error)) (T, error) {
	for end := a.host.Clock.Now().Add(patience); ; sleepCtx(ctx, 10*time.Millisecond) {
		v, err := askOnce(a, local, remote)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Exit != api.ExitNoQuorum || ctx.Err() != nil || !a.host.Clock.Now().Before(end) || !a.majorityAnswers(a.host.Clock.Now()) {
			return v, err
		}
	}
}

// How long a call waits for an election to end.
const (
	readPatience  = time.Second
	writePatience = 5 * time.Second
)

func askOnce[T any](a *Agent, local func() (T, error), remote func(*api.Client) (T, error)) (T, error) {
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

// commit proposes and turns a rejection into a refusal. Commands are idempotent, so
// one whose fate an election left open is proposed again.
func (a *Agent) commit(ctx context.Context, c fsm.Command) error {
	c.At = a.host.Clock.Wall()
	for end := a.host.Clock.Now().Add(writePatience); ; sleepCtx(ctx, 20*time.Millisecond) {
		res, err := a.propose(ctx, c)
		now := a.host.Clock.Now()
		switch {
		case err == nil && res.Rejected != "":
			return fail("refused", "", "%s", res.Rejected)
		case err == nil:
			return nil
		case a.canSpeakNow() < c.Needs() && a.machine.Speakable(c) != nil:
			return fail("version", "`hanode status` lists the nodes that are behind", "%v", a.machine.Speakable(c))
		case ctx.Err() == nil && now.Before(end) && a.majorityAnswers(now):
			continue
		case errors.Is(err, cluster.ErrNoLeader):
			return a.noQuorum()
		}
		return fail("not-committed", "it may have been done all the same: look with `hanode status`, then ask again", "%v", err)
	}
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
		Output: api.Known(e.Output),
	}
}

// Why explains a group's place.
func (a *Agent) Why(ctx context.Context, group string) (*api.Why, error) {
	w, err := ask(ctx, a, readPatience, func() (*api.Why, error) { return direct{a}.Why(ctx, group) },
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
			r.Because = ownership(in, g) + "; " + r.Because
		}
		out.Reasons = append(out.Reasons, r)
	}
	return out, nil
}

// ownership says since when and why the owner of record is that.
func ownership(in failover.Inputs, g *fsm.Group) string {
	switch left := failover.Calming(in, g); {
	case left > 0:
		return fmt.Sprintf("failed here at epoch %d, a moment after it had moved here (%s): it moves on in %v",
			g.Epoch, g.Cause, failover.Seconds(left))
	case g.OwnerReleased:
		return fmt.Sprintf("owned it at epoch %d (%s) and let it go", g.Epoch, g.Cause)
	}
	return fmt.Sprintf("owns it since epoch %d (%s)", g.Epoch, g.Cause)
}

// Version says what runs.
func (a *Agent) Version() api.Version {
	return api.Version{Version: a.opts.Version, Go: runtime.Version(), Node: a.cfg.Name, Cluster: a.cfg.Cluster}
}

// Heartbeat says what cl_status asks for beside the rest.
func (a *Agent) Heartbeat() api.Heartbeat {
	h := api.Heartbeat{Parameters: a.cfg.HeartbeatParameters(a.timing()), Clients: a.clients.list()}
	if a.member == nil {
		for _, n := range a.cfg.Nodes {
			h.Nodes = append(h.Nodes, n.Name)
		}
	}
	if a.cfg.IPFail {
		h.Clients = append(h.Clients, "ipfail")
	}
	now := a.host.Clock.Now()
	a.pings.mu.Lock()
	defer a.pings.mu.Unlock()
	for _, p := range a.cfg.Ping {
		h.Ping = append(h.Ping, api.PingNode{Name: p.Name, Up: a.pings.reaches(p, now, a.deadping())})
	}
	return h
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
