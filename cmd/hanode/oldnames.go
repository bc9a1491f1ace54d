package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"hanode/api"
)

// The commands of a Heartbeat, for scripts and fingers that know them: links of these
// names to the one binary. They answer and exit as Heartbeat's did; what they do is
// hanode's.

// oldName runs the command that the binary was called by; false if it is none of them.
func (a *app) oldName(ctx context.Context, argv0 string, args []string) (code int, is bool) {
	name := filepath.Base(argv0)
	switch name {
	case "hb_standby":
		return a.oldMove(ctx, name, args, a.giveAway), true
	case "hb_takeover":
		return a.oldMove(ctx, name, args, a.takeOver), true
	case "hb_addnode", "hb_delnode":
		return a.oldNodes(name, args), true
	case "cl_status":
		return a.clStatus(ctx, args), true
	}
	return 0, false
}

// share is which groups an old command means: of those that name this node first in
// prefer ("local"), or of the others ("foreign").
type share struct{ local, foreign bool }

var shares = map[string]share{
	"all": {true, true}, "local": {local: true}, "foreign": {foreign: true}, "failback": {foreign: true},
}

// oldMove is hb_standby and hb_takeover: [all|foreign|local|failback].
func (a *app) oldMove(ctx context.Context, name string, args []string, do func(context.Context, *api.Client, share) error) int {
	what := "all"
	if len(args) > 0 {
		what = args[0]
	}
	s, ok := shares[what]
	switch {
	case len(args) > 1:
		a.printf("%s: too many arguments", name)
	case !ok && what != "--help":
		a.printf("%s: wrong resources(%s).", name, what)
	}
	if len(args) > 1 || !ok {
		a.printf("usage:")
		say(a.err, "%s [all|foreign|local|failback]\n", name)
		return 1
	}
	c, done := a.client()
	defer done()
	if err := do(ctx, c, s); err != nil {
		a.complain(err)
		return 1
	}
	return 0
}

// oldWait is how long a group may take to run at its new place.
const oldWait = 30 * time.Second

// held is what an old command needs to know: who this is, and of each group its owner
// and whether it is local here.
func held(ctx context.Context, c *api.Client) (self string, owner map[string]string, local map[string]bool, err error) {
	v, err := c.Version(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	st, err := c.Status(ctx, "")
	if st == nil {
		return "", nil, nil, err
	}
	groups, err := c.Export(ctx)
	if err != nil && groups == nil {
		return "", nil, nil, err
	}
	owner, local = map[string]string{}, map[string]bool{}
	for _, g := range st.Groups {
		owner[g.Name] = ""
		if g.Owner != nil {
			owner[g.Name] = *g.Owner
		}
	}
	for _, g := range groups {
		local[g.Name] = len(g.Prefer) > 0 && g.Prefer[0] == v.Node
	}
	return v.Node, owner, local, nil
}

// giveAway moves what this node owns to the others.
func (a *app) giveAway(ctx context.Context, c *api.Client, s share) error {
	self, owner, local, err := held(ctx, c)
	if err != nil {
		return err
	}
	return a.moveEach(ctx, c, "", s, owner, local, func(by string) bool { return by == self })
}

// takeOver moves what others own to this node.
func (a *app) takeOver(ctx context.Context, c *api.Client, s share) error {
	self, owner, local, err := held(ctx, c)
	if err != nil {
		return err
	}
	return a.moveEach(ctx, c, self, s, owner, local, func(by string) bool { return by != self })
}

func (a *app) moveEach(ctx context.Context, c *api.Client, to string, s share, owner map[string]string, local map[string]bool, from func(string) bool) error {
	var names []string
	for g, by := range owner {
		if from(by) && (local[g] && s.local || !local[g] && s.foreign) {
			names = append(names, g)
		}
	}
	slices.Sort(names)
	for _, g := range names {
		m, err := c.Move(ctx, api.MoveRequest{Group: g, To: to, Wait: oldWait})
		if err != nil {
			return fmt.Errorf("move %s: %w", g, err)
		}
		a.moveText(*m)
	}
	return nil
}

// oldNodes is hb_addnode and hb_delnode. Members are not made by a message to the
// others; it says what does.
func (a *app) oldNodes(name string, args []string) int {
	if len(args) == 0 || args[0] == "--help" {
		a.printf("usage: %s <node> <node> ...", name)
		return 1
	}
	fix := "make a token on a member (`hanode token`), and run `hanode join` with it on the new node"
	if name == "hb_delnode" {
		fix = "run `hanode leave` on that node; or, if it is gone, `hanode remove NODE` on another"
	}
	a.complain(&api.Error{Message: name + " does not do that here", Fix: fix, Exit: 1})
	return 1
}
