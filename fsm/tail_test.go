package fsm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/internal/spec"
)

var wallTime = time.Date(2024, 5, 1, 3, 0, 0, 0, time.UTC)

func jsonOf(t *rapid.T, m *Machine) string {
	b, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFollow: a machine that is fed what another one keeps, from wherever it stands, with
// pauses, again and from two sides, ends as that one, and is at no time what the other was
// not.
func TestFollow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leader, follower := NewMachine(), NewMachine()
		was := map[uint64]string{0: jsonOf(t, leader)}
		index, term := uint64(0), uint64(1)
		grow := func() {
			index += uint64(rapid.IntRange(1, 3).Draw(t, "raft's own entries between"))
			c := Command{At: wallTime, Report: &Report{Events: []Event{{Text: rapid.String().Draw(t, "text")}}}}
			if index < 4 {
				c = Command{At: wallTime, Found: &Found{Cluster: "web", Digest: "d"}}
			}
			data, err := Encode(c)
			if err != nil {
				t.Fatal(err)
			}
			term += uint64(rapid.IntRange(0, 1).Draw(t, "terms"))
			leader.ApplyEntry(Entry{index, term, data})
			was[index] = jsonOf(t, leader)
			if rapid.IntRange(0, 9).Draw(t, "forgets") == 0 {
				leader.tail.reset(index, leader.tail.entries[len(leader.tail.entries)-1].Term)
			}
		}
		at := func() (i uint64) { follower.View(func(s *State) { i = s.Index }); return i }
		follow := func(from, of uint64) {
			entries, _, ok := leader.After(from, of)
			if !ok {
				b, _, last, err := leader.Whole()
				if err != nil {
					t.Fatal(err)
				}
				if err := follower.CatchUp(b, last); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, e := range entries[:rapid.IntRange(0, len(entries)).Draw(t, "until the stream breaks")] {
				follower.ApplyEntry(e)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				grow()
			case 1:
				follow(follower.Last())
			case 2:
				follow(uint64(rapid.IntRange(0, int(at())).Draw(t, "resumed from")), uint64(rapid.IntRange(0, int(term)).Draw(t, "of term")))
			}
			if got := jsonOf(t, follower); got != was[at()] {
				t.Fatalf("at %d it is\n%s\nand the other one was\n%s", at(), got, was[at()])
			}
		}
		grow()
		for at() < index {
			follow(follower.Last())
		}
		if got := jsonOf(t, follower); got != was[index] {
			t.Fatalf("it ended as\n%s\nand not as\n%s", got, was[index])
		}
	})
}

// TestTailIsBounded: only so much is kept, and whoever is behind that is told.
func TestTailIsBounded(t *testing.T) {
	var l tail
	for i := range uint64(tailEntries + 10) {
		l.add(Entry{Index: i + 1, Data: make([]byte, 10)})
	}
	if len(l.entries) != tailEntries || l.from != 10 || l.bytes != tailEntries*10 {
		t.Errorf("%d entries after %d, %d bytes", len(l.entries), l.from, l.bytes)
	}
	l.add(Entry{Index: 1 << 20, Data: make([]byte, tailBytes+1)})
	if len(l.entries) != 1 || l.bytes != tailBytes+1 {
		t.Errorf("%d entries, %d bytes", len(l.entries), l.bytes)
	}
	m := NewMachine()
	_, news, ok := m.After(0, 0)
	select {
	case <-news:
		t.Error("there is news of an empty machine")
	default:
	}
	m.Apply(3, []byte{encodingVersion, '{', '}'})
	<-news
	if ok {
		t.Error("whoever does not know its term is let go on")
	}
	m.ApplyEntry(Entry{5, 2, []byte{encodingVersion, '{', '}'}})
	m.ApplyEntry(Entry{7, 2, []byte{encodingVersion, '{', '}'}})
	if got, _, ok := m.After(5, 2); !ok || len(got) != 1 || got[0].Index != 7 {
		t.Errorf("%v after 5", got)
	}
	for _, other := range [][2]uint64{{5, 1}, {5, 3}, {4, 2}, {6, 2}, {8, 2}, {3, 0}} { // of another history
		if got, _, ok := m.After(other[0], other[1]); ok {
			t.Errorf("%v after %v", got, other)
		}
	}
}

// TestCatchUpRefuses: a state of another cluster, generation or history, or an older one, is
// not taken, whatever its index says.
func TestCatchUpRefuses(t *testing.T) {
	m := NewMachine()
	jsonOf := func() string {
		b, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for i, c := range []Command{
		{At: wallTime, Found: &Found{Cluster: "web", Digest: "d", Timing: spec.Profiles["fast"], Voters: []string{"a", "b"}, Nodes: []spec.Node{{Name: "a"}, {Name: "b"}}}},
		{At: wallTime, Register: &Register{Node: "a", Nonce: "n", HostID: "h", Bound: time.Second}},
	} {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if res := m.ApplyEntry(Entry{uint64(i + 1), 1, data}); res.Rejected != "" {
			t.Fatal(res.Rejected)
		}
	}
	whole, index, _, err := m.Whole()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *State){
		"another cluster":        func(s *State) { s.Cluster = "other" },
		"other founders":         func(s *State) { s.Digest = "other" },
		"a later generation":     func(s *State) { s.Generation++ },
		"an older index":         func(s *State) { s.Index = index - 1 },
		"older voters":           func(s *State) { s.Voters.Version-- },
		"fewer events":           func(s *State) { s.EventSeq-- },
		"an older incarnation":   func(s *State) { s.Nodes["a"].Inc-- },
		"a node that is unknown": func(s *State) { delete(s.Nodes, "b") },
	} {
		other := NewMachine()
		if err := other.Restore(whole); err != nil {
			t.Fatal(err)
		}
		other.st.Index += 100
		change(other.st)
		b, _, _, err := other.Whole()
		if err != nil {
			t.Fatal(err)
		}
		was := jsonOf()
		if err := m.CatchUp(b, 3); err == nil || jsonOf() != was {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.CatchUp(whole, 3); err != nil {
		t.Errorf("its own: %v", err)
	}
	if i, of := m.Last(); i != index || of != 3 {
		t.Errorf("it stands at %d of term %d", i, of)
	}
}
