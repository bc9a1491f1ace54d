package api

import (
	"time"

	"hanode/internal/spec"
)

// MemberState says how a node's beats look from here.
type MemberState string

// States of a member, and of each of its links.
const (
	MemberJoining MemberState = "joining"
	MemberAlive   MemberState = "alive"
	MemberLate    MemberState = "late" // no beat for warntime
	MemberDead    MemberState = "dead" // no beat for deadtime
	MemberLeft    MemberState = "left" // stopped in order
)

// Member is one node of the cluster.
type Member struct {
	Name    string      `json:"name"`
	Role    spec.Role   `json:"role"`
	State   MemberState `json:"state"`
	Address *string     `json:"address"` // on the first link
	Voter   bool        `json:"voter"`
	// VoterWhy says why it is one or not. nil = not known here.
	VoterWhy *string `json:"voter_why"`
	Leader   bool    `json:"leader"`
	// Log is where the node has what is decided from. nil = not known here.
	Log *LogFrom `json:"log"`
	// Follows is the voter that it follows. nil = none, or not known here: only the two
	// know.
	Follows *string `json:"follows"`
	// LastBeatMS is how long ago the newest beat came, over any link. nil for
	// this node itself and where none was seen.
	LastBeatMS *float64 `json:"last_beat_ms"`
	// LeaseMS is how much of its lease is left; <= 0 means run out.
	LeaseMS *float64         `json:"lease_ms"`
	Links   List[MemberLink] `json:"links"`
}

// LogFrom says where a node has what is decided from.
type LogFrom string

// Places in raft: a voter, a server without a vote, and none: such a node follows a voter.
const (
	LogVoter   LogFrom = "voter"
	LogSpare   LogFrom = "spare"
	LogFollows LogFrom = "follows"
)

// MemberLink is one heartbeat link to a node.
type MemberLink struct {
	Name       string      `json:"name"`
	Address    *string     `json:"address"`
	State      MemberState `json:"state"`
	LastBeatMS *float64    `json:"last_beat_ms"`
}

// GroupState says what a group is doing.
type GroupState string

// States of a group, and of each of its resources.
const (
	GroupRunning  GroupState = "running"
	GroupStarting GroupState = "starting"
	GroupStopping GroupState = "stopping"
	GroupStopped  GroupState = "stopped"
	GroupFailed   GroupState = "failed"
	GroupBlocked  GroupState = "blocked" // may not start; a problem says why and what to do
)

// Status is the cluster as one node sees it.
type Status struct {
	Cluster  string              `json:"cluster"`
	Leader   *string             `json:"leader"` // nil = none, or none that this node knows
	Quorum   bool                `json:"quorum"`
	Groups   List[GroupStatus]   `json:"groups"`
	Problems List[StatusProblem] `json:"problems"`
}

// GroupStatus is one group. Owner is nil while nobody owns it.
type GroupStatus struct {
	Name      string               `json:"name"`
	Owner     *string              `json:"owner"`
	Epoch     uint64               `json:"epoch"` // counts changes of owner; 0 = never assigned
	State     *GroupState          `json:"state"`
	Since     *time.Time           `json:"since"` // in this state
	Resources List[ResourceStatus] `json:"resources"`
	Failures  List[GroupFailure]   `json:"failures"` // one for each node on which it failed
	// Nodes is what the nodes say themselves that have, or had, something to do with
	// the group. nil = it was not asked for: it is where one group is.
	Nodes *List[NodeReport] `json:"nodes"`
}

// NodeReport is what one node says of a group, or why it says nothing.
type NodeReport struct {
	Node      string               `json:"node"`
	Error     *string              `json:"error"` // why nothing is known; nil = it answered
	Resources List[ResourceReport] `json:"resources"`
}

// ResourceReport is a resource, or a check, as its node sees it.
type ResourceReport struct {
	Type       string                `json:"type"`
	Name       string                `json:"name"`
	State      *GroupState           `json:"state"`
	Error      *string               `json:"error"` // what is wrong with it; nil = nothing
	Operations List[OperationReport] `json:"operations"`
}

// OperationReport is the newest run of one operation, the newest of all first.
type OperationReport struct {
	Name    string    `json:"name"` // start, stop, monitor, kill, check
	At      time.Time `json:"at"`   // when it began
	MS      float64   `json:"ms"`   // how long it took, or has taken so far
	Running bool      `json:"running"`
	Error   *string   `json:"error"`  // nil = it succeeded, or runs
	Output  string    `json:"output"` // the end of what it printed, at most 64 KiB
}

// GroupFailure is how a group failed on a node. It ends with a clear, an apply, or a
// new registration of the node.
type GroupFailure struct {
	Node  string `json:"node"`
	Count int    `json:"count"` // in a row
	Text  string `json:"text"`  // why
	// RetryMS is for how much longer the group is not given to the node; 0 = it may be.
	RetryMS float64 `json:"retry_ms"`
}

// ResourceStatus is one resource of a group, in the order they start.
type ResourceStatus struct {
	Type  string      `json:"type"`
	Name  string      `json:"name"`
	State *GroupState `json:"state"`
}

// StatusProblem is something an operator should know or do.
type StatusProblem struct {
	Code     string     `json:"code"`     // kebab-case, documented
	Severity string     `json:"severity"` // info, warning, error
	Text     string     `json:"text"`
	Fix      string     `json:"fix"`
	Since    *time.Time `json:"since"`
}

// Action is what a plan does with a group.
type Action string

// The actions of a plan.
const (
	ActionAdd    Action = "add"
	ActionRemove Action = "remove"
	ActionChange Action = "change"
	ActionKeep   Action = "keep"
)

// Plan is what apply would do, a change for each group that is or was wanted.
type Plan struct {
	Changes List[Change] `json:"changes"`
}

// Change is what happens to one group.
type Change struct {
	Group  string `json:"group"`
	Action Action `json:"action"`
	Text   string `json:"text"`  // a sentence for people
	Stops  bool   `json:"stops"` // something that runs now stops, if only to start again
	Moves  bool   `json:"moves"` // the group leaves its present owner
}

// Disruptive returns the changes that stop or move something that runs.
func (p *Plan) Disruptive() []Change {
	var out []Change
	for _, c := range p.Changes {
		if c.Stops || c.Moves {
			out = append(out, c)
		}
	}
	return out
}

// ApplyRequest makes Groups the whole wanted set: groups it lacks are stopped
// and removed.
type ApplyRequest struct {
	Groups []spec.Group
	Wait   time.Duration // for the groups to run; 0 = do not wait
	// NoProbe: do not look first whether another host uses a new address already.
	NoProbe bool
	// Adopt: what runs of the groups already although the cluster did not start it is
	// taken over where its group is to run, and stopped elsewhere. Without it such an
	// apply is refused.
	Adopt bool
}

// ApplyResult is what was done, and how the groups are now.
type ApplyResult struct {
	Changes List[Change]      `json:"changes"`
	Groups  List[GroupStatus] `json:"groups"`
	Adopted List[Adoption]    `json:"adopted"`
}

// Adoption is what became of something that ran already on a node.
type Adoption struct {
	Group   string       `json:"group"`
	Node    string       `json:"node"`
	What    List[string] `json:"what"`    // such as: systemd "apache2"
	Stopped bool         `json:"stopped"` // the group is to run elsewhere; false = taken over
}

// MoveRequest asks for a switchover.
type MoveRequest struct {
	Group string
	To    string        // "" = the best other node
	Unpin bool          // instead of moving, lift the pin an earlier move left; To is ""
	Wait  time.Duration // for the new owner to run it; 0 = do not wait
}

// MoveResult is a switchover that happened. From = To where nothing had to move.
type MoveResult struct {
	Group string  `json:"group"`
	From  *string `json:"from"` // nil = nobody owned it
	To    string  `json:"to"`
	Epoch uint64  `json:"epoch"`
	// SilentMS is how long no node answered for the group: from the old owner's
	// close to the new owner's first announcement. nil = not measured.
	SilentMS *float64 `json:"silent_ms"`
}

// NodeResult is what standby and online did.
type NodeResult struct {
	Node    string           `json:"node"`
	Standby bool             `json:"standby"` // as it is now
	Moves   List[MoveResult] `json:"moves"`
}

// ClearRequest asks to forget failures: those of Group, or of every group if it is
// "", on Node, or on every node if it is "".
type ClearRequest struct {
	Group string
	Node  string
}

// ClearResult is what was forgotten.
type ClearResult struct {
	Cleared List[Cleared] `json:"cleared"`
}

// Cleared is a group that may be tried on a node again.
type Cleared struct {
	Group string `json:"group"`
	Node  string `json:"node"`
}

// ConfirmOffRequest is an operator's word that a node's host is off, or was since.
type ConfirmOffRequest struct {
	Node string
	// Confirm is the sentence that says it; a request with another one is refused
	// and answered with it.
	Confirm string
}

// ConfirmOffResult is what was confirmed, or would be.
type ConfirmOffResult struct {
	Node         string       `json:"node"`
	Confirm      string       `json:"confirm"`      // the sentence that says it
	Incarnations List[uint64] `json:"incarnations"` // registrations of it that are over
	Groups       List[string] `json:"groups"`       // that they might have run
}

// RemoveRequest asks to end the membership of a node that will not come back.
type RemoveRequest struct {
	Node string
	// Confirm is the sentence that is asked for where the removal costs safety.
	Confirm string
	Wait    time.Duration // for the end of the membership; 0 = do not wait
}

// RemoveResult is what became of it, or what must be confirmed first.
type RemoveResult struct {
	Node    string `json:"node"`
	Removed bool   `json:"removed"` // false: it goes on by itself, or was not begun
	// Confirm is the sentence that must be said; nil = none.
	Confirm *string      `json:"confirm"`
	Voters  List[string] `json:"voters"` // that remain, or would
}

// Snapshot is the cluster's state, as the text of a file.
type Snapshot struct {
	Data string `json:"data"`
}

// RotateKeyRequest asks for another key of the cluster.
type RotateKeyRequest struct {
	// Without are members to leave behind: they are not asked, and get no key.
	Without []string
	// Undo takes back a change that is under way.
	Undo bool
	// Wait is how long to wait for the end; 0 does not wait.
	Wait time.Duration
}

// KeyStatus is which keys the members have, and how far a change of them is. Keys are
// named by their fingerprints, which are no secret.
type KeyStatus struct {
	Rotation *Rotation        `json:"rotation"` // nil = none is under way
	Nodes    List[NodeKeys]   `json:"nodes"`    // sorted by name
	Retired  List[RetiredKey] `json:"retired"`  // oldest first
}

// Rotation is a change of the cluster's key that is under way.
type Rotation struct {
	// Phase is add (every node gets the new key), use (all change to it), drop (all forget
	// the old one) or undo (all go back).
	Phase    string       `json:"phase"`
	From     string       `json:"from"`
	To       string       `json:"to"`
	Since    time.Time    `json:"since"` // of the phase
	Without  List[string] `json:"without"`
	WaitsFor List[string] `json:"waits_for"` // a sentence for each node that has not followed
	Why      *string      `json:"why"`       // it is undone
}

// NodeKeys is what a member says of its keys.
type NodeKeys struct {
	Node    string       `json:"node"`
	Active  *string      `json:"active"` // nil = it does not answer
	Keys    List[string] `json:"keys"`   // that it accepts, the active one first
	Problem *string      `json:"problem"`
}

// RetiredKey is one that no node is to have any more.
type RetiredKey struct {
	Key    string    `json:"key"`
	At     time.Time `json:"at"`
	Undone *string   `json:"undone"` // why it never came to be used; nil = it was replaced
}

// TokenRequest asks for a token that lets one node join.
type TokenRequest struct {
	TTL time.Duration // how long it may be used; above 0
}

// Token is a token, and what became of it.
type Token struct {
	ID      string    `json:"id"`
	State   string    `json:"state"` // open, used, revoked or expired
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	UsedBy  *string   `json:"used_by"`
	// Token is its text, a secret; known only to whoever made it, once.
	Token *string `json:"token"`
	Join  *string `json:"join"` // an address to join at; nil = not known
}

// Event is one line of the cluster's history.
type Event struct {
	Index uint64    `json:"index"` // from 1, rising, same on every node
	Time  time.Time `json:"time"`
	Node  *string   `json:"node"`
	Group *string   `json:"group"`
	Epoch *uint64   `json:"epoch"`
	Kind  string    `json:"kind"`
	Cause *string   `json:"cause"`
	Text  string    `json:"text"`
	MS    *float64  `json:"ms"` // how long it took
	// Output is the end of what a program printed that failed, at most 2 KiB.
	Output *string `json:"output"`
}

// Why explains a group's place.
type Why struct {
	Group   string       `json:"group"`
	Owner   *string      `json:"owner"`
	Epoch   uint64       `json:"epoch"`
	Reasons List[Reason] `json:"reasons"` // every node, most wanted first
	// IfOwnerDies is a sentence, without its full stop: what would happen. It begins
	// with the node that would get the group, if one would. nil = not known.
	IfOwnerDies *string `json:"if_owner_dies"`
}

// Reason is what speaks for and against one node.
type Reason struct {
	Node     string   `json:"node"`
	Eligible bool     `json:"eligible"`
	Score    *float64 `json:"score"` // higher is better; nil where not eligible
	Because  string   `json:"because"`
}

// Tuning is what one node measured of beats, and the timing that it recommends.
type Tuning struct {
	Node    string    `json:"node"`  // that measured
	Since   time.Time `json:"since"` // when it began
	ForMS   float64   `json:"for_ms"`
	Timing  Timing    `json:"timing"`  // in force
	Profile *string   `json:"profile"` // whose timing that is; nil = nobody's
	// Heard is what this node knows of each node's beats, by name. Its own beats are
	// in it as it sent them.
	Heard List[BeatGaps] `json:"heard"`
	// Stalls are the times in which this node's agent did not run.
	Stalls  uint64  `json:"stalls"`
	StallMS float64 `json:"stall_ms"` // the longest; 0 = there was none
	// Verdict is unknown, keep, raise, lower or too-late.
	Verdict string `json:"verdict"`
	// Recommended is Timing where the verdict is to change nothing.
	Recommended Timing `json:"recommended"`
	// Fits is the quickest profile that would do; nil = none, or not known.
	Fits *string      `json:"fits"`
	Why  List[string] `json:"why"` // sentences for people
}

// Timing is the cluster's idea of time, in milliseconds.
type Timing struct {
	KeepaliveMS float64 `json:"keepalive_ms"`
	WarntimeMS  float64 `json:"warntime_ms"`
	DeadtimeMS  float64 `json:"deadtime_ms"`
	InitdeadMS  float64 `json:"initdead_ms"`
}

// BeatGaps are the times between two beats of one node.
type BeatGaps struct {
	Node  string `json:"node"`
	Beats uint64 `json:"beats"` // that were counted
	// LongestMS is the longest time that was less than deadtime; nil = none was
	// counted. LongestAt is when it ended.
	LongestMS *float64   `json:"longest_ms"`
	LongestAt *time.Time `json:"longest_at"`
	P99MS     *float64   `json:"p99_ms"` // 99 of 100 were at most this, all included
	// Outages were deadtime or longer: the node was down, cut off or stopped.
	Outages  uint64   `json:"outages"`
	OutageMS *float64 `json:"outage_ms"` // the longest; nil = there was none
}

// FromTiming is t as it travels.
func FromTiming(t spec.Timing) Timing {
	return Timing{KeepaliveMS: MS(t.Keepalive), WarntimeMS: MS(t.Warntime), DeadtimeMS: MS(t.Deadtime), InitdeadMS: MS(t.Initdead)}
}

// Heartbeat is what Heartbeat's own commands want to know of a node beside the rest.
type Heartbeat struct {
	// Nodes are the founders in the order of the files; empty for a node that joined.
	Nodes List[string]   `json:"nodes"`
	Ping  List[PingNode] `json:"ping"` // in the order of the files
	// Parameters are ha.cf's, as they are written or meant where they are not.
	Parameters Params `json:"parameters"`
	// Clients are the programs of respawn that run now, and ipfail if it is on.
	Clients List[string] `json:"clients"`
}

// PingNode is a host beside the cluster, as this node sees it.
type PingNode struct {
	Name string `json:"name"`
	Up   bool   `json:"up"` // it answered lately
}

// Version says what runs.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
}
