package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestBehind(t *testing.T) {
	known := Held{Disk: 2, Term: 5, Position: Position{LastTerm: 4, LastIndex: 20}}
	for _, tt := range []struct {
		name string
		mine Held
		want bool
	}{
		{"the same", known, false},
		{"it forgot an entry", Held{2, 5, Position{4, 19}}, true},
		{"it forgot a term, and maybe a vote", Held{2, 4, Position{4, 20}}, true},
		{"its entries are longer and older", Held{2, 5, Position{3, 99}}, true},
		{"it got further since", Held{2, 6, Position{6, 21}}, false},
		{"shorter by the entries of a lost leader", Held{2, 6, Position{6, 9}}, false},
		{"an older disk", Held{1, 9, Position{9, 99}}, true},
		{"a newer disk, empty", Held{3, 0, Position{}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.mine.Behind(known); got != tt.want {
				t.Errorf("%v", got)
			}
			most := known.Furthest(tt.mine)
			if most != tt.mine.Furthest(known) || tt.mine.Behind(most) != tt.want || known.Behind(most) && tt.want {
				t.Errorf("the most of both is %+v", most)
			}
		})
	}
	if (Held{}).Behind(Held{}) {
		t.Error("nothing is behind nothing")
	}
}

// What is read before raft runs is what it told while it ran.
func TestRemembered(t *testing.T) {
	bubble(t, 3, func(l *lab) {
		for _, m := range l.all {
			h, voters, err := Remembered(m.stores)
			if err != nil || h != (Held{}) || voters != nil {
				t.Errorf("an empty disk remembers %+v, %v: %v", h, voters, err)
			}
		}
		lead := l.found()
		l.propose("one")
		l.takeOver(l.other(lead))
		l.propose("two")
		time.Sleep(time.Second)
		for name, m := range l.all {
			told := m.Held()
			m.halt()
			h, voters, err := Remembered(m.stores)
			h.Disk = told.Disk
			if err != nil || h != told || len(voters) != 3 || told.Term < 3 || told.Position.LastTerm != told.Term {
				t.Errorf("%s told %+v and remembers %+v, %v: %v", name, told, h, voters, err)
			}
		}
	})
}

func TestRememberedFromASnapshot(t *testing.T) {
	s := Stores{Log: raft.NewInmemStore(), Stable: raft.NewInmemStore(), Snapshots: raft.NewInmemSnapshotStore()}
	check(t, s.Stable.SetUint64([]byte("CurrentTerm"), 7))
	_, trans := raft.NewInmemTransport("a")
	sink := must[raft.SnapshotSink](t)(s.Snapshots.Create(1, 40, 6, raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "a.1", Address: "a"}, {Suffrage: raft.Nonvoter, ID: "b.1", Address: "b"},
	}}, 1, trans))
	check(t, sink.Close())
	h, voters, err := Remembered(s)
	if want := (Held{Term: 7, Position: Position{6, 40}}); err != nil || h != want || len(voters) != 1 || voters[0] != "a" {
		t.Errorf("%+v, %v: %v", h, voters, err)
	}
}

func FuzzParseHeld(f *testing.F) {
	f.Add(Held{1, 2, Position{3, 4}}.Encode(nil))
	f.Add([]byte("null"))
	f.Add([]byte(`{"d":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeld(b)
		if err != nil {
			if h != (Held{}) {
				t.Fatalf("%+v beside %v", h, err)
			}
			return
		}
		if again, err := ParseHeld(h.Encode(nil)); err != nil || again != h {
			t.Fatalf("%+v came back as %+v: %v", h, again, err)
		}
	})
}
