package cluster

import (
	"fmt"
	"testing"
	"time"

	"hanode/fsm"
)

// One of two voters is gone. The other becomes the only server on its real files, with
// all that was committed, twice over as after a crash in the middle; and the old server
// of the gone one is no part of it.
func TestRecoverTwoVoters(t *testing.T) {
	dirs := map[string]string{"a": t.TempDir(), "b": t.TempDir()}
	open := func(name string) Stores { return must[Stores](t)(OpenStores(dirs[name], quietLog)) }
	bubbleOn(t, 2, open, func(l *lab) {
		l.found()
		for i := range 20 {
			l.propose(fmt.Sprint(i))
		}
		a, b := l.all["a"], l.all["b"]
		l.until("b has all", func() bool { return len(b.history()) == 20 })
		a.powerCut()
		b.halt()
		for range 2 {
			s := open("b")
			st := must[*fsm.State](t)(Recover(s, "b", 7, quietLog))
			if len(st.Events) < 20 || !st.Founded() {
				t.Errorf("recovered with %d events", len(st.Events))
			}
			held, voters, err := Remembered(s)
			if err != nil || len(voters) != 1 || voters[0] != "b" || held.Position.LastIndex == 0 {
				t.Errorf("remembered %+v, voters %v, %v", held, voters, err)
			}
			check(t, s.Close())
			time.Sleep(time.Second) // snapshots are named by the clock
		}
		b.stores, b.disk = open("b"), 7
		b.start()
		l.until("b leads alone", b.IsLeader)
		if r, err := b.Propose(l.t.Context(), fsm.Command{Report: &fsm.Report{Events: []fsm.Event{{Kind: "test", Text: "alone"}}}}); err != nil || r.Rejected != "" {
			t.Fatal(r, err)
		}
		if got := b.history(); len(got) != 21 {
			t.Errorf("history %v", got)
		}
		a.stores = open("a")
		a.start()
		l.until("a asks in vain for a while", func() bool { a.Stand(); return a.raft.CurrentTerm() > 0 })
		if a.IsLeader() {
			t.Error("the old server leads")
		}
	})
}
