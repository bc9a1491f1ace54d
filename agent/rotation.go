package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/trust"
	"hanode/peer"
)

// The cluster's key is changed while it runs: the leader brings every member through the
// phases (failover.NextKeyPhase) and each follows by itself (keyring.go). Nothing of it
// lives in the leader alone, so a lost leader, or an agent that dies anywhere, delays it.

const (
	rotationTick = 200 * time.Millisecond
	keysLimit    = time.Second // one question, which keys a node has
	askAtOnce    = 32
)

// rotationLoop takes the rotation on while this node leads.
func (a *Agent) rotationLoop(ctx context.Context) {
	tick := a.grid.Ticker(rotationTick)
	defer tick.Stop()
	var phase *fsm.Rotation
	var since clock.Instant
	for {
		var s *fsm.State
		a.machine.View(func(st *fsm.State) {
			if st.Rotation != nil {
				s = st.Clone()
			}
		})
		if s != nil {
			if s.Rotation != phase {
				phase, since = s.Rotation, a.host.Clock.Now()
			}
			reports := a.askKeys(ctx, failover.KeyMembers(s, s.Rotation.Without))
			next, why := failover.NextKeyPhase(failover.KeyInputs{State: s, Reports: reports, Waited: a.host.Clock.Now().Elapsed(since)})
			if next != "" && ctx.Err() == nil {
				a.takeRotation(ctx, s.Rotation, next, why)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

func (a *Agent) takeRotation(ctx context.Context, r *fsm.Rotation, next fsm.KeyPhase, why string) {
	n := a.node.Load()
	_, err := n.Propose(ctx, fsm.Command{At: a.host.Clock.Wall(), RotateKey: &fsm.RotateKey{From: r.From, To: r.To, Phase: next, Why: why}})
	if err == nil {
		a.log.Info("the change of the key goes on", "phase", next, "why", why)
	}
}

// askKeys asks nodes, this one too, which keys they have. Who does not answer is not in
// the result.
func (a *Agent) askKeys(ctx context.Context, names []string) map[string]failover.KeyReport {
	out := map[string]failover.KeyReport{}
	ctx, cancel := context.WithTimeout(ctx, keysLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, askAtOnce)
	clk := a.host.Clock.Now()
	for _, name := range names {
		if a.isSilent(name, clk) {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			rep, err := a.keys.report(), error(nil)
			if name != a.cfg.Name {
				rep, err = a.peers.Keys(ctx, name)
			}
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = failover.KeyReport{Have: rep.Have, Err: rep.Err}
		})
	}
	wg.Wait()
	return out
}

// RotateKey changes the cluster's key, or takes such a change back, and waits for the end.
func (a *Agent) RotateKey(ctx context.Context, req api.RotateKeyRequest) (*api.KeyStatus, error) {
	st, err := ask(ctx, a, writePatience, func() (*api.KeyStatus, error) { return direct{a}.RotateKey(ctx, req) },
		func(c *api.Client) (*api.KeyStatus, error) {
			// It does not wait there. A leader that is dead must not take all the patience: to ask
			// the next one the same again changes nothing.
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			st, err := c.RotateKey(short, api.RotateKeyRequest{Without: req.Without, Undo: req.Undo})
			if short.Err() != nil && ctx.Err() == nil {
				return nil, &api.Error{Code: api.CodeUnreachable, Exit: api.ExitUnreachable, Message: "the leader does not answer"}
			}
			return st, err
		})
	if err != nil || req.Wait == 0 {
		return st, err
	}
	if r := st.Rotation; r != nil {
		over := a.wait(ctx, req.Wait, func(s *fsm.State) bool { return s.IsRetired(r.From) || s.IsRetired(r.To) })
		if st, err = a.KeyStatus(ctx); err != nil {
			return st, err
		}
		if !over {
			return st, fail("key-rotation", "it goes on by itself: `hanode key status` shows what it waits for, `hanode key rotate --undo` ends it", "the change of the key is not over after %v", req.Wait)
		}
	}
	if n := len(st.Retired); n > 0 && st.Retired[n-1].Undone != nil && !req.Undo {
		return st, fail("key-undone", "correct what the text says, and rotate again", "the change of the key was undone: %s", *st.Retired[n-1].Undone)
	}
	return st, nil
}

// RotateKey answers a forwarded call: it begins, and does not wait.
func (d direct) RotateKey(ctx context.Context, req api.RotateKeyRequest) (*api.KeyStatus, error) {
	a := d.Agent
	s := a.machine.Copy()
	switch {
	case req.Undo && s.Rotation == nil:
		return nil, fail("refused", "", "no change of the key is under way")
	case req.Undo:
		r := s.Rotation
		if err := a.commit(ctx, fsm.Command{RotateKey: &fsm.RotateKey{From: r.From, To: r.To, Phase: fsm.KeyUndo, Why: "an operator said so"}}); err != nil {
			return nil, err
		}
	case s.Rotation == nil:
		if err := a.beginRotation(ctx, s, req.Without); err != nil {
			return nil, err
		}
	}
	return d.KeyStatus(ctx)
}

// beginRotation begins a rotation if every member but those of without can follow.
func (a *Agent) beginRotation(ctx context.Context, s *fsm.State, leave []string) error {
	for _, name := range leave {
		if !slices.Contains(s.NodeNames(), name) {
			return fail(api.CodeNotFound, "the members are: "+strings.Join(s.NodeNames(), ", "), "there is no node %q", name)
		}
	}
	names := failover.KeyMembers(s, leave)
	if !slices.Contains(names, a.cfg.Name) {
		return fail("refused", "restart its agent, so that another node leads, and ask again", "%s leads, and cannot be left behind", a.cfg.Name)
	}
	if err := a.canRotate(names, a.askKeys(ctx, names)); err != nil {
		return err
	}
	from, to, err := a.keys.addNext(s)
	if err != nil {
		return err
	}
	return a.commit(ctx, fsm.Command{RotateKey: &fsm.RotateKey{From: from, To: to, Phase: fsm.KeyAdd, Without: leave}})
}

// addNext puts the key to change to on this disk: from the commit on, others ask for it.
func (k *keyring) addNext(s *fsm.State) (from, to string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	have := k.Keys()
	next, err := nextKey(have, s)
	if err != nil {
		return "", "", err
	}
	if err := k.setLocked(have.Before(next)); err != nil {
		return "", "", fail("refused", "make the key file and its folder writable", "the key file cannot be changed: %v", err)
	}
	return have.Fingerprint(), next.Fingerprint(), nil
}

// canRotate says why not every node could follow.
func (a *Agent) canRotate(names []string, reports map[string]failover.KeyReport) error {
	own := a.keys.Keys().Fingerprint()
	for _, name := range names {
		rep, ok := reports[name]
		switch {
		case !ok:
			return fail("refused", fmt.Sprintf("start it, or leave it behind: hanode key rotate --without %s; it then has to be given the new key file by hand", name),
				"%s does not answer, so it could not follow; nothing was changed", name)
		case rep.Err != "":
			return fail("refused", "see docs/keys.md", "%s cannot change its keys: %s; nothing was changed", name, rep.Err)
		case len(rep.Have) == 0 || rep.Have[0] != own:
			return fail("refused", "make the key files alike, the same key first in each; the agents take them by themselves", "%s uses another of its keys than %s; nothing was changed", name, a.cfg.Name)
		}
	}
	return nil
}

// nextKey is the key to change to: one that waits in this node's file, because an
// operator put it there (on every node, so that it need not travel) or because a change
// ended before it began; else a new one.
func nextKey(have *trust.Keys, s *fsm.State) (*trust.Keys, error) {
	var waiting []string
	for _, f := range have.Fingerprints()[1:] {
		if !s.IsRetired(f) {
			waiting = append(waiting, f)
		}
	}
	switch len(waiting) {
	case 0:
		return trust.Parse("a new key", []byte(trust.Generate()))
	case 1:
		return have.Only(waiting[0]), nil
	}
	return nil, fail("refused", "leave the active key and at most one more in it", "the key file has %d keys besides the active one; which should be next?", len(waiting))
}

// KeyStatus says which keys the members have, and how far a change of them is.
func (a *Agent) KeyStatus(ctx context.Context) (*api.KeyStatus, error) {
	st, err := ask(ctx, a, readPatience, func() (*api.KeyStatus, error) { return direct{a}.KeyStatus(ctx) },
		func(c *api.Client) (*api.KeyStatus, error) { return c.KeyStatus(ctx) })
	if e, ok := errors.AsType[*api.Error](err); ok && st == nil && e.Exit == api.ExitNoQuorum {
		return a.keyStatus(map[string]failover.KeyReport{a.cfg.Name: reported(a.keys.report())}), err
	}
	return st, err
}

func reported(r peer.KeyReport) failover.KeyReport { return failover.KeyReport(r) }

// KeyStatus answers a forwarded call.
func (d direct) KeyStatus(ctx context.Context) (*api.KeyStatus, error) {
	var names []string
	d.machine.View(func(s *fsm.State) { names = s.NodeNames() })
	return d.keyStatus(d.askKeys(ctx, names)), nil
}

func (a *Agent) keyStatus(reports map[string]failover.KeyReport) *api.KeyStatus {
	s := a.machine.Copy()
	out := &api.KeyStatus{}
	if r := s.Rotation; r != nil {
		out.Rotation = &api.Rotation{Phase: string(r.Phase), From: r.From, To: r.To, Since: r.Since, Without: r.Without, Why: api.Known(r.Why)}
		for _, b := range failover.KeyBehind(s, reports) {
			out.Rotation.WaitsFor = append(out.Rotation.WaitsFor, b.Text)
		}
	}
	for _, r := range s.Retired {
		out.Retired = append(out.Retired, api.RetiredKey{Key: r.Key, At: r.At, Undone: api.Known(r.Undone)})
	}
	for _, name := range s.NodeNames() {
		rep, ok := reports[name]
		n := api.NodeKeys{Node: name, Keys: rep.Have, Problem: api.Known(rep.Err)}
		if !ok {
			n.Problem = api.Known("does not answer")
		}
		if len(rep.Have) > 0 {
			n.Active = api.Known(rep.Have[0])
		}
		out.Nodes = append(out.Nodes, n)
	}
	return out
}

// rotationProblem shows a change of the key that is under way.
func rotationProblem(s *fsm.State) []api.StatusProblem {
	r := s.Rotation
	if r == nil {
		return nil
	}
	since := r.Since
	text := fmt.Sprintf("the cluster's key is being changed (phase %s)", r.Phase)
	if r.Why != "" {
		text = "the change of the cluster's key is being undone: " + r.Why
	}
	return []api.StatusProblem{show("key-rotation", text, &since)}
}
