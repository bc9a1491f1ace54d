package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"time"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/peer"
)

// A node that is no server of raft follows one that is: it gets what that applies, in the
// same order, into its own copy of the state, and nothing above the copy can tell who feeds
// it. Any voter will do, and the next one goes on where the one before ended. A stream that
// breaks costs no lease, for that lives from beats, and no service; it costs news.

// following is whom this node follows. Safe for concurrent use.
type following struct {
	voter  atomic.Pointer[string] // nil = nobody
	leader atomic.Pointer[toldLeader]
}

// toldLeader is who leads, as the one who is followed says.
type toldLeader struct {
	name string
	term uint64
	at   clock.Instant
}

// For how long nothing may come from raft before a node looks for somebody to follow: one
// that votes, as far as it knows, has other things to worry about first.
const (
	unfed      = 2 * time.Second
	unfedVoter = 10 * time.Second
	followTick = 200 * time.Millisecond
	signOfLife = time.Second
)

// lacksFeed reports whether nobody feeds this node's copy of the state.
func (a *Agent) lacksFeed(n *cluster.Node) bool {
	if a.manual() {
		return false // its two nodes are servers, and know best from each other
	}
	limit := unfed
	votes := false
	a.machine.View(func(s *fsm.State) { votes = s.Voters.Has(a.cfg.Name) })
	if votes {
		limit = unfedVoter
	}
	if n.Fed(limit) {
		return false
	}
	if n.Position() == (cluster.Position{}) {
		return true // it was never a server
	}
	return a.host.Clock.Now().Elapsed(a.born) >= limit
}

// followLoop follows somebody while raft does not feed this node.
func (a *Agent) followLoop(ctx context.Context) {
	n := a.node.Load()
	tick := a.grid.Ticker(followTick)
	defer tick.Stop()
	for {
		if a.lacksFeed(n) {
			a.followAny(ctx, n)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

// leaders are whom a node may follow, in an order of its own, so that a thousand of them do
// not all follow the first; those that are not heard come last.
func (a *Agent) leaders() []string {
	var names []string
	a.machine.View(func(s *fsm.State) { names = slices.Clone(s.Voters.Names) })
	if len(names) == 0 {
		names = a.mayVote()
	}
	names = without(names, a.cfg.Name)
	slices.Sort(names)
	if len(names) == 0 {
		return nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(a.cfg.Name)) // never fails
	first := int(h.Sum32() % uint32(len(names)))
	names = append(slices.Clone(names[first:]), names[:first]...)
	now := a.host.Clock.Now()
	slices.SortStableFunc(names, func(x, y string) int {
		sx, sy := a.isSilent(x, now), a.isSilent(y, now)
		switch {
		case sx == sy:
			return 0
		case sy:
			return -1
		}
		return 1
	})
	return names
}

// followAny follows the first that lets it, until that ends.
func (a *Agent) followAny(ctx context.Context, n *cluster.Node) {
	var errs []error
	for _, voter := range a.leaders() {
		began := false
		err := a.follow(ctx, n, voter, &began)
		if ctx.Err() != nil {
			return
		}
		if began {
			a.log.Info("the stream from a voter ended", "voter", voter, "why", err)
			return // the next is found in a moment
		}
		errs = append(errs, err)
	}
	a.log.Debug("nobody to follow yet", "err", errors.Join(errs...))
}

var errFed = errors.New("raft feeds this node")

// follow follows one voter until the stream ends, the voter falls silent, or raft feeds
// this node.
func (a *Agent) follow(ctx context.Context, n *cluster.Node, voter string, began *bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := a.grid.Ticker(followTick)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer watch.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-watch.C:
				watch.Next()
			}
			heard := !a.ears.last(voter).IsZero() // this node may have no registration to beat with yet
			switch {
			case n.Fed(unfed):
				cancel(errFed)
			case heard && a.isSilent(voter, a.host.Clock.Now()):
				cancel(fmt.Errorf("%s is silent", voter))
			}
		}
	}()
	defer func() { cancel(nil); <-ended }()
	defer a.following.voter.Store(nil)
	index, term := a.machine.Last()
	return a.peers.Follow(ctx, voter, index, term, func(f peer.Frame) error {
		if !*began {
			*began = true
			a.following.voter.Store(&voter)
			a.log.Info("following a voter", "voter", voter, "from", index)
		}
		return a.take(voter, f)
	})
}

// take feeds one frame to the copy.
func (a *Agent) take(voter string, f peer.Frame) error {
	switch f.Kind {
	case peer.FrameEntry:
		a.machine.ApplyEntry(fsm.Entry{Index: f.Index, Term: f.Term, Data: f.Data})
		return a.machine.Broken()
	case peer.FrameSnapshot:
		if err := a.machine.RestoreAt(f.Data, f.Term); err != nil {
			return err
		}
		have := uint64(0)
		a.machine.View(func(s *fsm.State) { have = s.Index })
		if have > f.Index {
			// What came next would be applied to something else.
			return fmt.Errorf("%s is at entry %d, this node knows up to %d; it follows one that knows more", voter, f.Index, have)
		}
	case peer.FrameLeader:
		a.following.leader.Store(&toldLeader{string(f.Data), f.Term, a.host.Clock.Now()})
	}
	return nil
}

// leaderTold is who leads by the word of the one who is followed; "" = nobody, or that
// word is old.
func (a *Agent) leaderTold() (string, uint64) {
	t := a.following.leader.Load()
	if t == nil || a.host.Clock.Now().Elapsed(t.at) >= peer.QuietLimit {
		return "", 0
	}
	return t.name, t.term
}

// Follow lets another node follow this one, which must vote, have caught up, and hear of
// the leader itself.
func (s service) Follow(ctx context.Context, index, term uint64, send func(...peer.Frame) error) error {
	a := s.a
	tick := time.NewTicker(signOfLife)
	defer tick.Stop()
	next := func() ([]fsm.Entry, <-chan struct{}, bool) { return a.machine.After(index, term) }
	for {
		n, err := a.followed()
		if err != nil {
			return err
		}
		leader, in := a.leader(n)
		frames := []peer.Frame{{Kind: peer.FrameLeader, Term: in, Data: []byte(leader)}}
		entries, news, ok := next()
		if !ok {
			data, i, of, err := a.machine.Whole()
			if err != nil {
				return err
			}
			frames = append(frames, peer.Frame{Kind: peer.FrameSnapshot, Index: i, Term: of, Data: data})
			index = i
		}
		for _, e := range entries {
			frames = append(frames, peer.Frame{Kind: peer.FrameEntry, Index: e.Index, Term: e.Term, Data: e.Data})
			index = e.Index
		}
		next = func() ([]fsm.Entry, <-chan struct{}, bool) { return a.machine.Since(index) }
		if err := send(frames...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-news:
		case <-tick.C:
		}
	}
}

// followed says why nobody should follow this node.
func (a *Agent) followed() (*cluster.Node, error) {
	n := a.node.Load()
	a.grant.Lock()
	votes := a.grant.voter && a.grant.IsReady()
	a.grant.Unlock()
	switch {
	case n == nil || !votes:
		return nil, fmt.Errorf("%s does not vote, or has not caught up", a.cfg.Name)
	case !n.Fed(unfed):
		return nil, fmt.Errorf("%s hears of no leader itself", a.cfg.Name)
	case a.manual():
		return nil, errors.New("with two_node = \"manual\" nobody follows")
	}
	return n, nil
}
