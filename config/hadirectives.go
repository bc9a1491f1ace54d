package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/internal/spec"
)

// What ha.cf means where it is silent.
const (
	haKeepalive     = time.Second
	haDeadtime      = 30 * time.Second
	haLeastInitdead = 10 * time.Second // below this Heartbeat warns
	haPort          = 694
	haCluster       = "linux-ha"
)

// haDirective is one that Heartbeat 3.0.6 knows.
type haDirective struct {
	name   string
	takes  string // how it is written
	unset  string // what it means where it is not written; "" = nothing
	answer Answer
	says   string // for the page: what it becomes, or why it has no use
	short  string // the same for one line of `hanode validate`; "" = what it became says all
	read   func(*haLine)
}

// haGone are directives of other versions, which Heartbeat 3.0.6 as Debian ships it
// refuses too.
var haGone = map[string]string{
	"hbaping":    "Fibre Channel ping nodes were never finished, and Debian's Heartbeat refuses them; use ping",
	"openais":    "Debian's Heartbeat has no such medium; use bcast, mcast or ucast",
	"tipc":       "Debian's Heartbeat has no such medium; use bcast, mcast or ucast",
	"rds":        "Debian's Heartbeat has no such medium; use bcast, mcast or ucast",
	"normalpoll": "Heartbeat 3 does not know it any more",
}

// haDirectives are all of them, by name.
var haDirectives = sync.OnceValue(func() map[string]*haDirective {
	out := map[string]*haDirective{}
	for _, d := range haDirectiveList() {
		out[d.name] = &d
	}
	return out
})

func haNames() []string { return slices.Sorted(maps.Keys(haDirectives())) }

// HeartbeatDirective is a directive of ha.cf as the page lists it.
type HeartbeatDirective struct {
	Name, Takes, Default string
	Answer               Answer
	Says                 string
}

// HeartbeatDirectives are all that ha.cf may hold, by name; what the parser reads is
// worked from the same table.
func HeartbeatDirectives() (out []HeartbeatDirective) {
	for _, name := range haNames() {
		d := haDirectives()[name]
		out = append(out, HeartbeatDirective{d.name, d.takes, d.unset, d.answer, d.says})
	}
	return out
}

func haDirectiveList() []haDirective {
	return slices.Concat(haClusterDirectives(), haTimeDirectives(), haMediaDirectives(), haWatchDirectives(), haLogDirectives(), haIdleDirectives())
}

func haClusterDirectives() []haDirective {
	return []haDirective{
		{
			"node", "`NAME...`", "", AnswerTranslated, "A `node` block each. A name is what `uname -n` says there, in lower case, or an address of the host; behind `bcast` and `mcast` that is enough; else names are looked up in the hosts file and DNS, and the address on a link counts.", "", (*haLine).node,
		},
		{
			"witness", "`NAME ADDRESS`", "", AnswerTranslated, "hanode's own: a third vote on any small machine, which then runs the same files. A `node` block with `role = \"witness\"`.", "", (*haLine).witnessNode,
		},
		{
			"cluster", "`NAME`", haCluster, AnswerKept, "`cluster`.", "", func(l *haLine) {
				if text, ok := l.last(); ok {
					if bad := checkName("cluster", text); bad.what != "" {
						l.refuse(bad)
						return
					}
					l.cluster = text
					l.to("cluster = %q", text)
				}
			},
		},
		{
			"auto_failback", "`on`, `off` or `legacy`", "legacy", AnswerTranslated, "`failback` of every group; `legacy` is `on`.", "", (*haLine).autoFailback,
		},
		{
			"nice_failback", "`on` or `off`", "", AnswerTranslated, "`auto_failback off`, whatever it says, as Heartbeat 3.0.6 reads it.", "Heartbeat 3.0.6 reads it as auto_failback off", func(l *haLine) {
				if _, ok := l.flag(); ok {
					l.failback = "off"
					l.to(`failback = "off"`)
					l.warn(finding{what: "nice_failback is obsolete", allowed: "Heartbeat 3.0.6 reads it as auto_failback off, whatever it says", remedy: "write auto_failback off"})
				}
			},
		},
		{
			"autojoin", "`none`, `other` or `any`", "none", AnswerKept, "`none`. The others are refused, as Heartbeat refuses them with haresources.", "", func(l *haLine) {
				text, ok := l.last()
				switch {
				case !ok || lower(text) == "none":
				case lower(text) == "other" || lower(text) == "any":
					l.refuse(finding{what: fmt.Sprintf("autojoin %s conflicts with haresources", text), allowed: "Heartbeat refuses it too", remedy: "list every host with node, or found the cluster with hanode.hcl, where hosts may join"})
				default:
					l.refuse(finding{what: fmt.Sprintf("autojoin is %s", quote(text)), allowed: "it takes none"})
				}
			},
		},
		{"pacemaker", "a boolean", "off", AnswerIgnored, "`off`. Anything else is refused: resources are those of haresources.", "resources are those of haresources", (*haLine).pacemaker},
		{"crm", "a boolean", "off", AnswerIgnored, "The same as `pacemaker`.", "resources are those of haresources", (*haLine).pacemaker},
		{"quorum_server", "`HOST`", "", AnswerReplaced, "A witness has a vote, which a quorum server only answers for.", "a witness does its work: witness NAME ADDRESS", (*haLine).any},
		{"stonith", "`TYPE FILE`", "", AnswerIgnored, stonithSays, "power fencing is not available yet", (*haLine).stonith},
		{"stonith_host", "`HOST TYPE PARAMETER...`", "", AnswerIgnored, stonithSays, "power fencing is not available yet", (*haLine).stonith},
	}
}

const stonithSays = "Power fencing is not available yet. Until then a group with storage waits for `hanode confirm-off` after a crash of its owner."

func haTimeDirectives() []haDirective {
	return []haDirective{
		{"keepalive", "a time", "1", AnswerKept, "`timing { keepalive }`.", "", func(l *haLine) { l.timed(&l.keepalive, false) }},
		{"deadtime", "a time", "30", AnswerKept, "`timing { deadtime }`; more than twice keepalive. Above 60 s it is 60 s, the longest lease the kernel guard honours.", "", func(l *haLine) { l.timed(&l.deadtime, true) }},
		{"warntime", "a time", "deadtime / 2", AnswerKept, "`timing { warntime }`.", "", func(l *haLine) { l.timed(&l.warntime, false) }},
		{"initdead", "a time", "deadtime above 10 s, 12 s for one below 6 s, else twice deadtime", AnswerKept, "`timing { initdead }`; at least deadtime. It is not waited out once all hosts are up.", "", func(l *haLine) { l.timed(&l.initdead, true) }},
		{"deadping", "a time", "deadtime", AnswerKept, "How long a ping node may be silent before it counts as dead.", "", func(l *haLine) { l.time(&l.deadping, true); l.timeTo("deadping", l.deadping) }},
	}
}

func haMediaDirectives() []haDirective {
	const link = "A `link` block each, with `discover`. Beats go to every host's address on that network by UDP unicast, encrypted; the hosts find each other's by asking there, by broadcast."
	return []haDirective{
		{"bcast", "`DEVICE...`", "", AnswerTranslated, link, "", func(l *haLine) { l.devices() }},
		{"udp", "`DEVICE...`", "", AnswerTranslated, "An old word for `bcast`.", "an old word for bcast", func(l *haLine) {
			l.warn(finding{what: "udp is an old word", remedy: "write bcast"})
			l.devices()
		}},
		{"mcast", "`DEVICE GROUP PORT TTL LOOP`", "", AnswerTranslated, "The same as `bcast` for the device; the group, its port, ttl and loop have no use.", "", func(l *haLine) { l.multicast(false) }},
		{"mcast6", "`DEVICE GROUP PORT HOPS LOOP`", "", AnswerTranslated, "The same as `bcast` for the device; beats go by IPv4.", "", func(l *haLine) { l.multicast(true) }},
		{"ucast", "`DEVICE ADDRESS`", "", AnswerTranslated, "A `link` block for the device; the address tells which of a host's addresses to use. Lines with this host's own address say nothing.", "", func(l *haLine) { l.unicast(false) }},
		{"ucast6", "`DEVICE ADDRESS`", "", AnswerTranslated, "A `link` block for the device; beats go by IPv4.", "", func(l *haLine) { l.unicast(true) }},
		{"serial", "`TTY...`", "", AnswerIgnored, "hanode does not speak over serial lines: give it a second network. A file with no other medium is refused.", "hanode does not speak over serial lines; a second network does what it was for", (*haLine).serialLine},
		{"baud", "a number", "19200", AnswerIgnored, "Of serial lines.", "of serial lines", func(l *haLine) {
			if l.seen["baud"] > 0 || len(l.words) > 1 {
				l.refuse(finding{what: "baud is given twice", remedy: "remove one of them"})
				return
			}
			l.oneOf("9600", "19200", "38400", "57600", "115200", "230400", "460800")
		}},
		{"udpport", "a number", fmt.Sprint(haPort), AnswerTranslated, "`port`: UDP and TCP of that number, and TCP of the next one: open both between the hosts. It must stand before the media; one that stands behind the first of them changes nothing, as in Heartbeat.", "", (*haLine).udpPort},
		{"hopfudge", "0 to 255", "1", AnswerIgnored, "Beats are not passed on from host to host.", "beats are not passed on from host to host", func(l *haLine) { l.number(0, 255) }},
	}
}

func haWatchDirectives() []haDirective {
	const ping = "A ping node. With ipfail, a host that reaches more of them gets the groups; they never break a tie."
	return []haDirective{
		{"ping", "`HOST...`", "", AnswerKept, ping, "", func(l *haLine) { l.pingNodes(false) }},
		{"ping6", "`HOST...`", "", AnswerKept, ping, "", func(l *haLine) { l.pingNodes(true) }},
		{"ping_group", "`NAME HOST...`", "", AnswerKept, "One ping node that is there while any of its hosts answers.", "", (*haLine).pingGroup},
		{"respawn", "`USER PROGRAM ARGUMENT...`", "", AnswerKept, "The program runs while the agent does and is started again, unless it exits with 100. `ipfail` is built in; `ccm`, `dopd` and Pacemaker's programs have no use.", "", func(l *haLine) { l.program(false) }},
		{"failfast", "`USER PROGRAM ARGUMENT...`", "", AnswerKept, "As `respawn`, but if the program ends this host gives its groups up.", "", func(l *haLine) { l.program(true) }},
		{"env", "`NAME=VALUE`", "", AnswerKept, "Environment of what `respawn` starts, with HA_ before the name.", "", (*haLine).environment},
		{"watchdog", "`DEVICE`", "", AnswerKept, "The device is tickled only while the lease is valid, or nothing is held.", "", func(l *haLine) {
			if l.watchdog != "" || len(l.words) > 1 {
				l.refuse(finding{what: "watchdog is given twice", allowed: "Heartbeat refuses that too", remedy: "remove one of them"})
				return
			}
			if text, ok := l.last(); ok {
				if !strings.HasPrefix(text, "/") {
					l.refuse(finding{what: fmt.Sprintf("watchdog is %s", quote(text)), allowed: "it takes the path of a device, such as /dev/watchdog"})
					return
				}
				l.watchdog = text
				l.to("watchdog = %q", text)
			}
		}},
		{"apiauth", "`CLIENT uid=... gid=...`", "", AnswerReplaced, "The socket of the commands takes root and the group `hanode`.", "the commands are for root and the group hanode", (*haLine).apiAuth},
		{"use_apphbd", "a boolean", "off", AnswerReplaced, "systemd watches the agent.", "systemd watches the agent", func(l *haLine) { l.flag() }},
	}
}

func haLogDirectives() []haDirective {
	return []haDirective{
		{"logfacility", "a syslog facility, or `none`", "", AnswerKept, "`syslog`: the log goes to that facility as well as to the journal.", "", (*haLine).logFacility},
		{"logfile", "`FILE`", "", AnswerKept, "`log_file`: the log, without debug messages, is written there as well.", "", func(l *haLine) { l.logTo(&l.logfile, "log_file") }},
		{"debugfile", "`FILE`", "", AnswerKept, "`debug_file`: the log, with debug messages, is written there as well.", "", func(l *haLine) { l.logTo(&l.debugfile, "debug_file") }},
		{"debug", "0 to 255", "0", AnswerTranslated, "`log_level = \"debug\"` if it is above 0.", "", func(l *haLine) {
			if n, ok := l.number(0, 255); ok {
				l.debug = n
				l.to("log_level = %q", map[bool]string{true: "debug", false: "info"}[n > 0])
			}
		}},
		{"use_logd", "a boolean", "on, if nothing else says where to log", AnswerReplaced, "Syslog and the files get the log from a queue, so that nothing waits for them.", "nothing waits for syslog or a file", func(l *haLine) {
			if v, ok := l.flag(); ok {
				l.useLogd = &v
			}
		}},
		{"conn_logd_time", "a time", "60", AnswerIgnored, "There is no log daemon.", "there is no log daemon", func(l *haLine) { l.time(new(haTime), false) }},
		{"syslogmsgfmt", "a boolean", "on", AnswerIgnored, "The format of the log is `log_format`.", "the format of the log is log_format", func(l *haLine) { l.flag() }},
		{"log_badpack", "a boolean", "on", AnswerReplaced, "Bad packets are counted in `/metrics`.", "bad packets are counted in /metrics", func(l *haLine) { l.flag() }},
		{"realtime", "a boolean", "on", AnswerKept, "`realtime`.", "", func(l *haLine) {
			if v, ok := l.flag(); ok {
				l.realtime = &v
				l.to("realtime = %v", v)
			}
		}},
		{"rtprio", "1 to 99", "", AnswerIgnored, "The agent takes the lowest realtime priority, which is before every ordinary program.", "the agent takes the lowest realtime priority", func(l *haLine) { l.number(1, 99) }},
		{"coredumps", "a boolean", "on", AnswerReplaced, "The unit says what becomes of a core: `LimitCORE=`.", "the unit says so: LimitCORE=", func(l *haLine) { l.flag() }},
		{"coreroot", "`DIRECTORY`", "", AnswerReplaced, "The same.", "the unit says so: LimitCORE=", (*haLine).any},
	}
}

// haIdleDirectives are those that nothing here has a use for. Their values are still
// read: what Heartbeat refuses is refused.
func haIdleDirectives() []haDirective {
	flag := func(l *haLine) { l.flag() }
	oneOf := func(words ...string) func(*haLine) { return func(l *haLine) { l.oneOf(words...) } }
	positive := func(l *haLine) { l.number(1, 999999999) }
	wire := "Of Heartbeat's wire format."
	crm := "Of Pacemaker."
	short := map[string]string{wire: "of Heartbeat's wire format", crm: "of Pacemaker"}
	ignored := func(name, takes, unset, says string, read func(*haLine)) haDirective {
		s, ok := short[says]
		if !ok {
			s = lowerFirst(strings.TrimSuffix(says, "."))
		}
		return haDirective{name, takes, unset, AnswerIgnored, says, s, read}
	}
	return []haDirective{
		ignored("msgfmt", "`classic` or `netstring`", "classic", wire, oneOf("classic", "netstring")),
		ignored("compression", "`zlib` or `bz2`", "", wire, oneOf("zlib", "bz2")),
		ignored("compression_threshold", "a number of KB", "2", wire, positive),
		ignored("traditional_compression", "a boolean", "off", wire, flag),
		ignored("max_rexmit_delay", "a number of ms", "250", wire, positive),
		ignored("hbgenmethod", "`file` or `time`", "file", "Starts of a host are counted by the cluster.", oneOf("file", "time")),
		ignored("uuidfrom", "`file` or `nodename`", "file", "A host is known by its name.", oneOf("file", "nodename")),
		ignored("memreserve", "a number of KB", "6500", "The agent locks what it has.", func(l *haLine) { l.number(0, 999999999) }),
		ignored("crm_daemon_dir", "`DIRECTORY`", "", crm, (*haLine).any),
		ignored("crmd_spawns_pengine", "a boolean", "", crm, flag),
		ignored("record_config_changes", "a boolean", "on", crm, flag),
		ignored("record_pengine_inputs", "a boolean", "on", crm, flag),
		ignored("enable_config_writes", "a boolean", "on", crm, flag),
	}
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return lower(s[:1]) + s[1:]
}

// any takes any value.
func (l *haLine) any() { l.last() }

// timed reads a time of the cluster.
func (l *haLine) timed(t *haTime, zero bool) {
	l.time(t, zero)
	l.timeTo("timing "+l.name, *t)
}

func (l *haLine) timeTo(what string, t haTime) {
	if t.line == l.line {
		l.to("%s = %q", what, duration(t.d))
	}
}

// node reads names of hosts.
func (l *haLine) node() {
	if len(l.words) == 0 {
		l.last()
	}
	for _, word := range l.words {
		name := lower(word)
		if bad := checkName("node", word); bad.what != "" {
			l.refuse(bad)
			continue
		}
		if i := slices.IndexFunc(l.nodes, func(n haNode) bool { return n.name == name }); i >= 0 {
			l.warn(finding{what: fmt.Sprintf("node %s is listed twice", name), allowed: firstOn(l.nodes[i].line), remedy: "remove one of them"})
			continue
		}
		l.nodes = append(l.nodes, haNode{name: name, line: l.line})
		l.to("node %q", name)
	}
}

// witnessNode reads hanode's own directive.
func (l *haLine) witnessNode() {
	form := finding{what: "witness takes a name and an address", allowed: "it is a third vote that owns nothing", remedy: "write: witness NAME ADDRESS"}
	if len(l.words) != 2 {
		l.refuse(form)
		return
	}
	name := lower(l.words[0])
	addr, bad := checkNodeAddress(l.words[1])
	if bad.what == "" {
		bad = checkName("witness", name)
	}
	if bad.what != "" {
		l.refuse(bad)
		return
	}
	l.witness = append(l.witness, haNode{name: name, addr: addr, line: l.line})
	l.to("node %q, role %q", name, spec.RoleWitness)
}

func (l *haLine) autoFailback() {
	text, ok := l.last()
	if !ok {
		return
	}
	v, isBool := haBool(text)
	switch {
	case isBool && v:
		l.failback = "on"
	case isBool:
		l.failback = "off"
	case lower(text) == "legacy":
		l.failback = "legacy"
		l.warn(finding{what: "auto_failback legacy is deprecated", allowed: "groups go back to their first node as soon as it is up", remedy: "write auto_failback on"})
	default:
		l.refuse(finding{what: fmt.Sprintf("auto_failback is %s", quote(text)), allowed: "it takes on, off or legacy", remedy: didYouMean(lower(text), []string{"on", "off", "legacy"})})
		return
	}
	l.to("failback = %q", map[bool]string{true: "on", false: "off"}[l.failback != "off"])
}

func (l *haLine) pacemaker() {
	text, ok := l.last()
	if !ok {
		return
	}
	if v, isBool := haBool(text); !isBool || v {
		l.refuse(finding{
			what:    fmt.Sprintf("%s %s: the resources are Pacemaker's, which hanode does not read", l.name, text),
			allowed: "hanode runs the groups of haresources",
			remedy:  "stay with Pacemaker, or write the groups to haresources and remove the line",
		})
	}
}

func (l *haLine) stonith() {
	least, form := 2, l.name+" TYPE FILE"
	if l.name == "stonith_host" {
		form = l.name + " HOST TYPE PARAMETER..."
	}
	if len(strings.Fields(l.rest)) < least {
		l.refuse(finding{what: l.name + " has too few values", allowed: "it takes " + form})
		return
	}
	l.row.Text = l.name + " " + strings.Join(strings.Fields(l.rest)[:2], " ")
	if len(strings.Fields(l.rest)) > 2 {
		l.row.Text += " ..." // parameters may be passwords
	}
	l.warn(finding{
		what:    l.name + ": power fencing is not available yet",
		allowed: "a group with storage waits for hanode confirm-off after a crash of its owner",
	})
}

// udpPort reads the port. A medium that was read before keeps the old one.
func (l *haLine) udpPort() {
	switch {
	case l.medium > 0 && len(l.words) > 0:
		port := l.port
		if port == 0 {
			port = haPort
		}
		l.row.Answer, l.row.Why = AnswerIgnored, fmt.Sprintf("it stands behind the medium of line %d, which keeps %d", l.medium, port)
		l.warn(finding{
			what:    fmt.Sprintf("udpport stands behind the first medium, on line %d", l.medium),
			allowed: fmt.Sprintf("as in Heartbeat that one keeps port %d, and with it all", port), remedy: "move udpport up, on every host",
		})
	default:
		if n, ok := l.number(1, 65534); ok {
			l.port = n
			l.to("port = %d", n)
		}
	}
}

// addLink notes a medium.
func (l *haLine) addLink(dev string, peer netip.Addr) {
	if bad := checkDevice(l.name, dev); bad.what != "" {
		l.refuse(bad)
		return
	}
	if l.medium == 0 {
		l.medium = l.line
	}
	known := slices.ContainsFunc(l.links, func(k haLink) bool { return k.dev == dev })
	l.links = append(l.links, haLink{kind: l.name, dev: dev, peer: peer, line: l.line})
	if known {
		l.row.Why = fmt.Sprintf("link %q is there already", dev)
		return
	}
	l.to("link %q", dev)
}

func (l *haLine) devices() {
	if len(l.words) == 0 {
		l.last()
	}
	for _, dev := range l.words {
		l.addLink(dev, netip.Addr{})
	}
}

func (l *haLine) multicast(six bool) {
	words := strings.Fields(l.rest)
	if len(words) < 5 {
		l.refuse(finding{what: fmt.Sprintf("%s has %s", l.name, count(len(words), "value")), allowed: "it takes DEVICE GROUP PORT TTL LOOP", remedy: "such as: mcast eth0 239.0.0.1 694 1 0"})
		return
	}
	group, err := netip.ParseAddr(words[1])
	if err != nil || !group.IsMulticast() || group.Is6() != six {
		l.refuse(finding{what: fmt.Sprintf("%s is no multicast group", quote(words[1])), allowed: map[bool]string{true: "one is within ff12::/16", false: "one is within 224.0.0.0 to 239.255.255.255"}[six]})
		return
	}
	for i, most := range []int{65535, map[bool]int{true: 4, false: 255}[six], 1} {
		if n, ok := wholeNumber(words[2+i]); !ok || n > most {
			l.refuse(finding{what: fmt.Sprintf("%s is %s", []string{"the port", "the ttl", "loop"}[i], quote(words[2+i])), allowed: fmt.Sprintf("it takes 0 to %d", most)})
			return
		}
	}
	l.addLink(words[0], netip.Addr{})
}

func (l *haLine) unicast(six bool) {
	words := strings.Fields(l.rest)
	if len(words) < 2 {
		l.refuse(finding{what: l.name + " has no address of a peer", allowed: "it takes DEVICE ADDRESS", remedy: "such as: ucast eth0 192.168.1.2"})
		return
	}
	peer, err := netip.ParseAddr(words[1])
	if err == nil && peer.Is6() != six || err != nil && (six || !goodName(words[1])) {
		l.refuse(finding{what: fmt.Sprintf("%s is no address for %s", quote(words[1]), l.name), allowed: map[bool]string{true: "it takes an IPv6 address", false: "it takes an IPv4 address"}[six]})
		return
	}
	if zone := peer.Zone(); zone != "" && zone != words[0] {
		l.refuse(finding{what: fmt.Sprintf("the scope %s of %s is not its device, %s", zone, words[1], words[0]), allowed: "it may be left out"})
		return
	}
	if err != nil {
		l.warn(finding{what: fmt.Sprintf("ucast to the name %s", quote(words[1])), allowed: "it is looked up at start", remedy: "write its address"})
	}
	l.addLink(words[0], peer)
	if n := len(l.links); err != nil && n > 0 && l.links[n-1].line == l.line {
		l.links[n-1].host = words[1]
	}
}

func (l *haLine) serialLine() {
	if len(l.words) == 0 {
		l.last()
		return
	}
	l.serial = l.line
	l.warn(finding{what: "serial lines are not spoken over", allowed: "a second network does what they were for", remedy: "add: bcast eth1"})
}
