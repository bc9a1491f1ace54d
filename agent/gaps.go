package agent

import (
	"time"

	"hanode/internal/clock"
	"hanode/internal/tune"
)

// gapBounds are the upper ends of the buckets in which times between beats are
// counted: fine where the deadtimes of the profiles lie.
var gapBounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond,
	75 * time.Millisecond, 100 * time.Millisecond, 125 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond,
	250 * time.Millisecond, 300 * time.Millisecond, 400 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond,
	time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// gaps counts times between beats, in a few hundred bytes however long it goes on.
// The zero value has counted nothing. Not safe for concurrent use.
type gaps struct {
	counts [len(gapBounds) + 1]uint64
	sum    time.Duration
	max    time.Duration
	maxAt  clock.Instant // when the longest ended
	// outages are gaps of at least deadtime, counted apart: a node that was down or
	// cut off says nothing about how late a beat can be.
	outages       uint64
	longestOutage time.Duration
	// tight is the longest gap that was too long for the deadtime though no outage,
	// since there was none for tightShown; tightAt is when the newest ended.
	tight   time.Duration
	tightAt clock.Instant
}

// tightShown is how long beats that came almost too late stay in `status`.
const tightShown = 24 * time.Hour

// add counts one gap, which ended at now. dead is the deadtime.
func (g *gaps) add(d, dead time.Duration, now clock.Instant) {
	d = max(d, 0)
	g.sum += d
	g.counts[bucket(d)]++
	if d >= dead {
		g.outages++
		g.longestOutage = max(g.longestOutage, d)
		return
	}
	if d > g.max {
		g.max, g.maxAt = d, now
	}
	if tune.Tight(d, dead) {
		if now.Elapsed(g.tightAt) >= tightShown {
			g.tight = 0
		}
		g.tight, g.tightAt = max(g.tight, d), now
	}
}

func bucket(d time.Duration) int {
	for i, b := range gapBounds {
		if d <= b {
			return i
		}
	}
	return len(gapBounds)
}

// count is how many gaps there were.
func (g *gaps) count() (n uint64) {
	for _, c := range g.counts {
		n += c
	}
	return n
}

// within is a length that at least the share q of the gaps, in 0 to 1, do not
// exceed: the upper end of its bucket.
func (g *gaps) within(q float64) time.Duration {
	need := uint64(q * float64(g.count()))
	seen := uint64(0)
	for i, c := range g.counts {
		seen += c
		if c > 0 && seen >= need && i < len(gapBounds) {
			return min(gapBounds[i], max(g.max, g.longestOutage))
		}
	}
	return max(g.max, g.longestOutage)
}

// cumulative is the histogram as Prometheus wants it: by upper bound in seconds.
func (g *gaps) cumulative() map[float64]uint64 {
	out := make(map[float64]uint64, len(gapBounds))
	n := uint64(0)
	for i, b := range gapBounds {
		n += g.counts[i]
		out[b.Seconds()] = n
	}
	return out
}
