package fsm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Nodes that are no servers of raft get the log from one that is: the entries that it
// applied, in their order, or all of the state and then what follows. Either is fed to a
// machine of their own by ApplyEntry and CatchUp, as raft would do it; what comes twice, or
// from two sides, changes nothing.
//
// Two logs that have an entry of the same index and term are alike up to there: that is
// raft's, and what tells that a node may go on from where it stands. A cluster that was
// founded anew under the same name has other terms at its indexes; whoever does not know
// its term gets all of the state.

// Entry is a command of the log, as it was committed.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// The newest entries that a machine keeps for others, by number and by size in bytes.
const (
	tailEntries = 4096
	tailBytes   = 8 << 20
)

// tail is the newest entries that were applied, oldest first. All that came after from is
// in it.
type tail struct {
	from    uint64
	term    uint64 // of from; 0 = not known
	entries []Entry
	bytes   int
	news    chan struct{} // closed at the next entry
}

func (t *tail) add(e Entry) {
	t.entries = append(t.entries, e)
	t.bytes += len(e.Data)
	over := 0
	for len(t.entries)-over > tailEntries || t.bytes > tailBytes && len(t.entries)-over > 1 {
		t.bytes -= len(t.entries[over].Data)
		t.from, t.term = t.entries[over].Index, t.entries[over].Term
		t.entries[over].Data = nil // let go of it now, not when the list moves
		over++
	}
	t.entries = t.entries[over:]
	t.tell()
}

// reset forgets the entries: the state came as a whole, and is as after that one.
func (t *tail) reset(index, term uint64) {
	t.from, t.term, t.entries, t.bytes = index, term, nil, 0
	t.tell()
}

func (t *tail) tell() {
	if t.news != nil {
		close(t.news)
		t.news = nil
	}
}

// last is the newest entry: its index and its term.
func (t *tail) last() (index, term uint64) {
	if n := len(t.entries); n > 0 {
		return t.entries[n-1].Index, t.entries[n-1].Term
	}
	return t.from, t.term
}

// Last is the newest entry that was applied: its index and its term, 0 = not known.
func (m *Machine) Last() (index, term uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tail.last()
}

// After returns the entries that were applied after that one, in order, and what is closed
// when there is more. ok is false if it is not known that the asker's history is ours, or
// if they are not all kept any more: then take a Whole.
func (m *Machine) After(index, term uint64) (entries []Entry, news <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, at, of := m.tail.after(index)
	if at != index || of != term || term == 0 {
		return nil, m.tail.wait(), false
	}
	return entries, m.tail.wait(), true
}

// Since is After for one who has all up to index from this machine.
func (m *Machine) Since(index uint64) (entries []Entry, news <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, _, _ = m.tail.after(index)
	return entries, m.tail.wait(), index >= m.tail.from
}

// after copies the entries after index, and says which one and of what term is before them.
func (t *tail) after(index uint64) (entries []Entry, at, term uint64) {
	i := len(t.entries)
	for i > 0 && t.entries[i-1].Index > index {
		i--
	}
	at, term = t.from, t.term
	if i > 0 {
		at, term = t.entries[i-1].Index, t.entries[i-1].Term
	}
	return append(entries, t.entries[i:]...), at, term
}

func (t *tail) wait() <-chan struct{} {
	if t.news == nil {
		t.news = make(chan struct{})
	}
	return t.news
}

// Whole is a Snapshot, and the newest entry in it; term 0 = not known.
func (m *Machine) Whole() (data []byte, index, term uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, err = m.render()
	if last, of := m.tail.last(); last == m.st.Index {
		term = of
	}
	return data, m.st.Index, term, err
}

// CatchUp replaces the state by a Whole of another node, whose newest entry has that
// term; 0 = not known. It must be of the same history and not older: what follows it is to
// be applied to it. On error nothing changed.
func (m *Machine) CatchUp(b []byte, term uint64) error {
	_, err := m.restore(b, term, func(st *State) error {
		if st.Index < m.st.Index {
			return fmt.Errorf("the state there is as after entry %d, this node knows up to %d", st.Index, m.st.Index)
		}
		return m.st.goesOn(st)
	})
	return err
}

// goesOn says why next cannot be what became of s, or nil. What counts never counts back,
// also where a cluster was founded anew under the same name.
func (s *State) goesOn(next *State) error {
	other := func(what string, was, is uint64) error {
		return fmt.Errorf("the state there is of another history: %s was %d, and is %d there", what, was, is)
	}
	switch {
	case !s.Founded():
		return nil
	case s.Cluster != next.Cluster || s.Digest != next.Digest:
		return errors.New("the state there is of another cluster")
	case next.Generation != s.Generation:
		return other("the generation", s.Generation, next.Generation)
	case next.Voters.Version < s.Voters.Version:
		return other("the version of the voters' list", s.Voters.Version, next.Voters.Version)
	case next.EventSeq < s.EventSeq:
		return other("the number of events", s.EventSeq, next.EventSeq)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		was, is := s.Nodes[name], next.Nodes[name]
		if is == nil {
			return fmt.Errorf("the state there is of another history: it knows of no node %s", name)
		}
		if is.Inc < was.Inc || is.Inc == was.Inc && was.Fenced && !is.Fenced {
			return other("the incarnation of "+name, was.Inc, is.Inc)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		was, is := s.Groups[name], next.Groups[name]
		if is == nil {
			return fmt.Errorf("the state there is of another history: it knows of no group %s", name)
		}
		if is.Epoch < was.Epoch {
			return other("the epoch of "+name, uint64(was.Epoch), uint64(is.Epoch))
		}
	}
	return nil
}
