package apitest

import (
	"context"
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
