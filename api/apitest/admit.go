package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hanode/api"
)

// Remove ends the membership of a node that is dead; with three or fewer nodes left to
// vote it wants a sentence.
func (a *agent) Remove(_ context.Context, req api.RemoveRequest) (*api.RemoveResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	n := a.node(req.Node)
	switch {
	case n == nil:
		return nil, a.noNode(req.Node)
	case n.alive:
		return nil, refused("node-heard", n.Name+" is alive: its beats are heard", "run `hanode leave` on it")
	}
	sentence := "remove " + n.Name
	res := &api.RemoveResult{Node: n.Name, Confirm: &sentence}
	for _, o := range a.nodes {
		if o != n {
			res.Voters = append(res.Voters, o.Name)
		}
	}
	if req.Confirm != sentence {
		return res, refused(api.CodeNeedsConfirmation, "without "+n.Name+" the voters are "+strings.Join(res.Voters, ", ")+": the loss of one more stops failover",
			`add a node or a witness first; or: hanode remove `+n.Name+` --confirm "`+sentence+`"`)
	}
	a.nodes = slices.DeleteFunc(a.nodes, func(o *node) bool { return o == n })
	a.note(n.Name, "", 0, "left", "remove", n.Name+" was removed", 0)
	res.Removed = true
	return res, nil
}

// CreateToken makes a token.
func (a *agent) CreateToken(_ context.Context, ttl time.Duration) (*api.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noQuorum(); err != nil {
		return nil, err
	}
	now := a.now()
	t := api.Token{ID: "t" + string(rune('1'+len(a.tokens))), State: "open", Made: now, Expires: now.Add(ttl)}
	a.tokens = append([]api.Token{t}, a.tokens...)
	t.Token, t.Join = new("hanode-join-1.not-a-real-one"), api.Known(a.node(a.self).Address)
	return &t, nil
}

// Tokens lists them, newest first.
func (a *agent) Tokens(context.Context) ([]api.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.tokens), a.noQuorum()
}

// RotateKey changes the key at once.
func (a *agent) RotateKey(_ context.Context, req api.RotateKeyRequest) (*api.KeyStatus, error) {
	if req.Undo {
		return nil, &api.Error{Code: "refused", Message: "no change of the key is under way", Exit: api.ExitFailed}
	}
	a.mu.Lock()
	err := a.noQuorum()
	if err == nil {
		a.retired = append(a.retired, api.RetiredKey{Key: a.key(), At: a.now()})
	}
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return a.KeyStatus(context.Background())
}

// key is the fingerprint of the active key; a.mu is held.
func (a *agent) key() string { return fmt.Sprintf("%064x", 0xabcdef0000+len(a.retired)) }

// Snapshot cannot be had from a model: its states are not those of an agent.
func (a *agent) Snapshot(context.Context) (*api.Snapshot, error) {
	return nil, refused("refused", "the model has no log", "")
}

// KeyStatus lists them.
func (a *agent) KeyStatus(context.Context) (*api.KeyStatus, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &api.KeyStatus{Retired: slices.Clone(a.retired)}
	for _, n := range a.nodes {
		out.Nodes = append(out.Nodes, api.NodeKeys{Node: n.Name, Active: api.Known(a.key()), Keys: []string{a.key()}})
	}
	return out, nil
}

// RevokeToken ends one.
func (a *agent) RevokeToken(_ context.Context, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.tokens {
		if a.tokens[i].ID == id {
			a.tokens[i].State = "revoked"
			return nil
		}
	}
	return refused("refused", "there is no token \""+id+"\"", "")
}
