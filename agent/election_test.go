package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hanode/cluster"
	"hanode/internal/spec"
)

// reigns is the node that leads and can, beside those in but; "" = none.
func (l *lab) reigns(but ...string) string {
	for _, n := range l.nodes {
		a, _ := l.hosts[n.Name].running()
		if a == nil || slices.Contains(but, n.Name) {
			continue
		}
		if r := a.node.Load(); r != nil {
			if _, leads := r.Reign(); leads {
				return n.Name
			}
		}
	}
	return ""
}

// leadBy makes a node the leader.
func (l *lab) leadBy(name string) {
	l.t.Helper()
	l.until(name+" leads", 20*time.Second, func() bool {
		lead := l.leader()
		if lead == name {
			return true
		}
		if lead != "" {
			_ = l.on(lead).node.Load().HandOver(name, 1)
		}
		return false
	})
}

// numb switches the fast elections off: no elector stands any more. Raft's own
// timers are left.
func (l *lab) numb() {
	for _, n := range l.nodes {
		if a, _ := l.hosts[n.Name].running(); a != nil {
			a.elect.mu.Lock()
			a.elect.e = cluster.NewElector("nobody")
			a.elect.mu.Unlock()
		}
	}
}

// leaderFaults are the ways in which a leader stops leading, with how long it takes
// until that can be known beside warntime.
const enospc = int64(syscall.ENOSPC)

var leaderFaults = []struct {
	name   string
	more   time.Duration
	strike func(l *lab, who string)
}{
	{"killed", 0, func(l *lab, who string) { l.hosts[who].kill() }},
	{"power cut", 0, func(l *lab, who string) { go l.hosts[who].powerCut() }},
	{"hung", 0, func(l *lab, who string) { l.hosts[who].pause() }},
	{"not heard", 0, func(l *lab, who string) { l.net.Cut(who, "", "", true) }},
	{"deaf", 0, func(l *lab, who string) { l.net.Cut("", who, "", true) }},
	{"cut off", 0, func(l *lab, who string) {
		l.net.Cut(who, "", "", true)
		l.net.Cut("", who, "", true)
	}},
	// It beats and is heard, and its followers answer none of its appends: it gives up
	// after raft's lease.
	{"streams cut", 600 * time.Millisecond, func(l *lab, who string) { l.net.CutStreams(who, true) }},
	// Idle: the next probe finds it, and it is a hang after a second.
	{"disk hung", 2 * time.Second, func(l *lab, who string) { l.hosts[who].disk.hangs.Store(true) }},
	{"disk full", 2 * time.Second, func(l *lab, who string) { l.hosts[who].disk.fails.Store(enospc) }},
}

// TestLeaderIsReplaced: whatever happens to a leader that owns nothing, a new one
// leads soon after it can be known, the group on another node is not touched, and
// all is well after it has passed. Without our trigger raft's own timers do the
// same, later.
func TestLeaderIsReplaced(t *testing.T) {
	for _, f := range leaderFaults {
		for _, trigger := range []bool{true, false} {
			name := f.name
			if !trigger {
				name += ", raft alone"
			}
			t.Run(name, func(t *testing.T) {
				story(t, func(t *testing.T, l *lab) {
					l.leadBy("arbiter")
					done := l.silence(vipA)
					if !trigger {
						l.numb()
					}
					f.strike(l, "arbiter")
					took := l.until("another leads", time.Minute, func() bool { return l.reigns("arbiter") != "" })
					t.Logf("replaced after %v", took)
					bound := l.tm.Warntime + f.more + 100*time.Millisecond
					if trigger && took > bound {
						t.Errorf("it took %v, more than %v", took, bound)
					}
					// Its followers may have heard of it last some hundred milliseconds before:
					// an idle leader rests.
					if !trigger && (took < 700*time.Millisecond || took > f.more+10*time.Second) {
						t.Errorf("raft alone took %v: the trigger is not off, or raft's timers do not work", took)
					}
					time.Sleep(5 * time.Second)
					if longest, moves := done(); longest > time.Millisecond || moves > 0 {
						t.Errorf("the address of a healthy owner was silent for %v and moved %d times", longest, moves)
					}
				})
			})
		}
	}
}

// TestPromotedVoterLosesTheLeader: a node came back without its disk and has just got its
// vote again when the leader loses power; the third voter has not heard of that vote, and
// its log is the shorter one. It says to all servers that it misses the leader, so that the
// one it takes for none that votes stands at once.
func TestPromotedVoterLosesTheLeader(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		h := l.hosts["secondary"]
		h.powerCut()
		h.loseDisk()
		h.start()
		l.net.SetDelay(func(*rand.Rand) time.Duration { return 20 * time.Millisecond })
		l.until("it is given its vote", 20*time.Second, func() bool { return counts(l.on("arbiter"), "secondary", 2) })
		l.net.CutStreams("primary", true)
		l.until("it knows", time.Second, func() bool { return counts(l.on("secondary"), "secondary", 2) })
		l.net.PowerOff("arbiter")
		down := make(chan struct{})
		go func() { defer close(down); l.hosts["arbiter"].powerCut() }()
		l.net.SetDelay(nil)
		l.net.CutStreams("primary", false)
		if counts(l.on("primary"), "secondary", 2) {
			t.Fatal("the third voter has heard of the vote: the story is not told")
		}
		took := l.until("it leads", time.Minute, func() bool { return l.reigns("arbiter") == "secondary" })
		t.Logf("elected after %v", took)
		if bound := l.tm.Warntime + 200*time.Millisecond; took > bound {
			t.Errorf("it took %v, more than %v", took, bound)
		}
		<-down
		l.hosts["arbiter"].start()
		l.well(10 * time.Second)
	})
}

// TestTwoVotersLostInARow: of five, the leader dies, and the next leader dies as
// soon as it leads. Whoever owned a group is replaced at deadtime each time.
func TestTwoVotersLostInARow(t *testing.T) {
	for _, how := range []string{"power cut", "hung"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := []string{"primary", "secondary", "third", "fourth", "arbiter"}
				var groups []spec.Group
				for i, n := range names[:4] {
					groups = append(groups, groupOf("g"+n, fmt.Sprintf("10.77.0.%d", 100+i), n))
				}
				l := newLabOf(t, fast, 1, names, groups)
				defer l.close()
				l.startAll()
				l.well(20 * time.Second)
				time.Sleep(2 * time.Second)
				l.leadBy("primary")
				l.until("all is at rest", 5*time.Second, func() bool { return l.unwell(0) == "" })
				var dead []string
				for range 2 {
					lost := l.reigns(dead...)
					dead = append(dead, lost)
					if how == "hung" {
						l.hosts[lost].pause()
					} else {
						go l.hosts[lost].powerCut()
					}
					took := l.until("another leads", 10*time.Second, func() bool { return l.reigns(dead...) != "" })
					t.Logf("%s is lost, another leads after %v", lost, took)
					// Mostly warntime, and a moment. Once in a hundred times some stand at once,
					// because nobody knew yet that the second one led, and the next in turn makes
					// it. Groups are taken over at deadtime in any case.
					if bound := l.tm.Deadtime + 100*time.Millisecond; took > bound {
						t.Errorf("it took %v, more than %v", took, bound)
					}
				}
				begin := time.Now()
				l.until("all groups are held", 10*time.Second, func() bool {
					for i := range 4 {
						by := l.answers(groups[i].Resources[0].Name)
						if len(by) != 1 || slices.Contains(dead, by[0]) {
							return false
						}
					}
					return true
				})
				t.Logf("all groups are held %v later", time.Since(begin))
				if time.Since(begin) > l.tm.Deadtime+100*time.Millisecond {
					t.Errorf("it took %v", time.Since(begin))
				}
			})
		})
	}
}

// TestNoElectionWhileTheLeaderBeats: raft's streams stall again and again for less
// than its lease, as a lost segment does, datagrams are late and lost, and disks are
// slow; the leader's beats arrive, and nobody stands.
func TestNoElectionWhileTheLeaderBeats(t *testing.T) {
	for _, c := range []struct {
		name   string
		worsen func(l *lab, leader string) (better func())
	}{
		{"its streams stall", func(l *lab, leader string) func() {
			return l.often(func() {
				l.net.CutStreams(leader, true)
				time.Sleep(150 * time.Millisecond)
				l.net.CutStreams(leader, false)
				time.Sleep(850 * time.Millisecond)
			})
		}},
		{"a follower's streams are cut", func(l *lab, _ string) func() {
			l.net.CutStreams("secondary", true)
			return func() { l.net.CutStreams("secondary", false) }
		}},
		{"delay up to 40 ms", func(l *lab, _ string) func() {
			l.net.SetDelay(func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(40 * time.Millisecond))) })
			return func() { l.net.SetDelay(nil) }
		}},
		{"every disk takes 200 ms", func(l *lab, _ string) func() {
			for _, h := range l.order {
				h.disk.stall.Store(int64(200 * time.Millisecond))
			}
			return func() {
				for _, h := range l.order {
					h.disk.stall.Store(0)
				}
			}
		}},
		{"a short hang of its disk", func(l *lab, leader string) func() {
			return l.often(func() {
				l.hosts[leader].disk.hangs.Store(true)
				time.Sleep(900 * time.Millisecond)
				l.hosts[leader].disk.hangs.Store(false)
				time.Sleep(2 * time.Second)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				l.leadBy("arbiter")
				_, term := l.on("arbiter").node.Load().Leader()
				done := l.silence(vipA)
				better := c.worsen(l, "arbiter")
				for i := range int(soak(30*time.Second) / (500 * time.Millisecond)) {
					if err := l.on("primary").Maintenance(t.Context(), i%2 == 0); err != nil {
						t.Errorf("command %d was refused: %v", i, err)
					}
					time.Sleep(500 * time.Millisecond)
				}
				better()
				if _, now := l.on("primary").node.Load().Leader(); now != term || l.leader() != "arbiter" {
					t.Errorf("%s leads in term %d, it was the arbiter in %d", l.leader(), now, term)
				}
				if longest, moves := done(); longest > time.Millisecond || moves > 0 {
					t.Errorf("the address was silent for %v and moved %d times", longest, moves)
				}
				l.well(10 * time.Second)
			})
		})
	}
}

// often does something again and again until better is called.
func (l *lab) often(do func()) (better func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			do()
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	return func() { close(stop); <-ended }
}
