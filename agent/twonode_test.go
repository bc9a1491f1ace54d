package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
)

// pair tells a story of two nodes and no third vote.
func pair(t *testing.T, tell func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary")
		defer l.close()
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		tell(t, l)
	})
}

// cutOff parts the two, or ends that.
func (l *lab) cutOff(on bool) {
	l.net.Cut("primary", "secondary", "", on)
	l.net.Cut("secondary", "primary", "", on)
}

// nobody fails the test if somebody answers for the address within d.
func (l *lab) nobody(d time.Duration) {
	l.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if by := l.answers(vipA); len(by) > 0 {
			l.t.Fatalf("%v answers", by)
		}
	}
}

// stays fails the test if anything but `by` alone answers within d.
func (l *lab) stays(by string, d time.Duration) {
	l.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got := l.answers(vipA); !slices.Equal(got, []string{by}) {
			l.t.Fatalf("%v answers, not %s\n%s", got, by, l.log.text())
		}
	}
}

// The seed of it all: stop the primary, the secondary answers; start it, it gets its
// group back; and the one that is left decides alone meanwhile.
func TestTwoNodesStopInOrder(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		if text, fix := l.listed("secondary", "two-node-manual"); !strings.Contains(text, "confirm-off") || !strings.Contains(fix, "witness") {
			t.Errorf("status says %q, fix %q", text, fix)
		}
		for round := range 3 {
			done := l.silence(vipA)
			l.hosts["primary"].halt()
			l.until("handover", time.Second, l.held("secondary"))
			gap, _ := done()
			t.Logf("round %d: silent for %v", round, gap)
			if gap > l.tm.Deadtime/10 {
				t.Errorf("silent for %v", gap)
			}
			l.stays("secondary", 3*time.Second)
			if err := l.on("secondary").Maintenance(t.Context(), true); err != nil {
				t.Fatalf("the one that is left cannot commit: %v", err)
			}
			if err := l.on("secondary").Maintenance(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if text, _ := l.listed("secondary", "two-node-alone"); text != "" {
				t.Errorf("an orderly stop is a problem: %s", text)
			}
			l.hosts["primary"].start()
			l.until("failback", 10*time.Second, l.held("primary"))
			l.well(10 * time.Second)
			time.Sleep(time.Second)
		}
	})
}

// The other one, too: what was stopped in order and what goes on alone are roles, not
// hosts.
func TestTwoNodesStopTheIdleOne(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].halt()
		l.stays("primary", 3*time.Second)
		if err := l.on("primary").Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := l.on("primary").Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.hosts["primary"].kill() // and start it again, in the same boot: nobody can have called it off
		l.hosts["primary"].start()
		l.until("hold", 5*time.Second, l.held("primary"))
		l.hosts["secondary"].start()
		l.well(20 * time.Second)
	})
}

// The other one has just been started again when this one stops: it gets its vote back
// first, and then everything.
func TestTwoNodesStopRightAfterTheReturn(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		for _, wait := range []time.Duration{50 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond} {
			l.hosts["secondary"].halt()
			time.Sleep(2 * time.Second)
			l.hosts["secondary"].start()
			l.until("it is registered", 5*time.Second, func() bool {
				a, _ := l.hosts["secondary"].running()
				if a == nil {
					return false
				}
				_, ok := a.ref()
				return ok
			})
			time.Sleep(wait)
			l.hosts["primary"].halt()
			l.until("handover", 2*time.Second, l.held("secondary"))
			l.until("it decides alone", 5*time.Second, func() bool { return l.on("secondary").Maintenance(t.Context(), true) == nil })
			if err := l.on("secondary").Maintenance(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			l.hosts["primary"].start()
			l.until("failback", 10*time.Second, l.held("primary"))
			l.well(10 * time.Second)
		}
	})
}

// The owner crashed: nothing moves until an operator says that it is off, and then at
// once. What comes back later joins anew.
func TestTwoNodesCrashOfTheOwner(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		if _, e := l.confirm("secondary", "primary", "primary is off"); e == nil {
			t.Error("a node that is heard was confirmed off")
		}
		l.hosts["primary"].powerCut()
		l.nobody(40 * l.tm.Deadtime)
		st, err := l.on("secondary").Status(t.Context(), "")
		e, ok := err.(*api.Error)
		if !ok || e.Exit != api.ExitNoQuorum || st == nil || st.Quorum {
			t.Fatalf("status: %+v, %v", st, err)
		}
		if i := slices.IndexFunc(st.Problems, func(p api.StatusProblem) bool { return p.Code == "two-node-alone" }); i < 0 ||
			!strings.Contains(st.Problems[i].Fix, "hanode confirm-off primary") || !strings.Contains(st.Problems[i].Text, "web") {
			t.Errorf("problems: %+v", st.Problems)
		}
		for _, say := range []string{"", "yes", "primary was off", "secondary is off"} {
			res, e := l.confirm("secondary", "primary", say)
			if e == nil || e.Code != api.CodeNeedsConfirmation || res == nil || res.Confirm != "primary is off" || !slices.Equal(res.Groups, []string{"web"}) {
				t.Errorf("%q: %+v, %+v", say, res, e)
			}
		}
		l.nobody(time.Second)
		if _, e := l.confirm("secondary", "primary", "primary is off"); e != nil {
			t.Fatalf("%v\n%s", e, l.log.text())
		}
		t.Logf("held %v after the confirmation", l.until("takeover", time.Second, l.held("secondary")))
		l.stays("secondary", 2*time.Second)
		l.hosts["primary"].start()
		l.until("failback", 20*time.Second, l.held("primary"))
		l.well(10 * time.Second)
		l.view(func(s *fsm.State) {
			if s.Nodes["primary"].Disk < 2 || s.Nodes["secondary"].Disk < 2 {
				t.Errorf("disks %d and %d", s.Nodes["primary"].Disk, s.Nodes["secondary"].Disk)
			}
		})
	})
}

// The owner crashed and comes back by itself: no word is needed, for a reboot of the
// same machine ends what it ran.
func TestTwoNodesOwnerReboots(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		for range 2 {
			l.hosts["primary"].powerCut()
			l.nobody(3 * time.Second)
			l.hosts["primary"].start()
			l.until("hold", 10*time.Second, l.held("primary"))
			l.well(10 * time.Second)
		}
	})
}

// The other one crashed: the owner goes on, and cannot change anything until it is
// back, or confirmed off.
func TestTwoNodesCrashOfTheIdleOne(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].powerCut()
		l.stays("primary", 40*l.tm.Deadtime)
		if err := l.on("primary").Maintenance(t.Context(), true); err == nil {
			t.Error("one of two voters committed")
		}
		epoch := l.epoch("web")
		if _, e := l.confirm("primary", "secondary", "secondary is off"); e != nil {
			t.Fatal(e)
		}
		l.stays("primary", time.Second)
		if err := l.on("primary").Maintenance(t.Context(), true); err != nil {
			t.Error(err)
		}
		if err := l.on("primary").Maintenance(t.Context(), false); err != nil {
			t.Error(err)
		}
		l.hosts["secondary"].start()
		l.well(20 * time.Second)
		l.stays("primary", time.Second)
		if l.epoch("web") != epoch {
			t.Error("the group moved")
		}
	})
}

// A host that boots alone holds nothing, says so, and goes on by the other one's
// return or by the operator's word.
func TestTwoNodesBootAlone(t *testing.T) {
	for _, how := range []string{"the other returns", "confirmed"} {
		t.Run(how, func(t *testing.T) {
			pair(t, func(t *testing.T, l *lab) {
				l.hosts["secondary"].powerCut()
				l.hosts["primary"].powerCut()
				l.hosts["primary"].start()
				l.nobody(2 * l.tm.Initdead)
				if st, _ := l.on("primary").Status(t.Context(), ""); st == nil || !slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool { return p.Code == "two-node-waits" }) {
					t.Errorf("status: %+v", st)
				}
				if how == "confirmed" {
					if _, e := l.confirm("primary", "secondary", "secondary is off"); e != nil {
						t.Fatalf("%v\n%s", e, l.log.text())
					}
					l.until("hold", 5*time.Second, l.held("primary"))
				}
				l.hosts["secondary"].start()
				l.until("hold", 10*time.Second, l.held("primary"))
				l.well(20 * time.Second)
			})
		})
	}
}

// Parted, each keeps what it has, and nothing moves; nobody forgets anything.
func TestTwoNodesPartition(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		l.cutOff(true)
		l.stays("primary", 60*l.tm.Deadtime)
		l.cutOff(false)
		l.well(10 * time.Second)
		l.stays("primary", time.Second)
	})
}

// The one that went on alone was stopped in order later: who was called off before must
// not go on from its old disk, whichever boots first.
func TestTwoNodesOldDiskIsRefused(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].halt() // primary goes on alone
		l.until("primary alone", 5*time.Second, l.held("primary"))
		if err := l.on("primary").Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := l.on("primary").Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.hosts["primary"].powerCut()
		l.hosts["secondary"].start()
		l.nobody(5 * time.Second) // its copy is older: it votes no more
		res, e := l.confirm("secondary", "primary", "primary is off")
		if e == nil || res == nil || !strings.Contains(res.Confirm, "older copy") {
			t.Fatalf("%+v, %v", res, e)
		}
		l.hosts["secondary"].powerCut()
		l.hosts["primary"].start() // alone: it may have been called off
		l.nobody(3 * time.Second)
		l.hosts["secondary"].start()
		l.until("hold", 10*time.Second, l.held("primary"))
		l.well(20 * time.Second)
	})
}

// A wrong word: the host was not off, it was only cut off. Both serve until they hear
// each other; then the one that was called off drops everything and joins anew.
func TestTwoNodesWrongWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary")
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		l.cutOff(true)
		time.Sleep(time.Second)
		if _, e := l.confirm("secondary", "primary", "primary is off"); e != nil {
			t.Fatal(e)
		}
		l.until("both", time.Second, func() bool { return len(l.answers(vipA)) == 2 })
		l.cutOff(false)
		d := l.until("one again", 3*l.tm.Deadtime, l.held("secondary"))
		t.Logf("one holder %v after they heard each other", d)
		l.until("the agent that was called off ends", 5*time.Second, func() bool { return l.hosts["primary"].selfEnded() })
		l.hosts["primary"].start()
		l.until("failback", 20*time.Second, l.held("primary"))
		bad := l.violations()
		l.mu.Lock()
		l.bad = nil // two holders were what the wrong word asked for
		l.mu.Unlock()
		for _, b := range bad {
			if !strings.Contains(b, "I3") && !strings.Contains(b, "I2") && !strings.Contains(b, "I4") {
				t.Error(b)
			}
		}
		l.close()
	})
}

// One of the two lost its disk. The other has all that was committed, and goes on
// without a word from anybody, for the emptied one says itself that it holds nothing.
func TestTwoNodesDiskLost(t *testing.T) {
	for _, who := range []string{"primary", "secondary"} {
		t.Run(who, func(t *testing.T) {
			pair(t, func(t *testing.T, l *lab) {
				l.hosts[who].powerCut()
				l.hosts[who].loseDisk()
				time.Sleep(2 * time.Second)
				l.hosts[who].start()
				l.until("hold", 20*time.Second, l.held("primary"))
				l.well(20 * time.Second)
			})
		})
	}
}

// That a node lost its disk is over once it has joined anew: an operator who then asks
// about it, cut off as it is, is not told that it has an empty disk and holds nothing.
func TestTwoNodesDiskWasLostBefore(t *testing.T) {
	pair(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].powerCut()
		l.hosts["secondary"].loseDisk()
		time.Sleep(time.Second)
		l.hosts["secondary"].start()
		l.until("it asks", 5*time.Second, func() bool {
			a, _ := l.hosts["secondary"].running()
			return a != nil && a.disk.asks()
		})
		l.until("it votes again", 20*time.Second, func() bool { return len(l.on("primary").raftVoters(l.on("primary").node.Load())) == 2 })
		l.cutOff(true)
		time.Sleep(3 * l.tm.Deadtime)
		res, e := l.confirm("primary", "secondary", "secondary has an empty disk")
		if e == nil || e.Code != api.CodeNeedsConfirmation || res.Confirm != "secondary is off" {
			t.Errorf("answered %+v, %+v", res, e)
		}
		l.cutOff(false)
		l.well(20 * time.Second)
	})
}
