// Package fsm is the cluster's replicated memory: who is a member, which
// registration of it counts, who owns which group at which epoch, and who may
// not have let go yet.
//
// Apply is a deterministic function of state and command: it reads no clock, no
// random source and no map in its own order. The package knows nothing of
// raft's library, sends nothing and starts nothing; package cluster feeds it,
// packages lease and failover read it.
package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/internal/id"
	"hanode/internal/spec"
)

// State is everything that is replicated. Treat a State handed out by
// Machine.View as read-only.
type State struct {
	// Index of the last raft entry applied. Never decreases.
	Index uint64 `json:"index"`
	// Cluster and Digest are what the founders agreed on; empty = not founded.
	Cluster string      `json:"cluster"`
	Digest  string      `json:"digest"`
	Timing  spec.Timing `json:"timing"`

	// Version is what all speak; see Speaks. 0 = the first one.
	Version int `json:"version,omitempty"`

	// Generation counts recoveries from the loss of a majority (R13). 0 = none.
	Generation uint64 `json:"generation,omitempty"`

	Nodes  map[string]*Node  `json:"nodes"`
	Groups map[string]*Group `json:"groups"` // deleted groups stay as tombstones: epochs are never used again

	// Voters grants leases; Previous is the list before it (R7).
	Voters   VoterList `json:"voters"`
	Previous VoterList `json:"previous"`

	// Tokens by ID: who may still be let in, and who was.
	Tokens map[string]Token `json:"tokens,omitempty"`

	// Rotation of the cluster's key that is under way; nil = none. Retired are the keys of
	// earlier ones, oldest first.
	Rotation *Rotation    `json:"rotation,omitempty"`
	Retired  []RetiredKey `json:"retired,omitempty"`

	Maintenance bool `json:"maintenance"`

	// Manual is two_node = "manual", as the cluster was founded: two nodes and no third
	// vote. Registrations have no bound, so nothing is taken over because of silence.
	Manual bool `json:"manual,omitempty"`

	// Revision counts changes of the wanted set of groups.
	Revision uint64 `json:"revision"`

	// Events is the tail of the cluster's history, oldest first.
	Events   []Event `json:"events"`
	EventSeq uint64  `json:"event_seq"`
}

// keepEvents bounds State.Events.
const keepEvents = 1000

// VoterList is the set of voters whose acks make a lease. It is versioned here
// and not taken from raft's configuration, because raft uses a new configuration
// as soon as it is stored, while a lease may only count voters that a majority
// has *applied* (R7).
type VoterList struct {
	Version uint64   `json:"version"`
	Names   []string `json:"names"` // sorted
}

// Majority is how many of the list make a majority; 1 for an empty list, which
// therefore never has one.
func (v VoterList) Majority() int { return len(v.Names)/2 + 1 }

// Has reports whether name is in the list.
func (v VoterList) Has(name string) bool { return slices.Contains(v.Names, name) }

// Node is a member.
type Node struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Role    spec.Role `json:"role"`
	Zone    string    `json:"zone,omitempty"`
	// Token is the one that let the node in; "" = a founder.
	Token string `json:"token,omitempty"`
	// Disk counts the node's data directories, from 1: an emptied disk is a new
	// raft server, never the old one with its memory gone (R12).
	Disk uint64 `json:"disk"`
	// DiskRequest is the request that Disk was given to; "" = a founder's first one.
	DiskRequest string `json:"disk_request,omitempty"`

	// Inc counts registrations. 0 = never registered. Never used again.
	Inc uint64 `json:"inc"`
	// Fenced: (Name, Inc) will never hold again.
	Fenced bool `json:"fenced"`
	// Off: somebody who knows said that the host of (Name, Inc) has no power.
	Off bool `json:"off,omitempty"`
	// Bound is how long a voter must wait after its last ack to (Name, Inc).
	Bound  time.Duration `json:"bound"`
	HostID string        `json:"host_id"`
	Nonce  string        `json:"nonce"`
	// Version of the binary that registered.
	Version string `json:"version"`
	// Speaks is the newest version that it speaks; 0 = it did not say.
	Speaks int `json:"speaks,omitempty"`

	Standby bool `json:"standby"`
	// Stopped: an orderly stop released everything; the node is still a member.
	Stopped bool `json:"stopped"`
	// Leaving: groups are being handed over, then membership ends.
	Leaving bool `json:"leaving"`
	// Removed nodes stay as tombstones, so that Inc is never used again.
	Removed bool `json:"removed"`
}

// Ref is the node's registration of record.
func (n *Node) Ref() id.NodeRef { return id.NodeRef{Name: n.Name, Inc: n.Inc} }

// Registered reports that the node's registration may be given groups.
func (n *Node) Registered() bool { return n != nil && n.Inc > 0 && !n.Fenced && !n.Removed }

// Wait is a claim that may still be in use. A group's owner may not hold while
// one is left unsatisfied.
type Wait struct {
	id.Claim
	HostID string        `json:"host_id"` // a newer registration from this host releases it
	Bound  time.Duration `json:"bound"`   // what a voter waits after its last ack
	// Live: the registration was neither fenced nor superseded as of this state.
	// While it is, EXPIRED is no evidence against it.
	Live bool `json:"live"`
	// Off: the host has had no power since, somebody who knows said (R4).
	Off bool `json:"off,omitempty"`
	// Addresses that the group had at the claim's epoch, sorted (R11). Records
	// leave them out.
	Addresses []string `json:"addresses,omitempty"`
}

// Group is a group and its place.
type Group struct {
	Spec spec.Group `json:"spec"`
	// Revision counts changes of the wanted set at which Spec last changed.
	Revision uint64 `json:"revision"`
	Deleted  bool   `json:"deleted"`

	Epoch id.Epoch   `json:"epoch"`
	Owner id.NodeRef `json:"owner"` // zero = nobody
	// OwnerHost and OwnerBound are the owner's registration at that epoch: they
	// become a Wait when the owner changes.
	OwnerHost  string        `json:"owner_host"`
	OwnerBound time.Duration `json:"owner_bound"`
	// OwnerReleased: the owner of record is known to hold no more.
	OwnerReleased bool   `json:"owner_released"`
	Waits         []Wait `json:"waits"`
	// Voters is the lease voters' list as of the entry that made Epoch, or of a
	// later one that fenced somebody in Waits: EXPIRED must come from a majority of
	// these (R3).
	Voters VoterList `json:"voters"`

	Cause   string    `json:"cause"`   // why Owner owns it
	Since   time.Time `json:"since"`   // when that was decided, proposer's wall clock
	Started bool      `json:"started"` // the owner reported that it runs everything
	Pinned  bool      `json:"pinned"`  // by `move`; failback suspended
	// Adopt is the permission to take over what is foreign of the group, until it runs.
	Adopt Adoption `json:"adopt,omitzero"`
	// Failed: node -> how it could not run the group. An entry with Count 0 was
	// cleared.
	Failed map[string]Failure `json:"failed"`
}

// Adoption lets Node, one registration, start the group once although something of it
// is on its host already. Revision is the group's of the entry that said so, and names
// the permission: it is used once. Zero = nobody may.
type Adoption struct {
	Node     id.NodeRef `json:"node"`
	Revision uint64     `json:"revision"`
}

// Failure is what became of a group's newest failure on one node. For how long the
// node is avoided for it, a leader measures by its own clock (package failover).
type Failure struct {
	// Count of failures in a row. 0 = none that counts: it was cleared.
	Count int `json:"count"`
	// Epoch of the newest. An older one that is told late counts no more.
	Epoch id.Epoch `json:"epoch"`
	Why   string   `json:"why"`
}

// UnmarshalJSON also takes what the first snapshots hold: the reason alone.
func (f *Failure) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*f = Failure{Count: 1}
		return json.Unmarshal(b, &f.Why)
	}
	type plain Failure
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(f))
}

// FailedOn lists the nodes on which the group failed and nobody cleared it, sorted.
func (g *Group) FailedOn() []string {
	return slices.Sorted(maps.Keys(filter(g.Failed, func(f Failure) bool { return f.Count > 0 })))
}

// GaveUp reports that the owner of record could not run the group and let it go.
func (g *Group) GaveUp() bool {
	f := g.Failed[g.Owner.Name]
	return g.OwnerReleased && f.Count > 0 && f.Epoch == g.Epoch
}

// ownerClaim is what the owner of record may still be using.
func (g *Group) ownerClaim() Wait {
	return Wait{
		Claim:  id.Claim{Group: g.Spec.Name, Node: g.Owner, Epoch: g.Epoch},
		HostID: g.OwnerHost, Bound: g.OwnerBound, Addresses: slices.Sorted(maps.Keys(addresses(g.Spec))),
	}
}

// Stuck lists the waits that no passing of time will end: their registration is
// over, it never said that it let go, and an expired lease is no evidence against
// it, because the group is exclusive or the registration had no guard. What is left
// is its own word, a new registration of the same host, or PowerOff (R4).
func (g *Group) Stuck() []Wait {
	var out []Wait
	for _, w := range g.Waits {
		if !w.Live && !w.Off && (g.Spec.IsExclusive() || w.Bound >= spec.Unbounded) {
			out = append(out, w)
		}
	}
	return out
}

// Event is one line of the cluster's history.
type Event struct {
	Index uint64    `json:"index"` // counts events, from 1
	Time  time.Time `json:"time"`
	Node  string    `json:"node"`
	Group string    `json:"group"`
	Epoch id.Epoch  `json:"epoch"`
	Kind  string    `json:"kind"`
	Cause string    `json:"cause"`
	Text  string    `json:"text"`
	MS    *float64  `json:"ms"`
	// Output is the end of what a program printed that the event is about. At most
	// MaxOutput bytes, because all of the history is replicated.
	Output string `json:"output,omitempty"`
}

// MaxOutput bounds Output of events and failures, in bytes.
const MaxOutput = 2 << 10

// same reports whether o is the same event, proposed twice.
func (e Event) same(o Event) bool {
	ms := e.MS == o.MS || e.MS != nil && o.MS != nil && *e.MS == *o.MS
	at := e.Time.Equal(o.Time)
	e.Index, e.Time, e.MS = o.Index, o.Time, o.MS
	return at && ms && e == o
}

// Record is what an owner, an old owner or a new one is told about a group: the
// group as it stands *after* Apply. A command may be rejected; a record cannot. It
// names its spec by revision only, so that it fits a datagram.
type Record struct {
	Group    string     `json:"group"`
	Revision uint64     `json:"revision"` // of the spec that this record is about
	Deleted  bool       `json:"deleted"`
	Epoch    id.Epoch   `json:"epoch"`
	Owner    id.NodeRef `json:"owner"`
	Waits    []Wait     `json:"waits"`
	Voters   VoterList  `json:"voters"`
	Cause    string     `json:"cause"`
	// Exclusive belongs to Revision, and is here because a node may get the record
	// before the spec: it must not take EXPIRED for enough in between (R4).
	Exclusive bool `json:"exclusive,omitempty"`
}

// Record returns the group's record.
func (g *Group) Record() Record {
	waits := slices.Clone(g.Waits)
	for i := range waits {
		waits[i].Addresses = nil
	}
	return Record{
		Group: g.Spec.Name, Revision: g.Revision, Deleted: g.Deleted, Epoch: g.Epoch, Owner: g.Owner,
		Waits: waits, Voters: g.Voters, Cause: g.Cause, Exclusive: g.Spec.IsExclusive(),
	}
}

// New returns the state before founding.
func New() *State {
	return &State{Nodes: map[string]*Node{}, Groups: map[string]*Group{}}
}

// Founded reports whether the cluster exists.
func (s *State) Founded() bool { return s.Cluster != "" }

// NodeNames lists members that were not removed, sorted.
func (s *State) NodeNames() []string {
	return names(s.Nodes, func(n *Node) bool { return !n.Removed })
}

// GroupNames lists groups that exist, sorted.
func (s *State) GroupNames() []string {
	return names(s.Groups, func(g *Group) bool { return !g.Deleted })
}

// Specs lists the wanted groups, sorted by name.
func (s *State) Specs() []spec.Group {
	var out []spec.Group
	for _, name := range s.GroupNames() {
		out = append(out, s.Groups[name].Spec)
	}
	return out
}

// MaxBound is the longest a voter may have to wait for any registration; R7 and
// R13 wait that long.
func (s *State) MaxBound() time.Duration {
	longest := s.Timing.Deadtime
	for _, n := range s.Nodes {
		longest = max(longest, n.Bound)
	}
	for _, g := range s.Groups {
		longest = max(longest, g.OwnerBound)
		for _, w := range g.Waits {
			longest = max(longest, w.Bound)
		}
	}
	return longest
}

// complete reports what a decoded state lacks, or nil.
func (s *State) complete() error {
	if s.Nodes == nil || s.Groups == nil {
		return errors.New("it has no nodes or no groups")
	}
	for name, n := range s.Nodes {
		if n == nil || n.Name != name {
			return fmt.Errorf("node %q is not whole", name)
		}
	}
	for name, g := range s.Groups {
		if g == nil || g.Spec.Name != name {
			return fmt.Errorf("group %q is not whole", name)
		}
	}
	return nil
}

func filter[V any](m map[string]V, keep func(V) bool) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		if keep(v) {
			out[k] = v
		}
	}
	return out
}

// names lists those to keep, sorted.
func names[V any](m map[string]V, keep func(V) bool) []string {
	var out []string
	for k, v := range m {
		if keep(v) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Clone returns a deep copy.
func (s *State) Clone() *State {
	c := *s
	c.Nodes = make(map[string]*Node, len(s.Nodes))
	nodes := make([]Node, 0, len(s.Nodes)) // two pieces of memory, not ten thousand
	for k, n := range s.Nodes {
		nodes = append(nodes, *n)
		c.Nodes[k] = &nodes[len(nodes)-1]
	}
	c.Groups = make(map[string]*Group, len(s.Groups))
	groups := make([]Group, 0, len(s.Groups))
	for k, g := range s.Groups {
		groups = append(groups, *g)
		cp := &groups[len(groups)-1]
		cp.Waits = slices.Clone(g.Waits)
		cp.Failed = maps.Clone(g.Failed)
		c.Groups[k] = cp
	}
	c.Tokens = maps.Clone(s.Tokens)
	c.Events = slices.Clone(s.Events)
	c.Retired = slices.Clone(s.Retired)
	return &c
}
