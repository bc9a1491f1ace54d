package demo

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/internal/netlab/watch"
)

const ms = time.Millisecond

var deed = time.Unix(1000, 0)

// moved is a phase in which the holders followed each other, each 100 ms after the
// deed and the one before.
func moved(silent time.Duration, holders ...string) watch.Phase {
	p := watch.Phase{By: map[string]int{}, LongestSilence: silent, HoldersMax: min(1, len(holders))}
	for i, h := range holders {
		p.By[h] += 100
		if i > 0 {
			p.Changes = append(p.Changes, watch.Change{At: deed.Add(time.Duration(i) * 100 * ms), From: holders[i-1], To: h})
		}
	}
	return p
}

func TestJudge(t *testing.T) {
	s := step{name: "x", from: primary, to: secondary, silent: time.Second}
	good := moved(50*ms, primary, secondary)
	with := func(p watch.Phase, change func(*watch.Phase)) watch.Phase {
		p.By = map[string]int{primary: p.By[primary], secondary: p.By[secondary]}
		change(&p)
		return p
	}
	for _, c := range []struct {
		name          string
		address, page watch.Phase
		ok            bool
		holders       int
		text          string // in it
	}{
		{"as it should be", good, moved(80*ms, primary, secondary), true, 1, "secondary answered after 100 ms, primary never again; noted"},
		{"the page takes its time", good, moved(3900*ms, primary, secondary), true, 1, "noted"},
		{"nobody takes over", moved(3*time.Second, primary), good, false, 1, "the address was never answered by secondary; the address was silent for 3.0 s"},
		{"nobody is there", moved(3 * time.Second), good, false, 1, "never answered by secondary"},
		{"too late", moved(1100*ms, primary, secondary), good, false, 1, "the address was silent for 1.1 s, longer than 1s"},
		{"the page too late", good, moved(4100*ms, primary, secondary), false, 1, "the page was silent for 4.1 s"},
		{"the page stays away", good, moved(2*time.Second, primary), false, 1, "the page was never answered by secondary"},
		{"it goes back", moved(50*ms, primary, secondary, primary), good, false, 1, "the address changed hands 2 times: primary -> secondary -> primary"},
		{"the old one answers again", moved(50*ms, primary, secondary, primary, secondary), good, false, 1, "changed hands 3 times"},
		{"a stranger", moved(50*ms, primary, secondary, arbiter), good, false, 1, "held by arbiter, which had no business to"},
		{"it was there before", moved(0, secondary), good, false, 1, "was secondary's before anything was done"},
		{"by itself", with(good, func(p *watch.Phase) { p.Changes = []watch.Change{{At: deed.Add(-ms), From: primary, To: secondary}} }), good, false, 1, "went to secondary before anything was done"},
		{"the wrong way", moved(50*ms, secondary, primary), good, false, 1, "went from secondary to primary"},
		{"a busy machine", with(moved(50*ms, primary, secondary, primary), func(p *watch.Phase) { p.LongestPause = 300 * ms }), good, false, 1, "stood still for 300 ms"},
		{"two at once", with(good, func(p *watch.Phase) {
			p.HoldersMax, p.Overlaps = 2, []watch.Overlap{{At: deed, First: primary, Second: secondary}}
		}), good, false, 2, "the address was held by primary and secondary at once"},
		{"two at once, by count", with(good, func(p *watch.Phase) { p.HoldersMax = 2 }), good, false, 2, "held by 2 hosts at once"},
		{"two pages at once", good, with(good, func(p *watch.Phase) { p.HoldersMax = 2 }), false, 2, "the page was held by 2 hosts"},
	} {
		r := s.judge(observed{began: deed, address: c.address, page: c.page}, []string{"noted"})
		if r.ok != c.ok || r.holders != c.holders || !strings.Contains(r.text, c.text) || !r.measured || r.address != c.address.LongestSilence ||
			r.page != c.page.LongestSilence || r.name != "x" || strings.HasPrefix(r.sentence(), "FAILED: ") == c.ok || (r.seen == "") == c.ok {
			t.Errorf("%s: %+v, %s", c.name, r, r.sentence())
		}
	}
}

func TestRenamed(t *testing.T) {
	p := watch.Phase{
		By:       map[string]int{"a": 1, "b": 2},
		Changes:  []watch.Change{{From: "a", To: "b"}},
		Overlaps: []watch.Overlap{{First: "a", Second: "b"}},
	}
	got := renamed(p, strings.ToUpper)
	if got.By["A"] != 1 || got.By["B"] != 2 || got.Changes[0].From != "A" || got.Changes[0].To != "B" ||
		got.Overlaps[0].First != "A" || got.Overlaps[0].Second != "B" {
		t.Errorf("%+v", got)
	}
	if p.By["a"] != 1 || p.Changes[0].From != "a" || p.Overlaps[0].First != "a" {
		t.Errorf("the original became %+v", p)
	}
}

// Each step begins as the one before ended, and the names tell them apart.
func TestTheStoryHangsTogether(t *testing.T) {
	holder := primary
	var names []string
	for _, s := range story() {
		if s.from != holder || s.to == holder || s.act == nil || s.announce == "" || s.within <= 0 || s.silent <= 0 || s.within < s.silent {
			t.Errorf("%s: %+v", s.name, s)
		}
		if slices.Contains(names, s.name) {
			t.Errorf("two steps are called %s", s.name)
		}
		holder, names = s.to, append(names, s.name)
	}
	if holder != primary || hang() < 10*timing().Deadtime {
		t.Errorf("it ends with %s, and hangs for %v", holder, hang())
	}
}
