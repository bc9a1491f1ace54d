package agent

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"

	"hanode/fsm"
	"hanode/internal/id"
)

// ledger is what all copies of the replicated state ever said, seen from above:
// it knows more than any node does.
type ledger struct {
	fail func(format string, args ...any)
	hist *history

	mu     sync.Mutex
	states map[stateAt]uint64 // digest of the state there
	last   uint64             // newest index that anybody applied
	given  map[claimAt]given  // what each epoch of each group means
	events map[uint64]fsm.Event
	newest uint64          // event
	specs  map[string]bool // wanted sets that there ever were
}

type stateAt struct{ generation, index uint64 }

type claimAt struct {
	group string
	epoch id.Epoch
}

type given struct {
	owner id.NodeRef
	addrs []string
}

func newLedger(fail func(string, ...any), hist *history) *ledger {
	return &ledger{
		fail: fail, hist: hist, states: map[stateAt]uint64{}, given: map[claimAt]given{},
		events: map[uint64]fsm.Event{}, specs: map[string]bool{},
	}
}

// follow watches one copy from its first entry on.
func (l *ledger) follow(who string, m *fsm.Machine) {
	epochs := map[string]id.Epoch{}
	var index, seq uint64
	m.Watch(func(c fsm.Change) {
		s := c.State
		if !s.Founded() {
			return
		}
		if s.Index < index {
			l.fail("%s: the applied index went from %d back to %d", who, index, s.Index)
		}
		index = s.Index
		l.mu.Lock()
		defer l.mu.Unlock()
		l.noteState(who, s)
		for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
			g := s.Groups[name]
			if g.Epoch < epochs[name] {
				l.fail("I1: %s: the epoch of %s went from %d back to %d", who, name, epochs[name], g.Epoch)
			}
			epochs[name] = g.Epoch
			l.noteGroup(who, g)
		}
		for _, e := range slices.Backward(s.Events) {
			if e.Index <= seq {
				break
			}
			if old, ok := l.events[e.Index]; ok && (old.Kind != e.Kind || old.Text != e.Text) {
				l.fail("%s: event %d is %q, elsewhere it was %q", who, e.Index, e.Text, old.Text)
			}
			l.events[e.Index] = e
			l.newest = max(l.newest, e.Index)
		}
		seq = s.EventSeq
		wanted := digestOf(s.Specs())
		if len(l.specs) == 0 {
			l.hist.did(act{object: "wanted", kind: "write", value: wanted}, 0)
		}
		l.specs[wanted] = true
	})
}

// noteState is state machine safety: at one index there is one state.
func (l *ledger) noteState(who string, s *fsm.State) {
	thin := *s
	thin.Events = nil
	h := fnv.New64a()
	b, err := json.Marshal(thin)
	if err != nil {
		l.fail("%s: encode state: %v", who, err)
		return
	}
	_, _ = h.Write(b)
	sum := h.Sum64()
	at := stateAt{s.Generation, s.Index}
	if old, ok := l.states[at]; ok && old != sum {
		l.fail("%s: the state after entry %d is not what another node had: %s", who, s.Index, b)
	}
	l.states[at] = sum
	l.last = max(l.last, s.Index)
}

// noteGroup: an epoch of a group has one owner and one set of addresses.
func (l *ledger) noteGroup(who string, g *fsm.Group) {
	key := claimAt{g.Spec.Name, g.Epoch}
	now := given{owner: g.Owner}
	for _, r := range g.Spec.Resources {
		now.addrs = append(now.addrs, r.Address())
	}
	slices.Sort(now.addrs)
	old, ok := l.given[key]
	if ok && !old.owner.Zero() && (old.owner != now.owner || !g.Deleted && !slices.Equal(old.addrs, now.addrs)) {
		l.fail("I1: %s: epoch %d of %s belongs to %v with %v, but it was %v's with %v", who, g.Epoch, g.Spec.Name, now.owner, now.addrs, old.owner, old.addrs)
	}
	if g.Epoch > 0 && (!ok || old.owner.Name != now.owner.Name) {
		l.hist.assigned(g.Spec.Name, g.Epoch, now.owner.Name)
	}
	l.given[key] = now
}

func (l *ledger) at(group string, e id.Epoch) (given, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.given[claimAt{group, e}]
	return g, ok
}

func (l *ledger) groups() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := map[string]bool{}
	for k := range l.given {
		names[k.group] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// position is the newest event and the newest index applied anywhere.
func (l *ledger) position() (event, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest, l.last
}

// happened reports whether an event like this was committed after event `after`.
func (l *ledger) happened(after uint64, like func(fsm.Event) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := after + 1; i <= l.newest; i++ {
		if e, ok := l.events[i]; ok && like(e) {
			return true
		}
	}
	return false
}

// count counts events of a kind, with a cause if one is given.
func (l *ledger) count(kind, cause string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind && (cause == "" || e.Cause == cause) {
			n++
		}
	}
	return n
}

func (l *ledger) wanted(digest string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.specs[digest]
}

func digestOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}
