package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"hanode/fsm"
)

// A state that is ahead of raft's log is not made into a snapshot of raft's: in one that
// ends before it, what comes next would count as applied.
func TestNoSnapshotAheadOfTheLog(t *testing.T) {
	entry := func(index uint64, text string) fsm.Entry {
		return fsm.Entry{Index: index, Term: 1, Data: must[[]byte](t)(fsm.Encode(fsm.Command{Report: &fsm.Report{Events: []fsm.Event{{Kind: "test", Text: text}}}}))}
	}
	log := func(e fsm.Entry) *raft.Log {
		return &raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogCommand, Data: e.Data}
	}
	m := &machine{m: fsm.NewMachine()}
	m.Apply(log(entry(1, "one")))
	if _, err := m.Snapshot(); err != nil {
		t.Fatal(err)
	}
	older := must[[]byte](t)(m.m.Snapshot())
	two := entry(2, "two")
	m.m.ApplyEntry(two) // another one brought it
	if _, err := m.Snapshot(); !errors.Is(err, errAhead) {
		t.Errorf("a snapshot as after entry 1 that has the second: %v", err)
	}
	check(t, m.Restore(io.NopCloser(bytes.NewReader(older)))) // raft's leader sends it again
	if _, err := m.Snapshot(); !errors.Is(err, errAhead) || m.m.Copy().Index != 2 {
		t.Errorf("after an older snapshot: %v", err)
	}
	m.Apply(log(two))
	if _, err := m.Snapshot(); err != nil || m.m.Copy().Index != 2 {
		t.Errorf("raft has it now: %v, index %d", err, m.m.Copy().Index)
	}
	fresh := &machine{m: fsm.NewMachine()}
	check(t, fresh.Restore(io.NopCloser(bytes.NewReader(must[[]byte](t)(m.m.Snapshot())))))
	if _, err := fresh.Snapshot(); err != nil {
		t.Errorf("as restored: %v", err)
	}
}

// A server that was cut off when it was taken out of raft would ask for votes for ever. It
// does not while it abstains, and gives its own; and it stands when it does not abstain.
func TestAbstain(t *testing.T) {
	bubble(t, 3, func(l *lab) {
		lead := l.found()
		m := l.other(lead)
		m.powerCut()
		check(t, lead.Remove(ServerID(m.name, 1)))
		time.Sleep(20 * time.Second) // nobody tries any more to tell it
		m.start()
		seen := make(chan raft.Observation, 1000)
		lead.raft.RegisterObserver(raft.NewObserver(seen, false, func(o *raft.Observation) bool {
			switch o.Data.(type) {
			case raft.RequestVoteRequest, raft.RequestPreVoteRequest:
				return true
			}
			return false
		}))
		asked := func() int {
			for len(seen) > 0 {
				<-seen
			}
			time.Sleep(10 * time.Second)
			return len(seen)
		}
		if n := asked(); n < 3 {
			t.Errorf("it asked for %d votes, and nothing keeps it from that", n)
		}
		m.Abstain(true)
		time.Sleep(time.Second) // what is under way
		if n := asked(); n > 0 {
			t.Errorf("it asked for %d votes", n)
		}
		check(t, lead.AddVoter(m.name, 1))
		l.until("it is fed again", func() bool { return m.Fed(time.Second) })
		m.Abstain(false)
		l.takeOver(m)
	})
}
