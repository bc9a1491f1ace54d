package watch

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

// story builds a record from one request per millisecond; each element names who
// answers it, in the order the answers come, 50 us apart.
func story(answers ...string) record {
	r := record{started: time.Unix(1000, 0), every: ms, window: Window, marks: []mark{{}}}
	for i, who := range answers {
		r.sent = append(r.sent, time.Duration(i)*ms)
		for j, w := range who {
			r.answers = append(r.answers, answer{uint32(i), time.Duration(i)*ms + time.Duration(j+1)*50*time.Microsecond, string(w)})
		}
	}
	r.ended = time.Duration(len(answers)) * ms
	return r
}

// repeat is n requests answered the same way.
func repeat(who string, n int) []string { return slices.Repeat([]string{who}, n) }

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		name string
		rec  record
		want []uint32 // requests that show an overlap
	}{
		{"nobody", story(repeat("", 10)...), nil},
		{"one holder", story(repeat("A", 10)...), nil},
		{"one move", story("A", "A", "", "B", "B"), nil},
		{"two quick moves to others", story("A", "B", "C"), nil},
		{"two answers to one request", story("A", "AB", "B"), []uint32{1}},
		{"both answer always", story("AB", "AB", "BA"), []uint32{0, 1, 2}},
		{"the same one answers twice", story("AA", "AA", "B"), nil},
		{"back after one", story("A", "B", "A"), []uint32{2}},
		{"back after a gap within the window", story("A", "B", "", "", "", "", "A"), []uint32{6}},
		{"back later than the window", story("A", "B", "", "", "", "", "", "A"), nil},
		{"alternating", story("A", "B", "A", "B"), []uint32{2, 3}},
		{"back long after, twice", story(slices.Concat([]string{"A"}, repeat("B", 10), repeat("A", 10))...), nil},
	} {
		var got []uint32
		rep := c.rec.report()
		for _, o := range rep.Overlaps {
			got = append(got, o.Request)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if two := rep.Phase("").HoldersMax >= 2; two != (len(c.want) > 0) {
			t.Errorf("%s: at most %d holders", c.name, rep.Phase("").HoldersMax)
		}
	}
}

func TestChangesAndTheirSilence(t *testing.T) {
	got := story("A", "A", "", "", "B", "B").report()
	want := []Change{{At: time.Unix(1000, int64(4*ms+50*time.Microsecond)), Request: 4, From: "A", To: "B", Silent: 3 * ms}}
	if d := cmp.Diff(want, got.Changes); d != "" {
		t.Error(d)
	}
	if got.Sent != 6 || got.Answered != 4 || got.By["A"] != 2 || got.By["B"] != 2 {
		t.Errorf("counted %d sent, %d answered, %v", got.Sent, got.Answered, got.By)
	}
}

func TestAnAnswerThatComesLateCountsForItsRequest(t *testing.T) {
	r := story("A", "A", "A", "B", "B", "B")
	// The last answer of A arrives after two of B: by the requests it is one move.
	r.answers[2].at = 4*ms + 900*time.Microsecond
	rep := r.report()
	if len(rep.Overlaps) != 0 || len(rep.Changes) != 1 || rep.Changes[0].Silent != 0 {
		t.Errorf("overlaps %v, changes %v", rep.Overlaps, rep.Changes)
	}
}

// A request that waited while the address moved is answered by the next holder, after that
// of a later one by the holder before.
func TestARequestThatWaitedIsNoSecondHolder(t *testing.T) {
	r := story("A", "A", "B", "A", "B", "B")
	r.answers[2].at = 4 * ms
	if rep := r.report(); len(rep.Overlaps) != 0 {
		t.Errorf("overlaps %v", rep.Overlaps)
	}
}

// Who takes the address back at once announces it; who never let it go does not.
func TestTwoQuickMovesAreNoSecondHolder(t *testing.T) {
	for who, want := range map[string]int{"A": 0, "B": 1, "": 1} {
		r := story("A", "A", "B", "B", "A", "A")
		at := func(d time.Duration, who string) Announcement { return Announcement{At: r.started.Add(d), MAC: who} }
		r.announced = []Announcement{at(ms/2, "A"), at(2*ms, "B")}
		if who != "" {
			r.announced = append(r.announced, at(4*ms, who))
		}
		if rep := r.report(); len(rep.Overlaps) != want {
			t.Errorf("%q announces itself: overlaps %v", who, rep.Overlaps)
		}
	}
}

func TestPhases(t *testing.T) {
	r := story(slices.Concat(repeat("A", 10), repeat("", 30), repeat("B", 10), repeat("AB", 5), repeat("", 5))...)
	r.marks = append(r.marks, mark{"cut", 9*ms + 500*time.Microsecond}, mark{"split", 50 * ms}, mark{"dark", 55 * ms})
	rep := r.report()
	type sum struct {
		Name                                string
		Sent, Answered, Max, Moves, Overlap int
		Silence                             time.Duration
	}
	var got []sum
	for _, p := range rep.Phases {
		got = append(got, sum{p.Name, p.Sent, p.Answered, p.HoldersMax, len(p.Changes), len(p.Overlaps), p.LongestSilence.Round(ms)})
	}
	want := []sum{
		{"", 10, 10, 1, 0, 0, 1 * ms},
		{"cut", 40, 10, 1, 1, 0, 31 * ms}, // less the half millisecond before the mark
		{"split", 5, 5, 2, 9 + 1, 5, 1 * ms},
		{"dark", 5, 0, 0, 0, 0, 5 * ms},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if p := rep.Phase("none"); p.Name != "" || p.Sent != 0 {
		t.Errorf("a phase that was never marked is %v", p)
	}
}

func TestThePauseOfTheObserverIsNoSilence(t *testing.T) {
	r := story("A", "A", "A")
	r.sent[2], r.answers[2].at, r.ended = 80*ms, 80*ms+50*time.Microsecond, 81*ms
	p := r.report().Phase("")
	if p.LongestSilence > 2*ms || p.LongestPause != 79*ms {
		t.Errorf("silence %v, pause %v", p.LongestSilence, p.LongestPause)
	}
}

// TestSilenceAgreesWithCounting compares the spans with the plain rule: with a
// request each millisecond, silence is the longest row of unanswered requests.
func TestSilenceAgreesWithCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		who := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "A", "B"}), 1, 60).Draw(t, "answers")
		row, longest := 0, 0
		for _, w := range who {
			if row++; w != "" {
				row = 0
			}
			longest = max(longest, row)
		}
		got := story(who...).report().Phase("").LongestSilence
		// A row of n is bounded by answers just after the requests around it.
		if lo, hi := time.Duration(longest)*ms-ms/10, time.Duration(longest+1)*ms; got < lo || got > hi {
			t.Fatalf("%q: silence %v, counted %d", who, got, longest)
		}
	})
}

func TestCells(t *testing.T) {
	r := story(slices.Concat(repeat("A", 13), repeat("", 10), repeat("B", 12))...)
	r.sent = append(r.sent, 63*ms) // and nothing was asked for a while
	r.answers = append(r.answers, answer{35, 63*ms + 1, "B"})
	for _, c := range []struct {
		a, b time.Duration
		want []string
	}{
		{0, 35 * ms, []string{"A", "", "B"}},
		{5 * ms, 30 * ms, []string{"A", ""}},
		{30 * ms, 30 * ms, nil},
		{31 * ms, 30 * ms, nil},
		{25 * ms, 72 * ms, []string{"B", "B", "B", "B"}},
		{80 * ms, 99 * ms, []string{""}},
	} {
		got := r.cells(c.a, c.b, 10*ms)
		if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%v to %v: %s", c.a, c.b, d)
		}
	}
}
