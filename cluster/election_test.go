package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/internal/clock"
)

const (
	fresh = 100 * time.Millisecond
	step  = 50 * time.Millisecond
)

func at(ms int) clock.Instant {
	d := time.Hour + time.Duration(ms)*time.Millisecond
	return clock.Instant{Boot: d, Raw: d}
}

func late(term, index uint64, owns int) Late {
	return Late{Position: Position{LastTerm: term, LastIndex: index}, Owns: owns}
}

func elector(self string, voters ...string) *Elector {
	e := NewElector(self)
	e.SetVoters(voters)
	return e
}

func TestElectorNeedsAMajority(t *testing.T) {
	for _, c := range []struct {
		name   string
		voters []string
		late   []string
		want   bool
	}{
		{"only me, of three", []string{"a", "b", "c"}, []string{"a"}, false},
		{"two of three", []string{"a", "b", "c"}, []string{"a", "b"}, true},
		{"two of four", []string{"a", "b", "c", "d"}, []string{"a", "b"}, false},
		{"three of five", []string{"a", "b", "c", "d", "e"}, []string{"a", "d", "e"}, true},
		{"alone", []string{"a"}, []string{"a"}, true},
		{"all but me", []string{"a", "b", "c"}, []string{"b", "c"}, false},
		{"I have no vote", []string{"b", "c", "d"}, []string{"a", "b", "c"}, false},
		{"one has no vote", []string{"a", "b", "c"}, []string{"a", "x"}, false},
		{"no voters known", nil, []string{"a"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := elector("a", c.voters...)
			for _, n := range c.late {
				e.Hear(n, late(1, 1, 0), at(0))
			}
			if got := e.Decide(at(0), fresh, step); got != c.want {
				t.Errorf("stands: %v", got)
			}
		})
	}
}

// TestElectorRanks: the longest log first, then who owns least, then by name; the
// next in rank a step later.
func TestElectorRanks(t *testing.T) {
	hints := map[string]Late{"a": late(3, 10, 2), "b": late(3, 10, 0), "c": late(3, 10, 0), "d": late(2, 99, 0), "e": late(3, 11, 9)}
	order := []string{"e", "b", "c", "a", "d"}
	for rank, self := range order {
		e := elector(self, "a", "b", "c", "d", "e")
		stood := -1
		for ms := 0; ms < 400 && stood < 0; ms += 10 {
			for n, l := range hints {
				e.Hear(n, l, at(ms))
			}
			if e.Decide(at(ms), fresh, step) {
				stood = ms
			}
		}
		if want := rank * 50; stood != want {
			t.Errorf("%s, number %d, stood after %d ms, want %d", self, rank, stood, want)
		}
	}
}

func TestElectorStandsAgain(t *testing.T) {
	e := elector("a", "a", "b", "c")
	var stood []int
	for ms := 0; ms < 8000; ms += 10 {
		e.Hear("a", late(1, 9, 0), at(ms))
		e.Hear("b", late(1, 1, 0), at(ms))
		if e.Decide(at(ms), fresh, step) {
			stood = append(stood, ms)
		}
	}
	// Not before each of the others had its step, which grows to sixteen times.
	if want := []int{0, 150, 450, 1050, 2250, 4650, 7050}; !slices.Equal(stood, want) {
		t.Errorf("stood at %v, want %v", stood, want)
	}
}

func TestElectorIsCalm(t *testing.T) {
	e := elector("a", "a", "b", "c")
	for ms := range 1000 { // the others miss it, we do not
		e.Hear("b", late(1, 1, 0), at(ms))
		e.Hear("c", late(1, 1, 0), at(ms))
		if e.Decide(at(ms), fresh, step) {
			t.Fatal("stood although the leader is heard")
		}
	}
	e.Hear("a", late(1, 1, 0), at(1000))
	e.Clear(0) // a beat came
	if e.Decide(at(1000), fresh, step) {
		t.Fatal("stood although the leader was heard again")
	}
	// What others said counts for a while only, ours too.
	e = elector("a", "a", "b", "c")
	e.Hear("b", late(1, 0, 0), at(0))
	e.Hear("a", late(1, 1, 0), at(101))
	if e.Decide(at(101), fresh, step) {
		t.Fatal("stood on a stale hint")
	}
	e.Hear("b", late(1, 0, 0), at(102))
	if e.Decide(at(300), fresh, step) {
		t.Fatal("stood on stale hints")
	}
}

// TestElectorWaitsAnew: the wait of a rank begins when a majority is late, not when
// one was late earlier.
func TestElectorWaitsAnew(t *testing.T) {
	e := elector("a", "a", "b", "c") // b's log is longer: a is second
	hear := func(ms int) {
		e.Hear("a", late(1, 1, 0), at(ms))
		e.Hear("b", late(1, 2, 0), at(ms))
	}
	hear(0)
	if e.Decide(at(0), fresh, step) {
		t.Fatal("stood before its turn")
	}
	e.Clear(0)
	hear(500)
	if e.Decide(at(500), fresh, step) {
		t.Fatal("an earlier alarm counted")
	}
	hear(550)
	if !e.Decide(at(550), fresh, step) {
		t.Fatal("did not stand in its turn")
	}
}

// TestElectorForgetsTheLastElection: the next leader dies too, and soon. What the
// others said of the last one, with the shorter logs they had then, does not count.
func TestElectorForgetsTheLastElection(t *testing.T) {
	e := elector("c", "a", "b", "c")
	hear := func(ms int, from string, term, index uint64) {
		l := late(term, index, 0)
		l.Term = term
		e.Hear(from, l, at(ms))
	}
	hear(0, "a", 3, 9)
	hear(0, "b", 3, 9)
	hear(0, "c", 3, 9)
	e.Decide(at(0), fresh, step)
	e.Clear(4) // somebody leads in term 4
	hear(90, "c", 4, 10)
	if e.Decide(at(90), fresh, step) {
		t.Error("stood alone")
	}
	hear(91, "a", 4, 10)
	if e.Decide(at(91), fresh, step) {
		t.Error("stood before a, who is better")
	}
	// A hint of the present term was not about the last leader.
	e.Clear(4)
	hear(95, "c", 4, 10)
	hear(141, "a", 4, 10)
	e.Decide(at(95), fresh, step)
	if !e.Decide(at(145), fresh, step) {
		t.Error("did not stand in its turn")
	}
}

// TestElectorsTakeTurns: however often an election fails, no two stand in one step.
func TestElectorsTakeTurns(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	var es []*Elector
	for _, n := range names {
		es = append(es, elector(n, names...))
	}
	var who []string
	for ms := 0; ms < 3750; ms += 10 { // four rounds
		stood := 0
		for i, e := range es {
			for _, n := range names {
				e.Hear(n, late(1, 1, 0), at(ms))
			}
			if e.Decide(at(ms), fresh, step) {
				stood++
				who = append(who, names[i])
			}
		}
		if stood > 1 {
			t.Fatalf("%d stood at %d ms", stood, ms)
		}
	}
	if got := strings.Join(who, ""); got != "abcdeabcdeabcdeabcde" {
		t.Errorf("stood: %s", got)
	}
}

func FuzzParseLate(f *testing.F) {
	f.Add(Late{Term: 3, Position: Position{LastTerm: 2, LastIndex: 1}, Owns: 4}.Encode(nil))
	f.Add([]byte("null"))
	f.Add([]byte(`{"t":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLate(b)
		if err != nil {
			if l != (Late{}) {
				t.Fatalf("%+v beside %v", l, err)
			}
			return
		}
		again, err := ParseLate(l.Encode(nil))
		if err != nil || again != l {
			t.Fatalf("%+v came back as %+v: %v", l, again, err)
		}
	})
}

func TestLateAppends(t *testing.T) {
	b := Late{Term: 1}.Encode([]byte("x"))
	if l, err := ParseLate(b[1:]); b[0] != 'x' || err != nil || l.Term != 1 {
		t.Error(l, err)
	}
}
