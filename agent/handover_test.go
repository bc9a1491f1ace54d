package agent

import (
	"strings"
	"testing"
	"time"
)

// An orderly stop costs clients a hand-over, also when nobody leads just then.
func TestStopWhileNobodyLeads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		leader string
		strike func(l *lab)
	}{
		{"the leader was killed", "arbiter", func(l *lab) { l.hosts["arbiter"].kill() }},
		{"the leader lost power", "arbiter", func(l *lab) { go l.hosts["arbiter"].powerCut() }},
		{"the leader hands over", "arbiter", func(l *lab) {
			go func() { _ = l.on("arbiter").node.Load().HandOver("secondary", 1) }()
		}},
		{"the owner leads and hands over", "primary", func(l *lab) {
			go func() { _ = l.on("primary").node.Load().HandOver("secondary", 1) }()
		}},
	} {
		for _, later := range []time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond, 90 * time.Millisecond} {
			t.Run(tt.name+", "+later.String()+" ago", func(t *testing.T) {
				story(t, func(t *testing.T, l *lab) {
					l.leadBy(tt.leader)
					done := l.silence(vipA)
					tt.strike(l)
					time.Sleep(later)
					l.hosts["primary"].halt()
					if !l.held("secondary")() {
						t.Errorf("stopped, and %v answers", l.answers(vipA))
					}
					if longest, _ := done(); longest > 20*time.Millisecond {
						t.Errorf("silent for %v", longest)
					}
				})
			})
		}
	}
}

// A planned change of the leader is one election: nobody takes the leader's going for
// a failure, and stands against the successor.
func TestHandOverIsOneElection(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		for _, h := range l.order { // or the election is over before anybody can hear of it
			h.disk.stall.Store(int64(8 * time.Millisecond))
		}
		names := []string{"secondary", "primary", "arbiter"}
		for i := range 12 {
			time.Sleep(time.Second)
			from, to := l.leader(), names[i%3]
			if from == to {
				continue
			}
			_, term := l.on(from).node.Load().Leader()
			stood := strings.Count(l.log.text(), "standing for election")
			if err := l.on(from).node.Load().HandOver(to, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
			if _, now := l.on(to).node.Load().Leader(); l.leader() != to || now != term+1 {
				t.Errorf("%s leads in term %d, %s in %d handed over to %s", l.leader(), now, from, term, to)
			}
			if again := strings.Count(l.log.text(), "standing for election"); again != stood {
				t.Errorf("%d times somebody stood for election when %s handed over to %s", again-stood, from, to)
			}
		}
	})
}

// TestLeadershipDoesNotGoToALaggard: a voter whose disk has not caught up with this
// term could not be elected. Leadership does not go there for balance, and at an
// orderly stop only if there is no other.
func TestLeadershipDoesNotGoToALaggard(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		time.Sleep(2 * tellAgain)
		a := l.on("primary")
		lag := func(name string) {
			a.known.mu.Lock()
			defer a.known.mu.Unlock()
			h := a.known.m[name]
			h.Position.LastTerm--
			a.known.m[name] = h
		}
		expect := func(when, idle, stop string) {
			t.Helper()
			if to, _, _ := a.successor(true); to != idle {
				t.Errorf("%s: for balance leadership would go to %q, not %q", when, to, idle)
			}
			if to, _, _ := a.successor(false); to != stop {
				t.Errorf("%s: at a stop leadership would go to %q, not %q", when, to, stop)
			}
		}
		expect("all have caught up", "arbiter", "arbiter")
		lag("arbiter")
		expect("the witness lags", "secondary", "secondary")
		lag("secondary")
		expect("both lag", "", "arbiter")
	})
}
