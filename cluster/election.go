package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/internal/clock"
)

// Late is one voter's word that it has not heard the leader for warntime, and how
// good a candidate it is itself.
type Late struct {
	Term     uint64   `json:"t"` // the sender's current term
	Position Position `json:"p"`
	Owns     int      `json:"o"` // groups the sender owns: a leader that owns nothing is preferred
}

// Encode renders the hint behind dst.
func (l Late) Encode(dst []byte) []byte {
	b, err := json.Marshal(l)
	if err != nil {
		panic("hanode: encode late: " + err.Error()) // plain integers: cannot fail
	}
	return append(dst, b...)
}

// ParseLate decodes a hint.
func ParseLate(b []byte) (l Late, err error) {
	if err := json.Unmarshal(b, &l); err != nil {
		return Late{}, fmt.Errorf("late: %w", err)
	}
	return l, nil
}

// Elector decides when this voter should stand. Raft's timers cannot be fast and
// calm at once, so the beats that are sent anyway tell when the leader is gone: a
// majority of voters must miss it for warntime, then the one with the longest log
// among them stands. If that one does not make it, the next in rank does a step
// later. It is a pure state machine and not safe for concurrent use.
type Elector struct {
	self   string
	voters []string
	late   map[string]heardLate
	since  clock.Instant // since when a majority is late; zero = not
	stood  int           // the round in which we stood last, counted from 1; 0 = not since then
}

type heardLate struct {
	Late
	at clock.Instant
}

// NewElector returns the elector of voter self.
func NewElector(self string) *Elector { return &Elector{self: self, late: map[string]heardLate{}} }

// SetVoters takes raft's voters.
func (e *Elector) SetVoters(names []string) { e.voters = names }

// Hear takes a voter's hint; our own too.
func (e *Elector) Hear(from string, l Late, now clock.Instant) { e.late[from] = heardLate{l, now} }

// Clear forgets our own hint, because a leader of this term is heard, and what others
// said in older terms: that was about another one. A hint that outlived an election
// would make every voter the best candidate in its own eyes when the next one comes
// soon, and all would stand at once.
func (e *Elector) Clear(term uint64) {
	maps.DeleteFunc(e.late, func(name string, l heardLate) bool { return name == e.self || l.Term < term })
	e.since = clock.Instant{}
}

// Decide reports whether this voter should stand now. fresh is how long a hint
// counts (a few keepalives), step how long each rank waits for the one before.
func (e *Elector) Decide(now clock.Instant, fresh, step time.Duration) bool {
	if _, ok := e.late[e.self]; !ok {
		return false
	}
	var who []string
	for _, v := range e.voters {
		if l, ok := e.late[v]; ok && now.Elapsed(l.at) <= fresh {
			who = append(who, v)
		}
	}
	if len(who) < len(e.voters)/2+1 {
		e.since = clock.Instant{}
		return false
	}
	if e.since.IsZero() {
		e.since, e.stood = now, 0
	}
	slices.SortFunc(who, func(a, b string) int {
		x, y := e.late[a], e.late[b]
		return cmp.Or(
			cmp.Compare(y.Position.LastTerm, x.Position.LastTerm),
			cmp.Compare(y.Position.LastIndex, x.Position.LastIndex),
			cmp.Compare(x.Owns, y.Owns),
			cmp.Compare(a, b),
		)
	})
	rank := slices.Index(who, e.self)
	round, turn := turnAt(now.Elapsed(e.since), step, len(e.voters))
	if rank < 0 || turn != rank || round <= e.stood {
		return false
	}
	e.stood = round
	return true
}

// slowRounds is after how many rounds turns do not become longer any more.
const slowRounds = 5

// turnAt says whose turn it is, by rank, and in which round, from 1. The voters
// stand in turns, a step each, round and round: those that stood at once would split
// the votes, and do it again together. From round to round a turn takes twice as
// long: where disks or processors are so slow that an election takes more than a
// step, the next in rank stands in the middle of it, until a turn is long enough.
func turnAt(elapsed, step time.Duration, voters int) (round, turn int) {
	for round = 1; ; round++ {
		whole := step * time.Duration(voters)
		if elapsed < whole {
			return round, int(elapsed / step)
		}
		elapsed -= whole
		if round < slowRounds {
			step *= 2
		}
	}
}
