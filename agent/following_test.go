package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
)

// followStory tells a story of a cluster in which only so many nodes have the log. The
// group web prefers the last of them.
func followStory(t *testing.T, servers int, names []string, tell func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		owner := names[len(names)-1]
		l := newLabOf(t, fast, 1, names, []spec.Group{groupOf("web", vipA, owner)})
		l.servers = servers
		defer l.close()
		l.startAll()
		l.until("it is held", 30*time.Second, l.held(owner))
		l.until("as many have the log as should, and the rest follow", 30*time.Second, func() bool {
			plain := l.plain()
			return len(plain) == len(names)-servers && !slices.ContainsFunc(plain, func(n string) bool { return l.follows(n) == "" })
		})
		tell(t, l)
	})
}

// unmoved checks that the first address was never silent, and stayed where it was.
func unmoved(t *testing.T, done func() (time.Duration, int)) {
	t.Helper()
	if longest, moves := done(); longest > 5*time.Millisecond || moves > 0 {
		t.Errorf("the holder was silent for %v, and the address moved %d times", longest, moves)
	}
}

// A node whose stream is lost for long keeps its lease by beats and serves on; then it goes
// on where it stood, without all of the state.
func TestStreamIsLost(t *testing.T) {
	followStory(t, 3, []string{"primary", "secondary", "third", "n1"}, func(t *testing.T, l *lab) {
		done := l.silence(vipA)
		a := l.on("n1")
		wholes := a.following.wholes.Load()
		at, _ := a.machine.Last()
		l.net.CutStreams("n1", true)
		time.Sleep(missesNews + 2*time.Second)
		for _, on := range []bool{true, false} {
			if err := l.on(l.leader()).Maintenance(t.Context(), on); err != nil {
				t.Fatal(err)
			}
		}
		l.until("it says that it hears no news", 10*time.Second, func() bool { return l.hosts["n1"].has("follows-nobody") })
		if now, _ := a.machine.Last(); now != at || l.follows("n1") != "" {
			t.Errorf("it follows %q and is at %d, as if there were a stream", l.follows("n1"), now)
		}
		l.net.CutStreams("n1", false)
		l.until("it follows again", 20*time.Second, func() bool { return l.follows("n1") != "" })
		l.well(5 * time.Second)
		// Whoever is followed and who follows say so; all say who has the log.
		for _, on := range []string{"n1", l.follows("n1")} {
			ms, err := l.on(on).Members(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				want := api.LogVoter
				if m.Name == "n1" {
					want = api.LogFollows
				}
				if m.Log == nil || *m.Log != want || (m.Follows != nil) != (m.Name == "n1") || m.VoterWhy == nil || strings.Contains(*m.VoterWhy, "follows") != (m.Name == "n1") {
					t.Errorf("%s says that %s has its log as %v, and follows %v", on, m.Name, m.Log, m.Follows)
				}
			}
		}
		unmoved(t, done)
		if n := a.following.wholes.Load() - wholes; n > 0 {
			t.Errorf("it was sent all of the state, %d times", n)
		}
		if l.hosts["n1"].has("follows-nobody") {
			t.Error("it says that it hears no news, and it does")
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Errorf("it leaves: %v", err)
		}
		l.until("its agent ends", 10*time.Second, func() bool { return !l.hosts["n1"].up() })
		if !l.hosts["n1"].endedMembership() {
			t.Errorf("it did not end because its membership did: %v", l.hosts["n1"].err)
		}
	})
}

// A node that was without its stream for more entries than voters keep gets all of the
// state, once, and then the entries that follow; it kept what it holds.
func TestStreamIsLostForLong(t *testing.T) {
	followStory(t, 3, []string{"primary", "secondary", "third", "n1"}, func(t *testing.T, l *lab) {
		done := l.silence(vipA)
		a := l.on("n1")
		wholes := a.following.wholes.Load()
		l.net.CutStreams("n1", true)
		time.Sleep(missesNews + 2*time.Second) // what was on its way is given up
		at, _ := a.machine.Last()
		leader := l.on(l.leader())
		for on, last := true, at; last-at <= 4200; on = !on {
			if _, err := leader.propose(t.Context(), fsm.Command{At: time.Now(), Maintenance: &fsm.Maintenance{On: on}}); err != nil {
				t.Fatal(err)
			}
			last, _ = leader.machine.Last()
		}
		if now, _ := a.machine.Last(); now != at {
			t.Errorf("it is at %d and was at %d, as if there were a stream", now, at)
		}
		if err := leader.Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.net.CutStreams("n1", false)
		same := func() bool {
			x, _ := a.machine.Last()
			y, _ := leader.machine.Last()
			return x == y
		}
		l.until("it has what the others have", 20*time.Second, same)
		if n := a.following.wholes.Load() - wholes; n != 1 {
			t.Errorf("it was sent all of the state %d times", n)
		}
		for _, on := range []bool{true, false} {
			if err := leader.Maintenance(t.Context(), on); err != nil {
				t.Fatal(err)
			}
		}
		l.until("it goes on with entries", 5*time.Second, same)
		if n := a.following.wholes.Load() - wholes; n != 1 {
			t.Errorf("it was sent all of the state %d times", n)
		}
		unmoved(t, done)
		l.well(20 * time.Second)
	})
}

// A voter that does not hear of it loses its vote and its place in raft. It finds out from
// those who know more, and follows one of them, long before a voter that nothing reaches
// would look for one.
func TestVoterIsTakenOutUnheard(t *testing.T) {
	followStory(t, 3, []string{"primary", "secondary", "third", "n1"}, func(t *testing.T, l *lab) {
		done := l.silence(vipA)
		leader := l.on(l.leader())
		if err := leader.Maintenance(t.Context(), true); err != nil { // who votes is the test's affair
			t.Fatal(err)
		}
		vote := func(names ...string) {
			l.until("they are to vote", 5*time.Second, func() bool {
				if err := leader.changeVoters(t.Context(), leader.node.Load(), leader.machine.Copy(), names, "a test says so"); err != nil {
					t.Fatal(err)
				}
				return len(leader.machine.Copy().Voters.Names) == len(names)
			})
		}
		vote("primary", "secondary", "third", "n1")
		l.until("n1 votes", 10*time.Second, func() bool { return l.votes("n1", 1) && l.isServer("n1") })
		time.Sleep(time.Second)
		out := without([]string{"primary", "secondary", "third"}, leader.cfg.Name)[0]
		cut := func(on bool) {
			l.net.Cut(out, "", "", on)
			l.net.Cut("", out, "", on)
		}
		cut(true)
		time.Sleep(time.Second) // what was on its way is given up
		vote(without([]string{"primary", "secondary", "third", "n1"}, out)...)
		l.until("it is out", unfedVoter/2, func() bool { return !l.isServer(out) })
		cut(false)
		l.until("it follows", unfedVoter/2, func() bool { return l.follows(out) != "" })
		if err := leader.Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.well(10 * time.Second)
		unmoved(t, done)
	})
}

// The cluster is recovered, in the next generation, while a node that follows is cut off,
// and another one is not. Neither goes on from the old history into the new one, and
// neither holds anything; a host that joins anew does.
func TestRecoverWithoutThoseWhoFollow(t *testing.T) {
	followStory(t, 3, []string{"primary", "secondary", "third", "n2", "n1"}, func(t *testing.T, l *lab) {
		cut := func(on bool) {
			l.net.Cut("n1", "", "", on)
			l.net.Cut("", "n1", "", on)
		}
		cut(true)
		l.until("another one has it", 5*time.Second, func() bool { w := l.answers(vipA); return len(w) == 1 && w[0] != "n1" })
		l.hosts["secondary"].powerCut()
		l.hosts["third"].powerCut()
		time.Sleep(2 * time.Second)
		left := l.hosts["primary"]
		left.halt()
		r, err := left.recover("")
		if err == nil {
			r, err = left.recover(r.Confirm)
		}
		if err != nil || !r.Done {
			t.Fatalf("%+v, %v", r, err)
		}
		left.start()
		told := func(name string) bool { return l.hosts[name].has("old-generation") || l.hosts[name].has("removed") }
		l.until("it goes on alone", 20*time.Second, l.held("primary"))
		l.until("n2 is told", 20*time.Second, func() bool { return told("n2") })
		cut(false)
		l.until("n1 is told", 20*time.Second, func() bool { return told("n1") })
		time.Sleep(15 * time.Second)
		for _, n := range []string{"n1", "n2"} {
			a, _ := l.hosts[n].running()
			if a == nil {
				t.Fatalf("the agent on %s ended", n)
			}
			if g := a.machine.Copy().Generation; g != 0 || l.follows(n) != "" {
				t.Errorf("%s follows %q and is in generation %d", n, l.follows(n), g)
			}
		}
		if !l.held("primary")() {
			t.Errorf("answers: %v\n%s", l.answers(vipA), l.dump())
		}
		h := l.hosts["n1"]
		h.kill()
		h.joins = true
		h.disk = newMemDisk()
		if _, err := h.join(l.token("primary"), JoinOptions{Fresh: true}, "primary", nil); err != nil {
			t.Fatal(err)
		}
		h.start()
		l.until("it has its group again", 20*time.Second, l.held("n1"))
	})
}

// A node that follows and owns a group gets the log when one that has it dies, and a vote
// when a voter dies; those come back and follow. The group notices nothing of it. Then the
// owner dies, that is a voter now.
func TestFromFollowingToVoting(t *testing.T) {
	followStory(t, 4, []string{"primary", "secondary", "third", "fourth", "a1", "a0"}, func(t *testing.T, l *lab) {
		votes := func(name string) (yes bool) {
			l.view(func(s *fsm.State) { yes = s.Voters.Has(name) })
			return yes
		}
		pick := func(voting bool) string {
			for _, m := range l.raftServers() {
				if m.Voter == voting && m.Name != l.leader() && votes(m.Name) == voting {
					return m.Name
				}
			}
			t.Fatalf("there is none: %+v", l.raftServers())
			return ""
		}
		done := l.silence(vipA)
		spare, voter := pick(false), pick(true)
		l.hosts[spare].powerCut()
		l.until("a0 has the log", time.Minute, func() bool { return l.isServer("a0") && !l.isServer(spare) })
		l.until("and follows nobody any more", 10*time.Second, func() bool { return l.follows("a0") == "" })
		if testing.Short() {
			l.hosts[spare].start()
			l.well(10 * time.Second)
			unmoved(t, done)
			return
		}
		l.hosts[voter].powerCut()
		l.until("a0 votes", time.Minute, func() bool { return votes("a0") && !votes(voter) && l.votes("a0", 1) })
		l.hosts[spare].start()
		l.hosts[voter].start()
		l.until("there are as many servers as should be", 10*time.Second, func() bool { return len(l.raftServers()) == 4 && l.follows(spare) != "" })
		l.well(10 * time.Second)
		unmoved(t, done)

		begin := time.Now()
		l.hosts["a0"].powerCut()
		l.until("takeover", 5*time.Second, func() bool { w := l.answers(vipA); return len(w) == 1 && w[0] != "a0" })
		if d := time.Since(begin); d > l.tm.Deadtime+100*time.Millisecond {
			t.Errorf("the takeover took %v", d)
		}
		l.hosts["a0"].start()
		l.until("failback", 10*time.Second, l.held("a0"))
		if !votes("a0") {
			t.Error("it was dead for a moment, and has no vote any more")
		}
		l.well(5 * time.Second)
	})
}

// A node that follows dies and comes back: with its disk, whose log is from when the
// cluster was founded; without it; and when all who voted then have left. It is removed
// while it is cut off, or leaves.
func TestFollowerRestarts(t *testing.T) {
	deaths := 4
	if testing.Short() {
		deaths = 2
	}
	followStory(t, 3, []string{"primary", "secondary", "third", "n1", "n2", "n3", "n4"}, func(t *testing.T, l *lab) {
		h := l.hosts["n4"]
		all := []func(){h.kill, func() { h.powerCut(); h.loseDisk() }, h.powerCut, h.halt}
		for _, down := range all[:deaths] {
			down()
			l.until("another one has it", 5*time.Second, func() bool { w := l.answers(vipA); return len(w) == 1 && w[0] != "n4" })
			h.start()
			l.until("it has it again", 10*time.Second, l.held("n4"))
			l.until("it follows", 10*time.Second, func() bool { return l.follows("n4") != "" })
		}
		l.well(5 * time.Second)
		h = l.hosts["n3"] // with the disk of a founder
		for _, n := range []string{"primary", "secondary", "third"} {
			l.until("there are three voters", time.Minute, func() bool {
				three := false
				l.view(func(s *fsm.State) { three = len(s.Voters.Names) == 3 && !l.isServer("n4") })
				return three && len(l.raftServers()) == 3
			})
			if n == "third" {
				h.powerCut()
			}
			if err := l.on(n).Leave(t.Context()); err != nil {
				t.Fatalf("%s leaves: %v", n, err)
			}
			l.hosts[n].powerCut()
		}
		h.start()
		l.until("n3 takes part again", 20*time.Second, func() bool {
			a, _ := h.running()
			if a == nil {
				return false
			}
			_, ok := a.ref()
			return ok
		})
		l.net.Cut("n4", "", "", true)
		l.net.Cut("", "n4", "", true)
		l.until("another one has it", 5*time.Second, func() bool { w := l.answers(vipA); return len(w) == 1 && w[0] != "n4" })
		if _, err := l.on("n1").Remove(t.Context(), api.RemoveRequest{Node: "n4", Confirm: "remove n4"}); err != nil {
			t.Fatal(err)
		}
		l.net.Heal()
		l.until("n4 is told that it was removed", 20*time.Second, func() bool { return l.hosts["n4"].has("removed") })
	})
}
