package agent

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
)

// heldClock is what an agent that is stopped reads: nothing newer than when it was
// stopped. The kernel below it reads on.
type heldClock struct{ at atomic.Pointer[clock.Instant] }

type agentClock struct{ h *host }

func (c agentClock) Now() clock.Instant {
	if at := c.h.held.at.Load(); at != nil {
		return *at
	}
	return c.h.clk.Now()
}

func (c agentClock) Wall() time.Time { return c.h.clk.Wall() }

// stall is SIGSTOP and SIGCONT after d: neither wire nor kernel gets anything from
// the host meanwhile, and to its agent no time passes until all of it is gone. It
// decides for two keepalives more before it reads what came meanwhile: which of its
// goroutines goes on first is not ours to say.
func (h *host) stall(d time.Duration) {
	resume := h.pause()
	if resume == nil {
		return
	}
	at := h.clk.Now()
	h.held.at.Store(&at)
	time.Sleep(d)
	h.held.at.Store(nil)
	time.Sleep(2 * h.lab.tm.Keepalive)
	resume()
}

// A node that was stalled says so and blames nobody: not the nodes it did not hear,
// not the leader, not the cluster for having no lease.
func TestStalledNodeBlamesNobody(t *testing.T) {
	for _, c := range []struct {
		who string
		d   time.Duration
	}{
		{"leader", 150 * time.Millisecond},
		{"leader", 20 * time.Second},
		{"primary", 150 * time.Millisecond},
		{"primary", 20 * time.Second},
		{"follower", 150 * time.Millisecond},
		{"follower", 20 * time.Second},
	} {
		t.Run(c.who+" "+c.d.String(), func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) { stalled(t, l, c.who, c.d) })
		})
	}
}

func stalled(t *testing.T, l *lab, who string, d time.Duration) {
	lead := l.leader()
	switch who {
	case "leader":
		who = lead
	case "follower":
		who = map[string]string{"arbiter": "secondary", "secondary": "arbiter"}[lead]
	}
	fences := l.ledger.count("fenced", "")
	h := l.hosts[who]
	a := l.on(who)
	missed := l.misses(a)
	h.stall(d)
	lead, term := others(l, who)
	fencedBefore := l.ledger.count("fenced", "") - fences
	time.Sleep(5 * time.Second)

	// What the others did meanwhile is their right; what came after the stall is not.
	if s := missed(); len(s) > 0 {
		t.Errorf("%s says that it misses %v", who, s)
	}
	if n := l.ledger.count("fenced", "") - fences; n != fencedBefore {
		t.Errorf("%d fences, %d of them before %s went on", n, fencedBefore, who)
	}
	if owner := who == "primary"; (owner && d > l.tm.Deadtime) != (fencedBefore == 1) {
		t.Errorf("%d fences while %s was stalled %v", fencedBefore, who, d)
	}
	if now, nowTerm := others(l, who); lead != "" && (now != lead || nowTerm != term) {
		t.Errorf("%s led in term %d when %s went on, now %s in term %d", lead, term, who, now, nowTerm)
	}
	var told []fsm.Event
	l.view(func(s *fsm.State) {
		for _, e := range s.Events {
			if e.Kind == "stalled" {
				told = append(told, e)
			}
		}
	})
	if len(told) != 1 || told[0].Node != who || !strings.HasPrefix(told[0].Text, "I was stalled") ||
		told[0].MS == nil || time.Duration(*told[0].MS*float64(time.Millisecond)) > d+10*time.Millisecond ||
		time.Duration(*told[0].MS*float64(time.Millisecond)) < d-2*l.tm.Keepalive {
		t.Errorf("stalled %v, told: %+v", d, told)
	}
	if ps := a.stallProblem(); len(ps) != 1 {
		t.Errorf("problems: %+v", ps)
	}
	l.until("the preferred node has it", 20*time.Second, l.held("primary"))
	l.well(10 * time.Second)
}

// misses watches whom a voter calls silent.
func (l *lab) misses(a *Agent) (done func() []id.NodeRef) {
	stop, ended := make(chan struct{}), make(chan struct{})
	var out []id.NodeRef
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				out = append(out, a.voice.Load().silent...)
			}
		}
	}()
	return func() []id.NodeRef {
		close(stop)
		<-ended
		return slices.Compact(out)
	}
}

// others are agreed on a leader; "" = they are not.
func others(l *lab, but string) (leader string, term uint64) {
	for i, n := range l.nodes {
		if n.Name == but {
			continue
		}
		r := l.on(n.Name).node.Load()
		name, at := r.Leader()
		if i > 0 && leader != "" && (name != leader || at != term) {
			return "", 0
		}
		leader, term = name, at
	}
	return leader, term
}

// A starved host has many stalls; its history does not.
func TestManyStallsAreToldTogether(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		h := l.hosts["secondary"]
		for range 20 {
			h.stall(150 * time.Millisecond)
			time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(15 * time.Second)
		if n := l.ledger.count("stalled", ""); n < 2 || n > 3 {
			t.Errorf("%d events for 20 stalls in 11 s", n)
		}
		a := l.on("secondary")
		a.pulse.mu.Lock()
		defer a.pulse.mu.Unlock()
		if s := a.pulse.stall; s.count != 20 || s.longest < 100*time.Millisecond || s.longest > 160*time.Millisecond {
			t.Errorf("counted: %+v", s)
		}
	})
}

// A leader that was replaced while it was stalled stops saying that it leads when
// raft here knows, and not only when it may judge others again.
func TestStalledLeaderDoesNotClaimToLead(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		a := l.on("arbiter")
		n := a.node.Load()
		_, before := n.Leader()
		// Shorter than raft's own lease: in the lab raft's goroutines run on.
		l.hosts["arbiter"].stall(250 * time.Millisecond)
		if r := a.elect.says.Load(); !r.leads {
			t.Fatal("it gave up before it heard of its successor: nothing is shown")
		}
		l.until("it knows that it was replaced", 5*time.Second, func() bool {
			_, leads := n.Reign()
			return !leads
		})
		if !a.dazed(l.hosts["arbiter"].clk.Now()) {
			t.Fatal("it was told too late to show anything")
		}
		time.Sleep(l.tm.Keepalive)
		if r := a.elect.says.Load(); r.leads {
			t.Errorf("a keepalive later its beats still say that it leads in term %d", r.term)
		}
		for _, n := range []string{"primary", "secondary"} {
			h, _ := l.on(n).ears.get("arbiter")
			if h.beat.Leads || h.beat.Term != before {
				t.Errorf("%s hears: term %d, leads %v; it led in %d", n, h.beat.Term, h.beat.Leads, before)
			}
		}
		l.well(10 * time.Second)
	})
}
