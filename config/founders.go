package config

import (
	"fmt"
	"net/netip"
	"slices"

	"hanode/internal/spec"
)

var (
	founderKeys = []string{"address", "role", "zone"}
	roles       = []string{string(spec.RoleNode), string(spec.RoleWitness)}
)

// founders reads the node blocks and checks them as a set.
func (b *block) founders(n *Node) {
	if f := b.str("two_node"); f.set() {
		n.TwoNode, n.lines["two_node"] = f.v, f.line
		if !n.Manual() {
			b.add(f.line, finding{
				what: fmt.Sprintf("two_node is %s", quote(f.v)), allowed: `it takes "manual"`, remedy: didYouMean(f.v, []string{TwoNodeManual}),
			})
		}
	}
	blocks := b.children("node", 1, nodeForm)
	seen := founderSet{names: map[string]int{}, addrs: map[netip.Addr]*block{}}
	for _, k := range blocks {
		n.Nodes = append(n.Nodes, k.founder(seen, len(n.Discover) > 0))
		n.lines[nodeKey(k.label)] = k.line
	}
	b.quorum(n, blocks)
}

// founderSet is what was seen of the founders so far.
type founderSet struct {
	names map[string]int // name -> line
	addrs map[netip.Addr]*block
}

// founder reads one node block. discover: it may be without an address.
func (b *block) founder(seen founderSet, discover bool) spec.Node {
	b.check(shape{keys: founderKeys})
	out := spec.Node{Name: b.label, Role: spec.RoleNode}
	if line, dup := seen.names[b.label]; dup {
		b.add(b.line, finding{
			what: fmt.Sprintf("node %s is listed twice", quote(b.label)), allowed: firstOn(line),
			remedy: "rename or remove one of them",
		})
	} else {
		seen.names[b.label] = b.line
		b.refused(b.line, checkName("node", b.label))
	}

	if f := b.str("role"); f.set() {
		if !slices.Contains(roles, f.v) {
			b.add(f.line, finding{
				what:    fmt.Sprintf("role%s is %s", b.in(), quote(f.v)),
				allowed: `it takes "node" or "witness" (votes, owns nothing)`, remedy: didYouMean(f.v, roles),
			})
		}
		out.Role = spec.Role(f.v)
	}

	zone := b.str("zone")
	if zone.set() && !b.refused(zone.line, checkName("zone", zone.v)) {
		out.Zone = zone.v
	}

	f := b.str("address")
	switch {
	case f.line == 0 && discover:
	case f.line == 0:
		b.add(b.line, finding{what: b.where + " has no address", remedy: `add address = "IP", its address on the first link; or have it found there: link "DEVICE" { discover = true }`})
	case f.set():
		addr, bad := checkNodeAddress(f.v)
		if b.refused(f.line, bad) {
			break
		}
		if other, dup := seen.addrs[addr]; dup {
			b.add(f.line, finding{
				what:    fmt.Sprintf("address %s is given to node %s and node %s", addr, quote(other.label), quote(b.label)),
				allowed: fmt.Sprintf("each node has its own; the first is on line %d", other.line),
			})
			break
		}
		seen.addrs[addr] = b
		out.Address = addr.String()
	}
	return out
}

const addWitness = `add a third vote on any small machine: a node block with its address and role = "witness"`

// What two_node = "manual" means, and how to need it no more; for validate, status
// and the log of the agent alike.
const (
	TwoNodeMeans = "two nodes and no third vote. An orderly stop hands over; while a host is silent the other keeps what it has; " +
		"what a crashed host ran waits for it, or for `hanode confirm-off NODE`; a host that boots alone waits for the other one, or for that word"
	TwoNodeWayOut = "for full automation " + addWitness + "; see docs/two-nodes.md, \"A third vote\""
)

// quorum checks how many founders there are and what they are for.
func (b *block) quorum(n *Node, blocks []*block) {
	total := len(blocks)
	switch {
	case total == 0:
		return // init or join makes the node a member; the agent says so where none did
	case total == 1:
		b.warn(blocks[0].line, finding{
			what: "the cluster has one node", allowed: "when it fails nothing takes over", remedy: "found it with 3 nodes",
		})
	case total == 2 && n.TwoNode == "":
		b.add(blocks[1].line, finding{
			what:    "A two-node cluster cannot tell a dead peer from a cut cable, so it would stop or split",
			allowed: `found it with 3; or set two_node = "manual": then what a crashed host ran waits for an operator`,
			remedy:  addWitness,
		})
	case total == 2 && n.Manual():
		b.warn(n.lines["two_node"], finding{what: `two_node = "manual": ` + TwoNodeMeans, remedy: TwoNodeWayOut})
	case total > MaxFounders:
		b.add(blocks[MaxFounders].line, finding{
			what: fmt.Sprintf("%d founders", total), allowed: fmt.Sprintf("the most is %d", MaxFounders),
			remedy: fmt.Sprintf("found the cluster with the first %d, let the others join", MaxFounders),
		})
	case total%2 == 0:
		b.warn(blocks[total-1].line, finding{
			what:    fmt.Sprintf("%d founders survive the loss of %d, no more than %d would", total, total/2-1, total-1),
			allowed: "an odd number is best", remedy: "add a witness, or remove one",
		})
	}
	if n.Manual() && total > 0 && (total != 2 || slices.ContainsFunc(n.Nodes, func(f spec.Node) bool { return f.Role == spec.RoleWitness })) {
		b.add(n.lines["two_node"], finding{
			what:    `two_node = "manual"` + fmt.Sprintf(" stands in a file with %s", count(total, "founder")),
			allowed: "it is for two founders that may both own groups, and no third vote", remedy: "remove the line",
		})
	}
	if !slices.ContainsFunc(n.Nodes, func(f spec.Node) bool { return f.Role != spec.RoleWitness }) {
		b.add(blocks[0].line, finding{
			what:    "every founder is a witness, so none could own a group",
			allowed: "at least one must have role \"node\"", remedy: "remove a role = \"witness\"",
		})
	}
}
