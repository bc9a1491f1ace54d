package agent

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/cluster"
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

// servers are the members of raft, as its leader knows them; nil = nobody leads.
func (l *lab) raftServers() []cluster.Member {
	a, _ := l.hosts[cmp.Or(l.leader(), l.nodes[0].Name)].running()
	if a == nil || a.node.Load() == nil || !a.node.Load().IsLeader() {
		return nil
	}
	servers, err := a.node.Load().Members()
	if err != nil {
		return nil
	}
	return servers
}

// isServer reports whether a node is in raft, by the leader's word.
func (l *lab) isServer(name string) bool {
	return slices.ContainsFunc(l.raftServers(), func(m cluster.Member) bool { return m.Name == name })
}

// plain are the nodes that run and are no servers of raft; nil while nobody leads.
func (l *lab) plain() (out []string) {
	servers := l.raftServers()
	for _, n := range l.nodes {
		if servers != nil && l.hosts[n.Name].up() && !slices.ContainsFunc(servers, func(m cluster.Member) bool { return m.Name == n.Name }) {
			out = append(out, n.Name)
		}
	}
	return out
}

// follows is whom a node follows; "" = nobody, or it does not run.
func (l *lab) follows(name string) string {
	a, _ := l.hosts[name].running()
	if a == nil {
		return ""
	}
	if v := a.following.voter.Load(); v != nil {
		return *v
	}
	return ""
}

// Nodes beyond the seven that have the log follow a voter: they hear of what is decided,
// own groups, and take over; when their voter dies they go on with the next; and when too
// few are left that have the log, one of them gets it.
func TestNodesBeyondTheServers(t *testing.T) {
	if testing.Short() {
		t.Skip("the stories in following_test.go are shorter")
	}
	synctest.Test(t, func(t *testing.T) {
		l := manyNodes(t, 3)
		defer l.close()
		l.until("three are no servers", 30*time.Second, func() bool { return l.leader() != "" && len(l.plain()) == 3 })
		plain := l.plain()
		l.until("they follow", 10*time.Second, func() bool {
			return !slices.ContainsFunc(plain, func(n string) bool { return l.follows(n) == "" })
		})
		l.until("a move to one of them", 10*time.Second, func() bool {
			_, err := l.on(l.leader()).Move(t.Context(), api.MoveRequest{Group: "web", To: plain[0], Wait: 3 * time.Second})
			return err == nil
		})
		l.until("it holds", 5*time.Second, l.held(plain[0]))

		done := l.silence(vipA)
		voter := l.follows(plain[0])
		l.hosts[voter].powerCut()
		l.until("it follows another", 10*time.Second, func() bool { v := l.follows(plain[0]); return v != "" && v != voter })
		if longest, moves := done(); longest > 5*time.Millisecond || moves > 0 {
			t.Errorf("the holder whose voter died was silent for %v and moved %d times", longest, moves)
		}
		if err := l.on(plain[1]).Maintenance(t.Context(), true); err != nil {
			t.Errorf("a command through a node that follows: %v", err)
		}
		if err := l.on(plain[2]).Maintenance(t.Context(), false); err != nil {
			t.Errorf("a command through a node that follows: %v", err)
		}
		l.hosts[plain[0]].powerCut()
		d := l.until("takeover from a node that follows", 5*time.Second, func() bool { w := l.answers(vipA); return len(w) == 1 && w[0] != plain[0] })
		if d > l.tm.Deadtime+100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		// The dead voter is replaced, and the place of the one that replaced it is filled.
		l.until("the dead voter follows none, and one that followed is a server", 2*time.Minute, func() bool {
			return l.leader() != "" && !l.isServer(voter) && slices.ContainsFunc(plain[1:], l.isServer)
		})
		l.hosts[voter].start()
		l.hosts[plain[0]].start()
		l.until("all know the same", time.Minute, func() bool {
			var at []uint64
			for _, n := range l.nodes {
				a, _ := l.hosts[n.Name].running()
				if a == nil {
					return false
				}
				i, _ := a.machine.Last()
				at = append(at, i)
			}
			return slices.Min(at) == slices.Max(at)
		})
	})
}
