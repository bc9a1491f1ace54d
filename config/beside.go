package config

import (
	"fmt"
	"slices"
)

const (
	pingForm    = `ping "NAME" { hosts = ["10.0.0.254"] }`
	respawnForm = `respawn { command = ["PROGRAM", "ARGUMENT"] }`
)

// beside reads what a node does beside the cluster: where else its log goes, whom it
// pings, and what it runs and tickles.
func (b *block) beside(n *Node) {
	if f := b.str("syslog"); f.set() {
		n.Syslog = f.v
		if !slices.Contains(facilities, f.v) {
			b.add(f.line, finding{what: fmt.Sprintf("syslog is %s", quote(f.v)), allowed: "it takes one of " + orNone(facilities), remedy: didYouMean(f.v, facilities)})
		}
	}
	n.LogFile, n.DebugFile, n.Watchdog = b.absolute("log_file"), b.absolute("debug_file"), b.absolute("watchdog")
	n.IPFail = b.flag("ipfail").v
	names := map[string]int{}
	for _, k := range b.children("ping", 1, pingForm) {
		k.check(shape{keys: []string{"hosts"}})
		hosts, _ := k.list("hosts")
		switch first, dup := names[k.label]; {
		case dup:
			b.add(k.line, finding{what: fmt.Sprintf("ping %s is listed twice", quote(k.label)), allowed: firstOn(first), remedy: "remove one of them"})
			continue
		case len(hosts.v) == 0 && !hosts.bad:
			b.add(k.line, finding{what: fmt.Sprintf("ping %s has no hosts", quote(k.label)), remedy: "write " + pingForm})
		}
		for _, h := range hosts.v {
			if bad := checkPingHost(h); bad.what != "" {
				b.add(hosts.line, bad)
			}
		}
		names[k.label] = k.line
		n.Ping = append(n.Ping, PingNode{Name: k.label, Hosts: hosts.v, line: k.line})
	}
	if f := b.duration("deadping"); f.set() {
		n.Deadping = f.v
		if f.v <= 2*n.Timing.Keepalive {
			b.add(f.line, finding{what: fmt.Sprintf("deadping is %s", duration(f.v)), allowed: fmt.Sprintf("it takes more than twice keepalive (%s)", duration(n.Timing.Keepalive))})
		}
	} else if len(n.Ping) > 0 {
		n.Deadping = n.Timing.Deadtime
	}
	for _, k := range b.children("respawn", 0, respawnForm) {
		n.Respawn = append(n.Respawn, k.respawn())
	}
}

// absolute reads a path that must begin with /; "" where there is none.
func (b *block) absolute(key string) string {
	f := b.str(key)
	if f.set() {
		bad := checkPath(key, f.v)
		if bad.what == "" && f.v[0] != '/' {
			bad = finding{what: fmt.Sprintf("%s is %s", key, quote(f.v)), allowed: "it takes a path that begins with /"}
		}
		b.refused(f.line, bad)
	}
	return f.or("")
}

// respawn reads one block.
func (b *block) respawn() Respawn {
	b.where = "respawn"
	b.check(shape{keys: []string{"user", "command", "failfast", "env"}})
	p := b.place()
	r := Respawn{User: b.str("user").or("root"), FailFast: b.flag("failfast").v, line: b.line}
	r.Command = b.args(&p, "command")
	if !p.bad["command"] {
		_, written := p.keys["command"]
		b.refused(b.line, command("command", "respawn", r.Command, written))
	}
	env, _ := b.list("env")
	for _, e := range env.v {
		if !environment(e) {
			b.add(env.line, finding{what: fmt.Sprintf("env in respawn has %s", quote(e)), allowed: "it takes strings NAME=VALUE"})
		}
	}
	r.Env = env.v
	return r
}
