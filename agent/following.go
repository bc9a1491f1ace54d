package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/peer"
)

// A node that is no server of raft follows one that is: it gets what that applied, in the
// same order, into its own copy of the state, and nothing above the copy can tell who feeds
// it. Any voter will do, and the next one goes on where the one before ended. A stream that
// breaks costs no lease, for that lives from beats, and no service; it costs news.

// following is whom this node follows. Safe for concurrent use.
type following struct {
	known []string // who votes, as a member said; followLoop's
	asked int      // members that were asked for it; followLoop's

	voter  atomic.Pointer[string] // nil = nobody
	wholes atomic.Uint64          // how often all of the state came, and not only what is new
	leader atomic.Pointer[toldLeader]
	fed    atomic.Pointer[clock.Instant] // when raft or a stream fed this node last; nil = never
}

// toldLeader is who leads, as the one who is followed says.
type toldLeader struct {
	name string
	term uint64
	at   clock.Instant
}

const (
	// For how long nothing may come from raft before a node looks for somebody to follow:
	// one that votes, as far as anybody says, has other things to worry about first.
	unfed      = 2 * time.Second
	unfedVoter = 10 * time.Second
	followTick = 200 * time.Millisecond
	mostWait   = 10 // ticks between two tries
	signOfLife = time.Second
	// missesNews is for how long a node may be fed by nobody before that is a problem.
	missesNews = 30 * time.Second
)

// fed reports whether raft feeds this node's copy of the state, or is about to.
func (a *Agent) fed(ctx context.Context, n *cluster.Node) bool {
	within := func(limit time.Duration) bool {
		return n.Fed(limit) || a.host.Clock.Now().Elapsed(a.born) < limit && n.HasLog()
	}
	if within(unfed) {
		return true
	}
	votes := false
	a.machine.View(func(s *fsm.State) { votes = s.Voters.Has(a.cfg.Name) })
	return votes && within(unfedVoter) && !a.lostVote(ctx)
}

// lostVote reports whether a member with a longer log than this node's says that this one
// votes no more: it was away when it lost its vote.
func (a *Agent) lostVote(ctx context.Context) bool {
	h, err := a.askWhoVotes(ctx)
	return err == nil && !slices.Contains(a.roll().newer(rollOf(h)).voters, a.cfg.Name)
}

// followLoop follows somebody while raft does not feed this node.
func (a *Agent) followLoop(ctx context.Context) {
	n := a.node.Load()
	tick := a.grid.Ticker(followTick)
	defer tick.Stop()
	wait, next := 0, 1 // ticks
	for {
		// With two_node = "manual" the two nodes are servers, and know best from each other;
		// and who was given up follows nobody.
		switch {
		case a.manual() || a.old.Load() || a.fed(ctx, n):
			a.noteFed()
			next = 1
			a.tellUnfed(nil)
		case wait > 0: // while nobody leads, a thousand of them must not ask all the time
			wait--
		default:
			began, err := a.followAny(ctx, n)
			if began {
				next = 1
			} else {
				wait, next = next, min(2*next, mostWait)
			}
			a.tellUnfed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

func (a *Agent) noteFed() {
	now := a.host.Clock.Now()
	a.following.fed.Store(&now)
}

// behind is for how long this node may have missed news.
func (a *Agent) behind() time.Duration {
	at := a.born
	if t := a.following.fed.Load(); t != nil {
		at = *t
	}
	return a.host.Clock.Now().Elapsed(at)
}

// tellUnfed shows, or takes back, that this node gets no news; err says why it follows
// nobody. A voter has other problems then.
func (a *Agent) tellUnfed(err error) {
	d := a.behind()
	switch {
	case d < missesNews || a.voice.Load().voter || !a.founded():
		a.problems.clear("follows-nobody")
	case err != nil:
		a.problems.set("follows-nobody", fmt.Sprintf("no voter has told this node for %v what is decided: %v", d.Truncate(time.Second), err))
	}
}

// toFollow are whom a node may follow, in an order of its own, so that a thousand of them
// do not all follow the first; those that are not heard come last. For followLoop only.
func (a *Agent) toFollow() []string {
	var names []string
	a.machine.View(func(s *fsm.State) { names = slices.Clone(s.Voters.Names) })
	if len(names) == 0 {
		names = a.mayVote()
	}
	names = without(append(names, a.following.known...), a.cfg.Name)
	slices.Sort(names)
	names = slices.Compact(names)
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

// followAny follows the first that lets it, until that ends. began: one did; err says why it
// ended, or why nobody does.
func (a *Agent) followAny(ctx context.Context, n *cluster.Node) (began bool, err error) {
	errs := []error{errors.New("no voter to follow")}
	for _, voter := range a.toFollow() {
		err := a.follow(ctx, n, voter, &began)
		if ctx.Err() != nil {
			return began, ctx.Err()
		}
		if began {
			a.log.Info("the stream from a voter ended", "voter", voter, "why", err)
			a.following.known = nil
			return true, err // the next is found in a moment
		}
		errs = append(errs, err)
	}
	_, _ = a.askWhoVotes(ctx)
	err = errors.Join(errs...)
	a.log.Debug("nobody to follow yet", "err", err)
	return false, err
}

// askWhoVotes asks one member, another one each time: all that voted when this node was
// last told may be gone for good, and so may this node's membership.
func (a *Agent) askWhoVotes(ctx context.Context) (h peer.Hello, err error) {
	others := a.others()
	if len(others) == 0 {
		return h, errors.New("there is no other member")
	}
	a.following.asked++
	h, err = a.hello(ctx, others[a.following.asked%len(others)])
	switch {
	case err != nil:
	case h.Removed:
		// Not if it only came back a moment ago. Who was removed was told by the voters that
		// its registration is fenced.
		if _, registered := a.ref(); !registered {
			a.expelled()
		}
	case h.State == peer.Member:
		a.following.known = h.Voters
	}
	return h, err
}

var errFed = errors.New("raft feeds this node")

// follow follows one voter until the stream ends, the voter falls silent, or raft feeds
// this node.
func (a *Agent) follow(ctx context.Context, n *cluster.Node, voter string, began *bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
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
			case a.old.Load():
				cancel(errors.New("this node was given up"))
			case heard && a.isSilent(voter, a.host.Clock.Now()):
				cancel(fmt.Errorf("%s is silent", voter))
			}
		}
	}()
	defer func() {
		cancel(nil)
		<-ended
		a.following.voter.Store(nil)
		n.Abstain(false)
	}()
	from := peer.Place{Generation: a.disk.generation()}
	from.Index, from.Term = a.machine.Last()
	return a.peers.Follow(ctx, voter, from, func(f peer.Frame) error {
		if err := a.take(n, f); err != nil {
			return err
		}
		if !*began {
			*began = true
			a.following.voter.Store(&voter)
			a.problems.clear("follows-nobody")
			a.problems.clear("removed")
			a.log.Info("following a voter", "voter", voter, "from", from.Index)
		}
		// There is a leader, and this node is none of its voters. It may not know that from
		// raft, if it was away when it lost its vote: to ask for votes would only disturb.
		n.Abstain(!a.voice.Load().voter)
		a.noteFed()
		return nil
	})
}

// onlyFollows reports whether this node gets its news from a voter, and is none itself.
func (a *Agent) onlyFollows() bool {
	return a.following.voter.Load() != nil && !a.voice.Load().voter
}

// take feeds one frame to the copy. A leader takes none: what it proposed itself must come
// from raft first, which has the verdict for the proposer.
func (a *Agent) take(n *cluster.Node, f peer.Frame) error {
	if n.IsLeader() {
		return errFed
	}
	switch f.Kind {
	case peer.FrameEntry:
		a.machine.ApplyEntry(fsm.Entry{Index: f.Index, Term: f.Term, Data: f.Data})
		return a.machine.Broken()
	case peer.FrameSnapshot:
		a.following.wholes.Add(1)
		return a.machine.CatchUp(f.Data, f.Term)
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

// followed is what a node needs that others follow. Safe for concurrent use.
type followed struct {
	wholes chan struct{} // has a place for each that is sent all of the state just now

	mu sync.Mutex
	by map[string]*streamTo // the newest of each node that follows this one
}

// streamTo is one stream.
type streamTo struct{ end context.CancelCauseFunc }

var errNewer = errors.New("the node follows by a newer stream")

// begin counts a stream in, and ends an earlier one to the same node, which may not have
// noticed that nobody is there any more. The stream ends with the context; end counts it
// out.
func (f *followed) begin(ctx context.Context, name string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &streamTo{cancel}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil {
		f.by = map[string]*streamTo{}
	}
	if old := f.by[name]; old != nil {
		old.end(errNewer)
	}
	f.by[name] = s
	return ctx, func() {
		cancel(nil)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.by[name] == s {
			delete(f.by, name)
		}
	}
}

func (f *followed) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[name] != nil
}

func (f *followed) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.by)
}

// maxWholes bounds the copies of the state in memory that are being sent: a hundred nodes
// may start at once.
const maxWholes = 4

// Follow lets asker follow this node, which must vote, have caught up, and hear of the
// leader itself.
func (s service) Follow(ctx context.Context, asker string, from peer.Place, send func(...peer.Frame) error) error {
	a := s.a
	if err := a.mayFollow(asker, from.Generation); err != nil {
		return err
	}
	ctx, end := a.followed.begin(ctx, asker)
	defer end()
	tick := time.NewTicker(signOfLife)
	defer tick.Stop()
	index := from.Index
	next := func() ([]fsm.Entry, <-chan struct{}, bool) { return a.machine.After(index, from.Term) }
	for {
		n, err := a.isFollowable()
		if err != nil {
			return err
		}
		entries, news, ok := next()
		if !ok {
			if index, err = a.sendWhole(ctx, send); err != nil {
				return err
			}
		}
		leader, in := a.leader(n)
		frames := []peer.Frame{{Kind: peer.FrameLeader, Term: in, Data: []byte(leader)}}
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
			return context.Cause(ctx)
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-news:
		case <-tick.C:
		}
	}
}

// sendWhole sends all of the state, which is as after entry index.
func (a *Agent) sendWhole(ctx context.Context, send func(...peer.Frame) error) (index uint64, err error) {
	select {
	case a.followed.wholes <- struct{}{}:
		defer func() { <-a.followed.wholes }()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-a.ctx.Done():
		return 0, a.ctx.Err()
	}
	data, index, term, err := a.machine.Whole()
	if err != nil {
		return 0, err
	}
	return index, send(peer.Frame{Kind: peer.FrameSnapshot, Index: index, Term: term, Data: data})
}

// mayFollow says why a node may not begin to follow anybody of this cluster, or nil.
func (a *Agent) mayFollow(asker string, generation uint64) (err error) {
	a.machine.View(func(s *fsm.State) {
		switch n := s.Nodes[asker]; {
		case n == nil || n.Removed:
			err = fmt.Errorf("%s is not a member of this cluster; it was removed, or has just joined", asker)
		case generation != s.Generation:
			err = fmt.Errorf("%s is in generation %d of the cluster, and this is generation %d", asker, generation, s.Generation)
		}
	})
	return err
}

// isFollowable says why nobody should follow this node.
func (a *Agent) isFollowable() (*cluster.Node, error) {
	n := a.node.Load()
	a.grant.Lock()
	votes := a.grant.voter && a.grant.IsReady()
	a.grant.Unlock()
	switch {
	case n == nil || !votes:
		return nil, fmt.Errorf("%s does not vote, or has not caught up", a.cfg.Name)
	case !n.Fed(unfed):
		return nil, fmt.Errorf("%s hears of no leader itself", a.cfg.Name)
	case a.old.Load():
		return nil, fmt.Errorf("%s was given up", a.cfg.Name)
	case a.manual():
		return nil, errors.New("with two_node = \"manual\" nobody follows")
	}
	return n, nil
}
