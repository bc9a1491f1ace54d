package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hanode/internal/spec"
)

// haGroup is a line of haresources: a preferred node and what it is to run.
type haGroup struct {
	node  string
	line  int
	parts []haPart
}

// haPart is one resource of it.
type haPart struct {
	word string
	line int
	row  int // its answer; an index of haReport.lines
}

// parseHaResources reads src, a haresources called file: logical lines, each a node and
// its resources. nodes are those of ha.cf; nil does not look.
func parseHaResources(r *haReport, file string, src []byte, nodes []string) []haGroup {
	if len(src) > maxFileBytes {
		r.put(file, 0, finding{what: fmt.Sprintf("the file has %d bytes", len(src)), allowed: fmt.Sprintf("the most is %d", maxFileBytes)}, SeverityError)
		return nil
	}
	var groups []haGroup
	first := map[string]int{}
	for _, words := range logicalLines(r, file, src) {
		node := lower(words[0].text)
		r.lines = append(r.lines, HeartbeatLine{File: file, Line: words[0].line, Text: words[0].text, Answer: AnswerTranslated, To: fmt.Sprintf("prefer = [%q]", node)})
		g := haGroup{node: node, line: words[0].line}
		if nodes != nil && !slices.Contains(nodes, node) {
			f := finding{what: fmt.Sprintf("%s is not a node of ha.cf", quote(words[0].text)), allowed: "its nodes are " + orNone(nodes)}
			if f.remedy = didYouMean(node, nodes); f.remedy == "" {
				f.remedy = "a line begins with the node that the group prefers"
			}
			r.refuse(len(r.lines)-1, f)
		}
		for _, w := range words[1:] {
			r.lines = append(r.lines, HeartbeatLine{File: file, Line: w.line, Text: w.text, Answer: AnswerTranslated})
			part := haPart{word: w.text, line: w.line, row: len(r.lines) - 1}
			if w.text == `\` {
				r.refuse(part.row, finding{what: "there is something behind the backslash, so the line is not continued", allowed: "a line is continued if the backslash is its last character", remedy: "remove the blanks behind it"})
				continue
			}
			g.parts = append(g.parts, part)
		}
		if len(g.parts) == 0 {
			if len(words) == 1 {
				r.put(file, g.line, finding{what: fmt.Sprintf("the line of %s names no resource", words[0].text), allowed: "it does nothing", remedy: "remove it"}, SeverityWarning)
				last := &r.lines[len(r.lines)-1]
				if last.Answer != AnswerRefused {
					last.Answer, last.To, last.Why = AnswerIgnored, "", "it names no resource"
				}
			}
			continue
		}
		key := g.parts[0].word
		if line, dup := first[key]; dup {
			r.refuse(g.parts[0].row, finding{
				what:    fmt.Sprintf("%s begins two groups, the first on line %d", quote(key), line),
				allowed: "a group is known by its first resource, which stands in front once",
				remedy:  "make one line of them, or put another resource in front",
			})
		} else {
			first[key] = g.parts[0].line
		}
		groups = append(groups, g)
	}
	return groups
}

// haWord is a word of haresources and the physical line on which it stands.
type haWord struct {
	text string
	line int
}

// logicalLines splits src as Heartbeat does: comments go first, then a backslash at
// the end of a line joins it with the next one.
func logicalLines(r *haReport, file string, src []byte) (out [][]haWord) {
	var words []haWord
	glue, n := false, 0 // glue: the next line goes on with the last word
	flush := func() {
		if len(words) > 0 {
			out = append(out, words)
		}
		words, glue = nil, false
	}
	for text := range strings.Lines(string(src)) {
		n++
		text = strings.TrimRight(text, "\r\n")
		text, _, comment := strings.Cut(text, "#")
		text, more := strings.CutSuffix(text, `\`)
		if comment && more {
			r.put(file, n, finding{what: "a comment behind the backslash", allowed: "the next line goes on with this one all the same", remedy: "put the comment on a line of its own"}, SeverityWarning)
		}
		fields := strings.FieldsFunc(text, haBlank)
		for i, f := range fields {
			if i == 0 && glue && text != "" && !haBlank(rune(text[0])) && len(words) > 0 {
				words[len(words)-1].text += f
				continue
			}
			words = append(words, haWord{f, n})
		}
		glue = more && text != "" && !haBlank(rune(text[len(text)-1]))
		if !more {
			flush()
		}
	}
	flush()
	return out
}

func haBlank(c rune) bool { return strings.ContainsRune(haBlanks, c) }

// haServices asks what a host has for a plain word of haresources.
type haServices interface {
	// HasUnit: systemd runs here and has a unit of that name.
	HasUnit(name string) bool
	// HasScript: the file is there and can be run.
	HasScript(path string) bool
}

const (
	haScripts   = "/etc/ha.d/resource.d"
	initScripts = "/etc/init.d"
	ocfAgents   = "/usr/lib/ocf/resource.d/heartbeat"
)

// oldNames are services that are called otherwise today.
var oldNames = map[string]string{
	"http": "apache2", "httpd": "apache2", "apache": "apache2", "smb": "smbd", "samba": "smbd", "nmb": "nmbd", "nfs": "nfs-server",
	"named": "bind9", "bind": "bind9", "mysqld": "mysql", "mysql": "mariadb", "dhcpd": "isc-dhcp-server", "dhcp": "isc-dhcp-server",
	"xinetd": "xinetd", "portmap": "rpcbind", "nfslock": "rpc-statd", "crond": "cron", "syslog": "rsyslog", "ldap": "slapd", "sshd": "ssh",
	"pgsql": "postgresql", "postgres": "postgresql", "tomcat": "tomcat10", "vsftp": "vsftpd", "squid3": "squid", "ntpd": "ntp",
}

// scriptsOfHeartbeat may stand in haresources without an argument, and are in Heartbeat's
// package or have an agent of their name.
var scriptsOfHeartbeat = []string{"AudibleAlarm", "Delay", "Filesystem", "ICP", "IPsrcaddr", "LVM", "LinuxSCSI", "MailTo", "OCF", "Raid1", "SendArp", "ServeRAID", "WAS", "WinPopup", "Xinetd", "apache", "db2", "ids", "portblock", "drbddisk", "drbdupper"}

// haRun is what haresources asks for, as groups. failback is ha.cf's.
func (r *haReport) groups(file string, lines []haGroup, failback string, h haServices, nets haNetworks) []spec.Group {
	names := map[string]bool{}
	var out []spec.Group
	for _, g := range lines {
		group := spec.Group{Name: groupName(g.parts[0].word, names), Prefer: []string{g.node}, Failback: spec.Failback{On: failback != "off"}}
		source := map[netip.Addr]bool{}
		for _, p := range g.parts {
			if script, arg, _ := strings.Cut(p.word, "::"); script == "IPsrcaddr" {
				if a, err := netip.ParseAddr(arg); err == nil {
					source[a] = true
				}
			}
		}
		var seen []string
		for _, p := range g.parts {
			if slices.Contains(seen, p.word) {
				r.refuse(p.row, finding{what: fmt.Sprintf("%s stands twice in the group", quote(p.word)), remedy: "remove one of them"})
				continue
			}
			seen = append(seen, p.word)
			if res, ok := r.resource(file, p, h, nets); ok {
				if a, err := netip.ParseAddr(res.Address()); err == nil && res.Type == "ip" && source[a] {
					res.Source = true
				}
				group.Resources = append(group.Resources, res)
			}
		}
		out = append(out, group)
	}
	return out
}

// resource reads one word.
func (r *haReport) resource(file string, p haPart, h haServices, nets haNetworks) (spec.Resource, bool) {
	row := &r.lines[p.row]
	refuse := func(f finding) (spec.Resource, bool) {
		if row.Answer != AnswerRefused {
			r.refuse(p.row, f)
		}
		return spec.Resource{}, false
	}
	if a, ok := splitHaAddress(p.word); ok {
		res, bad := a.resource()
		if bad.what != "" {
			return refuse(bad)
		}
		nets.complete(r, file, p.line, &res)
		why, bad := a.putBroadcast(&res)
		if row.Why = cmp.Or(row.Why, why); bad.what != "" {
			bad.what = quote(p.word) + " " + bad.what
			r.put(file, p.line, bad, SeverityWarning)
		}
		row.To = ipText(res)
		return res, true
	}
	script, args, hasArgs := strings.Cut(p.word, "::")
	if bad := checkScript(p.word); bad.what != "" {
		return refuse(finding{what: fmt.Sprintf("%s is not a resource", quote(p.word)), allowed: "it takes an address, a service, or SCRIPT::ARGUMENT::..."})
	}
	if hasArgs || slices.Contains(scriptsOfHeartbeat, script) && !h.HasUnit(script) {
		row.Answer = AnswerKept
		row.To = fmt.Sprintf("resource \"heartbeat\" %q", p.word)
		if !hasArgs || args == "" {
			p.word = script
		}
		if hasArgs && !slices.Contains(scriptsOfHeartbeat, script) && !h.HasScript(haScripts+"/"+script) && !h.HasScript(initScripts+"/"+script) {
			r.here(file, p.line, finding{what: fmt.Sprintf("this host has no script %s", script), allowed: "it is looked for in " + haScripts + " and " + initScripts, remedy: "install it, or remove the resource"})
		}
		return spec.Resource{Type: "heartbeat", Name: p.word, Every: DefaultEvery}, true
	}
	return r.service(file, p, h), true
}

// service finds what a plain word names on this host: a unit, a script of Heartbeat's
// or an init script; else what it is called today.
func (r *haReport) service(file string, p haPart, h haServices) spec.Resource {
	row := &r.lines[p.row]
	name := strings.TrimSuffix(p.word, ".service")
	is := func(typ, what string) spec.Resource {
		row.To = fmt.Sprintf("resource %q %q", typ, what)
		return spec.Resource{Type: typ, Name: what, Every: DefaultEvery}
	}
	today, old := oldNames[lower(name)]
	switch {
	case h.HasUnit(name):
		return is("systemd", name)
	case h.HasScript(haScripts + "/" + name):
		row.Answer = AnswerKept
		return is("heartbeat", name)
	case h.HasScript(initScripts + "/" + name):
		return is("lsb", name)
	case old && (h.HasUnit(today) || !h.HasScript(initScripts+"/"+today)):
		row.Why = fmt.Sprintf("%s is called %s today", name, today)
		r.put(file, p.line, finding{what: fmt.Sprintf("service %s is called %s today", quote(name), today), remedy: "nothing, or write " + today}, SeverityWarning)
		if !h.HasUnit(today) {
			r.missing(file, p.line, today)
		}
		return is("systemd", today)
	case old:
		row.Why = fmt.Sprintf("%s is called %s today", name, today)
		return is("lsb", today)
	}
	r.missing(file, p.line, name)
	return is("systemd", name)
}

func (r *haReport) missing(file string, line int, name string) {
	r.here(file, line, finding{
		what:    fmt.Sprintf("this host has no service %s", name),
		allowed: fmt.Sprintf("it would be a systemd unit, or a script in %s or %s", haScripts, initScripts),
		remedy:  "install it, or correct its name",
	})
}

// groupName makes the name of a group from its first resource, which is how Heartbeat
// knew it: 10.0.0.100, drbddisk-r0.
func groupName(word string, taken map[string]bool) string {
	if a, ok := splitHaAddress(word); ok {
		word = a.addr
	}
	var b strings.Builder
	for _, c := range []byte(word) {
		switch {
		case letterOrDigit(rune(c)), c == '.' && b.Len() > 0, c == '_' && b.Len() > 0:
			b.WriteByte(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.TrimRight(b.String(), "-")
	if len(name) > maxNameLen {
		name = strings.TrimRight(name[:maxNameLen], "-")
	}
	if name == "" {
		name = "group"
	}
	base := name
	for i := 2; taken[name]; i++ {
		suffix := fmt.Sprintf("-%d", i)
		name = base[:min(len(base), maxNameLen-len(suffix))] + suffix
	}
	taken[name] = true
	return name
}
