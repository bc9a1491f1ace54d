package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"hanode/internal/spec"
)

// Node is the node file with every default filled in.
type Node struct {
	File    string // where it was read, as it was given
	Cluster string // default: DefaultCluster
	Name    string // this node; default: the hostname
	// DataDir, KeyFile and Socket are absolute once they come from LoadNode: a
	// relative path in the file starts at the file's folder.
	DataDir string
	KeyFile string
	Socket  string
	HTTP    string // ADDRESS:PORT of API, dashboard and /metrics; "" = off
	Port    int    // gossip, 1 to 65534; Port+1 is raft and peer TLS
	// Address is this node's own on its first link, where there are no node blocks;
	// "" = the one that init or join found.
	Address string
	Zone    string // what fails with this node, where there are no node blocks; "" = not said
	// RetryJoin are members that are asked to let this node in, again and again, by the
	// token in TokenFile, while it is in no cluster.
	RetryJoin []string
	TokenFile string
	// Links are the heartbeat devices, the primary one first. Empty = the
	// device that has this node's address.
	Links []string
	// Discover are those of Links on which nodes without an address are found by
	// broadcast; nil = every node has one.
	Discover []string
	// Profile names the profile that Timing is; "" = explicit values.
	Profile string
	Timing  spec.Timing
	// TwoNode is what a cluster of two nodes and no third vote does without one:
	// TwoNodeManual, or "" where there are not two.
	TwoNode string
	// Nodes are the founders in the order of the file, 1 to MaxFounders, 2 only with
	// TwoNode; none for a node that was made by init or join. Addresses are in canonical
	// form, "" only with Discover; roles filled in.
	Nodes []spec.Node
	// GroupsFile is a cluster file applied once, when a new cluster forms;
	// absolute; "" = none.
	GroupsFile string
	LogLevel   string // debug, info, warn or error
	LogFormat  string // text or json
	// SocketRead lets every user of the host see, over the socket. RemoteAPI answers clients
	// with a certificate on the TLS port.
	SocketRead, RemoteAPI bool
	// Realtime says whether the agent runs before ordinary programs; nil = where that
	// is permitted.
	Realtime *bool
	// Syslog is a facility, such as local0, and LogFile and DebugFile are files, absolute,
	// that get the log as well, DebugFile with debug messages. "" = none.
	Syslog    string
	LogFile   string
	DebugFile string
	// Ping are hosts beside the cluster; they count as dead when they are silent for
	// Deadping, which is 0 without any. IPFail moves groups to who reaches more of them.
	Ping     []PingNode
	Deadping time.Duration
	IPFail   bool
	// Respawn are programs that run while the agent does.
	Respawn []Respawn
	// Watchdog is the path of a watchdog device; "" = none.
	Watchdog string
	// HADir is the folder of Heartbeat's files if they were read, and Keys those of
	// authkeys, the active one first, which then take the place of KeyFile.
	HADir string
	Keys  []Secret
	// insecureCRC is what the operator said about authkeys.
	insecureCRC bool
	// Resources is haresources in one form, for a comparison between founders, and
	// groups what LoadGroups makes of it. "" without HADir.
	Resources string
	groups    []spec.Group

	written  map[string]string // ha.cf's directives as they were given last; nil without HADir
	lines    map[string]int    // where each key and block is: "key_file", `link "eth0"`
	warnings Diagnostics
}

// PingNode is a host, or several of which one is enough, that shows whether the network
// of the clients is reached.
type PingNode struct {
	Name  string
	Hosts []string // names or addresses; at least one

	line int
}

// Respawn is a program that is started again when it ends, unless it exits with 100.
type Respawn struct {
	User     string   // whom it runs as
	Command  []string // program and arguments, no shell
	Env      []string // added to its environment, each NAME=VALUE
	FailFast bool     // when it ends, this host gives its groups up

	line int
}

// TwoNodeManual is two_node = "manual": what a host ran that crashed waits for its
// return or an operator's word. See docs/two-nodes.md.
const TwoNodeManual = "manual"

// Manual reports two_node = "manual".
func (n *Node) Manual() bool { return n.TwoNode == TwoNodeManual }

// Warnings are what LoadNode let pass but the operator should know, ordered by
// line; nil if there are none.
func (n *Node) Warnings() Diagnostics { return slices.Clone(n.warnings) }

// Self returns this node's own founder block; false if it has none.
func (n *Node) Self() (spec.Node, bool) {
	for _, f := range n.Nodes {
		if f.Name == n.Name {
			return f, true
		}
	}
	return spec.Node{}, false
}

// Digest is the hex SHA-256 over what founders must agree on before they found
// a cluster: its name, the founders with address and role (in any order), the
// timing, the port, and two_node. With Discover no address counts: each host knows
// others.
func (n *Node) Digest() string {
	founders := slices.SortedFunc(slices.Values(n.Nodes), func(a, b spec.Node) int { return cmp.Compare(a.Name, b.Name) })
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "hanode-founders-1\ncluster %q\nport %d\n", n.Cluster, n.Port)
	t := n.Timing
	_, _ = fmt.Fprintf(h, "timing %d %d %d %d\n", t.Keepalive, t.Warntime, t.Deadtime, t.Initdead)
	for _, f := range founders {
		if len(n.Discover) > 0 {
			f.Address = "found on the links"
		}
		_, _ = fmt.Fprintf(h, "node %q %q %q", f.Name, f.Address, f.Role)
		if f.Zone != "" {
			_, _ = fmt.Fprintf(h, " zone %q", f.Zone)
		}
		_, _ = fmt.Fprintln(h)
	}
	if n.TwoNode != "" {
		_, _ = fmt.Fprintf(h, "two_node %q\n", n.TwoNode)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// names lists the founders, in the order of the file.
func (n *Node) names() []string {
	var out []string
	for _, f := range n.Nodes {
		out = append(out, f.Name)
	}
	return out
}
