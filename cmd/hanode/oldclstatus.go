package main

import (
	"cmp"
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
	"clientstatus": {"m", 2, (*clQuery).clientstatus},
	"hbparameter":  {"mp", 1, (*clQuery).hbparameter},
	"hbstatus":     {"mv", 0, (*clQuery).hbstatus},
	"listnodes":    {"mpnv", 0, (*clQuery).listnodes},
	"nodestatus":   {"m", 1, (*clQuery).nodestatus},
	"nodetype":     {"m", 1, (*clQuery).nodetype},
	"nodesite":     {"m", 1, (*clQuery).nodesite},
	"nodeweight":   {"m", 1, (*clQuery).nodeweight},
	"parameter":    {"mp", 1, (*clQuery).hbparameter}, // as the manual page calls it
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
	old     api.Heartbeat
	listed  []clNode
}

// clNode is a node of the cluster or a ping node, which Heartbeat told apart by type.
type clNode struct {
	name, state string
	ping        bool
	links       []clLink
}

type clLink struct {
	name string
	up   bool
}

// kind is the node's type in Heartbeat's words.
func (n clNode) kind() string {
	if n.ping {
		return "ping"
	}
	return "normal"
}

// clUsageText is what cl_status prints of itself, to the letter.
const clUsageText = `Usage: cl_status <sub-command> [<options>] [<parameters>]

Sub-commands:
clientstatus <node-name> <client-id> [<timeout>]
	Show the status of heartbeat clients.
hblinkstatus <node-name> <link-name>
	Show the status of a heartbeat link
hbstatus
	Indicate if heartbeat is running on the local system.
	Options:
		-v	verbose: also add "listnodes -v" output
listnodes [<option>]
	List the nodes in the cluster.
	Options:
		-p	list only 'ping' type nodes
		-n	list only 'normal' type nodes
		-v	verbose: also list type and status,
			then add "listhblinks -v" output
listhblinks <node-name>
	List the network interfaces used as hearbeat links.
	Options:
		-v	verbose: list link status as well
nodestatus <node-name>
	List the node status.
nodeweight <node-name>
	List the node weight.
nodesite <node-name>
	List the node site.
nodetype <node-name>
	List the nodes of a given type.
rscstatus
	Show the status of cluster resources.
hbparameter -p <parameter-name>
	Retrieve the value of a cluster parameter.
	As for the valid parameter names, please refer to the man page.`

// clStatus is cl_status.
func (a *app) clStatus(ctx context.Context, args []string) int {
	if len(args) == 0 || args[0] == "-h" {
		say(a.out, "%s\n", clUsageText)
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
	if members != nil {
		if q.old, err = c.Heartbeat(ctx); err != nil {
			say(a.err, "cl_status: ERROR: Cannot signon with heartbeat\ncl_status: ERROR: REASON: %v\n", err)
			return clFail
		}
		q.list()
	}
	if len(q.params) < cmd.params {
		say(a.err, "Not enough parameters.\n")
		return clUsage
	}
	return cmd.ask(q)
}

func (q *clQuery) has(option string) bool { return strings.Contains(q.options, option) }

// printf prints a line as the format lays it out, with Heartbeat's tabs; only what is put
// in is made harmless.
func (q *clQuery) printf(format string, args ...any) {
	for i, x := range args {
		if s, ok := x.(string); ok {
			args[i] = clean(s)
		}
	}
	say(q.out, format+"\n", args...)
}

// answer prints a value, or with -m a sentence.
func (q *clQuery) answer(value, sentence string, args ...any) {
	if q.has("m") {
		value = fmt.Sprintf(sentence, args...)
	}
	q.printf("%s", value)
}

// list puts the nodes in Heartbeat's order: ping nodes, nodes and links, each from the
// last of the files to the first. Whom the files do not name comes first.
func (q *clQuery) list() {
	for _, p := range slices.Backward(q.old.Ping) {
		n := clNode{name: p.Name, ping: true, state: "dead", links: []clLink{{p.Name, p.Up}}}
		if p.Up {
			n.state = "ping"
		}
		q.listed = append(q.listed, n)
	}
	place := func(m api.Member) int {
		if i := slices.Index(q.old.Nodes, m.Name); i >= 0 {
			return -i
		}
		return -len(q.old.Nodes)
	}
	members := slices.SortedStableFunc(slices.Values(q.members), func(x, y api.Member) int { return cmp.Compare(place(x), place(y)) })
	for i := range members {
		n := clNode{name: members[i].Name, state: clState(&members[i])}
		for _, l := range slices.Backward(members[i].Links) {
			n.links = append(n.links, clLink{l.Name, l.State == api.MemberAlive})
		}
		q.listed = append(q.listed, n)
	}
}

func (q *clQuery) find(name string) *clNode {
	if i := slices.IndexFunc(q.listed, func(n clNode) bool { return n.name == name }); i >= 0 {
		return &q.listed[i]
	}
	return nil
}

func (q *clQuery) node(name string) *clNode {
	n := q.find(name)
	if n == nil {
		say(q.err, "Error. May be due to incorrect node name\n")
	}
	return n
}

func (q *clQuery) hbstatus() int {
	if q.members == nil {
		q.printf("Heartbeat is stopped on this machine.")
		if q.has("v") {
			q.printf("(hb_api_signon: Can't initiate connection to heartbeat)")
		}
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
	if q.has("m") {
		q.printf("Heartbeat version hanode %s\nResources controlled by \"haresources\"", v.Version)
	} else {
		q.printf("version:\thanode %s\nmanaged by:\t\"haresources\"", v.Version)
	}
	return q.listnodes()
}

func (q *clQuery) listnodes() int {
	if q.has("m") {
		q.printf("The nodes are as follow:")
	}
	for _, n := range q.listed {
		if q.has("p") != q.has("n") && q.has("p") != n.ping {
			continue
		}
		if !q.has("v") {
			q.printf("%s", n.name)
			continue
		}
		q.printf("\n%s\t%s\t(nodetype: %s)", n.name, n.state, n.kind())
		q.links(n)
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
	n := q.node(q.params[0])
	if n == nil {
		return clUsage
	}
	q.answer(n.state, "The cluster node %s is %s", n.name, n.state)
	if n.state == "dead" {
		return clFail
	}
	return 0
}

func (q *clQuery) nodetype() int { return q.of("type", clNode.kind) }

// nodeweight is Heartbeat's default: hanode has no weights of nodes.
func (q *clQuery) nodeweight() int {
	return q.of("weight", func(clNode) string { return "100" })
}

// nodesite is empty, as where nobody ran hb_setsite.
func (q *clQuery) nodesite() int { return q.of("site", func(clNode) string { return "" }) }

// of answers with what a node has of a kind.
func (q *clQuery) of(what string, value func(clNode) string) int {
	n := q.node(q.params[0])
	if n == nil {
		return clUsage
	}
	q.answer(value(*n), "The node %s's %s: %s", n.name, what, value(*n))
	return 0
}

func (q *clQuery) listhblinks() int {
	n := q.find(q.params[0])
	if n == nil {
		say(q.err, "cl_status: ERROR: Cannot start heartbeat link interface walk.\ncl_status: ERROR: REASON: unknown node %s\n", q.params[0])
		return clOther
	}
	q.links(*n)
	return 0
}

func (q *clQuery) links(n clNode) {
	if q.has("m") {
		q.printf("\tthis node has the following heartbeat links:")
	}
	for _, l := range n.links {
		if q.has("v") {
			q.printf("\t%s\t%s", l.name, l.state())
		} else {
			q.printf("\t%s", l.name)
		}
	}
}

func (l clLink) state() string {
	if l.up {
		return "up"
	}
	return "dead"
}

func (q *clQuery) hblinkstatus() int {
	if n := q.find(q.params[0]); n != nil {
		for _, l := range n.links {
			if l.name != q.params[1] {
				continue
			}
			q.answer(l.state(), "The node %s's heartbeat link %s is %s", n.name, l.name, l.state())
			if !l.up {
				return clFail
			}
			return 0
		}
	}
	say(q.err, "cl_status: ERROR: Cannot get heartbeat link status\ncl_status: ERROR: REASON: %s has no link %s\n", q.params[0], q.params[1])
	return clOther
}

// hbparameter gives the value of a directive of ha.cf.
func (q *clQuery) hbparameter() int {
	if !q.has("p") {
		say(q.err, "parameter name required\n")
		return clUsage
	}
	name := q.params[0]
	value, ok := q.old.Parameters[name]
	if name == "hbversion" {
		v, err := q.c.Version(q.ctx)
		value, ok = "hanode "+v.Version, err == nil
	}
	if !ok {
		say(q.err, "cl_status: ERROR: Cannot get parameter %s's value\ncl_status: ERROR: REASON: it is not set\n", name)
		return clFail
	}
	q.answer(value, "Heartbeat parameter %s's value: %s", name, value)
	return 0
}

// clientstatus says whether a program that the agent started runs. Of another node's
// nobody knows.
func (q *clQuery) clientstatus() int {
	self, err := q.c.Version(q.ctx)
	node, client := q.params[0], q.params[1]
	switch {
	case err != nil || node != self.Node:
		say(q.err, "cl_status: ERROR: Cannot get heartbeat client %s's status\ncl_status: ERROR: REASON: ask on that node\n", client)
		return clOther
	case slices.Contains(q.old.Clients, client):
		q.printf("online")
		return 0
	case client == "ipfail":
		q.printf("offline")
		return clFail
	}
	say(q.err, "cl_status: ERROR: Cannot get heartbeat client %s's status\ncl_status: ERROR: REASON: nothing of that name is started with respawn\n", client)
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
