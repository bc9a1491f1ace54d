package fsm

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"hanode/internal/spec"
)

// Nodes are upgraded one after the other, so that two versions run side by side. What
// they say to each other has one number: the version. All of a cluster speak the one in
// State, which rises when every member can speak a newer one, and never falls: what was
// written in it can be read by nothing older.
//
// A binary speaks newest and the one before it. To add a command, or a key to one, raise
// newest if a release has it already, and say in since what needs it.

// newest is the version of this code.
const newest = 2

// lowered is set by the linker to build a binary that speaks less, for tests of upgrades:
//
//	go build -ldflags "-X hanode/fsm.lowered=1" ./cmd/hanode
var lowered string

// Newest is the newest version that this binary speaks.
func Newest() int {
	if n, err := strconv.Atoi(lowered); err == nil && n >= 1 && n < newest {
		return n
	}
	return newest
}

// Oldest is the oldest version that a binary speaks whose newest is that.
func Oldest(newest int) int { return max(newest-1, 1) }

// since says in which version a command can be read, by its name in Command. Those of the
// first version are not here.
var since = map[string]int{
	"Holdings":  2,
	"RotateKey": 2,
	"Upgrade":   2,
}

// Needs is the version that a reader of the command must speak.
func (c Command) Needs() int {
	v := reflect.ValueOf(c)
	need := 1
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			need = max(need, since[v.Type().Field(i).Name])
		}
	}
	if c.Upgrade != nil {
		need = max(need, c.Upgrade.To)
	}
	if c.Register != nil && c.Register.Speaks > 0 ||
		c.Found != nil && spec.OwnBroadcast(c.Found.Groups) || c.SetGroups != nil && spec.OwnBroadcast(c.SetGroups.Groups) {
		need = max(need, 2)
	}
	return need
}

// Upgrade makes To the version that the cluster speaks. Whether all can is the proposer's
// to know: who is not up has said it when it was.
type Upgrade struct {
	To int `json:"to"`
}

// Speaks is the version that the cluster speaks. The first states do not say.
func (s *State) Speaks() int { return max(s.Version, 1) }

func (s *State) upgrade(c *Upgrade, at time.Time) Result {
	if c.To <= s.Speaks() {
		return Result{} // it did already
	}
	for _, name := range s.NodeNames() {
		if n := s.Nodes[name]; n.Speaks > 0 && n.Speaks < c.To {
			return rejected("%s (hanode %s) speaks version %d, so the cluster cannot speak %d", name, n.Version, n.Speaks, c.To)
		}
	}
	s.Version = c.To
	s.event(Event{Time: at, Kind: "upgraded", Text: fmt.Sprintf("every node can speak version %d; from now on the cluster does", c.To)})
	return Result{}
}

// TooOld says what is to be done about a node that speaks less than its cluster.
func TooOld(cluster int, name, version string, speaks int) string {
	return fmt.Sprintf("the cluster speaks version %d, and hanode %s on %s only up to %d; install the hanode of the other nodes on it", cluster, version, name, speaks)
}

// tooOld says what to do about a node that speaks less than the cluster, or "".
func (s *State) tooOld(name, version string, speaks int) string {
	if max(speaks, 1) >= s.Speaks() {
		return ""
	}
	return TooOld(s.Speaks(), name, version, max(speaks, 1))
}

// ErrNotYet means that a node must be upgraded before a command can be proposed.
var ErrNotYet = errors.New("not every node of the cluster understands that yet; upgrade them all (`hanode status` names those that are behind), then ask again")

// Speakable is ErrNotYet for a command that not every member can read, as far as the
// state knows. An upgrade is what changes that. A founding says what it needs: nobody has
// spoken before.
func (m *Machine) Speakable(c Command) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if need, have := c.Needs(), m.st.Speaks(); c.Upgrade == nil && c.Found == nil && need > have {
		return fmt.Errorf("it needs version %d, and the cluster speaks %d: %w", need, have, ErrNotYet)
	}
	return nil
}
