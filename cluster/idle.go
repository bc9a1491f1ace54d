package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A leader tells each follower every commit timeout (10 to 20 ms) how far the log is
// committed, in an append without entries, also when there is nothing new. Followers
// should learn of a commit that soon: a voter acks a node's new registration, or the
// next voters' list, only once it has applied it, and leases run meanwhile. So the
// timeout stays short, and what costs something is left out: an append that says
// exactly what its follower has acknowledged waits here until it was acknowledged
// idleEvery ago at most, and is sent then: to all followers at the same instant, one at
// which the agent is awake anyway (Config.Grid). If the log or its commit moves meanwhile,
// it is answered here, as it was answered before, and raft makes the next one at once.
//
// To raft that is an answer which was up to idleEvery on its way, as a network may
// have it at any time. It carries no entry, so nothing counts as stored because of it.
// What it does move is the leader's idea of when it last heard the follower: a leader
// that lost its followers notices up to idleEvery later. VerifyLeader, which would
// count it as a proof of leadership, is not used at all (see DESIGN.md).
const idleEvery = 200 * time.Millisecond

// raft's heartbeats, each 100 to 200 ms, are appends that say nothing of the log. While
// a follower acknowledges ordinary ones each idleEvery they tell it nothing: it counts
// its time without a leader (a second) from either. So a heartbeat waits here while what
// was last acknowledged is not older than this, and is sent as soon as it is: when a
// disk hangs, or an append is on a stream that died. A leader that lost its followers
// notices that much later, as above. idleEvery is as long as the longest time between two
// heartbeats: a leader that stalls finds its followers' last word no older than it would
// with them, and does not give up sooner (raftLease).
const heartbeatAfter = idleEvery + 100*time.Millisecond

// idle remembers what each follower acknowledged. Safe for concurrent use.
type idle struct {
	mu    sync.Mutex
	last  map[raft.ServerID]acknowledged
	moved chan struct{} // closed when this node's log or commit moves; nil = nobody waits
}

type acknowledged struct {
	at   time.Time
	req  raft.AppendEntriesRequest
	resp raft.AppendEntriesResponse
}

// move tells those who wait that the log or its commit has moved.
func (i *idle) move() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.moved != nil {
		close(i.moved)
		i.moved = nil
	}
}

// next is closed when the log or its commit moves from now on.
func (i *idle) next() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.moved == nil {
		i.moved = make(chan struct{})
	}
	return i.moved
}

// answer is what the follower would say to req again, if that is known, and for how
// much longer there is no need to ask it.
func (i *idle) answer(id raft.ServerID, req *raft.AppendEntriesRequest, now time.Time) (resp raft.AppendEntriesResponse, rest time.Duration, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a, known := i.last[id]
	rest = idleEvery - now.Sub(a.at)
	return a.resp, rest, known && rest > 0 && len(req.Entries) == 0 && !isHeartbeat(req) &&
		req.Term == a.req.Term && slices.Equal(req.Addr, a.req.Addr) &&
		req.PrevLogEntry == a.req.PrevLogEntry && req.PrevLogTerm == a.req.PrevLogTerm &&
		req.LeaderCommitIndex == a.req.LeaderCommitIndex
}

// note takes a follower's answer to req, which was sent at begin.
func (i *idle) note(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error, begin time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case err != nil || !resp.Success:
		delete(i.last, id)
	case len(req.Entries) == 0 && !isHeartbeat(req):
		if i.last == nil {
			i.last = map[raft.ServerID]acknowledged{}
		}
		i.last[id] = acknowledged{begin, *req, *resp}
	}
}

// beats is for how much longer a heartbeat to the follower need not be sent, and what
// it would be answered; false: send it now.
func (i *idle) beats(id raft.ServerID, req *raft.AppendEntriesRequest, now time.Time) (resp raft.AppendEntriesResponse, rest time.Duration, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a, known := i.last[id]
	rest = heartbeatAfter - now.Sub(a.at)
	return a.resp, rest, known && rest > 0 && isHeartbeat(req) && req.Term == a.req.Term && slices.Equal(req.Addr, a.req.Addr)
}

// isHeartbeat: raft's heartbeats are appends that say nothing of the log.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}
