package gossip

import (
	"crypto/rand"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanode/internal/clock"
	"hanode/internal/trust"
)

// A datagram that was recorded can be sent again, for ever and from anywhere: it is
// sealed with the right key. So a lane message is taken only from a session (one process
// that seals with one key) that has shown that it runs now: the receiver asks it to
// repeat a random number, which no recording holds. After that each number of its
// datagrams is taken once over each link, and none from before the answer.
//
// What a message means need not be safe against repetition then; much of it is, all the
// same, since the network itself may say things twice.

// proofByte marks the questions and answers. They are sealed like the rest.
const proofByte = 0xFC

// The kinds of them, behind the sender's name.
const (
	kindQuestion = 1 // the salt of the session that is asked, and the number
	kindAnswer   = 2 // the number
)

const (
	numberSize = 16
	// askAgain is the shortest time between two questions to one session. Each of its
	// datagrams asks, so a lost question costs a keepalive.
	askAgain = 5 * time.Millisecond
	// askAnew is how long a number is good for.
	askAnew = 2 * time.Second
	// maxProven sessions are remembered: one for each process that runs in the cluster,
	// and those before it. maxUnproven is how many others.
	maxProven   = 4096
	maxUnproven = 2048
	// maxAsked is how many numbers a node repeats within askAgain.
	maxAsked = 64
)

// session is one run of one node.
type session struct {
	name   string
	proven atomic.Bool
	floor  atomic.Uint64 // datagrams up to this are from before the answer
	used   atomic.Int64  // when it was last heard
	links  []window      // each for the goroutine that reads the link

	mu     sync.Mutex // guards the fields below
	number [numberSize]byte
	made   time.Duration // when the number was
	asked  time.Duration // when it was last sent; 0 = never
}

// repeats reports whether a datagram is not news.
func (s *session) repeats(link int, count uint64) bool {
	return count <= s.floor.Load() || s.links[link].seen(count)
}

// ask returns the number to ask for, unless the session was asked a moment ago.
func (s *session) ask(now time.Duration) (number [numberSize]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != 0 && now-s.asked < askAgain {
		return number, false
	}
	if s.asked == 0 || now-s.made >= askAnew {
		rand.Read(s.number[:])
		s.made = now
	}
	s.asked = now
	return s.number, true
}

// prove takes an answer.
func (s *session) prove(number []byte, count uint64, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proven.Load() || s.asked == 0 || now-s.made >= 2*askAnew || string(number) != string(s.number[:]) {
		return
	}
	s.floor.Store(count)
	s.proven.Store(true)
}

// window remembers which numbers came, as far back as windowSize.
type window struct {
	top  uint64
	bits [windowBlocks]uint64
}

// windowBlocks of 64 numbers each; the goroutines of one sender may overtake each other.
const (
	windowBlocks = 32
	windowSize   = (windowBlocks - 1) * 64
)

func (w *window) seen(n uint64) bool {
	switch {
	case n > w.top:
		return false
	case w.top-n >= windowSize:
		return true // or too old to tell
	}
	return w.bits[n/64%windowBlocks]&(1<<(n%64)) != 0
}

func (w *window) mark(n uint64) {
	if n > w.top {
		last := min(n/64, w.top/64+windowBlocks)
		for b := w.top/64 + 1; b <= last; b++ {
			w.bits[b%windowBlocks] = 0
		}
		w.top = n
	}
	w.bits[n/64%windowBlocks] |= 1 << (n % 64)
}

// sessions are those that this process has heard of. Safe for concurrent use.
type sessions struct {
	mu       sync.RWMutex
	m        map[trust.Salt]*session
	unproven int // at least how many of them are
}

func (t *sessions) get(salt trust.Salt) *session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.m[salt]
}

// of returns the session, a new one if there is none; nil if it is another node's.
func (t *sessions) of(salt trust.Salt, name []byte, links int) *session {
	if s := t.get(salt); s != nil {
		if s.name != string(name) {
			return nil
		}
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.m[salt]; s != nil {
		return s
	}
	if t.m == nil {
		t.m = map[trust.Salt]*session{}
	}
	if t.unproven >= maxUnproven {
		t.thin()
	}
	s := &session{name: string(name), links: make([]window, links)}
	t.m[salt] = s
	t.unproven++
	return s
}

// thin drops whoever has shown nothing, and of the others those that were silent
// longest: who runs is asked again. A flood of old recordings ends here.
func (t *sessions) thin() {
	proven := 0
	for salt, s := range t.m {
		if !s.proven.Load() {
			delete(t.m, salt)
		} else {
			proven++
		}
	}
	t.unproven = 0
	if proven <= maxProven {
		return
	}
	var ages []int64
	for _, s := range t.m {
		ages = append(ages, s.used.Load())
	}
	slices.Sort(ages)
	maps.DeleteFunc(t.m, func(_ trust.Salt, s *session) bool { return s.used.Load() < ages[proven-maxProven] })
}

// asked remembers which numbers were repeated when, so that a flood of recorded
// questions makes no flood of answers.
type asked struct {
	mu sync.Mutex
	m  map[[numberSize]byte]time.Duration
}

func (a *asked) answer(number [numberSize]byte, now time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, ok := a.m[number]; ok && now-at < askAgain/2 {
		return false
	}
	if a.m == nil {
		a.m = map[[numberSize]byte]time.Duration{}
	}
	if _, ok := a.m[number]; !ok && len(a.m) >= maxAsked {
		for n, at := range a.m {
			if now-at >= askAgain/2 {
				delete(a.m, n)
			}
		}
		if len(a.m) >= maxAsked {
			return false
		}
	}
	a.m[number] = now
	return true
}

// question asks a session for a number.
func (t *transport) question(s *session, salt trust.Salt, link int, from netip.AddrPort, now clock.Instant, to *Sender) {
	number, ok := s.ask(now.Boot)
	if !ok {
		return
	}
	b := append([]byte{kindQuestion}, salt[:]...)
	to.tell(append(b, number[:]...), s.name, link, from)
}

// onProof takes a question or an answer.
func (t *transport) onProof(x unsealed, body []byte, link int, from netip.AddrPort, back *Sender) {
	s, salt, now := x.s, x.salt, t.cfg.Clock.Now()
	switch {
	case len(body) == 1+numberSize && body[0] == kindAnswer:
		s.prove(body[1:], x.count, now.Boot)
	case len(body) == 1+len(salt)+numberSize && body[0] == kindQuestion:
		own := t.sealer.Salt()
		if trust.Salt(body[1:1+len(own)]) != own {
			return // it asks for one that ran before
		}
		if !t.asked.answer([numberSize]byte(body[1+len(own):]), now.Boot) {
			return
		}
		back.tell(append([]byte{kindAnswer}, body[1+len(own):]...), s.name, link, from)
		if !s.proven.Load() {
			t.question(s, salt, link, from, now, back) // soon it will answer us, and should be heard
		}
		if t.cfg.Asked != nil {
			t.cfg.Asked()
		}
	default:
		t.count.Malformed.Add(1)
	}
}
