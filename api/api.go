// Package api is how people and programs talk to a running agent: the types,
// the server on the agent's unix socket, and the client of it. It speaks
// HTTP/1.1 with JSON under /v1/.
//
// It decides nothing about the cluster: all answers come from a Backend, which
// the agent implements. Who may ask is decided here for the unix socket (peer
// credentials); on other listeners it is left to them (mutual TLS between
// agents, ReadOnly for a port that asks nobody who he is).
//
// JSON: durations are numbers of milliseconds named _ms, times are RFC 3339,
// what is unknown is null, and no key is ever left out.
package api

import (
	"context"
	"net/http"
	"time"

	"hanode/internal/spec"
)

// Backend is what an agent implements; the server knows nothing else.
// Implementations are safe for concurrent use and return when ctx is done.
//
// Errors should be *Error. Where both a value and an error come back, both
// reach the client: Members, Status, Why and Events give what this node knows
// together with an error of Exit 3 when there is no quorum, and Apply gives what
// became of the groups together with the sentence why it is not all well.
type Backend interface {
	// Members lists every node, sorted by name.
	Members(ctx context.Context) ([]Member, error)
	// Status reports on one group, or on all of them if group is "".
	Status(ctx context.Context, group string) (*Status, error)
	// Plan says what Apply of the same groups would do, and does nothing.
	Plan(ctx context.Context, groups []spec.Group) (*Plan, error)
	// Apply makes req.Groups the whole wanted set.
	Apply(ctx context.Context, req ApplyRequest) (*ApplyResult, error)
	// Export returns the wanted set, sorted by name.
	Export(ctx context.Context) ([]spec.Group, error)
	// Move returns once the new owner runs the group.
	Move(ctx context.Context, req MoveRequest) (*MoveResult, error)
	// Standby makes a node give up its groups and take no more (on), or lets it
	// own groups again. It waits like Move; wait = 0 does not wait.
	Standby(ctx context.Context, node string, on bool, wait time.Duration) (*NodeResult, error)
	// Maintenance stops (on) or resumes everything automatic; leases go on.
	Maintenance(ctx context.Context, on bool) error
	// Clear forgets failures, so that groups may be tried again where they failed.
	Clear(ctx context.Context, req ClearRequest) (*ClearResult, error)
	// ConfirmOff records that a node's host is off, so that what waits for it need
	// not. It is refused, with the sentence that it wants, until that is said.
	ConfirmOff(ctx context.Context, req ConfirmOffRequest) (*ConfirmOffResult, error)
	// Leave hands over this node's groups and ends its membership.
	Leave(ctx context.Context) error
	// Remove ends the membership of a node that is dead. Where that costs safety it is
	// refused, with the sentence that it wants, until that is said.
	Remove(ctx context.Context, req RemoveRequest) (*RemoveResult, error)
	// CreateToken makes a token that lets one node in; only here its text is told.
	CreateToken(ctx context.Context, ttl time.Duration) (*Token, error)
	// Tokens lists the tokens, newest first.
	Tokens(ctx context.Context) ([]Token, error)
	// RevokeToken ends a token that nobody used.
	RevokeToken(ctx context.Context, id string) error
	// Snapshot is the state with all that was committed before the call; without a quorum
	// what this node knows, with the error.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// RotateKey changes the cluster's key, or takes back a change that is under way.
	RotateKey(ctx context.Context, req RotateKeyRequest) (*KeyStatus, error)
	// KeyStatus says which keys the members have, and how far a change of them is.
	KeyStatus(ctx context.Context) (*KeyStatus, error)
	// Events calls fn for each event with an index above after, in order. With
	// follow it then waits for more until ctx is done. It stops at fn's first
	// error and returns it.
	Events(ctx context.Context, after uint64, follow bool, fn func(Event) error) error
	// Why explains where a group is and where it would go.
	Why(ctx context.Context, group string) (*Why, error)
	// Tune reports the times between beats that this node measured and the timing
	// that they recommend. With reset it starts measuring anew first. It needs no
	// leader.
	Tune(ctx context.Context, reset bool) (*Tuning, error)
	// Version says what runs. It never blocks.
	Version() Version
	// Heartbeat says what cl_status asks for beside the rest. It never blocks.
	Heartbeat() Heartbeat
}

// Measured is a Backend that also has figures; the server then answers /metrics.
type Measured interface {
	Metrics() http.Handler
}

// Exit codes of the commands; an Error carries one over the wire.
const (
	ExitDone        = 0
	ExitFailed      = 1 // refused or failed
	ExitUsage       = 2 // wrong arguments or bad configuration
	ExitNoQuorum    = 3
	ExitUnreachable = 4 // the agent does not answer
)
