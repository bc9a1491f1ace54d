package agent

import (
	"testing"
	"time"

	"hanode/config"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

func at(n int) clock.Instant {
	d := time.Duration(n) * time.Millisecond
	return clock.Instant{Boot: d, Raw: d}
}

// A majority that has only just begun to ack proves nothing, and neither do voters of
// which each was there at another time (R6, R10).
func TestMajorityServes(t *testing.T) {
	const dead = 250 * time.Millisecond
	voters := []string{"a", "b", "c"}
	type said struct {
		from, to int // ms in which the voter says each 25 ms that it acks; 0 = never
		gap      int // ms at which it says once that it does not; 0 = not
	}
	for _, tt := range []struct {
		name string
		said map[string]said
		want bool
	}{
		{"all, all the time", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 1, to: 1000}, "c": {from: 1, to: 1000}}, true},
		{"just long enough", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 750, to: 1000}}, true},
		{"this node, and another that has just come back", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 775, to: 1000}}, false},
		{"one of them is silent again", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 1, to: 750}}, false},
		{"one of them began anew", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 1, to: 1000, gap: 800}}, false},
		{"one after the other", map[string]said{"a": {from: 1, to: 1000}, "b": {from: 1, to: 700}, "c": {from: 800, to: 1000}}, false},
		{"this node alone", map[string]said{"a": {from: 1, to: 1000}}, false},
		{"nobody", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spells := map[string]spell{}
			for n := 1; n <= 1000; n++ {
				for v, s := range tt.said {
					x := spells[v]
					if n == s.gap {
						x.hear(false, at(n), dead)
					} else if n >= s.from && n <= s.to && (n-s.from)%25 == 0 {
						x.hear(true, at(n), dead)
					}
					spells[v] = x
				}
			}
			if got := majorityServes(voters, func(v string) spell { return spells[v] }, at(1000), dead); got != tt.want {
				t.Errorf("%v, want %v: %+v", got, tt.want, spells)
			}
		})
	}
}

// A voter that was silent for deadtime acked nobody meanwhile, whatever it says now.
func TestSpellEndsWithSilence(t *testing.T) {
	var s spell
	s.hear(true, at(100), 250*time.Millisecond)
	s.hear(true, at(349), 250*time.Millisecond)
	if !s.lasts(at(350), 250*time.Millisecond) {
		t.Error("broken by less than the gap")
	}
	s.hear(true, at(599), 250*time.Millisecond)
	if s.lasts(at(700), 250*time.Millisecond) || s.since != at(599) {
		t.Errorf("not broken by the gap: %+v", s)
	}
}

// A recorded beat that comes again, of this registration or of an older one, changes
// nothing of what is known about its sender.
func TestReplayedBeatIsNotNoted(t *testing.T) {
	const dead = 250 * time.Millisecond
	beat := func(inc, seq uint64) lease.Beat {
		return lease.Beat{Ref: id.NodeRef{Name: "n", Inc: inc}, Seq: seq, Term: inc*1000 + seq}
	}
	var e ears
	for i, tt := range []struct {
		beat lease.Beat
		news bool
	}{
		{beat(0, 50), true},
		{beat(0, 50), false},
		{beat(1, 1), true},
		{beat(1, 3), true},
		{beat(1, 2), false},
		{beat(0, 7), true}, // its host was rebooted, its boot clock with it
		{beat(1, 3), false},
		{beat(2, 1), true},
		{beat(1, 9), false},
		{beat(2, 2), true},
	} {
		now := at(1000 + i)
		e.note("n", tt.beat, 2, now, clock.Instant{}, dead)
		h, _ := e.get("n")
		if news := h.at == now && h.beat.Term == tt.beat.Term; news != tt.news {
			t.Errorf("beat %d, %v %d: news %v", i, tt.beat.Ref, tt.beat.Seq, news)
		}
	}
}

// Only the node that a token names can have let go (R3).
func TestTokenOfAnotherNodeIsDropped(t *testing.T) {
	for name, send := range map[string]func(l *lab, a *Agent, c id.Claim){
		"in a beat": func(_ *lab, a *Agent, c id.Claim) {
			a.open(post{at: a.host.Clock.Now(), from: "arbiter", tokens: []id.Claim{c}})
		},
		"alone": func(_ *lab, a *Agent, c id.Claim) {
			a.open(post{at: a.host.Clock.Now(), from: "arbiter", payload: lease.Token{Claim: c}.Append(nil)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				epoch := l.epoch("web")
				ref, _ := l.on("primary").ref()
				done := l.silence(vipA)
				for _, n := range l.nodes {
					send(l, l.on(n.Name), id.Claim{Group: "web", Node: ref, Epoch: epoch})
				}
				time.Sleep(time.Second)
				if longest, moves := done(); moves != 0 || longest > time.Millisecond || l.epoch("web") != epoch {
					t.Errorf("epoch %d, was %d: %d moves, silent for %v", l.epoch("web"), epoch, moves, longest)
				}
				l.view(func(s *fsm.State) {
					if s.Groups["web"].OwnerReleased {
						t.Error("released by the word of another node")
					}
				})
			})
		})
	}
}

// Raft may keep a leader of an older term into the next one; its beats tell.
func TestOldLeaderIsNoLeader(t *testing.T) {
	a := &Agent{cfg: &config.Node{Name: "self"}}
	for name, b := range map[string]lease.Beat{
		"leads":   {Term: 31, Leads: true},
		"gave up": {Term: 31},
		"older":   {Term: 30},
		"begins":  {Term: 30, Leads: true},
		"never":   {},
		"emptied": {},
		"self":    {Term: 30},
	} {
		b.Ref = id.NodeRef{Name: name, Inc: 1}
		if name == "emptied" {
			b.Ref.Inc = 0
		}
		a.ears.note(name, b, 0, at(1000), clock.Instant{}, time.Second)
	}
	for name, want := range map[string]bool{"leads": false, "gave up": false, "older": true, "begins": false, "never": false, "emptied": true, "self": false, "unheard": false, "": false} {
		if got := a.denies(name, 31); got != want {
			t.Errorf("%q denies: %v", name, got)
		}
	}
}
