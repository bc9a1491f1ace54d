package config

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// builtIn are programs of respawn whose work is done without them.
var builtIn = map[string]string{
	"ccm":      "membership is hanode's own",
	"dopd":     "a drbd that is told to wait for confirm-off does its work",
	"pingd":    "ping nodes are watched by the agent",
	"cib":      "of Pacemaker",
	"crmd":     "of Pacemaker",
	"lrmd":     "of Pacemaker",
	"attrd":    "of Pacemaker",
	"stonithd": "of Pacemaker",
	"mgmtd":    "of Pacemaker",
}

// program reads a respawn or failfast line.
func (l *haLine) program(failFast bool) {
	words := strings.Fields(l.rest)
	if len(words) < 2 {
		l.refuse(finding{what: fmt.Sprintf("%s has %s", l.name, count(len(words), "value")), allowed: "it takes USER PROGRAM ARGUMENT..."})
		return
	}
	if !strings.HasPrefix(words[1], "/") {
		l.refuse(finding{what: fmt.Sprintf("program %s is no full path", quote(words[1])), allowed: "Heartbeat refuses it too", remedy: "write its path from /"})
		return
	}
	base := path.Base(words[1])
	if base == "ipfail" {
		l.ipfail = true
		l.row.Answer = AnswerReplaced
		l.to("ipfail = true")
		l.row.Why = "it is built in"
		return
	}
	if why, ok := builtIn[base]; ok {
		l.row.Answer, l.row.Why = AnswerIgnored, why
		return
	}
	l.programs = append(l.programs, Respawn{User: words[0], Command: words[1:], FailFast: failFast, line: l.line})
	l.to("%s %q", l.name, strings.Join(words[1:], " "))
}

// environment reads NAME=VALUE for the programs.
func (l *haLine) environment() {
	for _, word := range l.words {
		name, _, _ := strings.Cut(word, "=")
		if !environment(word) {
			l.warn(finding{what: fmt.Sprintf("env %s sets nothing", quote(word)), allowed: "it takes NAME=VALUE"})
			continue
		}
		l.env = append(l.env, "HA_"+word)
		l.to("HA_%s", name)
	}
	if len(l.words) == 0 {
		l.last()
	}
}

// apiAuth reads who may use Heartbeat's API, which is not here.
func (l *haLine) apiAuth() {
	words := strings.Fields(l.rest)
	bad := finding{what: "apiauth is not complete", allowed: "it takes CLIENT uid=NAME,... gid=NAME,..."}
	if len(words) < 2 {
		l.refuse(bad)
		return
	}
	seen := map[string]bool{}
	for _, w := range words[1:] {
		key, _, ok := strings.Cut(w, "=")
		if !ok || key != "uid" && key != "gid" || seen[key] {
			l.refuse(bad)
			return
		}
		seen[key] = true
	}
	if key := "apiauth " + words[0]; l.seen[key] > 0 {
		l.refuse(finding{what: "apiauth of " + words[0] + " is given twice", allowed: firstOn(l.seen[key]), remedy: "remove one of them"})
	} else {
		l.seen[key] = l.line
	}
}

// pingNodes reads ping nodes, each for itself.
func (l *haLine) pingNodes(six bool) {
	if len(l.words) == 0 {
		l.last()
	}
	for _, word := range l.words {
		if l.pingHost(word, six) {
			l.addPing(PingNode{Name: word, Hosts: []string{word}})
		}
	}
}

// pingGroup reads ping nodes that count as one.
func (l *haLine) pingGroup() {
	words := strings.Fields(l.rest)
	if len(words) < 2 {
		l.refuse(finding{what: "ping_group has " + count(len(words), "value"), allowed: "it takes a name and one host or more", remedy: "such as: ping_group routers 10.0.0.253 10.0.0.254"})
		return
	}
	for _, word := range words[1:] {
		if !l.pingHost(word, false) {
			return
		}
	}
	l.addPing(PingNode{Name: words[0], Hosts: words[1:]})
}

func (l *haLine) addPing(p PingNode) {
	if slices.ContainsFunc(l.pings, func(q PingNode) bool { return q.Name == p.Name }) {
		l.warn(finding{what: fmt.Sprintf("ping node %s is listed twice", p.Name), remedy: "remove one of them"})
		return
	}
	p.line = l.line
	l.pings = append(l.pings, p)
	l.to("ping %q", p.Name)
}

// checkPingHost says why a word cannot be pinged: it takes an address, or a name to be
// looked up.
func checkPingHost(word string) finding {
	addr, err := netip.ParseAddr(word)
	if err == nil && unusable(addr) == "" || err != nil && goodName(word) && strings.Trim(word, "0123456789.") != "" {
		return finding{}
	}
	return finding{what: fmt.Sprintf("%s cannot be pinged", quote(word)), allowed: "it takes an address or a name"}
}

// environment: text is NAME=VALUE.
func environment(text string) bool {
	name, _, ok := strings.Cut(text, "=")
	return ok && environmentName(name) && !strings.ContainsRune(text, 0)
}

// pingHost refuses a word that cannot be pinged by this directive.
func (l *haLine) pingHost(word string, six bool) bool {
	addr, err := netip.ParseAddr(word)
	if checkPingHost(word).what != "" || err == nil && addr.Unmap().Is6() != six {
		l.refuse(finding{what: fmt.Sprintf("%s cannot be pinged", quote(word)), allowed: map[bool]string{true: "ping6 takes an IPv6 address or a name", false: "it takes an IPv4 address or a name"}[six]})
		return false
	}
	return true
}

// SyslogFacilities are the names of syslog's facilities by number; "" is one that has
// none.
var SyslogFacilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "", "",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// facilities are those with a name.
var facilities = slices.DeleteFunc(slices.Clone(SyslogFacilities), func(f string) bool { return f == "" })

func (l *haLine) logFacility() {
	text, ok := l.last()
	switch {
	case !ok:
	case text == "none":
		l.facility = ""
		l.row.Why = "nothing goes to syslog"
	case slices.Contains(facilities, text):
		l.facility = text
		l.to("syslog = %q", text)
	default:
		l.refuse(finding{what: fmt.Sprintf("logfacility is %s", quote(text)), allowed: "it takes none, or one of " + strings.Join(facilities, ", "), remedy: didYouMean(text, facilities)})
	}
}

// logTo reads the path of a log.
func (l *haLine) logTo(into *string, key string) {
	text, ok := l.last()
	if !ok {
		return
	}
	if !path.IsAbs(text) {
		l.refuse(finding{what: fmt.Sprintf("%s is %s", l.name, quote(text)), allowed: "it takes a path that begins with /"})
		return
	}
	*into = text
	l.to("%s = %q", key, text)
}
