package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/internal/trust"
)

// join makes a host a member, while no agent runs on it. bad, if not nil, is what the
// network does to the connection.
func (h *host) join(tok trust.Token, opts JoinOptions, via string, bad func(net.Conn) net.Conn) (Joined, error) {
	h.mu.Lock()
	wire := h.lab.net.Host(h.name, h.links...)
	h.mu.Unlock()
	opts.Addrs, opts.Token = []string{h.lab.hosts[via].links[0].Addr.String()}, tok
	opts.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		c, err := wire.Dial(ctx, "eth0", to)
		if err == nil && bad != nil {
			c = bad(c)
		}
		return c, err
	}
	return Join(context.Background(), h.config(), opts)
}

func (l *lab) token(on string) trust.Token {
	l.t.Helper()
	made, err := l.on(on).CreateToken(l.t.Context(), time.Hour)
	if err != nil {
		l.t.Fatal(err)
	}
	tok, err := trust.ParseToken(*made.Token)
	if err != nil {
		l.t.Fatal(err)
	}
	return tok
}

// allVote: these are the lease voters, and raft has the same on each of them; what only
// its leader has may die with it.
func (l *lab) allVote(want ...string) func() bool {
	slices.Sort(want)
	return func() bool {
		var have []string
		l.view(func(s *fsm.State) { have = s.Voters.Names })
		if l.leader() == "" || !slices.Equal(have, want) {
			return false
		}
		for _, name := range want {
			a, _ := l.hosts[name].running()
			if a == nil {
				return false
			}
			raft, err := votersOf(a.node.Load())
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(raft)), want) {
				return false
			}
		}
		return true
	}
}

// joinStory tells a story on hosts of which some are no founders.
func joinStory(t *testing.T, names, later []string, tell func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, append(slices.Clone(names), later...)...)
		defer l.close()
		for _, n := range later {
			l.hosts[n].joins = true
		}
		l.startAll()
		if len(names) > 0 {
			l.until("first hold", 20*time.Second, l.held("primary"))
			time.Sleep(5 * time.Second)
		}
		tell(t, l)
	})
}

// A cluster from one host: init, a second node without a vote, a witness; then all
// three vote, and the first may die.
func TestInitAndJoin(t *testing.T) {
	joinStory(t, nil, []string{"primary", "secondary", "arbiter"}, func(t *testing.T, l *lab) {
		first := l.hosts["primary"]
		f, err := Init(first.config(), spec.Node{Name: "primary", Address: "10.0.0.1", Role: spec.RoleNode})
		if err != nil || len(f.Tokens) != 2 || f.Again {
			t.Fatalf("%+v, %v", f, err)
		}
		first.start()
		d := l.until("the first node holds", 20*time.Second, l.held("primary"))
		t.Logf("one node holds after %v", d)
		if f, err := Init(first.config(), f.Self); err == nil {
			t.Errorf("init while the agent runs: %+v", f)
		}
		if j, err := l.hosts["secondary"].join(f.Tokens[0], JoinOptions{}, "primary", nil); err != nil || j.By != "primary" || len(j.Members) != 2 {
			t.Fatalf("%+v, %v", j, err)
		}
		l.hosts["secondary"].start()
		l.until("the second node registers", 5*time.Second, func() bool {
			in := false
			l.view(func(s *fsm.State) { in = s.Nodes["secondary"].Registered() })
			return in
		})
		time.Sleep(time.Minute)
		if !l.allVote("primary")() {
			t.Errorf("with two nodes the voters are not the first alone: %s", l.dump())
		}
		if j, err := l.hosts["arbiter"].join(f.Tokens[1], JoinOptions{Role: spec.RoleWitness}, "secondary", nil); err != nil || j.Self.Role != spec.RoleWitness {
			t.Fatalf("%+v, %v", j, err)
		}
		l.hosts["arbiter"].start()
		d = l.until("three vote", 20*time.Second, l.allVote("primary", "secondary", "arbiter"))
		t.Logf("three vote after %v", d)
		l.well(5 * time.Second)
		time.Sleep(5 * time.Second) // leadership goes to who owns nothing
		begin := time.Now()
		first.powerCut()
		l.until("takeover", 5*time.Second, l.held("secondary"))
		if d := time.Since(begin); d > l.tm.Deadtime+100*time.Millisecond {
			t.Errorf("the takeover took %v", d)
		}
		first.start()
		l.until("failback", 10*time.Second, l.held("primary"))
		l.well(5 * time.Second)
	})
}

// lossy loses what is read from a connection, and says so after it was asked.
type lossy struct {
	net.Conn
	reads int // that still work
}

func (c *lossy) Read(b []byte) (int, error) {
	if c.reads--; c.reads < 0 {
		time.Sleep(time.Second) // so long that the answer was given
		return 0, errors.New("the network broke off")
	}
	return c.Conn.Read(b)
}

// A host that joins may lose the answer, or be killed at any step, and goes on with the
// same token.
func TestJoinIsResumed(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third"}, func(t *testing.T, l *lab) {
		h := l.hosts["third"]
		tok := l.token("primary")
		member := func() (in bool) {
			l.view(func(s *fsm.State) { in = s.Nodes["third"] != nil })
			return in
		}
		broke := 0
		for reads := 0; ; reads++ {
			_, err := h.join(tok, JoinOptions{}, "primary", func(c net.Conn) net.Conn { return &lossy{c, reads} })
			if err == nil {
				break
			}
			if broke++; reads > 30 {
				t.Fatalf("never let in: %v", err)
			}
			if _, err := os.Stat(h.config().KeyFile); err == nil {
				t.Error("it has the key of an answer that it did not get")
			}
		}
		if broke < 2 || !member() {
			t.Fatalf("it broke off %d times, member: %v", broke, member())
		}
		if st, err := os.Stat(h.config().KeyFile); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the key file: %v, %v", st, err)
		}
		// It is a member: asked again, it says so, also with a token that is used up.
		if j, err := h.join(tok, JoinOptions{}, "primary", nil); err != nil || j.By != "" || j.Self.Name != "third" {
			t.Errorf("again: %+v, %v", j, err)
		}
		// Killed before the last step: the agent makes it.
		path := filepath.Join(h.dir, identityFile)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var request string
		l.view(func(s *fsm.State) { request = s.Nodes["third"].DiskRequest })
		cut := strings.Replace(string(b), `"disk": 1`, `"disk": 0, "asking": "`+request+`"`, 1)
		if cut == string(b) {
			t.Fatalf("%s: the identity has another form", b)
		}
		if err := os.WriteFile(path, []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		h.start()
		l.until("it registers", 10*time.Second, func() bool {
			in := false
			l.view(func(s *fsm.State) { n := s.Nodes["third"]; in = n.Registered() && n.Disk == 1 })
			return in
		})
		l.well(5 * time.Second)
	})
}

// What does not fit is said by name.
func TestWhoDoesNotFit(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third"}, func(t *testing.T, l *lab) {
		h := l.hosts["third"]
		tok := l.token("secondary")
		refused := func(want string, j Joined, err error) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v, %v; want %q", j, err, want)
			}
		}
		cfg := h.config()
		keys, err := trust.Parse("key", []byte(trust.Generate()))
		if err != nil {
			t.Fatal(err)
		}
		ask := func(change func()) (Joined, error) {
			*cfg = *h.config()
			change()
			return Join(t.Context(), cfg, JoinOptions{Addrs: []string{"10.0.0.1"}, Token: tok, Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				return l.net.Host("third", h.links...).Dial(ctx, "eth0", netip.MustParseAddrPort(addr))
			}})
		}
		j, err := ask(func() { cfg.Cluster = "other" })
		refused("cluster", j, err)
		j, err = ask(func() { cfg.Name, cfg.DataDir = "secondary", t.TempDir() })
		refused("a node secondary is alive", j, err)
		j, err = ask(func() { cfg.Address = "10.0.0.2" })
		refused("address 10.0.0.2 is that of node secondary", j, err)
		j, err = ask(func() { cfg.Nodes = []spec.Node{{Name: "x"}} })
		refused("node blocks", j, err)
		j, err = h.join(keys.NewToken("web"), JoinOptions{}, "primary", nil)
		refused("not a member of the token's cluster", j, err)
		wrong := tok
		wrong.Secret += "x"
		j, err = h.join(wrong, JoinOptions{}, "primary", nil)
		refused("not one of this cluster", j, err)
		index := func() (i uint64) { l.view(func(s *fsm.State) { i = s.Index }); return i }
		before := index()
		for range 30 {
			j, err = h.join(wrong, JoinOptions{}, "primary", nil)
		}
		refused("too many requests from this address were refused", j, err)
		if n := index() - before; n > 10 {
			t.Errorf("thirty requests with a wrong token made %d entries of the log", n)
		}
		time.Sleep(time.Minute)
		if err := l.on("primary").RevokeToken(t.Context(), tok.ID); err != nil {
			t.Fatal(err)
		}
		j, err = h.join(tok, JoinOptions{}, "primary", nil)
		refused("revoked", j, err)
		tok = l.token("primary")
		l.hosts["primary"].clk.stepWall(2 * time.Hour)
		l.hosts["secondary"].clk.stepWall(2 * time.Hour)
		l.hosts["arbiter"].clk.stepWall(2 * time.Hour)
		j, err = h.join(tok, JoinOptions{}, "primary", nil)
		refused("expired", j, err)
		l.until("the arbiter knows both tokens", time.Second, func() bool {
			list, err := l.on("arbiter").Tokens(t.Context())
			return err == nil && len(list) == 2
		})
		if list, err := l.on("arbiter").Tokens(t.Context()); err != nil || len(list) != 2 || list[0].State != "expired" || list[1].State != "revoked" || list[0].Token != nil {
			t.Errorf("%+v, %v", list, err)
		}
		tok = l.token("primary")
		if err := writeKey(h.config().KeyFile, []byte(trust.Generate()+"\n")); err != nil {
			t.Fatal(err)
		}
		j, err = h.join(tok, JoinOptions{}, "primary", nil)
		refused("another cluster", j, err)
		if n := len(l.on("primary").everyone()); n != 3 {
			t.Errorf("%d members", n)
		}
	})
}

// A node that was removed while it was dead comes back with all it had: it is told,
// holds nothing, and joins anew.
func TestRemoveTheDead(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third"}, func(t *testing.T, l *lab) {
		gone := l.hosts["primary"]
		if res, err := l.on("secondary").Remove(t.Context(), api.RemoveRequest{Node: "primary"}); err == nil {
			t.Fatalf("a living node was removed: %+v", res)
		}
		gone.powerCut()
		l.until("takeover", 5*time.Second, l.held("secondary"))
		res, err := l.on("arbiter").Remove(t.Context(), api.RemoveRequest{Node: "primary"})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeNeedsConfirmation || res == nil || *res.Confirm != "remove primary" {
			t.Fatalf("the third vote of three was taken without a word: %+v, %v", res, err)
		}
		if _, err := l.hosts["third"].join(l.token("secondary"), JoinOptions{}, "secondary", nil); err != nil {
			t.Fatal(err)
		}
		l.hosts["third"].start()
		l.until("third registers", 10*time.Second, func() bool {
			in := false
			l.view(func(s *fsm.State) { in = s.Nodes["third"].Registered() })
			return in
		})
		time.Sleep(5 * time.Second)
		res, err = l.on("arbiter").Remove(t.Context(), api.RemoveRequest{Node: "primary", Wait: 20 * time.Second})
		if err != nil || !res.Removed {
			t.Fatalf("%+v, %v\n%s", res, err, l.dump())
		}
		l.until("the other got the vote", 20*time.Second, l.allVote("secondary", "arbiter", "third"))
		gone.start()
		l.until("it is told", 10*time.Second, func() bool {
			a, _ := gone.running()
			if a == nil {
				return false
			}
			return slices.ContainsFunc(a.local(), func(p api.StatusProblem) bool { return p.Code == "removed" && strings.Contains(p.Fix, "--fresh") })
		})
		time.Sleep(10 * time.Second)
		if !l.held("secondary")() {
			t.Errorf("answers: %v", l.answers(vipA))
		}
		gone.halt()
		gone.joins = true // the file lost its node blocks
		tok := l.token("arbiter")
		gone.disk = newMemDisk()
		j, err := gone.join(tok, JoinOptions{Fresh: true}, "arbiter", nil)
		if err != nil || j.Aside == "" {
			t.Fatalf("%+v, %v", j, err)
		}
		// Run again, as after a crash, it is not set aside once more.
		if j, err := gone.join(tok, JoinOptions{Fresh: true}, "arbiter", nil); err != nil || j.Aside != "" {
			t.Errorf("again: %+v, %v", j, err)
		}
		gone.start()
		l.until("failback", 20*time.Second, l.held("primary"))
		l.well(10 * time.Second)
	})
}

// The dead voter's vote goes to another after a while, not at once.
func TestDeadVoterIsReplaced(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter", "third"}, nil, func(t *testing.T, l *lab) {
		l.until("three of four vote", time.Minute, func() bool {
			n := 0
			l.view(func(s *fsm.State) { n = len(s.Voters.Names) })
			return n == 3
		})
		var out string
		var votes []string
		l.view(func(s *fsm.State) {
			for _, n := range s.NodeNames() {
				if !s.Voters.Has(n) {
					out = n
				}
			}
			votes = slices.Clone(s.Voters.Names)
		})
		dead := without(votes, l.leader())[0]
		begin := time.Now()
		l.hosts[dead].powerCut()
		want := append(without(votes, dead), out)
		l.until("the vote went to "+out, 2*time.Minute, l.allVote(want...))
		if d := time.Since(begin); d < 30*time.Second || d > time.Minute {
			t.Errorf("it took %v", d)
		}
		l.hosts[dead].start()
		l.well(20 * time.Second)
		time.Sleep(soak(time.Minute))
		if !l.allVote(want...)() {
			t.Errorf("the votes changed again when %s came back: %s", dead, l.dump())
		}
		ms, err := l.on(l.leader()).Members(t.Context())
		for _, m := range ms {
			if m.VoterWhy == nil || (m.Name == dead) != strings.Contains(*m.VoterWhy, "no vote: 3 of 4") {
				t.Errorf("%s: %v, %v", m.Name, m.VoterWhy, err)
			}
		}
	})
}

// From three to one, whoever it is that leaves, and the last goes on alone.
func TestLeaveFromTwoToOne(t *testing.T) {
	for _, second := range []string{"primary", "secondary"} {
		t.Run(second, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				if err := l.on("arbiter").Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.until("two vote", 10*time.Second, l.allVote("primary", "secondary"))
				if err := l.on(second).Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				last := map[string]string{"primary": "secondary", "secondary": "primary"}[second]
				l.until("one votes", 10*time.Second, l.allVote(last))
				l.until("and holds", 10*time.Second, l.held(last))
				l.hosts[last].kill()
				l.hosts[last].start()
				l.until("it holds again", 20*time.Second, l.held(last))
			})
		})
	}
}

// Founders know whom they let in, also before a restarted one has applied its log: with
// two founders gone for good the majority are those that joined, and one founder.
func TestFounderKnowsWhoJoined(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third", "fourth"}, func(t *testing.T, l *lab) {
		for _, n := range []string{"third", "fourth"} {
			if _, err := l.hosts[n].join(l.token("primary"), JoinOptions{}, "primary", nil); err != nil {
				t.Fatal(err)
			}
			l.hosts[n].start()
		}
		l.until("five vote", time.Minute, l.allVote("primary", "secondary", "arbiter", "third", "fourth"))
		for _, h := range l.order {
			h.powerCut()
		}
		for _, n := range []string{"primary", "third", "fourth"} {
			l.hosts[n].start()
		}
		l.until("it is held again", 20*time.Second, l.held("primary"))
	})
}

// A node that left and joined again replays the end of its first membership at each
// start. That is no reason to leave again.
func TestAnEarlierMembershipHasEnded(t *testing.T) {
	for _, tt := range []struct {
		n    *fsm.Node
		disk uint64
		want bool
	}{
		{nil, 1, false},
		{&fsm.Node{Disk: 1}, 1, false},
		{&fsm.Node{Disk: 1, Removed: true}, 1, true},
		{&fsm.Node{Disk: 1, Removed: true}, 2, false},
		{&fsm.Node{Disk: 2, Removed: true}, 2, true},
	} {
		if got := membershipEnded(tt.n, tt.disk); got != tt.want {
			t.Errorf("%+v, directory %d: %v", tt.n, tt.disk, got)
		}
	}
}

// An emptied founder knows the founders from its file. Who leads may be none of them.
func TestEmptiedFounderFindsALeaderThatJoined(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third", "fourth"}, func(t *testing.T, l *lab) {
		for _, n := range []string{"third", "fourth"} {
			if _, err := l.hosts[n].join(l.token("primary"), JoinOptions{}, "primary", nil); err != nil {
				t.Fatal(err)
			}
			l.hosts[n].start()
		}
		l.until("five vote", time.Minute, l.allVote("primary", "secondary", "arbiter", "third", "fourth"))
		l.hosts["arbiter"].powerCut()
		l.hosts["arbiter"].loseDisk()
		l.leadBy("third")
		l.hosts["arbiter"].start()
		l.until("it votes again", 20*time.Second, func() bool { return l.votes("arbiter", 2) })
	})
}

// The same, and the founder that answers last was removed: it knows of nobody new.
func TestEmptiedFounderIsNotLedAstray(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter", "fourth"}, []string{"third"}, func(t *testing.T, l *lab) {
		l.hosts["fourth"].powerCut()
		time.Sleep(2 * l.tm.Deadtime)
		if res, err := l.on("primary").Remove(t.Context(), api.RemoveRequest{Node: "fourth", Wait: 20 * time.Second}); err != nil || !res.Removed {
			t.Fatalf("%+v, %v", res, err)
		}
		if _, err := l.hosts["third"].join(l.token("primary"), JoinOptions{}, "primary", nil); err != nil {
			t.Fatal(err)
		}
		l.hosts["third"].start()
		l.until("three vote again", time.Minute, func() bool { return l.votes("secondary", 1) && l.votes("arbiter", 1) && l.votes("primary", 1) })
		l.hosts["arbiter"].powerCut()
		l.hosts["arbiter"].loseDisk()
		l.until("third votes in its place", time.Minute, func() bool { return counts(l.on("primary"), "third", 1) })
		l.leadBy("third")
		l.hosts["fourth"].start()
		time.Sleep(time.Second)
		l.hosts["arbiter"].start()
		l.until("it is back", 20*time.Second, func() (in bool) {
			if a, _ := l.hosts["arbiter"].running(); a != nil {
				_, in = a.ref()
			}
			return in
		})
	})
}

// The same, and a host that is off is asked before who leads.
func TestEmptiedFounderPassesByTheDead(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter", "fourth"}, nil, func(t *testing.T, l *lab) {
		off, emptied := "secondary", "primary" // both are asked before the arbiter
		l.until("one has no vote", time.Minute, func() bool {
			if !counts(l.on("arbiter"), emptied, 1) { // secondary led when it was decided
				off, emptied = emptied, off
			}
			return !counts(l.on("arbiter"), off, 1)
		})
		l.hosts[off].powerCut()
		l.hosts[emptied].powerCut()
		l.hosts[emptied].loseDisk()
		l.leadBy("arbiter") // and fourth is who answers last
		l.hosts[emptied].start()
		l.until("it votes again", 30*time.Second, func() bool { return counts(l.on("arbiter"), emptied, 2) })
	})
}

// Of three founders one came late and one lost its disk, so that all is on the third one's
// disk alone. That one is off: the two are a majority, and found no second cluster, for
// they know of the first.
func TestWhoKnowsOfAClusterFoundsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		one, emptied, late := l.hosts["primary"], l.hosts["secondary"], l.hosts["arbiter"]
		one.start()
		emptied.start()
		l.until("first hold", 20*time.Second, l.held("primary"))
		emptied.powerCut()
		emptied.loseDisk()
		emptied.start()
		late.start()
		for _, h := range []*host{emptied, late} {
			l.until(h.name+" knows", 20*time.Second, func() bool { a, _ := h.running(); return a != nil && a.disk.knows() })
		}
		one.powerCut()
		emptied.powerCut()
		emptied.start() // knows it from its disk
		if d, refounded := l.within(time.Minute, func() bool { return l.reigns() != "" || len(l.answers(vipA)) > 0 }); refounded {
			t.Fatalf("a second cluster after %v", d)
		}
		if !l.shows("secondary", "not-joined")() || !l.shows("arbiter", "not-joined")() {
			t.Error("nobody says why")
		}
	})
}

// A node that leaves while another one's disk is lost would leave half of the votes
// behind: the owner goes on undisturbed, and the membership ends once the other is back.
func TestLeaveWaitsForALostDisk(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("primary")
		done := l.silence(vipA)
		l.hosts["secondary"].powerCut()
		l.hosts["secondary"].loseDisk()
		time.Sleep(2 * l.tm.Deadtime)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := l.on("arbiter").Leave(ctx); err == nil {
			t.Error("it left, and one of two votes is on a disk that is gone")
		}
		if longest, _ := done(); longest > time.Millisecond {
			t.Errorf("the healthy owner was silent for %v", longest)
		}
		l.hosts["secondary"].start()
		l.until("secondary votes again", 20*time.Second, func() bool { return l.votes("secondary", 2) })
		l.until("arbiter left", 20*time.Second, l.hosts["arbiter"].hasLeft)
		l.until("two vote", 20*time.Second, l.allVote("primary", "secondary"))
	})
}

// A host that is written into the founders' files of a cluster that exists is not let in,
// and says so on itself.
func TestListedAfterTheFounding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter", "third")
		defer l.close()
		late := l.hosts["third"]
		late.joins = true // in nobody's file
		for _, h := range l.order[:3] {
			h.start()
		}
		l.until("first hold", 20*time.Second, l.held("primary"))
		late.joins = false
		late.start()
		says := func(code string) string {
			if a, _ := late.running(); a != nil {
				for _, p := range a.local() {
					if p.Code == code {
						return p.Text
					}
				}
			}
			return ""
		}
		l.until("it says why", 20*time.Second, func() bool { return says("not-joined") != "" })
		if text := says("not-joined"); !strings.Contains(text, "third is not a member of this cluster") {
			t.Error(text)
		}
		lines := strings.Count(l.log.text(), "cannot join yet")
		time.Sleep(10 * time.Second)
		if more := strings.Count(l.log.text(), "cannot join yet") - lines; more > 5 {
			t.Errorf("%d lines of the same in ten seconds", more)
		}
		l.view(func(s *fsm.State) {
			if s.Nodes["third"] != nil {
				t.Error("it was let in")
			}
		})
	})
}
