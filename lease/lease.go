package lease

import (
	"slices"
	"sync"
	"time"

	"hanode/internal/clock"
	"hanode/internal/id"
)

// Lease is the part of a Holder that every beat and every ack touches: their
// numbers, E, and the tokens that a beat carries. It is safe for concurrent use,
// unlike the Holder around it: its lock is held for some comparisons and never
// over anything else, so that no record, no group and no kernel call can delay a
// beat.
type Lease struct {
	ref    id.NodeRef
	length time.Duration // D
	born   clock.Instant
	alone  bool // see Alone; set before the first beat

	mu      sync.Mutex
	version uint64   // of the voters' list
	voters  []string // the list itself; replaced, never changed

	seq    uint64 // number of the newest beat; 0 = none sent
	sent   [sendMemory]clock.Instant
	acked  map[string]uint64        // voter -> newest beat it acked
	ackAt  map[string]clock.Instant // voter -> send time of that beat
	end    clock.Instant            // E; only moves forward
	fenced bool
	owed   []id.Claim // replaced, never changed
}

// sendMemory is how many beats back an ack may reach. At ten beats per deadtime
// it is a hundred deadtimes.
const sendMemory = 1024

func newLease(ref id.NodeRef, length time.Duration, now clock.Instant) *Lease {
	return &Lease{ref: ref, length: length, born: now, acked: map[string]uint64{}, ackAt: map[string]clock.Instant{}}
}

// Alone makes each beat that is sent a promise to itself: E is D after the newest,
// whoever acks. It is for a registration without a bound (two_node = "manual"), of
// which no voter ever says EXPIRED, so that nobody counts on its end; what E is left
// for is to mute a host whose agent hangs or died. Call it before the first beat.
func (l *Lease) Alone() { l.alone = true }

// IsAlone reports whether Alone was called.
func (l *Lease) IsAlone() bool { return l.alone }

// Ref is the registration that holds.
func (l *Lease) Ref() id.NodeRef { return l.ref }

// SetVoters takes the voters' list if it is newer than the one in use.
func (l *Lease) SetVoters(version uint64, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version > l.version {
		l.version, l.voters = version, slices.Clone(names)
	}
}

// Voters is the list in use and its version. Do not change it.
func (l *Lease) Voters() (uint64, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version, l.voters
}

// Beat numbers the next beat and remembers now as its send time. Read the clock
// before the datagram leaves: a lease is counted from the send time, because only
// that is certainly earlier than the voter's receipt of it. (Counting from the
// receipt of the ack let two hosts answer in 103 of 2,000 simulated runs.)
func (l *Lease) Beat(now clock.Instant) (seq, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.number(now), l.version
}

func (l *Lease) number(now clock.Instant) uint64 {
	l.seq++
	l.sent[l.seq%sendMemory] = now
	if end := now.Add(l.length); l.alone && l.end.Before(end) {
		l.end = end
	}
	return l.seq
}

// Say numbers the next beat as Beat does and fills in what the lease has to say
// in it. to are the voters it is for. ok is false once the registration is fenced.
func (l *Lease) Say(m *Beat, now clock.Instant) (to []string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fenced {
		return nil, false
	}
	m.Ref, m.Seq, m.Version = l.ref, l.number(now), l.version
	m.Left, m.Unleased = 0, 0
	if now.Before(l.end) {
		m.Left = now.Remaining(l.end)
	} else {
		m.Unleased = max(l.unleased(now), time.Microsecond) // 0 says that it has one
	}
	m.Tokens = l.owed
	return l.voters, true
}

// Acked takes a voter's ack of beat seq and reports whether the lease grew.
// A late ack carries an old send time and extends nothing.
func (l *Lease) Acked(voter string, seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fenced || seq == 0 || seq > l.seq || seq+sendMemory <= l.seq || seq <= l.acked[voter] {
		return false
	}
	l.acked[voter], l.ackAt[voter] = seq, l.sent[seq%sendMemory]
	return l.extend()
}

// extend is R1's E = D + the m-th largest send time acked, m = majority: the
// newest moment at which some majority is known to have promised.
func (l *Lease) extend() bool {
	// The newest m acks, newest first; a list of voters is short.
	var room [8]string
	newest := room[:0]
	m := len(l.voters)/2 + 1
	for _, v := range l.voters {
		if l.acked[v] == 0 {
			continue
		}
		at := len(newest)
		for at > 0 && l.acked[newest[at-1]] < l.acked[v] {
			at--
		}
		newest = slices.Insert(newest, at, v)
	}
	if len(newest) < m {
		return false
	}
	end := l.ackAt[newest[m-1]].Add(l.length)
	if !l.end.Before(end) {
		return false
	}
	l.end = end
	return true
}

// End is E; zero while there never was a lease.
func (l *Lease) End() clock.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// Leased reports whether the lease runs at now, by both clocks.
func (l *Lease) Leased(now clock.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.fenced && now.Before(l.end)
}

// Unleased is for how long there has been no lease; 0 while there is one.
func (l *Lease) Unleased(now clock.Instant) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fenced && now.Before(l.end) {
		return 0
	}
	return l.unleased(now)
}

func (l *Lease) unleased(now clock.Instant) time.Duration {
	return now.Elapsed(clock.Later(l.end, l.born))
}

// Fence ends the registration: it holds nothing from now on (R9).
func (l *Lease) Fence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fenced = true
}

// Fenced reports whether Fence was called.
func (l *Lease) Fenced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced
}

func (l *Lease) setOwed(claims []id.Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed = claims
}
