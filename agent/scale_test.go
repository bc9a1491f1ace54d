package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// manyNodes is a lab of seven nodes of which five vote, the first owning web, and n more
// that come before them in any order of names.
func manyNodes(t *testing.T, n int) *lab {
	t.Helper()
	names := []string{"primary", "secondary", "third", "x1", "x2", "x3", "x4"}
	for i := range n {
		names = append(names, fmt.Sprintf("a%02d", i))
	}
	l := newLab(t, fast, names...)
	l.startAll()
	l.until("first hold", 30*time.Second, l.held("primary"))
	return l
}

// Voters say in their beats whom they miss, and a beat has room for eight. Hosts that are
// switched off and owned nothing are never fenced, so they are missed for ever; once there
// were eight of them nobody heard of the next one.
func TestManyAreMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := manyNodes(t, 8)
		defer l.close()
		time.Sleep(3 * time.Second)
		for i := range 8 {
			l.hosts[fmt.Sprintf("a%02d", i)].powerCut()
		}
		time.Sleep(2 * time.Second)
		l.hosts["primary"].powerCut()
		d := l.until("takeover", 20*time.Second, func() bool { return len(l.answers(vipA)) == 1 })
		if limit := l.tm.Deadtime + 100*time.Millisecond; d > limit {
			t.Errorf("taken over after %v, more than %v", d, limit)
		}
		// They are heard again, and no longer missed.
		for i := range 8 {
			l.hosts[fmt.Sprintf("a%02d", i)].start()
		}
		time.Sleep(3 * time.Second)
		a := l.on(l.leader())
		for voter, o := range a.opinions(a.voters(), a.now()) {
			if o.Age < l.tm.Deadtime && (o.Silent[id.NodeRef{Name: "a03", Inc: 1}] || o.Silent[id.NodeRef{Name: "a03", Inc: 2}]) {
				t.Errorf("%s misses a03, which is back", voter)
			}
		}
	})
}

// A list in parts counts once it is whole, until a newer one does or the beats need none;
// parts that come late, twice or again change nothing.
func TestListsInParts(t *testing.T) {
	var e ears
	var first, second []id.NodeRef
	for i := range 200 {
		first = append(first, id.NodeRef{Name: fmt.Sprintf("node%03d", i), Inc: 1})
		second = append(second, id.NodeRef{Name: fmt.Sprintf("node%03d", i+1), Inc: 1})
	}
	said := func(ms int) int { return len(e.of("v").silent(at(ms), time.Second)) }
	beat := func(ms int, seq uint64, refs []id.NodeRef) {
		e.note("v", lease.Beat{Ref: id.NodeRef{Name: "v", Inc: 2}, Seq: seq, Silent: refs[:min(len(refs), lease.MaxSilent)]}, 2, at(ms), clock.Instant{}, time.Second)
	}
	old := lease.Silents(2, 7, first)
	beat(1000, 7, first)
	for _, p := range old[1:] {
		if e.noteSilent("v", p, at(1000)) || said(1000) != lease.MaxSilent {
			t.Errorf("%d are missed by a part of a list", said(1000))
		}
	}
	if !e.noteSilent("v", old[0], at(1001)) || said(1001) != 200 {
		t.Errorf("%d are missed by a whole list", said(1001))
	}
	beat(1100, 8, second)
	for i, p := range lease.Silents(2, 8, second) {
		if e.noteSilent("v", old[i], at(1100)) || e.noteSilent("v", p, at(1100)) != (i == len(old)-1) || e.noteSilent("v", p, at(1100)) {
			t.Errorf("part %d", i)
		}
	}
	if e.noteSilent("v", old[0], at(1101)) || e.noteSilent("v", old[1], at(1101)) || said(1101) != 200 || e.of("v").silent(at(1101), time.Second)[first[0]] {
		t.Errorf("an old list counts: %d are missed", said(1101))
	}
	for _, p := range lease.Silents(2, 9, second) {
		if e.noteSilent("v", p, at(1200)) {
			t.Error("the same list again is news")
		}
	}
	if n := said(2201); n != lease.MaxSilent {
		t.Errorf("%d are missed by a list that is older than a second", n)
	}
	beat(1300, 10, second[:3])
	if n := said(1300); n != 3 {
		t.Errorf("%d are missed, though the newest beat had room for all", n)
	}
	for _, p := range lease.Silents(1, 99, first) {
		e.noteSilent("v", p, at(1400)) // of the registration before
	}
	if e.of("v").silent(at(1400), time.Second)[first[0]] != false {
		t.Error("a list of an older registration counts")
	}
}
