package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/vip"
)

var fast = spec.Profiles["fast"]

// story tells one story in virtual time on a cluster of primary, secondary and
// arbiter that was just founded. Stories run side by side: each has its own time.
func story(t *testing.T, tell func(t *testing.T, l *lab)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		tell(t, l)
	})
}

// silence watches an address. done returns its longest silence and how often it
// changed hands.
func (l *lab) silence(addr string) (done func() (longest time.Duration, moves int)) {
	stop, ended := make(chan struct{}), make(chan struct{})
	var longest time.Duration
	moves := 0
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		last, by := time.Now(), l.answers(addr)
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now := l.answers(addr)
			if len(now) == 0 {
				longest = max(longest, time.Since(last))
				continue
			}
			if !slices.Equal(now, by) {
				moves++
			}
			last, by = time.Now(), now
		}
	}()
	return func() (time.Duration, int) {
		close(stop)
		<-ended
		return longest, moves
	}
}

// on is the agent that runs on a host.
func (l *lab) on(name string) *Agent {
	l.t.Helper()
	a, _ := l.hosts[name].running()
	if a == nil {
		l.t.Fatalf("no agent runs on %s", name)
	}
	return a
}

func (l *lab) epoch(group string) (e id.Epoch) {
	l.view(func(s *fsm.State) {
		if g := s.Groups[group]; g != nil {
			e = g.Epoch
		}
	})
	return e
}

func (l *lab) well(within time.Duration) {
	l.t.Helper()
	why := ""
	if _, ok := l.within(within, func() bool { why = l.unwell(0); return why == "" }); !ok {
		l.t.Fatalf("not well within %v: %s\n%s\n%s", within, why, l.dump(), l.log.buf.String())
	}
}

// The main story: formed from three files, the owner loses power, the other takes
// over at deadtime, the owner returns and gets its group back.
func TestPowerCutAndReturn(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		begin := time.Now()
		l.hosts["primary"].powerCut()
		l.until("takeover", 5*time.Second, l.held("secondary"))
		d := time.Since(begin)
		t.Logf("taken over after %v", d)
		if d > l.tm.Deadtime+100*time.Millisecond {
			t.Errorf("takeover took %v, deadtime is %v", d, l.tm.Deadtime)
		}
		time.Sleep(2 * time.Second)
		l.hosts["primary"].start()
		t.Logf("back after %v", l.until("failback", 10*time.Second, l.held("primary")))
		l.well(5 * time.Second)
	})
}

func TestAnyStartOrder(t *testing.T) {
	for _, order := range []string{
		"primary secondary arbiter", "primary arbiter secondary", "secondary primary arbiter",
		"secondary arbiter primary", "arbiter primary secondary", "arbiter secondary primary",
	} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, fast, "primary", "secondary", "arbiter")
				defer l.close()
				for _, name := range strings.Fields(order) {
					l.hosts[name].start()
					time.Sleep(3 * time.Second)
				}
				l.until("hold", 10*time.Second, l.held("primary"))
				l.well(10 * time.Second)
			})
		})
	}
}

func TestThirdFounderComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		l.hosts["primary"].start()
		l.hosts["secondary"].start()
		l.until("hold without the third", 10*time.Second, l.held("primary"))
		done := l.silence(vipA)
		time.Sleep(soak(time.Minute))
		l.hosts["arbiter"].start()
		l.well(5 * time.Second)
		time.Sleep(5 * time.Second)
		if longest, moves := done(); longest > time.Millisecond || moves > 0 {
			t.Errorf("the address was silent for %v and moved %d times", longest, moves)
		}
	})
}

func TestEmptiedDiskRejoins(t *testing.T) {
	for _, who := range []string{"primary", "secondary", "arbiter"} {
		t.Run(who, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				h := l.hosts[who]
				h.powerCut()
				h.loseDisk()
				time.Sleep(time.Second)
				h.start()
				l.until("it has its vote back", 10*time.Second, func() bool { return l.votes(who, 2) })
				l.well(10 * time.Second)
				// Its vote counts: the cluster lives on it and one other.
				for _, n := range []string{"arbiter", "secondary"} {
					if n != who {
						l.hosts[n].powerCut()
						break
					}
				}
				time.Sleep(5 * time.Second)
				if by := l.answers(vipA); len(by) != 1 {
					t.Errorf("answers: %v", by)
				}
				l.until("a leader that commits", 5*time.Second, func() bool {
					return l.on(who).Maintenance(t.Context(), false) == nil
				})
			})
		})
	}
}

// counts reports whether the node's n-th disk is a voter in the list that node a has.
func counts(a *Agent, name string, disk uint64) bool {
	n := a.node.Load()
	if n == nil {
		return false // it does not know yet who it is
	}
	ms, err := n.Members()
	return err == nil && slices.ContainsFunc(ms, func(m cluster.Member) bool {
		return m.ID == cluster.ServerID(name, disk) && m.Voter
	})
}

// votes reports whether the node's n-th disk is a voter to all who run: a list that
// only the leader has dies with it.
func (l *lab) votes(name string, disk uint64) bool {
	for _, n := range l.nodes {
		if a, _ := l.hosts[n.Name].running(); a != nil && !counts(a, name, disk) {
			return false
		}
	}
	return l.leader() != ""
}

// An emptied voter never votes under its old identity: until its new one is in
// raft's configuration it makes no majority with anybody (R12).
func TestEmptiedVoterDoesNotVote(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		h := l.hosts["secondary"]
		for disk := uint64(2); disk < 12; disk++ {
			h.powerCut()
			h.loseDisk()
			h.start()
			l.until("it has a new identity", 10*time.Second, func() bool {
				a, _ := h.running()
				return a != nil && a.disk.number() == disk && a.node.Load() != nil
			})
			if leader := l.leader(); leader == "" || !counts(l.on(leader), "secondary", disk-1) {
				l.well(10 * time.Second) // the leader was quicker; once more
				continue
			}
			l.hosts["arbiter"].powerCut()
			if d, led := l.within(15*time.Second, func() bool {
				_, term := l.on("primary").node.Load().Leader()
				return l.on("primary").node.Load().IsLeader() && term > 0
			}); led {
				t.Errorf("elected with the vote of an emptied disk after %v", d)
			}
			l.hosts["arbiter"].start()
			l.well(15 * time.Second)
			return
		}
		t.Fatal("the leader was always quicker than the test")
	})
}

// With three nodes that each own a group the leader owns one too.
func TestLeaderAndOwnerDiesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"primary", "secondary", "third"}
		var groups []spec.Group
		for i, n := range names {
			groups = append(groups, groupOf("g"+n, fmt.Sprintf("10.77.0.%d", 100+i), n))
		}
		l := newLabOf(t, fast, 1, names, groups)
		defer l.close()
		l.startAll()
		l.well(10 * time.Second)
		time.Sleep(5 * time.Second)
		for range 3 {
			dead := l.leader()
			addr := groups[slices.Index(names, dead)].Resources[0].Name
			// The dead agent's goroutines may take a while to end (each TLS connection
			// waits 5 s for its farewell to leave); the survivors do not know of that.
			begin, gone := time.Now(), make(chan struct{})
			go func() { defer close(gone); l.hosts[dead].powerCut() }()
			l.until("death", 5*time.Second, func() bool { return len(l.answers(addr)) == 0 })
			l.until("takeover", 5*time.Second, func() bool { return len(l.answers(addr)) == 1 })
			d := time.Since(begin)
			<-gone
			t.Logf("%s, leader and owner, died: taken over after %v", dead, d)
			if d > l.tm.Deadtime+100*time.Millisecond {
				t.Errorf("takeover took %v, deadtime is %v", d, l.tm.Deadtime)
			}
			time.Sleep(time.Second)
			l.hosts[dead].start()
			l.until("failback", 10*time.Second, func() bool { return slices.Equal(l.answers(addr), []string{dead}) })
			l.well(5 * time.Second)
			time.Sleep(3 * time.Second)
		}
	})
}

func TestRollingRestart(t *testing.T) {
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				done := l.silence(vipA)
				for _, name := range []string{"secondary", "arbiter", "secondary", "arbiter"} {
					h := l.hosts[name]
					if how == "kill" {
						h.kill()
					} else {
						h.halt()
					}
					time.Sleep(300 * time.Millisecond)
					h.start()
					l.until("it is ready", 10*time.Second, func() bool { return l.unwell(0) == "" })
				}
				if longest, moves := done(); longest > time.Millisecond || moves > 0 {
					t.Errorf("the address on the node that was not restarted was silent for %v and moved %d times", longest, moves)
				}
				h := l.hosts["primary"]
				if how == "stop" {
					done = l.silence(vipA)
					h.halt()
					h.start()
					l.well(10 * time.Second)
					longest, _ := done()
					t.Logf("longest silence while the owner restarted: %v", longest)
					if longest > 20*time.Millisecond {
						t.Errorf("silent for %v", longest)
					}
					return
				}
				h.kill()
				h.start()
				t.Logf("held again %v after the kill", l.until("hold", 5*time.Second, l.held("primary")))
			})
		})
	}
}

func TestSwitchover(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		for i, to := range []string{"secondary", "primary", "secondary"} {
			asked := l.on([]string{"primary", "secondary", "arbiter"}[i])
			done := l.silence(vipA)
			begin := time.Now()
			res, err := asked.Move(t.Context(), api.MoveRequest{Group: "web", To: to, Wait: 5 * time.Second})
			took := time.Since(begin)
			longest, moves := done()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("moved in %v, silent for %v: %+v", took, longest, res)
			if !l.held(to)() || moves != 1 || longest > 20*time.Millisecond {
				t.Errorf("answers %v after %d moves, silent for %v", l.answers(vipA), moves, longest)
			}
			if uint64(l.epoch("web")) != res.Epoch || res.SilentMS == nil || *res.SilentMS > 20 {
				t.Errorf("epoch %d, result %+v", l.epoch("web"), res)
			}
		}
		_, err := l.on("primary").Move(t.Context(), api.MoveRequest{Group: "web", To: "arbiter", Wait: time.Second})
		if err == nil {
			t.Error("moved to a witness")
		}
		time.Sleep(10 * time.Second)
		if !l.held("secondary")() {
			t.Errorf("a pinned group went back: %v", l.answers(vipA))
		}
		if _, err := l.on("primary").Move(t.Context(), api.MoveRequest{Group: "web", Unpin: true}); err != nil {
			t.Fatal(err)
		}
		l.until("failback", 5*time.Second, l.held("primary"))
	})
}

func TestOneLinkOfTheOwnerFails(t *testing.T) {
	for _, link := range []string{"eth0", "eth1"} {
		t.Run(link, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				leader, epoch := l.leader(), l.epoch("web")
				_, term := l.on("primary").node.Load().Leader()
				done := l.silence(vipA)
				l.net.Cut("primary", "", link, true)
				l.net.Cut("", "primary", link, true)
				time.Sleep(soak(30 * time.Second))
				if longest, moves := done(); longest > time.Millisecond || moves > 0 {
					t.Errorf("the address was silent for %v and moved %d times", longest, moves)
				}
				_, now := l.on("primary").node.Load().Leader()
				if l.leader() != leader || now != term || l.epoch("web") != epoch {
					t.Errorf("leader %s term %d epoch %d, before the cut %s, %d and %d", l.leader(), now, l.epoch("web"), leader, term, epoch)
				}
			})
		})
	}
}

// The checker of the lab sees to it that the owner is mute before another answers.
func TestOwnerAlone(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		mute := l.until("the owner mutes itself", l.tm.Deadtime, func() bool { return len(l.answers(vipA)) == 0 })
		rest := l.until("takeover", 2*time.Second, l.held("secondary"))
		t.Logf("mute after %v, taken over after %v", mute, mute+rest)
		if mute+rest > l.tm.Deadtime+100*time.Millisecond {
			t.Errorf("takeover took %v", mute+rest)
		}
		time.Sleep(10 * time.Second)
		l.net.Heal()
		l.until("failback", 10*time.Second, l.held("primary"))
		l.well(5 * time.Second)
	})
}

// One direction is enough to lose a lease: the owner is heard, and hears nothing.
func TestOwnerHearsNothing(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.net.Cut("", "primary", "", true)
		d := l.until("takeover", 3*time.Second, l.held("secondary"))
		t.Logf("taken over after %v", d)
		time.Sleep(5 * time.Second)
		l.net.Heal()
		l.until("failback", 10*time.Second, l.held("primary"))
		l.well(5 * time.Second)
	})
}

func TestLongPartitionHeals(t *testing.T) {
	if testing.Short() {
		t.Skip("ten minutes of virtual time")
	}
	story(t, func(t *testing.T, l *lab) {
		l.net.Cut("secondary", "", "", true)
		l.net.Cut("", "secondary", "", true)
		done := l.silence(vipA)
		time.Sleep(10 * time.Minute)
		if n := len(l.on("primary").gossip.Seen()); n != 2 {
			t.Errorf("gossip on primary sees %d after ten minutes of partition", n)
		}
		l.net.Heal()
		d := l.until("gossip is whole", 10*time.Second, func() bool {
			for _, n := range l.nodes {
				if len(l.on(n.Name).gossip.Seen()) != 3 {
					return false
				}
			}
			return true
		})
		t.Logf("gossip whole after %v", d)
		l.well(10 * time.Second)
		if longest, moves := done(); longest > time.Millisecond || moves > 0 {
			t.Errorf("the address on the majority's side was silent for %v and moved %d times", longest, moves)
		}
	})
}

func TestStandby(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		res, err := l.on("arbiter").Standby(t.Context(), "primary", true, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if !l.held("secondary")() || len(res.Moves) != 1 || res.Moves[0].To != "secondary" {
			t.Errorf("answers %v, result %+v", l.answers(vipA), res)
		}
		l.hosts["primary"].kill()
		l.hosts["primary"].start()
		time.Sleep(5 * time.Second)
		if !l.held("secondary")() {
			t.Error("standby was forgotten by a restart")
		}
		if _, err := l.on("arbiter").Standby(t.Context(), "arbiter", true, 0); err == nil {
			t.Error("a witness went standby")
		}
		if _, err := l.on("primary").Standby(t.Context(), "primary", false, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		l.until("failback", 5*time.Second, l.held("primary"))
	})
}

// The last owner of all stays where it is rather than stop.
func TestStandbyOfTheLastOne(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].powerCut()
		time.Sleep(time.Second)
		if _, err := l.on("primary").Standby(t.Context(), "primary", true, time.Second); err == nil {
			t.Error("standby was said to be done, with nowhere to go")
		}
		if !l.held("primary")() {
			t.Errorf("answers: %v", l.answers(vipA))
		}
	})
}

func TestMaintenance(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		if err := l.on("secondary").Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		l.hosts["primary"].powerCut()
		time.Sleep(10 * time.Second)
		if by := l.answers(vipA); len(by) > 0 {
			t.Errorf("answers in maintenance: %v", by)
		}
		if err := l.on("secondary").Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.until("takeover", 2*time.Second, l.held("secondary"))
	})
}

func TestOrderlyStopHandsOver(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		done := l.silence(vipA)
		begin := time.Now()
		l.hosts["primary"].halt()
		took := time.Since(begin)
		longest, moves := done()
		t.Logf("stopped in %v, silent for %v", took, longest)
		if !l.held("secondary")() || moves != 1 || longest > 20*time.Millisecond || took > 3*time.Second {
			t.Errorf("answers %v after %d moves, silent for %v, stopped in %v", l.answers(vipA), moves, longest, took)
		}
		if err := l.hosts["primary"].err; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		ms, err := l.on("secondary").Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(ms, func(m api.Member) bool { return m.Name == "primary" }); i < 0 || ms[i].State != api.MemberLeft {
			t.Errorf("members: %+v", ms)
		}
		l.hosts["primary"].start()
		l.until("failback", 10*time.Second, l.held("primary"))
	})
}

// A node whose group was deleted while its host was off can leave after it came back,
// though nobody ever had proof that it had let that group go.
func TestRebootedNodeLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web, db := groupOf("web", "10.77.0.100", "primary"), groupOf("db", "10.77.0.101", "third")
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter", "third"}, []spec.Group{web, db})
		defer l.close()
		l.startAll()
		l.well(20 * time.Second)
		l.leadBy("arbiter")
		l.hosts["third"].powerCut()
		// At once: before the group is somebody else's.
		if _, err := l.on("primary").propose(t.Context(), fsm.Command{SetGroups: &fsm.SetGroups{Groups: []spec.Group{web}}}); err != nil {
			t.Fatal(err)
		}
		l.hosts["third"].start()
		l.until("it is back", 20*time.Second, func() bool {
			back, waited := false, false
			l.view(func(s *fsm.State) { back, waited = s.Nodes["third"].Inc == 2, len(s.Groups["db"].Waits) > 0 })
			return back && waited
		})
		if err := l.on("third").Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.until("it left", 20*time.Second, l.hosts["third"].hasLeft)
	})
}

func TestLeave(t *testing.T) {
	for _, who := range []string{"primary", "secondary"} {
		t.Run(who, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				stays := map[string]string{"primary": "secondary", "secondary": "primary"}[who]
				done := l.silence(vipA)
				if err := l.on(who).Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				longest, _ := done()
				<-l.hosts[who].stopped
				if longest > 20*time.Millisecond || !l.held(stays)() {
					t.Errorf("silent for %v, answers %v", longest, l.answers(vipA))
				}
				if old, _ := filepath.Glob(l.hosts[who].dir + ".left-*"); len(old) != 1 {
					t.Errorf("data_dir is not set aside: %v", old)
				}
				// The two that are left can still lose and regain each other.
				for _, name := range []string{"arbiter", stays} {
					l.hosts[name].kill()
					time.Sleep(time.Second)
					l.hosts[name].start()
					l.until("hold", 10*time.Second, l.held(stays))
					time.Sleep(2 * time.Second)
				}
				ms, err := l.on(stays).Members(t.Context())
				if err != nil || len(ms) != 2 {
					t.Errorf("members: %+v, %v", ms, err)
				}
			})
		})
	}
}

func TestApplyRemoveAndAddAgain(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		const vipB = "10.77.0.101"
		web, db := groupOf("web", vipA, "primary"), groupOf("db", vipB, "secondary")
		apply := func(groups ...spec.Group) *api.ApplyResult {
			t.Helper()
			res, err := l.on("secondary").Apply(t.Context(), api.ApplyRequest{Groups: groups, Wait: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		res := apply(db, web)
		if len(res.Changes) != 2 || !l.held("primary")() || !slices.Equal(l.answers(vipB), []string{"secondary"}) {
			t.Errorf("%+v, answers %v and %v", res, l.answers(vipA), l.answers(vipB))
		}
		before := l.epoch("web")
		apply(db)
		l.until("removed", time.Second, func() bool { return len(l.answers(vipA)) == 0 })
		apply(db, web)
		l.until("added again", 2*time.Second, l.held("primary"))
		if now := l.epoch("web"); now <= before {
			t.Errorf("epoch %d after %d", now, before)
		}
		// The addresses change hands: each waits for the other's old owner (R11).
		web.Resources[0].Name, db.Resources[0].Name = vipB, vipA
		apply(db, web)
		l.until("swapped", 5*time.Second, func() bool {
			return slices.Equal(l.answers(vipA), []string{"secondary"}) && slices.Equal(l.answers(vipB), []string{"primary"})
		})
		l.well(5 * time.Second)
	})
}

// Losing the lease while a group starts is no fault of the host: nobody else could
// take it, and here nobody else is up.
func TestLeaseLostWhileStarting(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		_, sys := l.hosts["secondary"].running()
		sys.hang("add", 650*time.Millisecond)
		l.hosts["primary"].powerCut()
		time.Sleep(300 * time.Millisecond)
		l.net.Cut("secondary", "", "", true)
		l.net.Cut("", "secondary", "", true)
		time.Sleep(450 * time.Millisecond)
		l.net.Heal()
		l.until("hold", 5*time.Second, l.held("secondary"))
		l.log.mu.Lock()
		defer l.log.mu.Unlock()
		if strings.Contains(l.log.buf.String(), "cannot run here") {
			t.Error("the host was blamed")
		}
	})
}

// A group that cannot start where it is preferred goes elsewhere after one try,
// and says why, however fast its release travels.
func TestGroupThatCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		l.hosts["primary"].gear = func(k vip.Kernel) vip.Kernel {
			return bad{Kernel: k, tier: vip.TierEBPF, addNot: errors.New("no such device")}
		}
		l.startAll()
		l.until("hold", 5*time.Second, l.held("secondary"))
		time.Sleep(5 * time.Second)
		l.view(func(s *fsm.State) {
			g := s.Groups["web"]
			if !strings.Contains(g.Failed["primary"].Why, "no such device") || g.Epoch > 3 {
				t.Errorf("epoch %d, failed %v", g.Epoch, g.Failed)
			}
		})
		if !l.held("secondary")() {
			t.Errorf("answers: %v", l.answers(vipA))
		}
	})
}

// The guard may learn of an address later than the group's worker.
func TestGuardIsSlowToPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		l.startAll()
		_, sys := l.hosts["primary"].running()
		for ; sys == nil; _, sys = l.hosts["primary"].running() {
			time.Sleep(time.Millisecond)
		}
		sys.hang("prepare", 600*time.Millisecond)
		l.until("hold", 2*time.Second, l.held("primary"))
		if e := l.epoch("web"); e != 1 {
			t.Errorf("it took %d epochs", e)
		}
	})
}

func TestNoQuorum(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].powerCut()
		l.hosts["arbiter"].powerCut()
		time.Sleep(5 * time.Second)
		if by := l.answers(vipA); len(by) > 0 {
			t.Errorf("answers without a majority: %v", by)
		}
		a := l.on("primary")
		no := func(what string, err error) {
			t.Helper()
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitNoQuorum {
				t.Errorf("%s: %v", what, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		ms, err := a.Members(ctx)
		no("members", err)
		if len(ms) != 3 {
			t.Errorf("members: %+v", ms)
		}
		st, err := a.Status(ctx, "")
		no("status", err)
		if st == nil || st.Quorum || len(st.Groups) != 1 {
			t.Errorf("status: %+v", st)
		}
		_, err = a.Move(ctx, api.MoveRequest{Group: "web", Wait: time.Second})
		no("move", err)
		l.hosts["arbiter"].start()
		l.until("hold", 10*time.Second, l.held("primary"))
	})
}
