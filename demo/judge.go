package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/internal/netlab/watch"
)

// observed is what was seen of a step, with holders by name.
type observed struct {
	began   time.Time // when the deed was done
	address watch.Phase
	page    watch.Phase
}

// result is what came of a step.
type result struct {
	name          string
	measured      bool          // the three below are known
	address, page time.Duration // longest time without an answer
	holders       int           // most at one instant
	ok            bool
	stalled       time.Duration // longest time in which the client itself could not ask
	seen          string        // in few words; "" if it went wrong
	text          string        // what was seen, or what went wrong, in a sentence
}

// sentence is the result for a line of its own.
func (r result) sentence() string {
	if !r.measured {
		return "FAILED: " + r.text
	}
	s := fmt.Sprintf("nobody had the address for %s, no page for %s: %s", short(r.address), short(r.page), r.text)
	if !r.ok {
		return "FAILED: " + s
	}
	return s
}

// busy is the pause of the client from which on the machine counts as too busy to
// take measurements on: a beat or two of every agent is lost then, too.
const busy = 50 * time.Millisecond

// tooBusy marks a failure that may not be hanode's.
const tooBusy = "this machine is too busy for a deadtime this short"

// excuse is what to add to a failure during which the client paused that long.
func excuse(stalled time.Duration) string {
	if stalled <= busy {
		return ""
	}
	return fmt.Sprintf("; %s: the client itself stood still for %s", tooBusy, short(stalled))
}

// judge says what is to be thought of a step. It is pure.
func (s step) judge(o observed, notes []string) result {
	r := result{
		name: s.name, measured: true,
		address: o.address.LongestSilence, page: o.page.LongestSilence,
		holders: max(o.address.HoldersMax, o.page.HoldersMax),
		stalled: o.address.LongestPause,
	}
	bad := append(s.faults("the address", o.began, o.address, s.silent), s.faults("the page", o.began, o.page, s.silent+pageTime)...)
	if len(bad) > 0 {
		r.text = strings.Join(bad, "; ") + excuse(r.stalled)
		return r
	}
	// Without faults there is exactly one change.
	at := o.address.Changes[0].At.Sub(o.began)
	r.ok = true
	r.seen = fmt.Sprintf("%s after %s", s.to, short(at))
	r.text = strings.Join(append([]string{fmt.Sprintf("%s answered after %s, %s never again", s.to, short(at), s.from)}, notes...), "; ")
	return r
}

// faults lists the promises that one observer saw broken.
func (s step) faults(what string, began time.Time, p watch.Phase, silent time.Duration) []string {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, what+" "+fmt.Sprintf(format, args...)) }
	for _, o := range p.Overlaps {
		add("was held by %s and %s at once, at %s", o.First, o.Second, o.At.Format("15:04:05.000"))
	}
	if p.HoldersMax > 1 && len(p.Overlaps) == 0 {
		add("was held by %d hosts at once", p.HoldersMax)
	}
	for _, who := range slices.Sorted(maps.Keys(p.By)) {
		if who != s.from && who != s.to {
			add("was held by %s, which had no business to", who)
		}
	}
	switch n := len(p.Changes); {
	case p.By[s.to] == 0:
		add("was never answered by %s", s.to)
	case n == 0:
		add("was %s's before anything was done", s.to)
	case n > 1:
		add("changed hands %d times: %s", n, path(p.Changes))
	case p.Changes[0].From != s.from || p.Changes[0].To != s.to:
		add("went from %s to %s", p.Changes[0].From, p.Changes[0].To)
	case p.Changes[0].At.Before(began):
		add("went to %s before anything was done", s.to)
	}
	if p.LongestSilence > silent {
		add("was silent for %s, longer than %v", short(p.LongestSilence), silent)
	}
	return bad
}

// path is who held it, one after the other.
func path(changes []watch.Change) string {
	list := []string{changes[0].From}
	for _, c := range changes {
		list = append(list, c.To)
	}
	return strings.Join(list, " -> ")
}
