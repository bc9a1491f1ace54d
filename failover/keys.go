package failover

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/fsm"
)

// A rotation of the cluster's key: the leader takes the cluster through the phases, and
// each node follows. Both are decided here.

// KeyReport is what a node says of its keys.
type KeyReport struct {
	Have []string // fingerprints, in its file and in use; the first is active
	Err  string   // why it cannot change them; "" = it can
}

// KeyInputs is all that the next phase depends on.
type KeyInputs struct {
	State   *fsm.State
	Reports map[string]KeyReport // of those that answer
	// Waited is for how long the leader has seen the phase.
	Waited time.Duration
}

// KeyPatience is how long a phase waits for a node that does not follow. A host that is
// rebooted is back by then, mostly.
const KeyPatience = time.Minute

// KeyMembers are the nodes that a rotation counts, sorted: all but those left behind.
func KeyMembers(s *fsm.State, without []string) []string {
	return slices.DeleteFunc(s.NodeNames(), func(name string) bool { return slices.Contains(without, name) })
}

// NextKeyPhase says into which phase the rotation should go now, and why if that is to
// undo it; "" = it waits. A phase ends when every node that counts has followed. Before
// the old key is dropped anywhere, a node that cannot, or does not for KeyPatience, ends
// the rotation; after that who is away follows when it comes back: it has the new key.
func NextKeyPhase(in KeyInputs) (next fsm.KeyPhase, why string) {
	r := in.State.Rotation
	if r == nil {
		return "", ""
	}
	behind := KeyBehind(in.State, in.Reports)
	switch {
	case len(behind) == 0:
		return map[fsm.KeyPhase]fsm.KeyPhase{
			fsm.KeyAdd: fsm.KeyUse, fsm.KeyUse: fsm.KeyDrop, fsm.KeyDrop: fsm.KeyDone, fsm.KeyUndo: fsm.KeyDone,
		}[r.Phase], ""
	case r.Phase == fsm.KeyDrop || r.Phase == fsm.KeyUndo:
		if in.Waited >= KeyPatience {
			return fsm.KeyDone, ""
		}
		return "", ""
	}
	for _, b := range behind {
		if b.Cannot {
			return fsm.KeyUndo, b.Text
		}
	}
	if in.Waited < KeyPatience {
		return "", ""
	}
	var texts []string
	for _, b := range behind {
		texts = append(texts, b.Text)
	}
	return fsm.KeyUndo, fmt.Sprintf("after %v %s", KeyPatience, strings.Join(texts, ", "))
}

// Behind is a node that has not followed the phase.
type Behind struct {
	Node   string
	Cannot bool // and says that it cannot
	Text   string
}

// KeyBehind lists the nodes that count and have not followed the phase yet, by name.
func KeyBehind(s *fsm.State, reports map[string]KeyReport) []Behind {
	r := s.Rotation
	if r == nil {
		return nil
	}
	var out []Behind
	for _, name := range KeyMembers(s, r.Without) {
		rep, ok := reports[name]
		active := ""
		if len(rep.Have) > 0 {
			active = rep.Have[0]
		}
		done, lacks := false, ""
		switch r.Phase {
		case fsm.KeyAdd:
			done, lacks = slices.Contains(rep.Have, r.To), "has not got the new key"
		case fsm.KeyUse:
			done, lacks = active == r.To, "does not use the new key"
		case fsm.KeyDrop:
			done, lacks = active == r.To && !slices.Contains(rep.Have, r.From), "still accepts the old key"
		case fsm.KeyUndo:
			done, lacks = active == r.From, "still uses the new key"
		case fsm.KeyDone:
		}
		switch {
		case done:
		case !ok:
			out = append(out, Behind{name, false, name + " does not answer"})
		case rep.Err != "":
			out = append(out, Behind{name, true, name + ": " + rep.Err})
		default:
			out = append(out, Behind{name, false, name + " " + lacks})
		}
	}
	return out
}

// Keys is what a node should do about its keys.
type Keys struct {
	Fetch  string   // a key to get from another node; "" = none
	Active string   // the one to use
	Drop   []string // those to forget
}

// WantedKeys says what a node that has these keys, the first of them active, should do
// about them in s. It never leaves a node without a key: one that has only retired ones
// keeps them, and is told.
func WantedKeys(s *fsm.State, have []string) Keys {
	out := Keys{Active: have[0]}
	good := slices.DeleteFunc(slices.Clone(have), s.IsRetired)
	if len(good) == 0 {
		return out
	}
	out.Active = good[0]
	out.Drop = slices.DeleteFunc(slices.Clone(have), func(k string) bool { return !s.IsRetired(k) })
	r := s.Rotation
	if r == nil {
		return out
	}
	want := map[fsm.KeyPhase]string{fsm.KeyAdd: r.From, fsm.KeyUse: r.To, fsm.KeyDrop: r.To, fsm.KeyUndo: r.From}[r.Phase]
	if slices.Contains(good, want) {
		out.Active = want
	}
	if r.Phase != fsm.KeyUndo && !slices.Contains(have, r.To) {
		out.Fetch = r.To
	}
	if r.Phase == fsm.KeyDrop && out.Active == r.To && slices.Contains(have, r.From) {
		out.Drop = append(out.Drop, r.From)
	}
	return out
}

// KeyHeard says which other key a node should use that is cut off: the one by which it
// hears the others, if by its own it hears nobody. was and now count what each key has
// opened; "" = none.
func KeyHeard(active string, was, now map[string]uint64) string {
	if now[active] > was[active] {
		return ""
	}
	best := ""
	for _, k := range slices.Sorted(maps.Keys(now)) {
		if n := now[k] - min(was[k], now[k]); n > 0 && (best == "" || n > now[best]-min(was[best], now[best])) {
			best = k
		}
	}
	return best
}
