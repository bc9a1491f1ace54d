package agent

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanode/failover"
	"hanode/fsm"
	"hanode/gossip"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// ears remember what others last said about themselves. For liveness and for
// people only: nothing here decides who may hold. Each node has a lock of its own,
// so that who looks at all of them delays no beat.
type ears struct {
	table   atomic.Pointer[map[string]*ear]
	replace sync.Mutex
}

// ear listens to one node.
type ear struct {
	mu    sync.Mutex
	heard heard // at is zero: never
	// answered is when it last answered a beat of ours, whatever it said.
	answered clock.Instant
	links    linkReport // the newest, and
	linksAt  clock.Instant
	// whole is the newest list of those it misses that came whole, where a beat has no
	// room for it; coming the one that does not yet.
	whole, coming silentList
}

// silentList is whom a voter misses, in the parts that came.
type silentList struct {
	inc, seq uint64
	parts    [][]id.NodeRef
	missing  int // parts
	at       clock.Instant
}

// noteSilent takes a part of a list; news: the list is whole, and another than before.
func (e *ears) noteSilent(from string, s lease.Silent, now clock.Instant) (news bool) {
	x := e.of(from)
	x.mu.Lock()
	defer x.mu.Unlock()
	c := &x.coming
	if c.inc != s.Inc || c.seq != s.Seq {
		if s.Inc < c.inc || s.Inc == c.inc && s.Seq < c.seq {
			return false // late, or recorded and sent again
		}
		*c = silentList{inc: s.Inc, seq: s.Seq, parts: make([][]id.NodeRef, s.Parts), missing: s.Parts}
	}
	if len(c.parts) != s.Parts || c.parts[s.Part] != nil || len(s.Refs) == 0 {
		return false
	}
	c.parts[s.Part] = s.Refs
	if c.missing--; c.missing > 0 {
		return false
	}
	c.at = now
	news = !slices.EqualFunc(c.parts, x.whole.parts, slices.Equal)
	x.whole = *c
	return news
}

// silent is whom a voter misses, by its newest beat and by the newest list that came whole
// within limit.
func (x *ear) silent(now clock.Instant, limit time.Duration) map[id.NodeRef]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[id.NodeRef]bool{}
	for _, r := range x.heard.beat.Silent {
		out[r] = true
	}
	l := &x.whole
	if len(x.heard.beat.Silent) < lease.MaxSilent || l.inc != x.heard.beat.Ref.Inc || now.Elapsed(l.at) >= limit {
		return out
	}
	for _, part := range l.parts {
		for _, r := range part {
			out[r] = true
		}
	}
	return out
}

type heard struct {
	beat lease.Beat
	at   clock.Instant
	gaps gaps // between two beats of one registration while neither side was known to stall
	// registered is when it was last heard with a registration, newest which one that
	// was, and seq its newest beat.
	registered  clock.Instant
	newest, seq uint64
	// recordSeq is the newest beat of the registration of record. The newest that is
	// heard may be another: of one that is not applied here yet, or a lie.
	recordSeq uint64
	// serves is while the sender, a voter, acks beats: its own beats say so, and its
	// answers to ours show it.
	serves spell
}

// spell is an unbroken time in which something was heard to be so. The zero spell
// is "not now".
type spell struct{ since, last clock.Instant }

// hear goes on with the spell; one that was not heard of for gap begins anew.
func (s *spell) hear(so bool, now clock.Instant, gap time.Duration) {
	switch {
	case !so:
		*s = spell{}
		return
	case s.since.IsZero() || now.Elapsed(s.last) >= gap:
		s.since = now
	}
	s.last = now
}

// lasts reports whether it has been so for d and still is.
func (s spell) lasts(now clock.Instant, d time.Duration) bool {
	return !s.since.IsZero() && now.Elapsed(s.since) >= d && now.Elapsed(s.last) < d
}

// majorityServes reports whether a majority of the voters, the same ones, has acked
// beats for all of the last deadtime. Who was heard by them and has no lease then
// will not get one: each of some ten beats would have brought it. Less is no proof.
// Voters that were all restarted say that they are ready some milliseconds before
// their first acks are here, one after the other, and the node that asks may be one
// of the majority itself.
func majorityServes(voters []string, of func(name string) spell, now clock.Instant, deadtime time.Duration) bool {
	n := 0
	for _, v := range voters {
		if of(v).lasts(now, deadtime) {
			n++
		}
	}
	return n >= len(voters)/2+1
}

// of returns the ear for a node; a new one the first time.
func (e *ears) of(name string) *ear {
	if t := e.table.Load(); t != nil {
		if x := (*t)[name]; x != nil {
			return x
		}
	}
	e.replace.Lock()
	defer e.replace.Unlock()
	t := map[string]*ear{}
	if old := e.table.Load(); old != nil {
		t = maps.Clone(*old)
	}
	if t[name] == nil {
		t[name] = &ear{}
		e.table.Store(&t)
	}
	return t[name]
}

// note takes a beat and reports whether it says anything new, and whether it misses
// others than the one before it. inc is the registration of record here: a newer one may
// be on its way here, or nobody's; see lease.Grantor. What came before woke, when this
// process was last stalled, does not tell how late this beat is; dead is the deadtime.
func (e *ears) note(from string, b lease.Beat, inc uint64, now, woke clock.Instant, dead time.Duration) (news, misses bool) {
	x := e.of(from)
	x.mu.Lock()
	defer x.mu.Unlock()
	h := &x.heard
	known := !h.at.IsZero()
	// The copy that came over another link, or an old one: out of order, or recorded
	// and sent again. Beats before the registration are numbered by the boot clock,
	// which a reboot sets back, so among those only an equal number is one.
	if b.Ref.Inc == 0 {
		if known && b.Ref == h.beat.Ref && b.Seq == h.beat.Seq {
			return false, false
		}
	} else if b.Ref.Inc < h.newest || b.Ref.Inc == h.newest && b.Seq <= h.seq {
		if b.Ref.Inc != inc || h.newest <= inc || b.Seq <= h.recordSeq {
			return false, false
		}
	}
	if b.Ref.Inc == inc {
		h.recordSeq = b.Seq
	}
	gap := now.Elapsed(h.at)
	if known && b.Ref == h.beat.Ref && b.Ref.Inc > 0 && woke.Before(h.at) {
		h.gaps.add(gap, dead, now)
	}
	h.serves.hear(b.Ready, now, dead)
	if b.Ref.Inc > 0 {
		h.registered = now
		if b.Ref.Inc >= h.newest {
			h.newest, h.seq = b.Ref.Inc, b.Seq
		}
	}
	misses = !slices.Equal(h.beat.Silent, b.Silent)
	h.beat, h.at = b, now
	return true, misses
}

// forget starts to measure gaps anew.
func (e *ears) forget() {
	t := e.table.Load()
	if t == nil {
		return
	}
	for _, x := range *t {
		x.mu.Lock()
		x.heard.gaps = gaps{}
		x.mu.Unlock()
	}
}

// noteAnswer takes an answer to a beat of ours; serves: by a voter that acks. dead
// is the deadtime.
func (e *ears) noteAnswer(from string, serves bool, now clock.Instant, dead time.Duration) {
	x := e.of(from)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = now
	x.heard.serves.hear(serves, now, dead)
}

// serving is while a node, a voter, acks beats.
func (e *ears) serving(name string) spell {
	h, _, _ := e.both(name)
	return h.serves
}

// get is what a node last said; false if it was never heard.
func (e *ears) get(name string) (heard, bool) {
	h, _, ok := e.both(name)
	return h, ok
}

// both is get, and when the node last answered a beat of ours; zero = never.
func (e *ears) both(name string) (h heard, answered clock.Instant, ok bool) {
	t := e.table.Load()
	if t == nil || (*t)[name] == nil {
		return heard{}, clock.Instant{}, false
	}
	x := (*t)[name]
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.heard, x.answered, !x.heard.at.IsZero()
}

// last is when a node last gave any sign of life, a beat or an answer to one of
// ours: a node that is no lease voter hears only answers. Zero = never.
func (e *ears) last(name string) clock.Instant {
	h, answered, _ := e.both(name)
	return clock.Later(h.at, answered)
}

// isSilent: another node that gave no sign of life for deadtime, or never did. This
// node is none.
func (a *Agent) isSilent(node string, now clock.Instant) bool {
	if node == a.cfg.Name {
		return false
	}
	at := a.ears.last(node)
	return at.IsZero() || now.Elapsed(at) >= a.timing().Deadtime
}

func (e *ears) all() map[string]heard {
	out := map[string]heard{}
	if t := e.table.Load(); t != nil {
		for name := range *t {
			if h, ok := e.get(name); ok {
				out[name] = h
			}
		}
	}
	return out
}

// hearsLately reports whether a beat of the node came within deadtime. Beats go to
// the lease voters only: any other node hears none, and must not conclude from it
// that nobody is there. It may lead for a moment, with a vote in raft that is about
// to be taken away.
func (a *Agent) hearsLately(node string) bool {
	if !a.voice.Load().voter {
		return true
	}
	h, ok := a.ears.get(node)
	return ok && a.host.Clock.Now().Elapsed(h.at) < a.timing().Deadtime
}

// settled reports whether a node says in its beats that it has caught up, as a voter.
// One that starts anew says first that it has not.
func (a *Agent) settled(node string) bool {
	h, ok := a.ears.get(node)
	return ok && h.beat.Ready && a.host.Clock.Now().Elapsed(h.at) < a.timing().Warntime
}

// handle takes one authenticated datagram on its socket's goroutine, which must
// get to the next beat: beats, answers and REVOKE are dealt with here, the rest is
// posted.
func (a *Agent) handle(p gossip.Packet) {
	if len(p.Payload) == 0 {
		return
	}
	switch lease.Kind(p.Payload[0]) {
	case lease.KindBeat:
		switch b, err := lease.ParseBeat(p.From, p.Payload); {
		case err != nil:
		case b.Ref.Name != p.From:
			a.lies.Add(1)
		default:
			a.onBeat(b, p.Answer)
		}
	case lease.KindAnswer:
		if r, err := lease.ParseReply(a.cfg.Name, p.Payload); err == nil {
			a.onReply(p.From, r)
		}
	case lease.KindRevoke:
		if r, err := lease.ParseRevoke(p.Payload); err == nil {
			a.onRevoke(p.From, r)
		}
	case lease.KindExpired, lease.KindToken, lease.KindRecord, lease.KindLate, lease.KindLinks, lease.KindHeld, lease.KindSilent:
		a.posts.put(post{at: a.host.Clock.Now(), from: p.From, payload: slices.Clone(p.Payload)})
	}
}

// onBeat is R2 on the voter's side, and the liveness of everybody. A beat comes once
// over each link; its first copy is answered, over each link too, and what comes later
// would only be told the same again.
func (a *Agent) onBeat(b lease.Beat, back *gossip.Sender) {
	now := a.now() // after the datagram, never before
	a.grant.Lock()
	answer, inc := a.grant.Beat(b.Ref, b.Seq, b.Version, now), a.grant.Inc(b.Ref.Name)
	voter := a.grant.voter
	version, names := a.grant.List()
	a.grant.Unlock()
	news, misses := a.ears.note(b.Ref.Name, b, inc, now, a.woke(), a.timing().Deadtime)
	if !news {
		return
	}
	if voter {
		r := lease.Reply{Ref: b.Ref, Seq: b.Seq, Answer: answer, Version: version}
		if answer == lease.Behind {
			r.Voters = names
		}
		back.Buf = r.Append(back.Buf[:0])
		back.Send(back.Buf, b.Ref.Name)
	}
	if misses { // of hosts that are switched off it tells again and again
		signal(a.lead.wake)
	}
	if len(b.Tokens) > 0 {
		a.posts.put(post{at: now, from: b.Ref.Name, tokens: b.Tokens}) // b.Ref names the sender, see handle
	}
}

// onReply is R1: an ack moves the lease to what was promised when the beat was
// *sent*.
func (a *Agent) onReply(from string, r lease.Reply) {
	now := a.now()
	l := a.lease.Load()
	if l != nil && l.Ref() == r.Ref {
		switch r.Answer {
		case lease.Ack:
			had := l.Leased(now)
			if l.Acked(from, r.Seq) {
				a.renew(l.End())
				if !had {
					signal(a.posts.leased) // the first lease, or one that came back
				}
			}
		case lease.Behind:
			l.SetVoters(r.Version, r.Voters)
		case lease.Fenced:
			a.posts.put(post{from: from, fenced: r.Ref})
		case lease.Unknown, lease.NotReady:
		}
	}
	a.ears.noteAnswer(from, r.Answer != lease.NotReady, now, a.timing().Deadtime)
}

// renew writes E into the guard.
func (a *Agent) renew(end clock.Instant) {
	if err := a.kernel.Renew(end); err != nil {
		a.posts.put(post{refused: err})
	}
}

func (a *Agent) onRevoke(from string, r lease.Revoke) {
	tell := []string{from}
	if r.Tell != "" && r.Tell != from {
		tell = append(tell, r.Tell)
	}
	a.grant.Lock()
	a.grant.Revoke(r.Ref, r.Bound, tell...)
	a.grant.Unlock()
	signal(a.ring)
}

// onExpired wakes the groups only if the voter had not said so yet: they answer a wake
// with REVOKE while they wait, and every REVOKE is answered with EXPIRED.
func (a *Agent) onExpired(from string, e lease.Expired) {
	a.hold.Lock()
	news := false
	if h := a.hold.holder; h != nil {
		news = h.Expired(e.Ref, from)
	}
	a.hold.Unlock()
	if news {
		a.groups.wakeAll()
	}
}

// onTokens notes tokens that came at now, ago after their holder had closed. Only the
// holder itself can say that it let go, so what another node says of it is dropped.
func (a *Agent) onTokens(from string, now clock.Instant, ago time.Duration, claims ...id.Claim) {
	var waiting []string
	a.hold.Lock()
	for _, c := range claims {
		if c.Node.Name != from {
			continue
		}
		if a.hold.holder != nil {
			waiting = append(waiting, a.hold.holder.Token(c)...)
		}
		if _, known := a.hold.tokens[c]; !known {
			a.hold.tokens[c] = tokenAt{now, ago}
		}
	}
	a.hold.Unlock()
	a.groups.wakeThese(waiting...)
	signal(a.lead.wake)
}

// adopt takes a group's record, from our own FSM or pushed by the leader.
func (a *Agent) adopt(r fsm.Record) {
	right := rightOf(r)
	a.hold.Lock()
	if a.hold.holder != nil {
		a.hold.holder.Adopt(right)
	}
	a.hold.Unlock()
	a.groups.record(a, r)
	for _, w := range r.Waits { // an address moved: its group here may have to let go first
		if w.Group != r.Group {
			a.groups.wakeThese(w.Group)
		}
	}
}

// rightOf is what a record says about holding.
func rightOf(r fsm.Record) lease.Right {
	right := lease.Right{Group: r.Group, Epoch: r.Epoch, Owner: r.Owner, Voters: r.Voters.Names, Exclusive: r.Exclusive}
	for _, w := range r.Waits {
		right.Waits = append(right.Waits, lease.Wait{Claim: w.Claim, Bound: w.Bound, Live: w.Live, Off: w.Off})
	}
	return right
}

// onChange follows the FSM. It runs in log order with the state locked: note and
// signal, nothing more.
func (a *Agent) onChange(c fsm.Change) {
	if c.State.Founded() {
		t := c.State.Timing
		a.tm.Store(&t)
		a.two.manual.Store(c.State.Manual)
	}
	if c.Registers {
		a.onRegisters(c.State)
	}
	if c.State.Rotation != a.keys.wanted || len(c.State.Retired) != a.keys.gone {
		a.keys.wanted, a.keys.gone = c.State.Rotation, len(c.State.Retired)
		signal(a.keys.news)
	}
	a.touched.add(c)
	signal(a.changed)
	signal(a.lead.wake)
}

// onRegisters tells the voter and the holder who is registered, and who votes.
func (a *Agent) onRegisters(s *fsm.State) {
	regs := make(map[string]lease.Registration, len(s.Nodes))
	for name, n := range s.Nodes {
		regs[name] = lease.Registration{Inc: n.Inc, Fenced: n.Fenced, Bound: n.Bound}
	}
	a.grant.Lock()
	a.grant.Applied(a.host.Clock.Now(), s.Voters.Version, s.Voters.Names, regs)
	a.grant.voter = s.Voters.Has(a.cfg.Name)
	a.speak()
	a.grant.Unlock()
	a.hold.Lock()
	if a.hold.holder != nil {
		a.hold.holder.SetVoters(s.Voters.Version, s.Voters.Names)
	}
	a.hold.Unlock()
}

// opinions are what each of the voters says about who is silent, as the leader heard it.
func (a *Agent) opinions(voters []string, now clock.Instant) map[string]failover.Opinion {
	out := map[string]failover.Opinion{}
	for _, name := range voters {
		if h, ok := a.ears.get(name); ok {
			out[name] = failover.Opinion{Age: now.Elapsed(h.at), Silent: a.ears.of(name).silent(now, a.timing().Deadtime)}
		}
	}
	own := failover.Opinion{Silent: map[id.NodeRef]bool{}}
	for _, r := range a.voice.Load().silent {
		own.Silent[r] = true
	}
	out[a.cfg.Name] = own
	return out
}
