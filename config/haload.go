package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/internal/spec"
)

// DefaultHADir is where Heartbeat's files are.
const DefaultHADir = "/etc/ha.d"

// HAHost answers what Heartbeat's files leave to the host.
type HAHost interface {
	Host
	haServices
	// Networks lists the networks of a device, each with this host's address in it.
	Networks(dev string) ([]netip.Prefix, error)
	// Resolve looks a name up, in the hosts file or DNS.
	Resolve(name string) ([]netip.Addr, error)
	// HasUser: there is a user of that name.
	HasUser(name string) bool
}

// HAOptions are what an operator says about Heartbeat's files.
type HAOptions struct {
	// InsecureCRC takes crc for a key, which everybody knows.
	InsecureCRC bool
}

// LoadHeartbeat reads Heartbeat's three files in dir and makes of them what a node file
// and a cluster file would say. The error is [Diagnostics]; the result is there all the
// same, with an answer to each line. What is wrong only on this host is in OnHost.
func LoadHeartbeat(dir string, h HAHost, o HAOptions) (*Heartbeat, error) {
	r := &haReport{}
	out := &Heartbeat{Dir: dir}
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		f := finding{what: "there is no such folder", allowed: "Heartbeat's is " + DefaultHADir}
		if err == nil {
			f = finding{what: "it is a file", allowed: "--ha-dir takes the folder of ha.cf, haresources and authkeys", remedy: "name " + filepath.Dir(dir)}
		}
		r.put(dir, 0, f, SeverityError)
		return out, r.diags.err()
	}
	cfFile, cfSrc := r.read(dir, "ha.cf", "ha.conf")
	var cf *haCf
	if cfSrc != nil {
		cf = parseHaCf(r, cfFile, cfSrc)
	}
	resFile, resSrc := r.resources(dir)
	var lines []haGroup
	if resSrc != nil {
		var names []string
		if cf != nil {
			for _, n := range cf.nodes {
				names = append(names, n.name)
			}
		}
		lines = parseHaResources(r, resFile, resSrc, names)
		out.Resources = resSrc
	}
	authFile, authSrc := r.read(dir, "authkeys", filepath.Join("..", "authkeys"))
	var auth haAuth
	if authSrc != nil {
		if info, err := os.Stat(authFile); err == nil {
			checkAuthMode(r, authFile, info.Mode())
		}
		auth = parseHaAuth(r, authFile, authSrc, o.InsecureCRC)
	}
	if cf != nil {
		b := &haBuild{haReport: r, cf: cf, h: h}
		b.survey()
		out.Node = b.node(dir)
		out.Node.Keys, out.Node.KeyFile, out.Node.insecureCRC = auth.keys, authFile, o.InsecureCRC
		if resSrc != nil {
			out.Groups = r.groups(resFile, lines, cf.failback, h, b.nets)
			out.Node.Resources, out.Node.groups = ResourcesText(resSrc), out.Groups
			c := &groupCheck{report: &report{file: resFile}, groups: out.Groups, places: haPlaces(lines, out.Groups)}
			if r.diags.err() == nil { // else what is missing would be reported again
				c.structure()
				c.nodes(out.Node.Nodes)
			}
			for _, d := range c.diags {
				r.put(resFile, d.Line, finding{what: d.What, allowed: d.Allowed, remedy: d.Remedy}, d.Severity)
			}
		}
		if self, ok := out.Node.Self(); ok && self.Role == spec.RoleWitness { // it runs none of them
			r.onHost = slices.DeleteFunc(r.onHost, func(d Diagnostic) bool { return d.File == resFile })
		}
		out.Node.warnings = r.diags.only(SeverityWarning)
	}
	out.Lines = r.lines
	out.Warnings, out.OnHost = r.diags.only(SeverityWarning), r.onHost.only(SeverityError)
	return out, r.diags.err()
}

// haPlaces gives the checks of groups the lines of haresources.
func haPlaces(lines []haGroup, groups []spec.Group) []place {
	out := make([]place, len(groups))
	for i := range groups {
		out[i] = place{line: lines[i].line}
		for j := range groups[i].Resources {
			line := lines[i].line
			if len(groups[i].Resources) == len(lines[i].parts) {
				line = lines[i].parts[j].line
			}
			out[i].parts = append(out[i].parts, place{line: line})
		}
	}
	return out
}

// resources reads haresources.
func (r *haReport) resources(dir string) (path string, src []byte) {
	return r.read(dir, "haresources", filepath.Join("..", "haresources"))
}

// read returns the file called name in dir, or other, as some how-tos spell it. nil
// means that there is none, which is said.
func (r *haReport) read(dir, name, other string) (path string, src []byte) {
	path = filepath.Join(dir, name)
	src, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		second := filepath.Join(dir, other)
		if text, err2 := readRegular(second); err2 == nil {
			r.put(second, 0, finding{what: fmt.Sprintf("it is read for %s, which is not there", path), allowed: "Heartbeat would not have found it", remedy: fmt.Sprintf("run: mv %s %s", second, path)}, SeverityWarning)
			return second, text
		}
	}
	if err != nil {
		r.put(path, 0, finding{what: "cannot read the file: " + cause(err), allowed: "ha.cf, haresources and authkeys are needed", remedy: "copy it from the old host, or name its folder with --ha-dir", err: err}, SeverityError)
		return path, nil
	}
	if src == nil {
		src = []byte{}
	}
	return path, src
}

// readRegular reads a file that is none of the kinds that never end.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return readLimited(path, maxFileBytes)
}

// haBuild makes a Node of ha.cf on a host.
type haBuild struct {
	*haReport
	cf   *haCf
	h    HAHost
	nets haNetworks // by device
	own  []netip.Addr
}

// survey looks at the devices of the host.
func (b *haBuild) survey() {
	b.nets = haNetworks{}
	devices, err := b.h.Devices()
	if err != nil {
		b.here(b.cf.file, 0, finding{what: "cannot list this host's network devices: " + err.Error(), err: err})
		return
	}
	for _, dev := range devices {
		nets, err := b.h.Networks(dev)
		if err != nil {
			b.here(b.cf.file, 0, finding{what: fmt.Sprintf("cannot list the addresses of %s: %v", dev, err), err: err})
			continue
		}
		b.nets[dev] = nets
		for _, p := range nets {
			b.own = append(b.own, p.Addr())
		}
	}
	for i, l := range b.cf.links {
		if !slices.Contains(devices, l.dev) {
			b.here(b.cf.file, l.line, finding{what: fmt.Sprintf("interface %q does not exist", l.dev), allowed: "this host has " + orNone(devices)})
		}
		if l.host != "" {
			b.cf.links[i].peer = b.lookUp(l.host, l.line, func(a netip.Addr) bool { return a.Is4() })
		}
	}
	for _, p := range b.cf.pings {
		for _, host := range p.Hosts {
			if _, err := netip.ParseAddr(host); err != nil {
				b.lookUp(host, p.line, func(netip.Addr) bool { return true })
			}
		}
	}
}

// lookUp returns the first usable address of a name, and says if there is none.
func (b *haBuild) lookUp(name string, line int, usable func(netip.Addr) bool) netip.Addr {
	all, _ := b.h.Resolve(name)
	for _, a := range all {
		if a = a.Unmap(); usable(a) {
			return a
		}
	}
	b.here(b.cf.file, line, finding{what: fmt.Sprintf("the name %s is not known on this host", quote(name)), remedy: "write its address, or add it to /etc/hosts"})
	return netip.Addr{}
}

// node is the whole of it.
func (b *haBuild) node(dir string) *Node {
	cf := b.cf
	n := &Node{
		File: cf.file, Cluster: cf.cluster, DataDir: DefaultDataDir, KeyFile: filepath.Join(dir, "authkeys"), Socket: DefaultSocket, HTTP: DefaultHTTP,
		Port: cf.port, LogLevel: DefaultLogLevel, LogFormat: DefaultLogFormat, Realtime: cf.realtime,
		Syslog: cf.facility, LogFile: cf.logfile, DebugFile: cf.debugfile,
		Ping: cf.pings, IPFail: cf.ipfail, Watchdog: cf.watchdog, Respawn: cf.programs,
		HADir: dir, written: cf.values, lines: map[string]int{},
	}
	if n.Cluster == "" {
		n.Cluster = haCluster
	}
	if n.Port == 0 {
		n.Port = haPort
	}
	if cf.debug > 0 {
		n.LogLevel = "debug"
	}
	n.Timing = b.timing()
	if len(n.Ping) > 0 {
		n.Deadping = cf.deadping.or(n.Timing.Deadtime)
	}
	n.Name = b.self()
	for i, p := range cf.programs {
		n.Respawn[i].Env = cf.env
		if !b.h.HasUser(p.User) {
			b.here(cf.file, p.line, finding{what: fmt.Sprintf("this host has no user %s", quote(p.User)), remedy: "make it, or run the program as another"})
		}
		if !b.h.HasScript(p.Command[0]) {
			b.here(cf.file, p.line, finding{what: fmt.Sprintf("%s cannot be run on this host", p.Command[0]), remedy: "install it, or remove the line"})
		}
	}
	b.links(n)
	b.founders(n)
	for _, l := range cf.links {
		if n.lines[linkKey(l.dev)] == 0 {
			n.lines[linkKey(l.dev)] = l.line
		}
	}
	n.lines["watchdog"] = cf.seen["watchdog"]
	return n
}

// timing works out the times, and bends those that hanode cannot keep.
func (b *haBuild) timing() spec.Timing {
	cf := b.cf
	t := spec.Timing{Keepalive: cf.keepalive.or(haKeepalive), Deadtime: cf.deadtime.or(haDeadtime)}
	bend := func(what haTime, name string, to string, why string) {
		b.put(cf.file, what.line, finding{what: fmt.Sprintf("%s %s becomes %s", name, haTimes(what.d), to), allowed: why}, SeverityWarning)
		for i := range b.lines {
			if b.lines[i].Line == what.line && b.lines[i].File == cf.file && b.lines[i].Answer != AnswerRefused {
				b.lines[i].Answer, b.lines[i].To, b.lines[i].Why = AnswerTranslated, fmt.Sprintf("timing %s = %q", name, to), why
			}
		}
	}
	if t.Deadtime > MaxDeadtime {
		t.Deadtime = MaxDeadtime
		bend(cf.deadtime, "deadtime", duration(MaxDeadtime), "the longest lease that the kernel guard honours")
	}
	if least := 50 * time.Millisecond; t.Deadtime < least {
		t.Deadtime = least
		bend(cf.deadtime, "deadtime", duration(least), "the least that hanode takes")
	}
	if 2*t.Keepalive >= t.Deadtime {
		t.Keepalive = t.Deadtime / 3
	}
	t.Warntime = cf.warntime.or(t.Deadtime / 2)
	if t.Warntime >= t.Deadtime {
		t.Warntime = t.Deadtime / 2
		bend(cf.warntime, "warntime", duration(t.Warntime), fmt.Sprintf("a warning must come before deadtime (%s)", haTimes(t.Deadtime)))
	}
	switch {
	case cf.initdead.line > 0:
		t.Initdead = cf.initdead.d
	case t.Deadtime > haLeastInitdead:
		t.Initdead = t.Deadtime
	case t.Deadtime < 6*haKeepalive:
		t.Initdead = 12 * haKeepalive
	default:
		t.Initdead = 2 * t.Deadtime
	}
	if t.Initdead > MaxInitdead {
		t.Initdead = MaxInitdead
		bend(cf.initdead, "initdead", duration(MaxInitdead), "the longest that hanode waits")
	}
	t.Initdead = max(t.Initdead, t.Deadtime)
	return t
}

// self is which of the nodes this host is: by its hostname in lower case, or by an
// address that is one of its own.
func (b *haBuild) self() string {
	host, err := b.h.Hostname()
	if err != nil {
		b.here(b.cf.file, 0, finding{what: "the hostname is not known: " + err.Error(), err: err})
	}
	names := b.names()
	if slices.Contains(names, lower(host)) {
		return lower(host)
	}
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil && slices.Contains(b.own, a) {
			return name
		}
	}
	if err == nil {
		f := finding{
			what:    fmt.Sprintf("current node %s not in configuration", quote(lower(host))),
			allowed: "nodes are " + orNone(names) + "; they are named by uname -n",
			remedy:  didYouMean(lower(host), names),
		}
		if f.remedy == "" {
			f.remedy = "add it to node, or correct the hostname"
		}
		b.here(b.cf.file, 0, f)
	}
	return lower(host)
}

func (b *haBuild) names() (out []string) {
	for _, n := range slices.Concat(b.cf.nodes, b.cf.witness) {
		out = append(out, n.name)
	}
	return out
}

// links are the devices of the media, each once.
func (b *haBuild) links(n *Node) {
	for _, l := range b.cf.links {
		if !slices.Contains(n.Links, l.dev) {
			n.Links = append(n.Links, l.dev)
		}
		if l.kind != "ucast" && l.kind != "ucast6" && !slices.Contains(n.Discover, l.dev) {
			n.Discover = append(n.Discover, l.dev)
		}
	}
	if len(n.Links) == 1 {
		b.put(b.cf.file, b.cf.medium, finding{
			what: "there is one heartbeat link", allowed: "a burst of loss or a pulled cable silences a host", remedy: "add another: bcast eth1",
		}, SeverityWarning)
	}
}

// founders lists the nodes with their addresses. Where a medium speaks to everybody the
// agent finds them, and those that are known already are those on the first link: the
// hosts may know different names, and must agree on the links. Else each node is looked
// for on the links that are there.
func (b *haBuild) founders(n *Node) {
	known := map[string][]netip.Addr{}
	for _, node := range b.cf.nodes {
		known[node.name] = b.addresses(node, n.Name)
	}
	var found map[string]netip.Addr
	if len(n.Discover) > 0 {
		found = b.on(n.Links[0], known, n.Name)
	} else {
		found = b.placed(n, known)
	}
	for _, node := range b.cf.nodes {
		addr, ok := found[node.name]
		_, isAddr := netip.ParseAddr(node.name)
		if !ok && node.line > 0 && (len(n.Discover) == 0 || isAddr == nil) {
			b.unfound(n, node, known[node.name])
		}
		f := spec.Node{Name: node.name, Role: spec.RoleNode}
		if ok {
			f.Address = addr.String()
		}
		n.Nodes = append(n.Nodes, f)
		n.lines[nodeKey(node.name)] = node.line
	}
	for _, w := range b.cf.witness {
		n.Nodes = append(n.Nodes, spec.Node{Name: w.name, Address: w.addr.String(), Role: spec.RoleWitness})
		n.lines[nodeKey(w.name)] = w.line
	}
	b.votes(n)
}

// placed finds the address of each node: on the first link on which all are known, else
// on another device, which becomes a link too.
func (b *haBuild) placed(n *Node, known map[string][]netip.Addr) map[string]netip.Addr {
	devs := slices.Clone(n.Links)
	for _, dev := range sortedKeys(b.nets) {
		if !slices.Contains(devs, dev) && dev != "lo" {
			devs = append(devs, dev)
		}
	}
	best, found := "", map[string]netip.Addr{}
	for _, dev := range devs {
		on := b.on(dev, known, n.Name)
		if len(on) > len(found) {
			best, found = dev, on
		}
		if len(on) == len(b.cf.nodes) {
			break
		}
	}
	if best != "" && len(found) == len(b.cf.nodes) {
		if i := slices.Index(n.Links, best); i >= 0 {
			n.Links = append([]string{best}, slices.Delete(slices.Clone(n.Links), i, i+1)...)
		} else {
			b.put(b.cf.file, b.cf.medium, finding{
				what:    fmt.Sprintf("the names of the nodes lead to %s, which is not among the media", best),
				allowed: "it is used as the first link, and those of the file beside it",
				remedy:  "nothing, or add: bcast " + best,
			}, SeverityWarning)
			n.Links = append([]string{best}, n.Links...)
		}
	}
	return found
}

// addresses are those that a node may have, the loopback ones left out: Debian's hosts
// file gives the host's own name one.
func (b *haBuild) addresses(node haNode, self string) (out []netip.Addr) {
	var all []netip.Addr
	if a, err := netip.ParseAddr(node.name); err == nil {
		all = []netip.Addr{a}
	} else if got, err := b.h.Resolve(node.name); err == nil {
		all = got
	}
	if node.name == self && len(b.cf.nodes) > 0 {
		if _, err := netip.ParseAddr(node.name); err != nil {
			all = append(all, b.own...)
		}
	}
	for _, a := range all {
		if a = a.Unmap(); a.Is4() && !a.IsLoopback() && unusable(a) == "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// on finds the address of each node on one device: within its networks, or where a
// ucast line sends to. Of two nodes the other one is whom ucast names.
func (b *haBuild) on(dev string, known map[string][]netip.Addr, self string) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	var peers []netip.Addr
	for _, l := range b.cf.links {
		if l.dev == dev && l.kind == "ucast" && l.peer.Is4() && !slices.Contains(b.own, l.peer) && !slices.Contains(peers, l.peer) {
			peers = append(peers, l.peer)
		}
	}
	for name, addrs := range known {
		for _, a := range addrs {
			in := slices.ContainsFunc(b.nets[dev], func(p netip.Prefix) bool {
				return !p.IsSingleIP() && p.Contains(a) && (name != self || p.Addr() == a)
			})
			if in || slices.Contains(peers, a) {
				out[name] = a
				break
			}
		}
	}
	if len(known) == 2 && len(peers) == 1 {
		for name := range known {
			if name != self && !slices.Contains(b.own, peers[0]) {
				out[name] = peers[0]
			}
		}
	}
	return out
}

// unfound says that no address of a node can be used.
func (b *haBuild) unfound(n *Node, node haNode, known []netip.Addr) {
	f := finding{
		what:    fmt.Sprintf("node %s has no address that this host can use", quote(node.name)),
		allowed: "its name is not known here",
		remedy:  fmt.Sprintf("add it to /etc/hosts, the same on every host: ADDRESS %s", node.name),
	}
	if len(known) > 0 {
		var words []string
		for _, a := range known {
			words = append(words, a.String())
		}
		f.allowed = fmt.Sprintf("%s is on no network of this host", strings.Join(words, ", "))
	}
	if len(n.Links) > 0 {
		f.remedy += fmt.Sprintf(", with its address on %s", n.Links[0])
	}
	b.here(b.cf.file, node.line, f)
}

// votes checks how many there are. Two hosts and no third vote are what most files
// describe: they run by hand in the one case that cannot be told.
func (b *haBuild) votes(n *Node) {
	total := len(n.Nodes)
	line := 0
	if k := len(b.cf.nodes); k > 0 {
		line = b.cf.nodes[k-1].line
	}
	switch {
	case total == 2 && len(b.cf.witness) == 0:
		n.TwoNode = TwoNodeManual
		b.put(b.cf.file, line, finding{
			what:   `two_node = "manual": ` + TwoNodeMeans,
			remedy: "for full automation add a third vote on any small machine, on all three hosts: witness NAME ADDRESS; see docs/two-nodes.md, \"A third vote\"",
		}, SeverityWarning)
	case total == 1:
		b.put(b.cf.file, line, finding{what: "there is one node", allowed: "when it fails nothing takes over", remedy: "add another"}, SeverityWarning)
	case total > MaxFounders:
		b.put(b.cf.file, line, finding{what: fmt.Sprintf("%d nodes", total), allowed: fmt.Sprintf("the most that found a cluster are %d", MaxFounders), remedy: "list as many; the others join with a node file"}, SeverityError)
	case total%2 == 0 && total > 2:
		b.put(b.cf.file, line, finding{what: fmt.Sprintf("%d nodes survive the loss of %d, no more than %d would", total, total/2-1, total-1), allowed: "an odd number of votes is best", remedy: "add: witness NAME ADDRESS"}, SeverityWarning)
	}
	if len(b.cf.witness) > 0 {
		names, addrs := map[string]bool{}, map[string]string{}
		for _, f := range n.Nodes {
			if names[f.Name] || f.Address != "" && addrs[f.Address] != "" {
				b.put(b.cf.file, n.lines[nodeKey(f.Name)], finding{what: fmt.Sprintf("name or address of %s belongs to another node", f.Name), remedy: "give each its own"}, SeverityError)
			}
			names[f.Name], addrs[f.Address] = true, f.Name
		}
	}
}
