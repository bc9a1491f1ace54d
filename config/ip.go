package config

import (
	"fmt"
	"math"

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
