package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	haBlanks = " \t\v\f\r\n"
	haDelims = ", \t" // between the values of a directive
)

// haCf is what ha.cf says.
type haCf struct {
	*haReport
	file    string
	cluster string
	nodes   []haNode
	witness []haNode // our own directive; addr is written
	// The times; those that are not written are worked out by times.
	keepalive, deadtime, warntime, initdead, deadping haTime
	port                                              int // 0 = none before the first medium
	links                                             []haLink
	pings                                             []PingNode
	failback                                          string // on, off, legacy; "" = not written
	programs                                          []Respawn
	ipfail                                            bool
	watchdog                                          string
	facility, logfile, debugfile                      string
	useLogd                                           *bool
	debug                                             int
	realtime                                          *bool
	env                                               []string

	seen   map[string]int    // line of the newest of each directive
	values map[string]string // its last value, as it is written
	serial int               // line of the first serial link; 0 = none
	medium int               // line of the first link; 0 = none
}

type haNode struct {
	name string
	addr netip.Addr // of a witness
	line int
}

// haLink is a medium of ha.cf: a device, and the peer's address of a ucast line.
type haLink struct {
	kind string
	dev  string
	peer netip.Addr
	host string // the peer's name where no address is written
	line int
}

// haLine is one line of ha.cf while it is read.
type haLine struct {
	*haCf
	name  string
	line  int
	words []string // what stands behind the directive
	rest  string   // the same as it is written
	row   *HeartbeatLine
}

// parseHaCf reads src, an ha.cf called file.
func parseHaCf(r *haReport, file string, src []byte) *haCf {
	cf := &haCf{haReport: r, file: file, seen: map[string]int{}, values: map[string]string{}}
	if len(src) > maxFileBytes {
		cf.put(file, 0, finding{what: fmt.Sprintf("the file has %d bytes", len(src)), allowed: fmt.Sprintf("the most is %d", maxFileBytes)}, SeverityError)
		return cf
	}
	n := 0
	for text := range strings.Lines(string(src)) {
		n++
		text, _, _ = strings.Cut(text, "#")
		if i := strings.IndexAny(text, "\r\n"); i >= 0 {
			text = text[:i]
		}
		if text = strings.Trim(text, haBlanks); text != "" {
			cf.directive(n, text)
		}
	}
	cf.complete()
	return cf
}

// directive reads one line.
func (cf *haCf) directive(n int, text string) {
	name, rest := text, ""
	if i := strings.IndexAny(text, haBlanks); i >= 0 {
		name, rest = text[:i], strings.TrimLeft(text[i:], ","+haBlanks)
	}
	cf.lines = append(cf.lines, HeartbeatLine{File: cf.file, Line: n, Text: strings.Join(strings.Fields(text), " ")})
	l := &haLine{
		haCf: cf, name: name, line: n, rest: rest, row: &cf.lines[len(cf.lines)-1],
		words: strings.FieldsFunc(rest, func(c rune) bool { return strings.ContainsRune(haDelims+haBlanks, c) }),
	}
	d, known := haDirectives()[name]
	if !known {
		l.unknown()
		return
	}
	l.row.Answer, l.row.Why = d.answer, d.short
	d.read(l)
	cf.seen[name] = n
	if len(l.words) > 0 {
		cf.values[name] = l.words[len(l.words)-1]
	}
}

// unknown refuses a directive, as Heartbeat does.
func (l *haLine) unknown() {
	f := finding{what: fmt.Sprintf("unknown directive %s", quote(l.name)), allowed: "Heartbeat 3.0.6 refuses it too"}
	if why, gone := haGone[l.name]; gone {
		f.what, f.allowed, f.remedy = fmt.Sprintf("directive %s: %s", l.name, why), "", "remove the line"
	} else if near := nearest(l.name, haNames()); near != "" {
		f.remedy = fmt.Sprintf("did you mean %s?", near)
	}
	l.refuse(f)
}

func (l *haLine) refuse(f finding) { l.put(l.file, l.line, f, SeverityError) }

func (l *haLine) warn(f finding) { l.put(l.file, l.line, f, SeverityWarning) }

// to says what the line became.
func (l *haLine) to(format string, args ...any) {
	to := fmt.Sprintf(format, args...)
	if l.row.To != "" {
		to = l.row.To + ", " + to
	}
	l.row.To = to
}

// last returns the newest of several values, the one that counts; "" and false without
// any, which Heartbeat lets pass.
func (l *haLine) last() (string, bool) {
	if len(l.words) == 0 {
		l.warn(finding{what: l.name + " has no value", allowed: "the line does nothing", remedy: "remove it"})
		l.row.Answer, l.row.Why = AnswerIgnored, "it has no value"
		return "", false
	}
	if before := l.seen[l.name]; before > 0 || len(l.words) > 1 {
		f := finding{what: l.name + " is given twice", allowed: fmt.Sprintf("the last one counts: %s", l.words[len(l.words)-1]), remedy: "remove the other"}
		if before > 0 {
			f.what = fmt.Sprintf("%s is given on line %d already", l.name, before)
		}
		l.warn(f)
	}
	return l.words[len(l.words)-1], true
}

// time reads a time into t.
func (l *haLine) time(t *haTime, zero bool) {
	text, ok := l.last()
	if !ok {
		return
	}
	d, bad := parseHaTime(l.name, text)
	if bad.what == "" && d == 0 && !zero {
		bad = finding{what: fmt.Sprintf("%s is %s, which is 0", l.name, quote(text)), allowed: "it must be above 0, to the millisecond"}
	}
	if bad.what != "" {
		l.refuse(bad)
		return
	}
	*t = haTime{d, l.line}
}

// flag reads a yes or no.
func (l *haLine) flag() (v, ok bool) {
	text, ok := l.last()
	if !ok {
		return false, false
	}
	if v, ok = haBool(text); !ok {
		l.refuse(finding{what: fmt.Sprintf("%s is %s", l.name, quote(text)), allowed: "it takes on or off (true, yes, y, 1; false, no, n, 0)"})
	}
	return v, ok
}

// oneOf reads a word that must be one of a few.
func (l *haLine) oneOf(words ...string) (string, bool) {
	text, ok := l.last()
	if !ok {
		return "", false
	}
	if !slices.Contains(words, text) {
		l.refuse(finding{what: fmt.Sprintf("%s is %s", l.name, quote(text)), allowed: "it takes " + strings.Join(words, ", "), remedy: didYouMean(text, words)})
		return "", false
	}
	return text, true
}

// number reads a whole number, as far as it is one: Heartbeat stops at the first
// character that is no digit.
func (l *haLine) number(least, most int) (int, bool) {
	text, ok := l.last()
	if !ok {
		return 0, false
	}
	n, ok := wholeNumber(text)
	if !ok || n < least || n > most {
		l.refuse(finding{what: fmt.Sprintf("%s is %s", l.name, quote(text)), allowed: fmt.Sprintf("it takes a whole number from %d to %d", least, most)})
		return 0, false
	}
	return n, true
}

// wholeNumber reads digits, at most nine.
func wholeNumber(text string) (n int, ok bool) {
	if text == "" || len(text) > 9 {
		return 0, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// complete checks what only the whole file shows, Heartbeat's own refusals first.
func (cf *haCf) complete() {
	err := func(line int, f finding) { cf.put(cf.file, line, f, SeverityError) }
	if cf.medium == 0 {
		f := finding{what: "no heartbeat medium", allowed: "it takes one of bcast, mcast, ucast", remedy: "add: bcast eth0"}
		if cf.serial > 0 {
			f.what = "the only heartbeat medium is a serial line, which hanode does not speak"
		}
		err(cf.serial, f)
	}
	if len(cf.nodes) == 0 {
		err(0, finding{what: "no nodes", allowed: "every host is listed by what uname -n says there", remedy: "add: node NAME NAME"})
	}
	keepalive, deadtime := cf.keepalive.or(haKeepalive), cf.deadtime.or(haDeadtime)
	at := max(cf.deadtime.line, cf.keepalive.line)
	if deadtime <= 2*keepalive {
		err(at, finding{
			what:   fmt.Sprintf("deadtime %s is too small compared to keepalive %s", haTimes(deadtime), haTimes(keepalive)),
			remedy: "deadtime must be more than twice keepalive",
		})
	}
	if cf.initdead.line > 0 && cf.initdead.d < deadtime {
		err(cf.initdead.line, finding{
			what:   fmt.Sprintf("initdead %s is smaller than deadtime %s", haTimes(cf.initdead.d), haTimes(deadtime)),
			remedy: "make it at least deadtime; Heartbeat advises twice that",
		})
	} else if cf.initdead.line > 0 && cf.initdead.d < haLeastInitdead {
		cf.put(cf.file, cf.initdead.line, finding{
			what: fmt.Sprintf("initdead %s may be too small", haTimes(cf.initdead.d)), allowed: "it accounts for a network that starts slowly",
			remedy: "10 seconds are usual",
		}, SeverityWarning)
	}
	if cf.deadping.line > 0 && cf.deadping.d <= 2*keepalive {
		err(cf.deadping.line, finding{
			what:   fmt.Sprintf("deadping %s is too small compared to keepalive %s", haTimes(cf.deadping.d), haTimes(keepalive)),
			remedy: "it must be more than twice keepalive",
		})
	}
	logs := cf.logfile != "" || cf.debugfile != "" || cf.facility != ""
	if cf.useLogd != nil && !*cf.useLogd && !logs {
		err(cf.seen["use_logd"], finding{what: "nothing says where to log, and use_logd is off", remedy: "remove use_logd, or set logfacility, logfile or debugfile"})
	}
	cf.notice()
}

// notice warns of what Heartbeat warns of.
func (cf *haCf) notice() {
	warn := func(line int, f finding) { cf.put(cf.file, line, f, SeverityWarning) }
	if cf.failback == "" {
		warn(0, finding{
			what: "auto_failback is not set", allowed: "the default is legacy: groups go back to their first node as soon as it is up",
			remedy: "write auto_failback on or auto_failback off",
		})
	}
	if cf.ipfail && len(cf.pings) == 0 {
		warn(0, finding{what: "ipfail has nothing to ping", remedy: "add: ping ADDRESS, a router for instance"})
	}
	if !cf.ipfail && len(cf.pings) > 0 {
		warn(cf.pings[0].line, finding{
			what: "there are ping nodes but no ipfail", allowed: "they are watched, and move nothing",
			remedy: "add: respawn hacluster /usr/lib/heartbeat/ipfail",
		})
	}
	names := map[string]bool{}
	for _, n := range cf.nodes {
		names[n.name] = true
	}
	for _, p := range cf.pings {
		if names[lower(p.Name)] {
			warn(p.line, finding{what: fmt.Sprintf("ping node %s is a node of the cluster", p.Name), allowed: "it says nothing about the network of the clients", remedy: "ping a router"})
		}
	}
}
