package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hanode/internal/spec"
)

// resourceTypes are those that resource.Open has drivers for.
var resourceTypes = []string{"ip", "systemd", "lsb", "ocf", "heartbeat", "exec"}

// CheckGroups makes all checks of groups: those of [ParseCluster], for groups
// that came another way, and that they fit the nodes: preferred nodes exist and
// are no witnesses, and no VIP is a node's own address. The error is
// [Diagnostics], without lines.
func CheckGroups(groups []spec.Group, nodes []spec.Node) error {
	c := &groupCheck{report: &report{}, groups: groups, places: make([]place, len(groups))}
	c.structure()
	c.nodes(nodes)
	return c.diags.err()
}

// groupCheck checks groups; places runs beside groups.
type groupCheck struct {
	*report
	groups []spec.Group
	places []place
	vips   map[netip.Addr]vip // the first group that asks for each address
}

// vip is an address that a group asks for.
type vip struct {
	group string
	line  int
}

// subject renders how a diagnostic speaks of a resource: ip "10.0.0.100/24".
func subject(r spec.Resource) string {
	if slices.Contains(resourceTypes, r.Type) {
		return fmt.Sprintf("%s %s", r.Type, quote(r.Name))
	}
	return fmt.Sprintf("resource %s %s", quote(r.Type), quote(r.Name))
}

// refused adds f at line if it says anything.
func (c *groupCheck) refused(line int, f finding) bool {
	if f.what != "" {
		c.add(line, f)
	}
	return f.what != ""
}

// structure checks what needs no knowledge of the nodes, and collects the VIPs.
func (c *groupCheck) structure() {
	c.vips = map[netip.Addr]vip{}
	seen := map[string]int{}
	for i, g := range c.groups {
		p := c.places[i]
		if line, dup := seen[g.Name]; dup {
			c.add(p.line, finding{
				what:    fmt.Sprintf("group %s is listed twice", quote(g.Name)),
				allowed: firstOn(line), remedy: "rename one, or make one of them",
			})
		} else {
			seen[g.Name] = p.line
			c.refused(p.line, checkName("group", g.Name))
		}
		c.prefer(g, p)
		if g.Failback.After < 0 || (g.Failback.After > 0 && !g.Failback.On) {
			c.add(p.at("failback"), finding{
				what:    fmt.Sprintf("failback in group %s waits %v while on is %v", quote(g.Name), g.Failback.After, g.Failback.On),
				allowed: `it takes "on", "off" or "after 5m"`,
			})
		}
		c.retryAfter(g, p)
		c.hooks(fmt.Sprintf("group %s", quote(g.Name)), p, map[string][]string{
			"on_acquire": g.OnAcquire, "on_release": g.OnRelease, "on_problem": g.OnProblem,
		})
		if len(g.Resources) == 0 && !p.bad["resources"] {
			c.add(p.line, finding{
				what: fmt.Sprintf("group %s has no resources", quote(g.Name)), allowed: "a group has at least one",
				remedy: "add one: " + resourceForm,
			})
		}
		c.resources(g, p)
		c.checkBlocks(g, p)
	}
	taken := map[netip.Addr]string{}
	for addr, v := range c.vips {
		taken[addr] = "an address of group " + quote(v.group)
	}
	c.broadcasts(taken)
	c.rules()
}

// hooks checks commands that may be left out.
func (c *groupCheck) hooks(sub string, p place, hooks map[string][]string) {
	for _, key := range slices.Sorted(maps.Keys(hooks)) {
		if _, written := p.keys[key]; !p.bad[key] && (written || len(hooks[key]) > 0) {
			c.refused(p.at(key), command(key, sub, hooks[key], written))
		}
	}
}

// retryAfter checks the time for which a node that failed is avoided.
func (c *groupCheck) retryAfter(g spec.Group, p place) {
	_, written := p.keys["retry_after"]
	if p.bad["retry_after"] || g.RetryAfter == 0 && !written || g.RetryAfter >= minRetry && g.RetryAfter <= spec.MaxRetry {
		return
	}
	c.add(p.at("retry_after"), finding{
		what:    fmt.Sprintf("retry_after in group %s is %s", quote(g.Name), duration(g.RetryAfter)),
		allowed: fmt.Sprintf("it takes %s to %s", duration(minRetry), duration(spec.MaxRetry)),
	})
}

// firstOn says where the first of two is, or nothing where there are no lines.
func firstOn(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("the first is on line %d", line)
}

// prefer checks the words of the preference list.
func (c *groupCheck) prefer(g spec.Group, p place) {
	for i, name := range g.Prefer {
		line := p.preferLine(i)
		subject := fmt.Sprintf("prefer in group %s names", quote(g.Name))
		if c.refused(line, checkName(fmt.Sprintf("in prefer of group %s,", quote(g.Name)), name)) {
			continue
		}
		if slices.Contains(g.Prefer[:i], name) {
			c.add(line, finding{what: fmt.Sprintf("%s %s twice", subject, quote(name)), remedy: "remove one of them"})
		}
	}
}

func (p place) preferLine(i int) int {
	if i < len(p.prefer) {
		return p.prefer[i]
	}
	return p.at("prefer")
}

// resources checks the resources of one group.
func (c *groupCheck) resources(g spec.Group, p place) {
	type ref struct{ typ, name string }
	seen := map[ref]int{}
	for i, r := range g.Resources {
		var at place
		if i < len(p.parts) {
			at = p.parts[i]
		}
		if line, dup := seen[ref{r.Type, r.Name}]; dup {
			c.add(at.line, finding{
				what:    fmt.Sprintf("%s is listed twice in group %s", subject(r), quote(g.Name)),
				allowed: firstOn(line), remedy: "remove one of them",
			})
			continue
		}
		seen[ref{r.Type, r.Name}] = at.line
		switch r.Type {
		case "ip":
			c.ip(g, r, at)
		case "exec":
			c.exec(g, r, at)
		case "systemd", "lsb", "heartbeat", "ocf":
			c.service(g, r, at)
		default:
			c.add(at.line, finding{
				what: fmt.Sprintf("unknown resource type %s", quote(r.Type)), allowed: "types are " + orNone(resourceTypes),
				remedy: didYouMean(r.Type, resourceTypes),
			})
		}
	}
}

// execOnly lists the fields of r that only an exec resource may set.
func execOnly(r spec.Resource) []string {
	var keys []string
	for _, k := range []struct {
		key string
		set bool
	}{
		{"start", r.Start != nil},
		{"stop", r.Stop != nil},
		{"monitor", r.Monitor != nil},
		{"every", r.Every != 0},
		{"timeout", r.Timeout != 0},
		{"stop_timeout", r.StopTimeout != 0},
		{"monitor_timeout", r.MonitorTimeout != 0},
		{"agent", r.Agent != ""},
		{"params", r.Params != nil},
		{"restarts", r.Restarts != 0},
		{"within", r.Within != 0},
		{"concurrent", r.Concurrent},
	} {
		if k.set {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// exec checks one exec resource.
func (c *groupCheck) exec(g spec.Group, r spec.Resource, at place) {
	sub := subject(r)
	c.refused(at.line, checkName("exec", r.Name))
	if r.Dev != "" {
		c.add(at.line, finding{what: fmt.Sprintf("%s in group %s has dev", sub, quote(g.Name)), allowed: "only an ip takes dev, prefix, broadcast, source, label and blocks route and rule"})
	}
	for _, cmd := range []struct {
		key  string
		args []string
	}{{"start", r.Start}, {"stop", r.Stop}, {"monitor", r.Monitor}} {
		_, written := at.keys[cmd.key]
		if !at.bad[cmd.key] && (len(cmd.args) > 0 || written || cmd.key != "monitor") {
			c.refused(at.at(cmd.key), command(cmd.key, sub, cmd.args, written))
		}
	}
	if r.Every != 0 && len(r.Monitor) == 0 && !at.bad["monitor"] {
		c.add(at.at("every"), finding{
			what: sub + " has every but no monitor", allowed: "every is the time between two runs of monitor",
			remedy: `add monitor = ["PROGRAM", "ARGUMENT"], or remove every`,
		})
	}
	c.ownKeys(g, r, at)
	c.limits(r, at)
	c.concurrent(g, r, at)
}

// ownKeys refuses keys that only another type takes; the reader of a file has
// refused them before.
func (c *groupCheck) ownKeys(g spec.Group, r spec.Resource, at place) {
	for _, k := range []struct {
		key   string
		set   bool
		takes string
	}{
		{"dev", r.Dev != "" && r.Type != "exec", "ip"},
		{"on_acquire", r.OnAcquire != nil, "ip"},
		{"prefix", r.Network, "ip"},
		{"broadcast", r.Broadcast != "", "ip"},
		{"source", r.Source, "ip"},
		{"label", r.Label != "", "ip"},
		{"route", r.Routes != nil, "ip"},
		{"rule", r.Rules != nil, "ip"},
		{"agent", r.Agent != "" && r.Type != "ocf", "ocf"},
		{"params", r.Params != nil && r.Type != "ocf", "ocf"},
		{"start", r.Start != nil && r.Type != "exec", "exec"},
		{"stop", r.Stop != nil && r.Type != "exec", "exec"},
		{"a monitor command", r.Monitor != nil && r.Type != "exec", "exec"},
	} {
		if k.set {
			c.add(at.line, finding{
				what:    fmt.Sprintf("%s in group %s has %s", subject(r), quote(g.Name), k.key),
				allowed: "only an " + k.takes + " takes it",
			})
		}
	}
}

// concurrent refuses what would run twice by intention where it must never.
func (c *groupCheck) concurrent(g spec.Group, r spec.Resource, at place) {
	if why := g.WhyExclusive(); r.Concurrent && why != "" {
		c.add(at.at("concurrent"), finding{
			what:    fmt.Sprintf("%s is concurrent, but group %s is exclusive (%s)", subject(r), quote(g.Name), why),
			allowed: "two hosts must never run an exclusive group at once",
			remedy:  "remove concurrent, or put it in a group of its own",
		})
	}
}

// limits checks the times and restarts of what can be started and stopped.
func (c *groupCheck) limits(r spec.Resource, at place) {
	sub := subject(r)
	if r.Restarts < 0 || r.Restarts > maxRestarts {
		c.add(at.at("restarts"), finding{
			what:    fmt.Sprintf("restarts in %s is %d", sub, r.Restarts),
			allowed: fmt.Sprintf("it takes a whole number from 0 to %d", maxRestarts),
		})
	}
	if r.Within != 0 && r.Restarts == 0 && !at.bad["restarts"] && !at.bad["within"] {
		c.add(at.at("within"), finding{
			what: fmt.Sprintf("%s has within but no restarts", sub), allowed: "restarts counts within any such time",
			remedy: "add restarts = 3, or remove within",
		})
	}
	c.span(at, "within", sub, r.Within)
	c.span(at, "every", sub, r.Every)
	c.span(at, "timeout", sub, r.Timeout)
	c.span(at, "start_timeout", sub, r.StartTimeout)
	c.span(at, "stop_timeout", sub, r.StopTimeout)
	c.span(at, "monitor_timeout", sub, r.MonitorTimeout)
}

// service checks a resource whose commands its type knows.
func (c *groupCheck) service(g spec.Group, r spec.Resource, at place) {
	switch r.Type {
	case "systemd":
		c.refused(at.line, checkUnit(r.Name))
	case "lsb":
		c.refused(at.line, checkName("lsb", r.Name))
	case "heartbeat":
		c.refused(at.line, checkScript(r.Name))
	case "ocf":
		c.refused(at.line, checkName("ocf", r.Name))
		if !at.bad["agent"] && !c.refused(at.at("agent"), checkAgent(subject(r), r.Agent)) && shadowed(r.Agent) {
			c.add(at.at("agent"), finding{
				what: fmt.Sprintf("agent in %s is ocf:%s", subject(r), r.Agent), allowed: "it would put the address on behind no guard",
				remedy: `use resource "ip"`,
			})
		}
		c.params(r, at)
	}
	c.ownKeys(g, r, at)
	c.limits(r, at)
	c.concurrent(g, r, at)
}

// params checks the form of an agent's parameters; whether it takes them, the
// nodes say before an apply.
func (c *groupCheck) params(r spec.Resource, at place) {
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		bad := finding{what: fmt.Sprintf("parameter %s of %s", quote(name), subject(r))}
		switch {
		case !environmentName(name):
			bad.what += " has a name that no agent could read"
			bad.allowed = "it takes letters, digits and _"
		case strings.ContainsRune(r.Params[name], 0):
			bad.what += " holds a NUL"
		default:
			continue
		}
		c.add(at.at("params."+name), bad)
	}
}

// command says why args cannot be run.
func command(key, sub string, args []string, written bool) finding {
	bad := finding{
		allowed: "it takes the program and its arguments, each a string; there is no shell",
		remedy:  fmt.Sprintf(`write %s = ["PROGRAM", "ARGUMENT"]`, key),
	}
	switch {
	case len(args) == 0 && !written:
		bad.what = fmt.Sprintf("%s has no %s", sub, key)
	case len(args) == 0:
		bad.what = fmt.Sprintf("%s in %s is empty", key, sub)
	case args[0] == "":
		bad.what = fmt.Sprintf("%s in %s has no program: the first string is empty", key, sub)
	case slices.ContainsFunc(args, func(a string) bool { return strings.ContainsRune(a, 0) }):
		bad = finding{what: fmt.Sprintf("%s in %s holds a NUL", key, sub), allowed: "no argument of a program can"}
	default:
		return finding{}
	}
	return bad
}

// span checks a time of a resource; one that is not written may be 0.
func (c *groupCheck) span(at place, key, sub string, d time.Duration) {
	_, written := at.keys[key]
	if at.bad[key] || (d == 0 && !written) || (d >= minExecTime && d <= maxExecTime) {
		return
	}
	if key == "every" && !strings.HasPrefix(sub, "exec ") {
		key = "monitor"
	}
	c.add(at.at(key), finding{
		what:    fmt.Sprintf("%s in %s is %s", key, sub, duration(d)),
		allowed: fmt.Sprintf("it takes %s to %s", duration(minExecTime), duration(maxExecTime)),
	})
}

// nodes checks that the groups fit the nodes. structure has run.
func (c *groupCheck) nodes(nodes []spec.Node) {
	var owners []string
	role := map[string]spec.Role{}
	for _, n := range nodes {
		role[n.Name] = n.Role
		if n.Role != spec.RoleWitness {
			owners = append(owners, n.Name)
		}
	}
	c.apartOn(owners)
	for i, g := range c.groups {
		for j, name := range g.Prefer {
			r, known := role[name]
			f := finding{allowed: "nodes that may own it are " + orNone(owners)}
			switch {
			case !goodName(name): // said by structure
				continue
			case !known:
				f.what = fmt.Sprintf("prefer in group %s names %s, which is not a node", quote(g.Name), quote(name))
				f.remedy = didYouMean(name, owners)
			case r == spec.RoleWitness:
				f.what = fmt.Sprintf("prefer in group %s names %s, a witness, which owns nothing", quote(g.Name), quote(name))
				f.remedy = "remove it from prefer"
			default:
				continue
			}
			c.add(c.places[i].preferLine(j), f)
		}
	}
	own := map[netip.Addr]string{}
	for _, n := range nodes {
		addr, err := netip.ParseAddr(n.Address)
		own[addr] = "the own address of node " + quote(n.Name)
		if v, taken := c.vips[addr]; err == nil && taken {
			c.add(v.line, finding{
				what:    fmt.Sprintf("address %s in group %s is the own address of node %s", addr, quote(v.group), quote(n.Name)),
				allowed: "an address that moves belongs to no node", remedy: "choose a free address",
			})
		}
	}
	delete(own, netip.Addr{})
	c.broadcasts(own)
}
