package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// encodingVersion leads every encoded command and snapshot. A reader refuses
// what is newer than itself: applying half of an unknown command would make
// replicas differ. For the same reason it refuses a key that it does not know. A
// key that was added later is left out where it says nothing, so that nodes of
// two versions understand each other as long as nobody uses what only one has.
const encodingVersion = 1

// ErrTooNew means that bytes were written by a newer hanode than this one.
var ErrTooNew = errors.New("written by a newer hanode; upgrade this node")

// Command is one entry of the log. Exactly one of the pointers is set. Every
// command is idempotent: an entry that was committed although its proposer saw an
// error may be proposed again.
type Command struct {
	// At is the proposer's wall clock, for people only.
	At time.Time `json:"at"`

	Found         *Found         `json:"found,omitempty"`
	Register      *Register      `json:"register,omitempty"`
	Takeover      *Takeover      `json:"takeover,omitempty"`
	Holding       *Holding       `json:"holding,omitempty"`
	Holdings      *Holdings      `json:"holdings,omitempty"`
	Released      *Released      `json:"released,omitempty"`
	SetGroups     *SetGroups     `json:"set_groups,omitempty"`
	Standby       *Standby       `json:"standby,omitempty"`
	Maintenance   *Maintenance   `json:"maintenance,omitempty"`
	Pin           *Pin           `json:"pin,omitempty"`
	Stopping      *Stopping      `json:"stopping,omitempty"`
	Leave         *Leave         `json:"leave,omitempty"`
	SetVoters     *SetVoters     `json:"set_voters,omitempty"`
	SetDisk       *SetDisk       `json:"set_disk,omitempty"`
	Report        *Report        `json:"report,omitempty"`
	PowerOff      *PowerOff      `json:"power_off,omitempty"`
	Failed        *Failed        `json:"failed,omitempty"`
	Clear         *Clear         `json:"clear,omitempty"`
	AddToken      *AddToken      `json:"add_token,omitempty"`
	RevokeToken   *RevokeToken   `json:"revoke_token,omitempty"`
	RotateKey     *RotateKey     `json:"rotate_key,omitempty"`
	AddNode       *AddNode       `json:"add_node,omitempty"`
	NewGeneration *NewGeneration `json:"new_generation,omitempty"`
	Recover       *Recover       `json:"recover,omitempty"`
	Upgrade       *Upgrade       `json:"upgrade,omitempty"`
}

// Found creates the cluster; the first entry of its log.
type Found struct {
	Cluster string       `json:"cluster"`
	Digest  string       `json:"digest"`
	Timing  spec.Timing  `json:"timing"`
	Nodes   []spec.Node  `json:"nodes"`
	Voters  []string     `json:"voters"`
	Groups  []spec.Group `json:"groups"` // the node file's `groups = "FILE"`
	// Manual is two_node = "manual": see State.
	Manual bool `json:"manual,omitempty"`
	// Tokens let in the first nodes of a cluster that begins with one.
	Tokens []Token `json:"tokens,omitempty"`
}

// Register makes (Node, From+1) the node's registration: a compare-and-swap on
// From, so that a delayed copy of an old proposal registers nobody (R8).
type Register struct {
	Node    string        `json:"node"`
	From    uint64        `json:"from"`
	Nonce   string        `json:"nonce"`
	HostID  string        `json:"host_id"`
	Bound   time.Duration `json:"bound"`
	Version string        `json:"version"`
	// Speaks is the newest version (see [Newest]) that the node speaks. 0 = it does not
	// say: the cluster does not speak one yet in which it could.
	Speaks int `json:"speaks,omitempty"`
}

// Takeover is one entry: an optional fence and the assignments that follow from
// it. One entry, because between two a new leader could die (R3).
type Takeover struct {
	Fence   id.NodeRef `json:"fence"` // zero = none: a switchover or first assignment
	Assigns []Assign   `json:"assigns"`
	Cause   string     `json:"cause"` // failover, switchover, failback, start, ...
	// WhyFence says what made the proposer fence, for people.
	WhyFence string `json:"why_fence"`
}

// Assign gives Group to To at Epoch. Rejected unless Epoch is the next one and
// To is registered and not fenced.
type Assign struct {
	Group string     `json:"group"`
	Epoch id.Epoch   `json:"epoch"`
	To    id.NodeRef `json:"to"`
	// Released lists claims whose exact token the proposer has.
	Released []id.Claim `json:"released"`
	Pin      bool       `json:"pin"`
	Why      string     `json:"why"` // why To, for people
}

// Holding says that the owner holds: every wait was satisfied, so all are
// cleared. Started says that every resource runs.
type Holding struct {
	Group   string     `json:"group"`
	Node    id.NodeRef `json:"node"`
	Epoch   id.Epoch   `json:"epoch"`
	Started bool       `json:"started"`
	Events  []Event    `json:"events"`
}

// Holdings are some Holding of one node at once: of many groups that it took over
// together. Each is judged by itself.
type Holdings struct {
	All []Holding `json:"all"`
}

// Released says that the claims' holders let go; Failed, if not empty, is why
// the holder of record gave the group up. Only the first logs have it: see [Failed].
type Released struct {
	Claims []id.Claim `json:"claims"`
	Failed string     `json:"failed"`
}

// Failed says that Node could not run Group at Epoch and let it go.
type Failed struct {
	Group string     `json:"group"`
	Node  id.NodeRef `json:"node"`
	Epoch id.Epoch   `json:"epoch"`
	Why   string     `json:"why"`
	// Ran is for how long all of it had run there before, by the node's own clock. A
	// failure after spec.MaxRetry is a first one again.
	Ran time.Duration `json:"ran"`
	// Output is the end of what the operation printed that failed; see MaxOutput.
	Output string `json:"output,omitempty"`
}

// Clear forgets failures: those of Group (or, if "", of every group) on Node (or, if
// "", on every node).
type Clear struct {
	Group string `json:"group"`
	Node  string `json:"node"`
}

// SetGroups makes Groups the whole wanted set.
type SetGroups struct {
	Groups []spec.Group `json:"groups"`
	// Adopt says where what is foreign of a group may be taken over.
	Adopt []Adopt `json:"adopt,omitempty"`
}

// Adopt lets one registration start Group although something of it is on its host that
// the cluster did not bring there.
type Adopt struct {
	Group string     `json:"group"`
	Node  id.NodeRef `json:"node"`
}

// Standby takes a node out of, or back into, the choice of owners.
type Standby struct {
	Node string `json:"node"`
	On   bool   `json:"on"`
}

// Maintenance suspends every automatic start, stop and move.
type Maintenance struct {
	On bool `json:"on"`
}

// Pin keeps a group where it is (or lifts that).
type Pin struct {
	Group string `json:"group"`
	On    bool   `json:"on"`
}

// Stopping says that (Node) is being stopped in order: hand over its groups. It
// stays a member; its next Register ends the state.
type Stopping struct {
	Node id.NodeRef `json:"node"`
}

// Leave begins (Done false) or completes the end of a membership.
type Leave struct {
	Node string `json:"node"`
	Done bool   `json:"done"`
}

// SetVoters makes Names the lease voters; Version must be the next one and the
// list must differ by one name (R7).
type SetVoters struct {
	Version uint64   `json:"version"`
	Names   []string `json:"names"`
	Why     string   `json:"why,omitempty"` // for people
}

// SetDisk records that the node came back with another data directory (R12). However
// often one request is made, it gets one number: one that was long on its way must not
// leave the node with a number that is not its own any more.
type SetDisk struct {
	Node string `json:"node"`
	From uint64 `json:"from"`
	// Request names the request; "" = one that was not named.
	Request string `json:"request,omitempty"`
}

// Report adds to the history.
type Report struct {
	Events []Event `json:"events"`
}

// PowerOff is the word of somebody who knows (an operator, a fencing device) that
// the host that made registration Node has had no power since: nothing that it
// ran is left. It fences the registration, and ends its claims; it says nothing
// about any other registration of the same node, older or newer (R4).
type PowerOff struct {
	Node id.NodeRef `json:"node"`
	By   string     `json:"by"` // who says so, for people
}

// Recover is the first entry after a node was made the only server of raft, because
// the other one is off, or lost its disk: two_node = "manual", two servers and no
// third. Both get a new raft identity, so that the disk that was left behind is
// refused when it comes back: it may hold what this log does not.
type Recover struct {
	Node string `json:"node"` // goes on
	Disk uint64 `json:"disk"` // as which of its data directories, the next one
	Gone string `json:"gone"` // must join anew
	// GoneDisk is a number that no disk of Gone ever had.
	GoneDisk uint64 `json:"gone_disk"`
	// Off: the host of Gone has had no power since, said By; every registration of it
	// is over, as by PowerOff. Otherwise its claims stay, and only its disk is gone.
	Off bool   `json:"off,omitempty"`
	By  string `json:"by"`
}

// Encode renders a command as a log entry.
func Encode(c Command) ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return append([]byte{encodingVersion}, b...), nil
}

// Decode is the inverse of Encode.
func Decode(b []byte) (Command, error) {
	var c Command
	if err := decode(b, &c); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

func decode(b []byte, into any) error {
	if len(b) == 0 {
		return errors.New("empty")
	}
	if b[0] > encodingVersion {
		return fmt.Errorf("version %d: %w", b[0], ErrTooNew)
	}
	if b[0] == 0 {
		return errors.New("version 0 was never written")
	}
	dec := json.NewDecoder(bytes.NewReader(b[1:]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		if strings.HasPrefix(err.Error(), "json: unknown field") {
			return fmt.Errorf("%w: %w", err, ErrTooNew) // a key is added, never renamed
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end")
	}
	return nil
}
