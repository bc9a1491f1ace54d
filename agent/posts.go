package agent

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// posts carry what a datagram brought and no beat may wait for: it needs the
// state, a group's lock, JSON. Bounded: what does not fit is dropped, as the
// network might have done, and comes again.
type posts struct {
	queue   chan post
	leased  chan struct{} // one slot: a lease began, the groups may look again
	dropped atomic.Uint64
}

// maxPosts holds what a takeover of some hundred groups brings at once.
const maxPosts = 1024

// post is one of: a message, tokens out of a beat, word that a registration of ours
// was fenced, the guard's refusal of a lease.
type post struct {
	at      clock.Instant // when it came
	from    string
	payload []byte
	tokens  []id.Claim
	fenced  id.NodeRef
	refused error
}

func newPosts() posts {
	return posts{queue: make(chan post, maxPosts), leased: make(chan struct{}, 1)}
}

func (p *posts) put(x post) {
	select {
	case p.queue <- x:
	default:
		p.dropped.Add(1)
	}
}

// postLoop works off the posts, one at a time.
func (a *Agent) postLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-a.posts.queue:
			a.open(p)
		case <-a.posts.leased:
			a.groups.wakeAll()
		}
	}
}

func (a *Agent) open(p post) {
	switch {
	case p.payload != nil:
		a.read(p)
	case p.tokens != nil:
		a.onTokens(p.from, p.at, 0, p.tokens...)
	case p.refused != nil:
		a.problems.set("guard-renewal", p.refused.Error())
	case !p.fenced.Zero():
		a.hold.Lock() // it is about this registration, or old news
		if h := a.hold.holder; h != nil && h.Ref() == p.fenced {
			signal(a.fenced)
		}
		a.hold.Unlock()
	}
}

func (a *Agent) read(p post) {
	b := p.payload
	switch lease.Kind(b[0]) {
	case lease.KindExpired:
		if e, err := lease.ParseExpired(b); err == nil {
			a.onExpired(p.from, e)
		}
	case lease.KindToken:
		if t, err := lease.ParseToken(b); err == nil {
			a.onTokens(p.from, p.at, t.Ago, t.Claim)
		}
	case lease.KindRecord:
		var r fsm.Record
		if err := json.Unmarshal(b[1:], &r); err == nil {
			a.adopt(r)
		}
	case lease.KindLate:
		if l, err := cluster.ParseLate(b[1:]); err == nil {
			a.elect.hear(p.from, l, p.at)
			signal(a.ring)
		}
	case lease.KindLinks:
		a.onLinks(p.from, b[1:], p.at)
	case lease.KindSilent:
		if s, err := lease.ParseSilent(b); err == nil && a.ears.noteSilent(p.from, s, p.at) {
			signal(a.lead.wake)
		}
	case lease.KindHeld:
		if h, err := cluster.ParseHeld(b[1:]); err == nil {
			a.known.hear(p.from, h)
		}
	case lease.KindBeat, lease.KindAnswer, lease.KindRevoke:
	}
}
