package logbridge

import (
	"maps"
	"sync"
	"time"
)

const (
	repeatEvery = 10 * time.Second // the same message comes out at most this often
	maxMessages = 1024             // different ones remembered; beyond, all others are one
)

// limiter thins out messages that repeat. Safe for concurrent use.
type limiter struct {
	mu   sync.Mutex
	seen map[string]*burst
	rest burst
}

// burst is one message that came out and what was left out since.
// It may stand for all that there was no room for.
type burst struct {
	out  time.Time
	left int
}

func newLimiter() *limiter { return &limiter{seen: map[string]*burst{}} }

// allow reports whether a message may come out now and, if so, how many of its
// kind were left out since the last one did. Strangers can have text of theirs in
// messages, so that no two are alike.
func (l *limiter) allow(message string) (left int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.seen[message]
	if b == nil && len(l.seen) >= maxMessages {
		maps.DeleteFunc(l.seen, func(_ string, b *burst) bool { return now.Sub(b.out) >= repeatEvery })
		if len(l.seen) >= maxMessages {
			b = &l.rest
		}
	}
	switch {
	case b == nil:
		l.seen[message] = &burst{out: now}
		return 0, true
	case now.Sub(b.out) < repeatEvery:
		b.left++
		return 0, false
	}
	left = b.left
	b.out, b.left = now, 0
	return left, true
}
