package fsm

import (
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/internal/spec"
)

// Who is let in after the founding: tokens, and the nodes that come with one.

// Token lets one node join. Its secret is known to whoever has the token's text; here
// is only what tells a right one from a wrong one.
type Token struct {
	ID   string `json:"id"`
	Hash string `json:"hash"` // hex SHA-256 of the secret
	// Expires by the wall clock of the node that is asked.
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked,omitempty"`
	// UsedBy is the node that it let in, with Request; "" = nobody yet.
	UsedBy  string `json:"used_by,omitempty"`
	Request string `json:"request,omitempty"`
}

// Over says why the token lets nobody in any more, or "".
func (t Token) Over(now time.Time) string {
	switch {
	case t.UsedBy != "":
		return "used by " + t.UsedBy
	case t.Revoked:
		return "revoked"
	case !now.Before(t.Expires):
		return "expired"
	}
	return ""
}

// AddToken makes a token.
type AddToken struct {
	Token Token `json:"token"`
}

// RevokeToken ends a token that was not used.
type RevokeToken struct {
	ID string `json:"id"`
}

// AddNode lets a node in by its token. However often one request is made, by whatever
// process of the node, it is one: it may have been committed although nobody heard of
// it.
type AddNode struct {
	Node    spec.Node `json:"node"`
	Token   string    `json:"token"` // its ID
	Hash    string    `json:"hash"`
	Request string    `json:"request"`
}

const (
	// maxTokens that are kept, whatever became of them.
	maxTokens = 1000
	// tokenKept is how long one that is over is still listed.
	tokenKept = 30 * 24 * time.Hour
)

func (s *State) putToken(t Token) {
	if s.Tokens == nil {
		s.Tokens = map[string]Token{}
	}
	s.Tokens[t.ID] = t
}

func (s *State) addToken(c *AddToken, at time.Time) Result {
	if have, ok := s.Tokens[c.Token.ID]; ok {
		if have.Hash == c.Token.Hash {
			return Result{} // the same token, proposed twice
		}
		return rejected("there is a token %s already", c.Token.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Tokens)) {
		if t := s.Tokens[id]; t.Over(at) != "" && at.Sub(t.Made) > tokenKept {
			delete(s.Tokens, id)
		}
	}
	if len(s.Tokens) >= maxTokens {
		return rejected("there are %d tokens already; the oldest go %v after they were made", len(s.Tokens), tokenKept)
	}
	s.putToken(c.Token)
	s.event(Event{Time: at, Kind: "token", Text: fmt.Sprintf("token %s made; it lets one node in until %s", c.Token.ID, c.Token.Expires.UTC().Format(time.RFC3339))})
	return Result{}
}

func (s *State) revokeToken(c *RevokeToken, at time.Time) Result {
	t, ok := s.Tokens[c.ID]
	switch {
	case !ok:
		return rejected("there is no token %q", c.ID)
	case t.Revoked:
		return Result{}
	case t.UsedBy != "":
		return rejected("token %s was used by %s; to put that node out: hanode remove %s", c.ID, t.UsedBy, t.UsedBy)
	}
	t.Revoked = true
	s.Tokens[c.ID] = t
	s.event(Event{Time: at, Kind: "token", Text: fmt.Sprintf("token %s revoked", c.ID)})
	return Result{}
}

// askedAgain reports that the request was granted before and is made again.
func (s *State) askedAgain(c *AddNode) bool {
	t, n := s.Tokens[c.Token], s.Nodes[c.Node.Name]
	return t.UsedBy != "" && t.UsedBy == c.Node.Name && t.Request == c.Request && n != nil && !n.Removed
}

// BadToken says why the request's token lets nobody in, or "". A leader that has caught
// up asks before it proposes: anybody can make requests, and each entry is written to
// every voter's disk.
func (s *State) BadToken(c *AddNode, at time.Time) string {
	t, ok := s.Tokens[c.Token]
	if !ok || subtle.ConstantTimeCompare([]byte(t.Hash), []byte(c.Hash)) == 0 {
		return "the token is not one of this cluster"
	}
	if s.askedAgain(c) {
		return ""
	}
	if why := t.Over(at); why != "" {
		return "the token is " + why
	}
	return ""
}

// addNode lets a node in as a member without any vote. A name that was removed may
// come again, and a member whose disk is empty: each time as a new disk, so that raft
// never takes it for the one that it was (R12), and with incarnations that go on.
func (s *State) addNode(c *AddNode, at time.Time) Result {
	if s.Manual {
		return rejected("this cluster has two nodes and two_node = \"manual\", and cannot grow")
	}
	if why := s.BadToken(c, at); why != "" {
		return rejected("%s", why)
	}
	n, t := s.Nodes[c.Node.Name], s.Tokens[c.Token]
	if s.askedAgain(c) {
		return Result{Disk: n.Disk}
	}
	if s.Rotation != nil {
		return rejected("the cluster's key is being changed; ask again when `hanode key status` shows that it is done")
	}
	if c.Request == "" || c.Node.Name == "" || c.Node.Role != spec.RoleNode && c.Node.Role != spec.RoleWitness {
		return rejected("the request of %q is not whole", c.Node.Name)
	}
	for _, name := range s.NodeNames() {
		if o := s.Nodes[name]; name != c.Node.Name && o.Address == c.Node.Address {
			return rejected("address %s is that of node %s", o.Address, name)
		}
		if name != c.Node.Name && strings.EqualFold(name, c.Node.Name) {
			return rejected("name %s differs from that of node %s by capitals only", c.Node.Name, name)
		}
	}
	switch {
	case n == nil:
		n = &Node{Name: c.Node.Name, Disk: 1}
		s.Nodes[n.Name] = n
	case n.Removed:
		n.Disk++
		n.Removed, n.Leaving, n.Standby, n.Stopped = false, false, false, false
		n.Nonce = "" // a registration of before must not pass for one of now
	case n.Leaving:
		return rejected("%s is leaving; ask again when it has left", n.Name)
	case n.Address != c.Node.Address || n.Role != c.Node.Role:
		return rejected("there is a node %s already, %s with role %s; give this one another name, or `hanode remove %s` first", n.Name, n.Address, n.Role, n.Name)
	default:
		n.Disk++ // a member that lost its disk
	}
	n.Address, n.Role, n.Zone, n.Token, n.DiskRequest = c.Node.Address, c.Node.Role, c.Node.Zone, t.ID, c.Request
	t.UsedBy, t.Request = n.Name, c.Request
	s.Tokens[t.ID] = t
	s.event(Event{Time: at, Node: n.Name, Kind: "joined", Text: fmt.Sprintf("%s (%s, %s) joined the cluster with token %s", n.Name, n.Address, n.Role, t.ID)})
	return Result{Disk: n.Disk}
}
