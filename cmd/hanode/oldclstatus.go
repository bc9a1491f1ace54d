package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"hanode/api"
)

// cl_status's exit codes.
const (
	clFail  = 1  // "no": the node or link is down, nothing runs here
	clUsage = 11 // wrong parameters
	clOther = 13
)

// clCommands are cl_status's questions, and the options that each takes.
var clCommands = map[string]struct {
	options string
	params  int
	ask     func(*clQuery) int
}{
	"hbstatus":     {"mv", 0, (*clQuery).hbstatus},
	"listnodes":    {"mpnv", 0, (*clQuery).listnodes},
	"nodestatus":   {"m", 1, (*clQuery).nodestatus},
	"nodetype":     {"m", 1, (*clQuery).nodetype},
	"listhblinks":  {"mv", 1, (*clQuery).listhblinks},
	"hblinkstatus": {"m", 2, (*clQuery).hblinkstatus},
	"rscstatus":    {"m", 0, (*clQuery).rscstatus},
}

// clQuery is one question.
type clQuery struct {
	*app
	ctx     context.Context
	c       *api.Client
	options string   // those that were given
	params  []string // what follows them
	members []api.Member
}

// clStatus is cl_status.
func (a *app) clStatus(ctx context.Context, args []string) int {
	if len(args) == 0 || args[0] == "-h" {
		a.printf("Usage: cl_status <sub-command> [<options>] [<parameters>]\n\nSub-commands:")
		for _, l := range []string{
			"hblinkstatus <node-name> <link-name>", "hbstatus [-v]", "listhblinks [-v] <node-name>", "listnodes [-p] [-n] [-v]",
			"nodestatus <node-name>", "nodetype <node-name>", "rscstatus",
		} {
			a.printf("%s", l)
		}
		return 0
	}
	cmd, ok := clCommands[args[0]]
	if !ok {
		say(a.err, "cl_status: ERROR: %s: invalid sub-command.\n", args[0])
		return clUsage
	}
	c, done := a.client()
	defer done()
	q := &clQuery{app: a, ctx: ctx, c: c}
	for _, w := range args[1:] {
		letters, isOption := strings.CutPrefix(w, "-")
		if !isOption {
			q.params = append(q.params, w)
			continue
		}
		if bad := strings.Trim(letters, cmd.options); bad != "" || letters == "" {
			say(a.err, "cl_status: invalid option -- '%s'\n", bad)
			return clUsage
		}
		q.options += letters
	}
	members, err := c.Members(ctx)
	q.members = members
	if members == nil && args[0] != "hbstatus" {
		say(a.err, "cl_status: ERROR: Cannot signon with heartbeat\ncl_status: ERROR: REASON: %v\n", err)
		return clFail
	}
	if len(q.params) < cmd.params {
		say(a.err, "Not enough parameters.\n")
		return clUsage
	}
	return cmd.ask(q)
}

func (q *clQuery) has(option string) bool { return strings.Contains(q.options, option) }

// answer prints a value, or with -m a sentence.
func (q *clQuery) answer(value, sentence string, args ...any) {
	if q.has("m") {
		value = fmt.Sprintf(sentence, args...)
	}
	q.printf("%s", value)
}

func (q *clQuery) member(name string) *api.Member {
	if i := slices.IndexFunc(q.members, func(m api.Member) bool { return m.Name == name }); i >= 0 {
		return &q.members[i]
	}
	say(q.err, "Error. May be due to incorrect node name\n")
	return nil
}

func (q *clQuery) hbstatus() int {
	if q.members == nil {
		q.printf("Heartbeat is stopped on this machine.")
		return clFail
	}
	if !q.has("v") {
		q.printf("Heartbeat is running on this machine.")
		return 0
	}
	v, err := q.c.Version(q.ctx)
	if err != nil {
		return clOther
	}
	q.answer("version:\thanode "+v.Version, "Heartbeat version hanode %s", v.Version)
	q.answer("managed by:\t\"haresources\"", "Resources controlled by \"haresources\"")
	q.options += "v"
	return q.listnodes()
}

func (q *clQuery) listnodes() int {
	if q.has("m") {
		q.printf("The nodes are as follow:")
	}
	if q.has("p") && !q.has("n") {
		return 0 // no node is a ping node
	}
	for i := range q.members {
		m := &q.members[i]
		if !q.has("v") {
			q.printf("%s", m.Name)
			continue
		}
		q.printf("\n%s\t%s\t(nodetype: normal)", m.Name, clState(m))
		q.links(m)
	}
	return 0
}

// clState is a member's state in Heartbeat's words.
func clState(m *api.Member) string {
	switch m.State {
	case api.MemberAlive, api.MemberLate:
		return "active"
	case api.MemberJoining:
		return "up"
	case api.MemberDead, api.MemberLeft:
	}
	return "dead"
}

func (q *clQuery) nodestatus() int {
	m := q.member(q.params[0])
	if m == nil {
		return clUsage
	}
	s := clState(m)
	q.answer(s, "The cluster node %s is %s", m.Name, s)
	if s == "dead" {
		return clFail
	}
	return 0
}

func (q *clQuery) nodetype() int {
	m := q.member(q.params[0])
	if m == nil {
		return clUsage
	}
	q.answer("normal", "The node %s's type: normal", m.Name)
	return 0
}

func (q *clQuery) listhblinks() int {
	i := slices.IndexFunc(q.members, func(m api.Member) bool { return m.Name == q.params[0] })
	if i < 0 {
		say(q.err, "cl_status: ERROR: Cannot start heartbeat link interface walk.\ncl_status: ERROR: REASON: unknown node %s\n", q.params[0])
		return clOther
	}
	q.links(&q.members[i])
	return 0
}

func (q *clQuery) links(m *api.Member) {
	if q.has("m") {
		q.printf("\tthis node has the following heartbeat links:")
	}
	for _, l := range m.Links {
		if q.has("v") {
			q.printf("\t%s\t%s", l.Name, clLink(l))
		} else {
			q.printf("\t%s", l.Name)
		}
	}
}

func clLink(l api.MemberLink) string {
	if l.State == api.MemberAlive {
		return "up"
	}
	return "dead"
}

func (q *clQuery) hblinkstatus() int {
	for _, m := range q.members {
		for _, l := range m.Links {
			if m.Name != q.params[0] || l.Name != q.params[1] {
				continue
			}
			s := clLink(l)
			q.answer(s, "The node %s's heartbeat link %s is %s", m.Name, l.Name, s)
			if s != "up" {
				return clFail
			}
			return 0
		}
	}
	say(q.err, "cl_status: ERROR: Cannot get heartbeat link status\ncl_status: ERROR: REASON: %s has no link %s\n", q.params[0], q.params[1])
	return clOther
}

// rscstatus says what this node holds: of the groups that prefer it, of others, of
// both, or none.
func (q *clQuery) rscstatus() int {
	self, owner, local, err := held(q.ctx, q.c)
	if err != nil {
		say(q.err, "cl_status: ERROR: Cannot get cluster resource status\ncl_status: ERROR: REASON: %v\n", err)
		return clOther
	}
	var s share
	for g, by := range owner {
		if by == self {
			s.local, s.foreign = s.local || local[g], s.foreign || !local[g]
		}
	}
	word := map[share]string{{}: "none", {local: true}: "local", {foreign: true}: "foreign", {true, true}: "all"}[s]
	q.answer(word, "This node is holding %s resources.", word)
	return 0
}
