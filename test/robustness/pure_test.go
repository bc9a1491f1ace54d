package robustness

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatMayBeLeftOfARegister(t *testing.T) {
	for _, c := range []struct {
		name     string
		commands []command
		got      string
		lost     bool
	}{
		{"never written", nil, "0", false},
		{"never written, and changed", nil, "1", true},
		{"acknowledged", []command{{"1", acked}}, "1", false},
		{"acknowledged and lost", []command{{"1", acked}}, "0", true},
		{"overwritten", []command{{"1", acked}, {"2", acked}}, "2", false},
		{"the last one is lost", []command{{"1", acked}, {"2", acked}}, "1", true},
		{"in doubt, did not happen", []command{{"1", acked}, {"2", unknown}}, "1", false},
		{"in doubt, did happen", []command{{"1", acked}, {"2", unknown}}, "2", false},
		{"in doubt, happened late", []command{{"1", unknown}, {"2", acked}}, "1", false},
		{"in doubt, and what was before it is back", []command{{"1", acked}, {"2", acked}, {"3", unknown}}, "1", true},
	} {
		r := register{initial: "0", commands: c.commands}
		if got := r.lost(c.got); (got != "") != c.lost {
			t.Errorf("%s: now %q: %q, want lost = %v", c.name, c.got, got, c.lost)
		}
	}
	r := register{initial: "0", commands: []command{{"1", unknown}, {"2", acked}}}
	if r.acks() != 1 {
		t.Errorf("%d acks counted, want 1", r.acks())
	}
	r.did("3", unknown)
	r.settle("1")
	if r.lost("2") == "" || r.lost("1") != "" {
		t.Error("what was acknowledged and overwritten may come back")
	}
	if r.lost("3") != "" || r.acks() != 0 {
		t.Error("what was in doubt is forgotten, or counted again")
	}
}

func TestHistoriesThatCannotBe(t *testing.T) {
	good := []ownership{{1, 1, "web", "a", 0}, {2, 1, "db", "b", 0}, {5, 2, "web", "b", 0}}
	if bad := rising(good); bad != nil {
		t.Errorf("a good history: %q", bad)
	}
	for name, list := range map[string][]ownership{
		"epoch used twice": {{1, 1, "web", "a", 0}, {2, 1, "web", "b", 0}},
		"epoch goes back":  {{1, 3, "web", "a", 0}, {2, 2, "web", "b", 0}},
		"event goes back":  {{2, 1, "web", "a", 0}, {1, 2, "web", "b", 0}},
	} {
		if rising(list) == nil {
			t.Errorf("%s: nothing said", name)
		}
	}
	if bad := differ("a", "b", good, good[1:]); bad != nil {
		t.Errorf("equal histories differ: %q", bad)
	}
	if differ("a", "b", good, []ownership{{5, 2, "web", "c", 0}}) == nil {
		t.Error("two owners of one epoch: nothing said")
	}
}

func TestTwoQuickMovesAreNoOverlap(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixNano() }
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		list []ownership
		want bool
	}{
		"there and back":       {[]ownership{{1, 1, "web", "a", ago(time.Hour)}, {2, 2, "web", "b", ago(6 * ms)}, {4, 3, "web", "a", ago(2 * ms)}}, true},
		"only there":           {[]ownership{{1, 1, "web", "a", ago(time.Hour)}, {2, 2, "web", "b", ago(6 * ms)}}, false},
		"an hour ago":          {[]ownership{{1, 1, "web", "a", ago(time.Hour)}, {2, 2, "web", "b", ago(time.Hour)}, {4, 3, "web", "a", ago(time.Hour)}}, false},
		"decided after it":     {[]ownership{{1, 1, "web", "a", ago(time.Hour)}, {2, 2, "web", "b", ago(6 * ms)}, {4, 3, "web", "a", ago(-2 * ms)}}, false},
		"another group's":      {[]ownership{{1, 1, "db", "a", ago(time.Hour)}, {2, 2, "db", "b", ago(6 * ms)}, {4, 3, "db", "a", ago(2 * ms)}}, false},
		"by way of a third":    {[]ownership{{1, 1, "web", "a", ago(time.Hour)}, {2, 2, "web", "c", ago(6 * ms)}, {4, 3, "web", "a", ago(2 * ms)}}, false},
		"the other way around": {[]ownership{{1, 1, "web", "b", ago(time.Hour)}, {2, 2, "web", "a", ago(6 * ms)}, {4, 3, "web", "b", ago(2 * ms)}}, false},
	} {
		if got := twoMoves(tt.list, "web", "a", "b", now); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAnEpochHasOneHolder(t *testing.T) {
	line := "time=2026-01-01T00:00:00.000Z level=INFO msg=\"took over\" node=%s group=web epoch=4 cause=failover ms=0.4\n"
	h := holders{}
	if bad := h.read("a", []byte(strings.ReplaceAll(line, "%s", "a"))); bad != nil {
		t.Errorf("the first holder: %q", bad)
	}
	if bad := h.read("a", []byte(strings.ReplaceAll(line, "%s", "a"))); bad != nil {
		t.Errorf("the same holder again: %q", bad)
	}
	if bad := h.read("b", []byte(strings.ReplaceAll(line, "%s", "b"))); len(bad) != 1 {
		t.Errorf("a second holder: %q", bad)
	}
}

func TestMergedTimeline(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)).UTC() }
	log := "time=" + at(2).Format(time.RFC3339Nano) + " level=INFO msg=two\ngoroutine 1\n" +
		"time=" + at(5).Format(time.RFC3339Nano) + " level=INFO msg=five\n"
	all := merge([]entry{{at(0), "fault", "zero"}, {at(4), "wire", "four"}}, agentEntries("a", []byte(log)))
	var b bytes.Buffer
	write(&b, all, at(1), at(2))
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line)[1:], " "))
	}
	want := []string{"+0.0 ms a level=INFO msg=two", "+0.0 ms a goroutine 1", "+2.0 ms wire four", "+3.0 ms a level=INFO msg=five"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestTableCounts(t *testing.T) {
	var tab table
	for _, o := range []outcome{
		{row: "a", took: true, outage: 3 * time.Millisecond, acked: 2},
		{row: "a", took: true, outage: time.Millisecond},
		{row: "a", outage: time.Hour}, // did not take hold: its outage says nothing
		{row: "a", took: true, outage: 2 * time.Millisecond, twoHolders: 1, lost: 1, violations: []string{"x"}},
		{row: "b", skipped: "no disk"},
		{row: "c", took: true, violations: []string{"an agent ended"}},
	} {
		tab.row(o.row).add(o)
	}
	var b bytes.Buffer
	tab.print(&b)
	want := [][]string{
		{"a", "4", "3", "2.0", "3.0", "1", "0", "2", "(1)", "0"},
		{"b", "skipped:", "no", "disk"},
		{"c", "1", "1", "0.0", "0.0", "0", "0", "0", "(0)", "1"},
		{"total", "5", "4", "2.0", "3.0", "1", "0", "2", "(1)", "1"},
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")[1:]
	for i, l := range lines {
		if i >= len(want) || !slices.Equal(strings.Fields(l), want[i]) {
			t.Errorf("line %d is %q", i, l)
		}
	}
}
