// Package tune recommends a timing from the times between beats that a node
// measured, by Heartbeat's old rule: deadtime is 1.5 to 2 times the longest gap
// between two beats of a node that was well. It measures nothing and changes
// nothing.
package tune

import (
	"fmt"
	"time"

	"hanode/internal/spec"
)

// Enough is how long a measurement takes that says something about a quiet day and
// a busy one. After less, a shorter deadtime is never recommended.
const Enough = 24 * time.Hour

// Measured is what one node knows. Durations are 0 or more.
type Measured struct {
	Timing spec.Timing   // in force, and what was measured under; valid
	Most   time.Duration // the longest deadtime that can be set; at least 50 ms
	For    time.Duration // how long it measured
	Beats  uint64        // how many gaps, of all nodes; 0 = none
	// Longest is the longest gap of any node that was well: below deadtime.
	Longest time.Duration
	// Outages are gaps of deadtime or longer: nodes that were down, cut off or
	// stopped. They say nothing about how late a beat of a healthy node can be, so
	// nothing is recommended for their sake.
	Outages       uint64
	LongestOutage time.Duration
}

// Verdict is what to do about the timing in force.
type Verdict string

// The verdicts.
const (
	Unknown Verdict = "unknown" // nothing was heard yet
	Keep    Verdict = "keep"
	Raise   Verdict = "raise"    // deadtime is less than 1.5 times the longest gap
	Lower   Verdict = "lower"    // it may be shorter
	TooLate Verdict = "too-late" // beats come later than the longest deadtime allows
)

// Advice is what to do, and why.
type Advice struct {
	Verdict Verdict
	// Timing is valid. It is the one in force if Verdict is Unknown or Keep, and if
	// it is TooLate the longest there is.
	Timing spec.Timing
	// Profile is the quickest profile that would do; "" = none does, or unknown.
	Profile string
	Words   []string // sentences for people
}

// Least is the shortest deadtime that the rule allows for a longest gap.
func Least(longest time.Duration) time.Duration { return longest + longest/2 + longest%2 }

// Tight reports whether a gap shows that deadtime is too short for it, though the
// beat came in time.
func Tight(gap, deadtime time.Duration) bool { return gap < deadtime && Least(gap) > deadtime }

// quickest first
var profiles = []string{"fast", "lan", "vm", "wan", "heartbeat"}

// Recommend applies the rule.
func Recommend(m Measured) Advice {
	a := Advice{Verdict: Unknown, Timing: m.Timing}
	if m.Beats == 0 {
		a.say("No beats of other nodes were heard here yet: beats go to voters only, and count once their node is registered.")
		return a
	}
	a.Profile = fitting(m)
	now, least := m.Timing.Deadtime, Least(m.Longest)
	want := wanted(m)
	ratio := float64(now) / float64(max(m.Longest, 1))
	switch {
	case least > m.Most:
		a.Verdict, a.Timing = TooLate, want
		a.say("Beats come up to %v apart, and no deadtime above %v can be set: mend the network or the hosts first.", round(m.Longest), m.Most)
	case least > now:
		a.Verdict, a.Timing = Raise, want
		a.say("Deadtime (%v) is less than 1.5 times the longest gap (%v): a healthy node may be taken for dead.", now, round(m.Longest))
	case want.Deadtime >= now || ratio <= 4:
		a.Verdict = Keep
		a.say("Deadtime (%v) is %.1f times the longest gap (%v); 1.5 to 2 times is the least that is safe. Keep it.", now, ratio, round(m.Longest))
	case m.For < Enough:
		a.Verdict = Keep
		a.say("Deadtime (%v) is %.1f times the longest gap (%v) so far. It may turn out that it can be shorter; keep it until that is known.", now, ratio, round(m.Longest))
	default:
		a.Verdict, a.Timing = Lower, want
		a.say("Deadtime (%v) is %.1f times the longest gap (%v): failover can be faster.", now, ratio, round(m.Longest))
	}
	if m.For < Enough {
		a.say("Measured for less than a day: the longest gap of a busy day, a backup or a snapshot is not in it. Measure for a day or more.")
	}
	if m.Outages > 0 {
		a.say("Gaps of deadtime or longer (%d, up to %v) are not counted: nodes that were down, cut off or stopped. If nothing was, deadtime is too short.", m.Outages, round(m.LongestOutage))
	}
	return a
}

func (a *Advice) say(format string, args ...any) {
	a.Words = append(a.Words, fmt.Sprintf(format, args...))
}

// wanted is twice the longest gap and the times that go with it, and nothing
// shorter than the quickest profile, unless it is in force: beats get lost, too.
// They are never sent less often than now: a longer keepalive makes every gap
// longer.
func wanted(m Measured) spec.Timing {
	least := min(spec.Profiles[profiles[0]].Deadtime, m.Timing.Deadtime)
	d := min(nice(max(2*m.Longest, least)), m.Most)
	return spec.Timing{
		Keepalive: max(min(m.Timing.Keepalive, d/10), time.Millisecond),
		Warntime:  d / 2,
		Deadtime:  d,
		Initdead:  max(10*d, 5*time.Second),
	}
}

// nice rounds up to two figures: 1234 ms is 1.3 s.
func nice(d time.Duration) time.Duration {
	step := time.Millisecond
	for d > 100*step {
		step *= 10
	}
	if rest := d % step; rest > 0 {
		d += step - rest
	}
	return d
}

// fitting is the quickest profile under which gaps like these would be no longer
// than warntime, and 1.5 times as long no longer than deadtime.
func fitting(m Measured) string {
	for _, name := range profiles {
		p := spec.Profiles[name]
		gap := m.Longest + max(p.Keepalive-m.Timing.Keepalive, 0)
		if gap <= p.Warntime && Least(gap) <= p.Deadtime {
			return name
		}
	}
	return ""
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
