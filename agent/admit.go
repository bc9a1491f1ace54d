package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/peer"
)

// Who is let in. Any member answers at the door; what is decided is decided by the
// state, so that a token lets one node in, however many members are asked at once.

// Join lets a host in that shows a token. What it must be told it is told by name: it
// stands at another keyboard.
func (s service) Join(ctx context.Context, q peer.JoinRequest) (peer.Admission, error) {
	a := s.a
	if err := a.fitting(q); err != nil {
		return peer.Admission{}, err
	}
	for {
		adm, err := s.joinOnce(ctx, q)
		if !errors.Is(err, peer.ErrNotLeader) || peer.Passed(ctx) {
			return adm, err
		}
		sleepCtx(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return peer.Admission{}, fmt.Errorf("no leader lets it in just now (%w); see `hanode members` on %s", err, a.cfg.Name)
		}
	}
}

// fitting says what about a host does not fit this cluster.
func (a *Agent) fitting(q peer.JoinRequest) error {
	_, badAddr := netip.ParseAddr(q.Node.Address)
	cluster := a.speaks()
	switch {
	case q.Protocol < cluster:
		return fmt.Errorf("version: the host has hanode %s, which speaks versions up to %d; this cluster speaks %d (hanode %s here); install that hanode on it", q.Version, q.Protocol, cluster, a.opts.Version)
	case max(q.Oldest, 1) > cluster:
		return fmt.Errorf("version: the host has hanode %s, which speaks versions from %d on; this cluster speaks %d (hanode %s here); upgrade the members first, or install the hanode of the members on it", q.Version, q.Oldest, cluster, a.opts.Version)
	case q.Cluster != a.cfg.Cluster:
		return fmt.Errorf("cluster: the host's node file says %q, this is %q; correct cluster in it", q.Cluster, a.cfg.Cluster)
	case q.Port != a.cfg.Port:
		return fmt.Errorf("port: the host's node file says %d, this cluster uses %d; set port = %d in it", q.Port, a.cfg.Port, a.cfg.Port)
	case badAddr != nil:
		return fmt.Errorf("address: %q is not an IP address; set address in the host's node file", q.Node.Address)
	case trust.CheckName(q.Node.Name) != nil:
		return fmt.Errorf("name: %w; set name in the host's node file", trust.CheckName(q.Node.Name))
	}
	return nil
}

func (s service) joinOnce(ctx context.Context, q peer.JoinRequest) (peer.Admission, error) {
	a := s.a
	n := a.node.Load()
	if n == nil {
		return peer.Admission{}, peer.ErrNotLeader
	}
	if !n.IsLeader() {
		to, _ := a.leader(n)
		if to == "" || to == a.cfg.Name || peer.Passed(ctx) {
			return peer.Admission{}, peer.ErrNotLeader
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		adm, err := a.peers.Join(short, to, q)
		if _, said := errors.AsType[peer.Refusal](err); err != nil && !said {
			return adm, fmt.Errorf("%w: %w", peer.ErrNotLeader, err) // it went away, or is no leader any more
		}
		return adm, err
	}
	if silent, known := a.unheard(q.Node.Name); known && silent < 3*a.timing().Keepalive {
		return peer.Admission{}, fmt.Errorf("name: a node %s is alive in this cluster; give this host another name", q.Node.Name)
	}
	add := &fsm.AddNode{Node: q.Node, Token: q.Token, Hash: trust.SecretHash(q.Secret), Request: q.Request}
	if !a.leads() {
		return peer.Admission{}, peer.ErrNotLeader // it may not know yet which tokens there are
	}
	bad, at := "", a.host.Clock.Wall()
	a.machine.View(func(s *fsm.State) { bad = s.BadToken(add, at) })
	if bad != "" {
		return peer.Admission{}, errors.New(bad)
	}
	res, err := n.Propose(ctx, fsm.Command{At: at, AddNode: add})
	switch {
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrHung):
		return peer.Admission{}, peer.ErrNotLeader
	case err != nil:
		return peer.Admission{}, err
	case res.Rejected != "":
		return peer.Admission{}, errors.New(res.Rejected)
	}
	adm := peer.Admission{By: a.cfg.Name, Disk: res.Disk, Wall: a.host.Clock.Wall(), Key: a.keys.Keys().Text()}
	a.machine.View(func(st *fsm.State) { adm.Nodes, adm.Timing, adm.Generation = members(st), st.Timing, st.Generation })
	return adm, nil
}

// CreateToken makes a token that lets one node in until ttl has passed.
func (a *Agent) CreateToken(ctx context.Context, ttl time.Duration) (*api.Token, error) {
	now := a.host.Clock.Wall()
	t := a.keys.Keys().NewToken(a.cfg.Cluster)
	kept := fsm.Token{ID: t.ID, Hash: t.Hash(), Made: now, Expires: now.Add(ttl)}
	if err := a.commit(ctx, fsm.Command{AddToken: &fsm.AddToken{Token: kept}}); err != nil {
		return nil, err
	}
	out := tokenStatus(kept, now)
	text := t.Text()
	out.Token = &text
	out.Join = a.joinAddress()
	return &out, nil
}

// joinAddress is where a host that holds a token can knock.
func (a *Agent) joinAddress() *string {
	for _, n := range a.everyone() {
		if n.Name == a.cfg.Name {
			return api.Known(n.Address)
		}
	}
	return nil
}

// CreateToken by another agent's call is refused: the text would go over the network.
func (d direct) CreateToken(context.Context, time.Duration) (*api.Token, error) {
	return nil, fail(api.CodeNotAllowed, "run `hanode token create` on a member", "a token is made by the agent that is asked")
}

// Tokens lists the tokens, newest first, without what they hide.
func (a *Agent) Tokens(context.Context) ([]api.Token, error) {
	now := a.host.Clock.Wall()
	var out []api.Token
	a.machine.View(func(s *fsm.State) {
		for _, id := range slices.Sorted(maps.Keys(s.Tokens)) {
			out = append(out, tokenStatus(s.Tokens[id], now))
		}
	})
	slices.SortStableFunc(out, func(x, y api.Token) int { return y.Made.Compare(x.Made) })
	_, err := a.leaderAPI()
	return out, err
}

func tokenStatus(t fsm.Token, now time.Time) api.Token {
	out := api.Token{ID: t.ID, Made: t.Made, Expires: t.Expires, State: "open", UsedBy: api.Known(t.UsedBy)}
	if why := t.Over(now); why != "" {
		out.State, _, _ = strings.Cut(why, " ")
	}
	return out
}

// RevokeToken ends a token.
func (a *Agent) RevokeToken(ctx context.Context, id string) error {
	return a.commit(ctx, fsm.Command{RevokeToken: &fsm.RevokeToken{ID: id}})
}

// tokens are what the first entry of a cluster that init made holds besides.
func (m *membership) tokens() []fsm.Token {
	if m == nil || !m.Founder {
		return nil
	}
	return m.Tokens
}

// clockApart is how far two hosts' wall clocks may be apart before somebody is told.
const clockApart = 2 * time.Second

// roleOr is role, or a node's.
func roleOr(role spec.Role) spec.Role {
	if role == "" {
		return spec.RoleNode
	}
	return role
}
