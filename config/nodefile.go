package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"hanode/internal/spec"
)

// nodeShape is what a node file may hold.
var nodeShape = shape{
	keys: []string{
		"cluster", "name", "data_dir", "key_file", "socket", "http", "port", "groups", "log_level", "log_format", "realtime", "socket_read", "remote_api", "two_node",
		"address", "zone", "retry_join", "token_file",
		"syslog", "log_file", "debug_file", "ipfail", "deadping", "watchdog",
	},
	blocks: map[string]string{
		"link": linkForm, "timing": `timing { profile = "lan" }`, "node": nodeForm, "ping": pingForm, "respawn": respawnForm,
	},
	hints: map[string]finding{
		"group": {
			what:    "a group block stands in the node file",
			allowed: "groups live in the cluster file",
			remedy:  "move it there and run: hanode apply FILE (or set groups = \"FILE\" for a new cluster)",
		},
	},
}

const (
	linkForm = `link "DEVICE" {}`
	nodeForm = `node "NAME" { address = "IP" }`
)

// LoadNode reads the node file at path and makes all checks that need nothing
// of the host but its hostname, the default of `name`. The error is
// [Diagnostics] with every problem found; warnings are no error, see
// [Node.Warnings].
func LoadNode(path string) (*Node, error) {
	src, err := readLimited(path, maxFileBytes)
	if err != nil {
		return nil, unread(path, err, "write it, or name another with --config FILE")
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, unread(path, err, "")
	}
	return parseNode(path, src, dir, os.Hostname)
}

// LoadGroups reads the groups file against the founders; nil without one. It is
// needed only while the cluster is founded: later the file may be gone. Groups that
// came from Heartbeat's files are those that were read with them.
func (n *Node) LoadGroups() ([]spec.Group, error) {
	if n.HADir != "" {
		return n.groups, nil
	}
	if n.GroupsFile == "" {
		return nil, nil
	}
	src, err := readLimited(n.GroupsFile, maxFileBytes)
	if err != nil {
		return nil, unread(n.GroupsFile, err, "correct groups in "+n.File)
	}
	return ParseClusterFor(n.GroupsFile, src, n.Nodes)
}

// unread is the error for a file that could not be read.
func unread(path string, err error, remedy string) error {
	return Diagnostics{{
		File: path, What: "cannot read the file: " + cause(err), Remedy: remedy, Severity: SeverityError, Err: err,
	}}
}

// parseNode reads src as the node file name; dir is where relative paths start.
func parseNode(name string, src []byte, dir string, hostname func() (string, error)) (*Node, error) {
	r := &report{file: name}
	body := r.parse(src)
	if body == nil {
		return nil, r.diags.err()
	}
	b := &block{report: r, src: src, body: body}
	b.check(nodeShape)
	n := &Node{File: name, lines: map[string]int{}}
	b.identity(n, hostname)
	b.paths(n, dir)
	b.ports(n)
	b.logging(n)
	b.switches(n)
	b.links(n)
	b.timings(n)
	b.beside(n)
	b.founders(n)
	b.joining(n)
	if err := r.diags.err(); err != nil {
		return nil, err
	}
	n.warnings = r.diags.only(SeverityWarning)
	return n, nil
}

// refused adds f at line if it says anything, and reports whether it does.
func (b *block) refused(line int, f finding) bool {
	if f.what != "" {
		b.add(line, f)
	}
	return f.what != ""
}

// identity reads the names of cluster and node.
func (b *block) identity(n *Node, hostname func() (string, error)) {
	cluster := b.str("cluster")
	n.Cluster = cluster.or(DefaultCluster)
	b.refused(cluster.line, checkName("cluster", n.Cluster))

	name := b.str("name")
	n.Name, n.lines["name"] = name.v, name.line
	switch {
	case name.bad:
	case name.line > 0:
		b.refused(name.line, checkName("name", n.Name))
	default:
		host, err := hostname()
		if err != nil {
			b.add(0, finding{
				what: "name is not set and the hostname is not known: " + err.Error(), remedy: `set name = "NAME"`, err: err,
			})
			return
		}
		n.Name = host
		bad := checkName("the hostname", host)
		bad.remedy = `set name = "NAME"`
		b.refused(0, bad)
	}
}

// paths reads the keys that name files.
func (b *block) paths(n *Node, dir string) {
	read := func(key, def string) string {
		f := b.str(key)
		n.lines[key] = f.line
		path := f.or(def)
		switch {
		case f.set() && b.refused(f.line, checkPath(key, path)):
		case path != "" && !filepath.IsAbs(path):
			path = filepath.Join(dir, path)
		}
		return path
	}
	n.DataDir = read("data_dir", DefaultDataDir)
	n.KeyFile = read("key_file", DefaultKeyFile)
	n.GroupsFile = read("groups", "")
	n.TokenFile = read("token_file", "")
	n.Socket = read("socket", DefaultSocket)
	if len(n.Socket) > maxSocketLen {
		b.add(n.lines["socket"], finding{
			what:    fmt.Sprintf("the path of socket, %s, has %d bytes", quote(n.Socket), len(n.Socket)),
			allowed: fmt.Sprintf("the kernel takes at most %d for a unix socket", maxSocketLen),
			remedy:  "choose a shorter path",
		})
	}
}

// ports reads port and http.
func (b *block) ports(n *Node) {
	port := b.whole("port", 1, 65534)
	n.Port = port.or(DefaultPort)
	http := b.str("http")
	n.HTTP = http.or(DefaultHTTP)
	line := http.line
	if line == 0 {
		line = port.line
	}
	if !port.bad && !http.bad {
		b.refused(line, checkHTTP(n.HTTP, n.Port))
	}
}

// logging reads log_level and log_format.
func (b *block) logging(n *Node) {
	choice := func(key, def string, of ...string) string {
		f := b.str(key)
		v := f.or(def)
		if !slices.Contains(of, v) {
			b.add(f.line, finding{
				what: fmt.Sprintf("%s is %s", key, quote(v)), allowed: "it takes " + orNone(of), remedy: didYouMean(v, of),
			})
		}
		return v
	}
	n.LogLevel = choice("log_level", DefaultLogLevel, "debug", "info", "warn", "error")
	n.LogFormat = choice("log_format", DefaultLogFormat, "text", "json")
}

// realtime reads the switches.
func (b *block) switches(n *Node) {
	if f := b.flag("realtime"); f.line > 0 && !f.bad {
		n.Realtime = &f.v
	}
	n.SocketRead, n.RemoteAPI = b.flag("socket_read").v, b.flag("remote_api").v
}

// links reads the link blocks.
func (b *block) links(n *Node) {
	first := map[string]int{}
	last := 0
	for _, l := range b.children("link", 1, linkForm) {
		l.check(shape{keys: []string{"discover"}})
		discover := l.flag("discover")
		last = l.line
		if line, dup := first[l.label]; dup {
			b.add(l.line, finding{
				what:    fmt.Sprintf("link %s is listed twice", quote(l.label)),
				allowed: firstOn(line), remedy: "remove one of them",
			})
			continue
		}
		first[l.label] = l.line
		if b.refused(l.line, checkDevice("link", l.label)) {
			continue
		}
		n.Links = append(n.Links, l.label)
		if discover.v && !discover.bad {
			n.Discover = append(n.Discover, l.label)
		}
		n.lines[linkKey(l.label)] = l.line
	}
	if len(first) < 2 {
		b.warn(last, finding{
			what:    fmt.Sprintf("the node has %s", count(len(first), "heartbeat link")),
			allowed: "with fewer than 2 a burst of loss or a pulled cable silences it",
			remedy:  "add " + linkForm,
		})
	}
}

func linkKey(dev string) string  { return fmt.Sprintf("link %q", dev) }
func nodeKey(name string) string { return fmt.Sprintf("node %q", name) }

// timings reads the one timing block.
func (b *block) timings(n *Node) {
	n.Profile, n.Timing = DefaultProfile, spec.Profiles[DefaultProfile]
	for i, t := range b.children("timing", 0, nodeShape.blocks["timing"]) {
		profile, timing := t.timing()
		if i > 0 {
			b.add(t.line, finding{
				what:    "timing is given twice",
				allowed: firstOn(n.lines["timing"]), remedy: "make one block of them",
			})
			continue
		}
		n.Profile, n.Timing, n.lines["timing"] = profile, timing, t.line
	}
}
