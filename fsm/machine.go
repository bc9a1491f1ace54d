package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Result is the verdict on one command. Raft may report an error for an entry
// that commits after all; only the Result of Apply says what happened.
type Result struct {
	// Rejected says why nothing changed; empty = done (now or before: commands
	// are idempotent).
	Rejected string `json:"rejected"`
	// Inc answers Register: the node's incarnation now, also when rejected.
	Inc uint64 `json:"inc"`
	// Disk answers SetDisk: the number of that data directory.
	Disk uint64 `json:"disk,omitempty"`
	// Gone answers Register: the node was put out of the cluster.
	Gone bool `json:"gone,omitempty"`
	// Touched lists groups whose record changed, sorted.
	Touched []string `json:"touched"`
}

// Machine holds the state and applies commands to it. Safe for concurrent use.
type Machine struct {
	mu     sync.RWMutex
	st     *State
	broken error
	newest int // version that is understood

	watch []func(Change)
	copy  atomic.Pointer[State] // of st as it is; nil = none was asked for
	tail  tail
}

// Change tells a watcher what an entry touched. It is called in log order with
// the state locked for reading: be quick, never block.
type Change struct {
	State  *State
	Groups []string // groups whose record changed
	All    bool     // a snapshot was restored: everything may differ
	// Registers: who is registered, and who votes, may differ too.
	Registers bool
}

// NewMachine returns a machine in the state before founding.
func NewMachine() *Machine { return &Machine{st: New(), newest: Newest()} }

// Lower makes the machine one of an older binary, for tests of upgrades. Call it before
// entries arrive.
func (m *Machine) Lower(newest int) { m.newest = newest }

// Newest is the newest version that is understood.
func (m *Machine) Newest() int { return m.newest }

// tooNew is the error about something of a version that is not understood.
func (m *Machine) tooNew(version int) error {
	return fmt.Errorf("the cluster speaks version %d, this hanode only up to %d: %w", version, m.newest, ErrTooNew)
}

// Watch calls fn after every entry and once now. Call it before entries arrive.
func (m *Machine) Watch(fn func(Change)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watch = append(m.watch, fn)
	fn(Change{State: m.st, All: true, Registers: true})
}

// View calls fn with the state locked for reading.
func (m *Machine) View(fn func(*State)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(m.st)
}

// Copy returns the state as it is now; it will not change. Whoever asks before the next
// entry gets the same one, so it is to be read only.
func (m *Machine) Copy() *State {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := m.copy.Load()
	if c == nil {
		c = m.st.Clone()
		m.copy.Store(c)
	}
	return c
}

// Broken returns why the machine stopped applying, or nil. A machine that met an
// entry it cannot read stays where it is: guessing would split the replicas.
func (m *Machine) Broken() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.broken
}

// Apply applies the entry at index. Entries arrive in order; one that was applied
// already comes again after Restore and changes nothing.
func (m *Machine) Apply(index uint64, data []byte) Result {
	return m.ApplyEntry(Entry{Index: index, Data: data})
}

// ApplyEntry is Apply for an entry whose term is known.
func (m *Machine) ApplyEntry(e Entry) Result {
	index, data := e.Index, e.Data
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return Result{Rejected: m.broken.Error()}
	}
	if index <= m.st.Index {
		return Result{}
	}
	cmd, err := Decode(data)
	if err == nil && cmd.Needs() > m.newest {
		err = m.tooNew(cmd.Needs())
	}
	if err != nil {
		m.broken = fmt.Errorf("log entry %d: %w", index, err)
		m.notify(Change{State: m.st})
		return Result{Rejected: m.broken.Error()}
	}
	res := m.st.apply(cmd)
	m.st.Index = index
	m.copy.Store(nil)
	m.tail.add(e)
	slices.Sort(res.Touched)
	res.Touched = slices.Compact(res.Touched)
	m.notify(Change{State: m.st, Groups: res.Touched, Registers: cmd.registers()})
	return res
}

// Amend applies a command that is no entry of the log: its index stays. For a state that
// nobody else shares, on a disk on which no raft runs.
func (m *Machine) Amend(cmd Command) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return Result{Rejected: m.broken.Error()}
	}
	m.copy.Store(nil)
	return m.st.apply(cmd)
}

// Advance notes an entry that carries no command (raft's own).
func (m *Machine) Advance(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.Index = max(m.st.Index, index)
	m.copy.Store(nil)
	m.notify(Change{State: m.st})
}

func (m *Machine) notify(c Change) {
	for _, fn := range m.watch {
		fn(c)
	}
}

// Snapshot renders the state.
func (m *Machine) Snapshot() ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.render()
}

func (m *Machine) render() ([]byte, error) {
	b, err := json.Marshal(m.st)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return append([]byte{encodingVersion}, b...), nil
}

// Restore replaces the state by a snapshot, unless that is older: a leader that did
// not hear that its snapshot arrived sends it again, and raft applies anew what came
// after it. A voter must not forget meanwhile what it knew, a fence for one. On error
// nothing changed.
func (m *Machine) Restore(b []byte) error {
	_, err := m.restore(b, 0, nil)
	return err
}

// RestoreTo is Restore, and says with which entry the snapshot ends, also of an older one.
func (m *Machine) RestoreTo(b []byte) (index uint64, err error) { return m.restore(b, 0, nil) }

// restore is RestoreTo of a state whose newest entry has that term; 0 = not known. fit, if
// there is one, judges the state, also an older one.
func (m *Machine) restore(b []byte, term uint64, fit func(*State) error) (index uint64, err error) {
	st := &State{}
	err = decode(b, st)
	if err == nil {
		err = st.complete()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && st.Speaks() > m.newest {
		err = m.tooNew(st.Speaks())
	}
	if err != nil {
		err = fmt.Errorf("decode snapshot: %w", err)
		if errors.Is(err, ErrTooNew) && m.broken == nil {
			m.broken = err // whoever sent it will not send another
			m.notify(Change{State: m.st})
		}
		return 0, err
	}
	if fit != nil {
		if err := fit(st); err != nil {
			return 0, err
		}
	}
	if st.Index < m.st.Index {
		return st.Index, nil
	}
	m.st = st
	m.copy.Store(nil)
	m.tail.reset(st.Index, term)
	m.notify(Change{State: m.st, All: true, Registers: true})
	return st.Index, nil
}

// Preview returns what s would become if c were applied; s is left alone.
func Preview(s *State, c Command) *State {
	out := s.Clone()
	out.apply(c)
	return out
}
