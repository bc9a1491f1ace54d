package fsm

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Rotation is a change of the cluster's key that is under way. The state knows keys by
// fingerprint only. A secret, also one wrapped under the old key, would stay in logs,
// snapshots and backups of them for as long as those are kept, and whoever finds the old
// key later would have the new one. Nodes fetch it from each other instead, over a
// connection whose own keys nobody keeps.
type Rotation struct {
	Phase KeyPhase `json:"phase"`
	From  string   `json:"from"`
	To    string   `json:"to"`
	// Without are members that are left behind, because an operator said so.
	Without []string  `json:"without,omitempty"`
	Since   time.Time `json:"since"`         // of the phase, for people
	Why     string    `json:"why,omitempty"` // it is undone
}

// KeyPhase is a step of a rotation. Nodes take it each at its time, so in every phase they
// accept what is used in the one before and in the one after.
type KeyPhase string

// The phases.
const (
	KeyAdd  KeyPhase = "add"  // every node gets To, and goes on with From
	KeyUse  KeyPhase = "use"  // every node has both, and changes to To
	KeyDrop KeyPhase = "drop" // every node uses To, and forgets From
	KeyUndo KeyPhase = "undo" // every node goes back to From
	KeyDone KeyPhase = "done" // it is over: only in a command
)

// RetiredKey is one that no node is to have any more.
type RetiredKey struct {
	Key string    `json:"key"`
	At  time.Time `json:"at"`
	// Undone says why the rotation that was to bring it was undone; "" = it was replaced.
	Undone string `json:"undone,omitempty"`
}

// keepRetired bounds State.Retired.
const keepRetired = 100

// RotateKey brings the rotation of From to To into Phase.
type RotateKey struct {
	From    string   `json:"from"`
	To      string   `json:"to"`
	Phase   KeyPhase `json:"phase"`
	Without []string `json:"without,omitempty"` // of KeyAdd
	Why     string   `json:"why,omitempty"`     // of KeyUndo
}

// IsRetired reports whether no node is to have that key any more.
func (s *State) IsRetired(key string) bool {
	return slices.ContainsFunc(s.Retired, func(r RetiredKey) bool { return r.Key == key })
}

func (s *State) rotateKey(c *RotateKey, at time.Time) Result {
	r := s.Rotation
	switch {
	case c.From == "" || c.To == "" || c.From == c.To:
		return rejected("a rotation needs two keys")
	case r == nil && c.Phase == KeyDone && (s.IsRetired(c.From) || s.IsRetired(c.To)):
		return Result{} // proposed twice
	case r == nil && c.Phase == KeyAdd:
		return s.beginRotation(c, at)
	case r == nil:
		return rejected("no rotation is under way")
	case r.From != c.From || r.To != c.To:
		return rejected("another rotation is under way; `hanode key status` shows it")
	case r.Phase == c.Phase:
		return Result{}
	case !follows(r.Phase, c.Phase):
		return rejected("a rotation that is in phase %s cannot go to %s", r.Phase, c.Phase)
	}
	next := *r // copies of the state share it
	next.Phase, next.Since = c.Phase, at
	s.Rotation = &next
	switch c.Phase {
	case KeyUse:
		s.voidTokens(at)
		s.event(Event{Time: at, Kind: "key", Text: "every node has the new key; all change to it"})
	case KeyDrop:
		s.event(Event{Time: at, Kind: "key", Text: "every node uses the new key; the old one is dropped"})
	case KeyUndo:
		next.Why = c.Why
		s.event(Event{Time: at, Kind: "key", Cause: "undo", Text: "the change of the key is undone: " + c.Why})
	case KeyDone:
		s.endRotation(next, r.Phase, at)
	case KeyAdd:
	}
	return Result{}
}

func (s *State) beginRotation(c *RotateKey, at time.Time) Result {
	if s.IsRetired(c.To) || s.IsRetired(c.From) {
		return rejected("a key that was retired takes part in no rotation; begin with one that no node had yet")
	}
	for _, name := range c.Without {
		if n := s.Nodes[name]; n == nil || n.Removed {
			return rejected("there is no node %q", name)
		}
	}
	s.Rotation = &Rotation{Phase: KeyAdd, From: c.From, To: c.To, Without: slices.Sorted(slices.Values(c.Without)), Since: at}
	text := "the cluster's key is being changed"
	if len(c.Without) > 0 {
		text += fmt.Sprintf("; %v are left behind", s.Rotation.Without)
	}
	s.event(Event{Time: at, Kind: "key", Text: text})
	return Result{}
}

// endRotation retires the key that lost.
func (s *State) endRotation(r Rotation, was KeyPhase, at time.Time) {
	gone, text := RetiredKey{Key: r.From, At: at}, "the cluster's key was changed"
	if was == KeyUndo {
		gone, text = RetiredKey{Key: r.To, At: at, Undone: r.Why}, "the cluster goes on with the key it had"
	}
	s.Retired = append(slices.Clone(s.Retired), gone)
	if over := len(s.Retired) - keepRetired; over > 0 {
		s.Retired = s.Retired[over:]
	}
	s.Rotation = nil
	s.event(Event{Time: at, Kind: "key", Text: text})
}

// follows says which phase may come after which. What some nodes have dropped already is
// not taken back.
func follows(was, next KeyPhase) bool {
	switch was {
	case KeyAdd:
		return next == KeyUse || next == KeyUndo
	case KeyUse:
		return next == KeyDrop || next == KeyUndo
	case KeyDrop, KeyUndo:
		return next == KeyDone
	case KeyDone:
	}
	return false
}

// voidTokens ends the tokens that nobody used: they name the certificate authority of the
// old key, which no member will show.
func (s *State) voidTokens(at time.Time) {
	for _, id := range slices.Sorted(maps.Keys(s.Tokens)) {
		if t := s.Tokens[id]; t.Over(at) == "" {
			t.Revoked = true
			s.Tokens[id] = t
			s.event(Event{Time: at, Kind: "token", Text: fmt.Sprintf("token %s ended: it is of the old key", id)})
		}
	}
}
