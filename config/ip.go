package config

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"hanode/internal/spec"
)

const (
	routeForm = `route "10.9.0.0/16" { via = "10.0.0.254" }`
	ruleForm  = `rule { table = 200 }`
)

// Keys of the blocks of an ip resource.
var (
	routeKeys = []string{"via", "table", "metric"}
	ruleKeys  = []string{"to", "table", "priority"}
)

// ip reads the keys and blocks of an ip resource. What they may be together is
// checked with the groups.
func (b *block) ip(r *spec.Resource, p *place) {
	r.Dev = note(p, "dev", b.str("dev"))
	r.Source = note(p, "source", b.flag("source"))
	r.Label = note(p, "label", b.str("label"))
	r.Broadcast = note(p, "broadcast", b.str("broadcast"))
	prefix := b.str("prefix")
	switch note(p, "prefix", prefix) {
	case "network":
		r.Network = true
	case "host":
	default:
		if prefix.set() {
			b.add(prefix.line, finding{
				what: fmt.Sprintf("prefix%s is %s", b.in(), quote(prefix.v)), allowed: `it takes "host" (/32 or /128, the default) or "network"`,
			})
		}
	}
	for _, k := range b.children("route", 1, routeForm) {
		k.where = "route " + quote(k.label) + b.in()
		k.check(shape{keys: routeKeys})
		r.Routes = append(r.Routes, spec.Route{
			To: k.label, Via: k.str("via").v, Table: k.whole("table", 1, math.MaxInt32).v, Metric: k.whole("metric", 0, math.MaxInt32).v,
		})
	}
	for _, k := range b.children("rule", 0, ruleForm) {
		k.where = "rule" + b.in()
		k.check(shape{keys: ruleKeys})
		table := k.whole("table", 1, math.MaxInt32)
		if table.line == 0 {
			b.add(k.line, finding{what: k.where + " has no table", remedy: "write " + ruleForm})
			continue
		}
		r.Rules = append(r.Rules, spec.Rule{
			To: k.str("to").v, Table: table.v, Priority: k.whole("priority", 1, 32765).or(spec.RulePriority),
		})
	}
}

// ip checks one ip resource.
func (c *groupCheck) ip(g spec.Group, r spec.Resource, at place) {
	for _, key := range execOnly(r) {
		c.add(at.line, finding{what: fmt.Sprintf("%s in group %s has %s", subject(r), quote(g.Name), key), allowed: "an ip takes " + strings.Join(ipKeys, ", ") + " and blocks route and rule"})
	}
	c.hooks(subject(r), at, map[string][]string{"on_acquire": r.OnAcquire})
	if r.StartTimeout != 0 && len(r.OnAcquire) == 0 && !at.bad["on_acquire"] {
		c.add(at.at("start_timeout"), finding{
			what: fmt.Sprintf("%s has start_timeout but no on_acquire", subject(r)), allowed: "it bounds on_acquire",
			remedy: `add on_acquire = ["PROGRAM", "ARGUMENT"], or remove start_timeout`,
		})
	}
	c.span(at, "start_timeout", subject(r), r.StartTimeout)
	_, written := at.keys["dev"]
	if !at.bad["dev"] && (r.Dev != "" || written) {
		c.refused(at.at("dev"), checkDevice("in "+subject(r)+", dev", r.Dev))
	}
	dev := r.Dev
	if at.bad["dev"] {
		dev = "?" // there is one, unreadable and reported
	}
	if at.bad["ip"] {
		return
	}
	addr, bad := checkVIP(subject(r), r.Name, dev)
	if c.refused(at.line, bad) {
		return
	}
	of := fmt.Sprintf("%s in group %s ", subject(r), quote(g.Name))
	if what, allowed := r.CheckIP(); what != "" {
		c.add(at.line, finding{what: of + what, allowed: allowed})
	}
	if what, allowed := r.CheckBroadcast(); what != "" {
		c.add(at.at("broadcast"), finding{what: of + what, allowed: allowed})
	}
	if v, taken := c.vips[addr]; taken {
		f := finding{
			what:    fmt.Sprintf("address %s is in group %s and in group %s", addr, quote(v.group), quote(g.Name)),
			allowed: firstOn(v.line), remedy: "an address belongs to one group: remove one of them",
		}
		if v.group == g.Name {
			f.what = fmt.Sprintf("address %s is listed twice in group %s", addr, quote(g.Name))
		}
		c.add(at.line, f)
		return
	}
	c.vips[addr] = vip{g.Name, at.line}
}

// broadcasts refuses broadcast addresses that are something else: address maps those to
// what they are. The host that has one could not reach it any more.
func (c *groupCheck) broadcasts(address map[netip.Addr]string) {
	for i, g := range c.groups {
		for j, r := range g.Resources {
			var at place
			if j < len(c.places[i].parts) {
				at = c.places[i].parts[j]
			}
			b, err := netip.ParseAddr(r.Broadcast)
			if is := address[b]; err == nil && is != "" && r.Address() != b.String() {
				c.add(at.at("broadcast"), finding{
					what:    fmt.Sprintf("%s in group %s has the broadcast address %s, which is %s", subject(r), quote(g.Name), b, is),
					allowed: "the host could not reach it", remedy: "remove broadcast, or name another",
				})
			}
		}
	}
}
