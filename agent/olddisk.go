package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/atomicfile"
	"hanode/lease"
	"hanode/peer"
)

// A data_dir that was restored from a backup, or whose disk lost what it had said was
// written, has forgotten votes and entries that others count on, and must not go on
// under its raft identity (R12). It cannot know that by itself. So every node tells
// the voters what its disk holds, once it is there; they remember the most they heard
// of each; and a node that starts asks them before it starts raft. Behind what they
// know, it joins anew, as an empty disk does.
//
// What a disk held in its last moments, or while it was cut off from all who are up
// now, nobody can tell it.

// known is what was heard of other nodes' disks. Safe for concurrent use.
type known struct {
	mu    sync.Mutex
	m     map[string]cluster.Held
	dirty bool // not saved yet
}

func (k *known) hear(from string, h cluster.Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if most := k.m[from].Furthest(h); most != k.m[from] {
		if k.m == nil {
			k.m = map[string]cluster.Held{}
		}
		k.m[from], k.dirty = most, true
	}
}

func (k *known) of(name string) cluster.Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[name]
}

const knownFile = "disks.json"

// load reads what an earlier process heard. A file that cannot be read is as good as
// none: others have one too.
func (k *known) load(path string) {
	var m map[string]cluster.Held
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &m) == nil {
		for name, h := range m {
			k.hear(name, h)
		}
	}
}

// save writes what is new. It may fail, as the disk may be full; it is tried again.
func (k *known) save(path string) error {
	k.mu.Lock()
	b, err := json.Marshal(k.m)
	dirty := k.dirty
	k.dirty = false
	k.mu.Unlock()
	if !dirty {
		return nil
	}
	if err == nil {
		err = atomicfile.Write(path, b)
	}
	if err != nil {
		k.mu.Lock()
		k.dirty = true
		k.mu.Unlock()
		return fmt.Errorf("save what other nodes' disks hold: %w", err)
	}
	return nil
}

// How often a disk that got further is told, one that did not, and how often what was
// heard is written down.
const (
	tellNews  = 100 * time.Millisecond
	tellAgain = time.Second
	saveKnown = 10 * time.Second
)

// heldLoop tells the voters what this node's disk holds.
func (a *Agent) heldLoop(ctx context.Context) {
	n := a.node.Load()
	tick := a.grid.Ticker(tellNews)
	defer tick.Stop()
	var told cluster.Held
	var seen cluster.Progress
	var at time.Duration // since it was told
	var saved time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
		at, saved = at+tellNews, saved+tellNews
		if p := n.Progress(); p != seen || at >= tellAgain {
			seen = p
			if h := n.Held(); h != told || at >= tellAgain {
				told, at = h, 0
				others := a.toTell(n)
				if len(others) == 0 { // those that are to vote beside it must know before they do
					others = a.others()
				}
				a.gossip.Send(h.Encode([]byte{byte(lease.KindHeld)}), others...)
			}
		}
		if saved >= saveKnown {
			saved = 0
			if err := a.known.save(a.disk.path(knownFile)); err != nil {
				a.log.Debug("not saved", "err", err)
			}
		}
	}
}

// toTell are the other voters: of raft, and those of record, which are others on a node
// that is no server of raft (any more).
func (a *Agent) toTell(n *cluster.Node) []string {
	out := a.raftVoters(n)
	a.machine.View(func(s *fsm.State) { out = append(out, s.Voters.Names...) })
	slices.Sort(out)
	return without(slices.Compact(out), a.cfg.Name)
}

// heldBy is the most that is known here of a node's disk.
func (a *Agent) heldBy(name string, disk uint64) cluster.Held {
	return a.known.of(name).Furthest(cluster.Held{Disk: disk})
}

// roll is who votes by the newest raft configuration on a disk, and how far that
// disk's log reaches. Of two the one with the longer log is newer.
type roll struct {
	voters []string
	at     cluster.Position
}

// newer is the newer of both.
func (r roll) newer(o roll) roll {
	if len(o.voters) > 0 && r.at.Before(o.at) {
		return o
	}
	return r
}

// besides is how many voters other than name are a majority together with it, or
// without it if it is none.
func (r roll) besides(name string) int {
	m := len(r.voters)/2 + 1
	if slices.Contains(r.voters, name) {
		m--
	}
	return m
}

// roll is this node's own: before raft runs on its disk what was read from it.
func (a *Agent) roll() roll {
	if n := a.node.Load(); n != nil {
		return roll{a.raftVoters(n), n.Position()}
	}
	if r := a.onDisk.Load(); r != nil {
		return *r
	}
	return roll{}
}

// resume lets the disk go on under its identity if nobody knows better; else it
// makes it join anew. A majority of the voters must have been asked, this node
// included: less cannot elect anybody, so nothing waits for it that could go on. Who
// votes is what the newest disk says that is heard of: voters that left since this
// node was up would be waited for in vain. With two_node = "manual" see askOther. It
// returns the stores to go on with.
func (a *Agent) resume(ctx context.Context, stores cluster.Stores) (cluster.Stores, error) {
	mine, voters, err := cluster.Remembered(stores)
	if err != nil {
		return stores, err
	}
	mine.Disk = a.disk.number()
	own := roll{voters, mine.Position}
	if len(voters) > 0 && own.besides(a.cfg.Name) == 0 && !a.manual() {
		own = a.soleVoter(ctx, own)
	}
	a.onDisk.Store(&own)
	a.grant.Lock()
	a.speak()
	a.grant.Unlock()
	most, via, err := a.askOlder(ctx, mine, own)
	if err != nil || !mine.Behind(most) {
		return stores, err
	}
	text := fmt.Sprintf("data_dir holds disk %d, term %d, entry %d of term %d; others heard of disk %d, term %d, entry %d of term %d",
		mine.Disk, mine.Term, mine.Position.LastIndex, mine.Position.LastTerm, most.Disk, most.Term, most.Position.LastIndex, most.Position.LastTerm)
	a.log.Warn("this data_dir is older than what others know of it; joining anew", "why", text)
	a.problems.set("disk-old", text)
	if a.manual() { // it may hold entries that the other one's log does not
		if stores, err = a.emptyStores(stores); err != nil {
			return stores, err
		}
	}
	for ctx.Err() == nil {
		if err := a.alone(ctx); err != nil {
			return stores, err
		}
		if err := a.rejoin(ctx, via); err == nil {
			a.problems.clear("disk-old")
			return stores, nil
		}
		sleepCtx(ctx, 100*time.Millisecond)
	}
	return stores, ctx.Err()
}

// askOlder asks the others what they know of this node's disk, and says through whom to
// join anew if that is more than it holds.
func (a *Agent) askOlder(ctx context.Context, mine cluster.Held, own roll) (most cluster.Held, via string, err error) {
	if a.manual() && a.other() != "" {
		if a.founding.Load() || a.skipsAsking(own.voters) {
			return most, "", nil
		}
		most, err = a.askOther(ctx, mine)
		return most, a.other(), err
	}
	if len(own.voters) == 0 || own.besides(a.cfg.Name) == 0 {
		return most, "", nil // never in a cluster, or alone in it
	}
	most, now, err := a.askHeld(ctx, own)
	if others := without(now.voters, a.cfg.Name); len(others) > 0 {
		return most, others[0], err
	}
	return most, a.cfg.Name, err // nobody: founders are asked anyway
}

// heldOf is what a node says that it heard of the asker's disk.
func heldOf(h peer.Hello) cluster.Held {
	return cluster.Held{Disk: h.Disk, Term: h.Term, Position: cluster.Position{LastTerm: h.LastTerm, LastIndex: h.LastIndex}}
}

// emptyStores sets raft's files aside and opens new ones.
func (a *Agent) emptyStores(stores cluster.Stores) (cluster.Stores, error) {
	a.two.mu.Lock()
	a.two.votes = false
	a.two.mu.Unlock()
	a.onDisk.Store(&roll{})
	if err := closeStores(stores); err != nil {
		return cluster.Stores{}, err
	}
	if err := a.host.SetAside(a.cfg.DataDir); err != nil {
		return cluster.Stores{}, fmt.Errorf("set raft's files aside: %w", err)
	}
	return a.host.Stores(a.cfg.DataDir)
}

// soleVoter is who votes where this disk says that this node alone does. It may go on
// alone, as it must where it is the only node. But the others, if it knows of any, are
// asked first: a data_dir from before they had votes, put back, would elect itself. Who is
// not there within initdead is off; once somebody has answered, within deadtime.
func (a *Agent) soleVoter(ctx context.Context, own roll) roll {
	newest, others := own, a.others()
	said := map[string]bool{}
	for begin := a.host.Clock.Now(); len(said) < len(others) && ctx.Err() == nil; sleepCtx(ctx, askAgain) {
		for _, h := range a.askHeldOnce(ctx, roll{voters: others}) {
			said[h.Name] = true
			newest = newest.newer(rollOf(h))
		}
		limit := a.timing().Initdead
		if len(said) > 0 {
			limit = a.timing().Deadtime
		}
		if a.host.Clock.Now().Elapsed(begin) >= limit {
			break
		}
	}
	return newest
}

// without is the list less one name.
func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// How long an answer is waited for once enough have come, and until all are asked
// again if they did not.
const (
	askGrace = 20 * time.Millisecond
	askAgain = 25 * time.Millisecond
)

// askAll is how often the voters are asked before all other members are asked, too.
const askAll = 10

// askHeld asks the other voters, all at once and again and again, until a majority of
// them, by the newest roll that is heard of, have said what they know of this node's
// disk. All who voted when this disk was a server's may have left since, so in the end
// everybody is asked who votes now; what they know of the disk counts only for more.
func (a *Agent) askHeld(ctx context.Context, r roll) (most cluster.Held, newest roll, err error) {
	for try := 1; ctx.Err() == nil; try++ {
		said := a.askHeldOnce(ctx, r)
		if try%askAll == 0 && !enough(said, r, a.cfg.Name) {
			said = append(said, a.askHeldOnce(ctx, roll{voters: a.others()})...)
		}
		if slices.ContainsFunc(said, func(h peer.Hello) bool { return h.Removed }) {
			a.expelled() // until it is let in again, with another disk
			sleepCtx(ctx, time.Second)
			continue
		}
		a.problems.clear("removed")
		for _, h := range said {
			most = most.Furthest(heldOf(h))
			r = r.newer(rollOf(h))
		}
		if enough(said, r, a.cfg.Name) {
			return most, r, nil
		}
		sleepCtx(ctx, askAgain)
	}
	return most, r, ctx.Err()
}

func rollOf(h peer.Hello) roll {
	return roll{h.Voters, cluster.Position{LastTerm: h.OwnTerm, LastIndex: h.OwnIndex}}
}

// enough: a majority of r's voters, the asker among them, have said something.
func enough(said []peer.Hello, r roll, asker string) bool {
	n := 0
	for _, h := range said {
		if h.Name != asker && slices.Contains(r.voters, h.Name) {
			n++
		}
	}
	return n >= r.besides(asker)
}

// askHeldOnce asks every other voter of r once. It comes back a moment after enough of
// them answered.
func (a *Agent) askHeldOnce(ctx context.Context, r roll) (answers []peer.Hello) {
	others := without(r.voters, a.cfg.Name)
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	said := make(chan peer.Hello, len(others))
	failed := make(chan struct{}, len(others))
	for _, name := range others {
		asking.Go(func() {
			// An emptied node has forgotten what it heard.
			if h, err := a.hello(ctx, name); err == nil && !h.State.IsEmpty() && h.Name == name {
				said <- h
			} else {
				failed <- struct{}{}
			}
		})
	}
	var grace <-chan time.Time
	for range others {
		select {
		case h := <-said:
			answers = append(answers, h)
			r = r.newer(rollOf(h))
			if grace == nil && enough(answers, r, a.cfg.Name) {
				grace = time.After(askGrace)
			}
		case <-failed:
		case <-grace:
			return answers
		}
	}
	return answers
}
