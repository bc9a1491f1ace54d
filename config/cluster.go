package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"hanode/internal/spec"
)

const (
	groupForm    = `group "NAME" { ... }`
	resourceForm = `resource "TYPE" "NAME" { ... }`
)

var (
	groupKeys = []string{"prefer", "failback", "exclusive", "retry_after", "on_acquire", "on_release", "on_problem", "with", "apart", "after", "max_per_node", "weight"}
	ipKeys    = []string{"dev", "prefix", "broadcast", "source", "label", "on_acquire", "start_timeout"}
	execKeys  = []string{"start", "stop", "monitor", "every", "timeout", "start_timeout", "stop_timeout", "monitor_timeout", "restarts", "within", "concurrent"}
	// serviceKeys are those of the types whose commands are known: systemd, lsb,
	// heartbeat, ocf. monitor is the time between two looks.
	serviceKeys = []string{"monitor", "timeout", "start_timeout", "stop_timeout", "monitor_timeout", "restarts", "within", "concurrent"}
	ocfKeys     = append([]string{"agent"}, serviceKeys...)

	// clusterShape is what a cluster file may hold.
	clusterShape = shape{
		blocks: map[string]string{"group": groupForm},
		hints:  clusterHints(),
	}
)

// clusterHints answer what belongs in the node file.
func clusterHints() map[string]finding {
	hints := map[string]finding{
		"timing": {
			what:    "a timing block in the cluster file is not available yet",
			allowed: "timing is set in the node file, " + DefaultFile + ", and founds the cluster's",
			remedy:  "move it there",
		},
		"resource": {
			what: "a resource stands outside of a group", allowed: "resources move in groups", remedy: "put it in " + groupForm,
		},
		"check": {
			what: "a check stands outside of a group", allowed: "it stands behind the resource that it fails", remedy: "put it in " + groupForm,
		},
	}
	for _, key := range []string{
		"cluster", "name", "data_dir", "key_file", "socket", "http", "port", "log_level", "log_format", "realtime", "socket_read", "remote_api", "two_node", "link", "node",
	} {
		hints[key] = finding{
			what: key + " stands in the cluster file", allowed: "the cluster file holds groups; " + key + " belongs in the node file, " + DefaultFile,
			remedy: "move it there",
		}
	}
	return hints
}

// LoadCluster reads the cluster file at path, see [ParseCluster].
func LoadCluster(path string) ([]spec.Group, error) {
	src, err := readLimited(path, maxFileBytes)
	if err != nil {
		return nil, unread(path, err, "")
	}
	return ParseCluster(path, src)
}

// ParseCluster reads src, a cluster file called name, and makes all checks that
// need no knowledge of the nodes. A file without groups is valid: nothing is
// wanted. The error is [Diagnostics] with every problem found.
func ParseCluster(name string, src []byte) ([]spec.Group, error) {
	groups, _, err := parseCluster(name, src, nil)
	return groups, err
}

// ClusterWarnings are what an operator should know of a cluster file that is valid.
func ClusterWarnings(name string, src []byte) Diagnostics {
	_, warnings, _ := parseCluster(name, src, nil)
	return warnings
}

// ParseClusterFor is ParseCluster and CheckGroups in one, so that what does not
// fit the nodes is reported with its line too.
func ParseClusterFor(name string, src []byte, nodes []spec.Node) ([]spec.Group, error) {
	groups, _, err := parseCluster(name, src, &nodes)
	return groups, err
}

func parseCluster(name string, src []byte, nodes *[]spec.Node) ([]spec.Group, Diagnostics, error) {
	r := &report{file: name}
	body := r.parse(src)
	if body == nil {
		return nil, nil, r.diags.err()
	}
	b := &block{report: r, src: src, body: body}
	b.check(clusterShape)
	var groups []spec.Group
	var places []place
	for _, k := range b.children("group", 1, groupForm) {
		g, p := k.group()
		groups, places = append(groups, g), append(places, p)
	}
	c := &groupCheck{report: r, groups: groups, places: places}
	c.structure()
	if nodes != nil {
		c.nodes(*nodes)
	}
	if err := r.diags.err(); err != nil {
		return nil, r.diags.only(SeverityWarning), err
	}
	return groups, r.diags.only(SeverityWarning), nil
}

// place says where a group or resource and its keys were written. The zero
// place is of a value that came from no file.
type place struct {
	line   int
	keys   map[string]int  // line of each key
	bad    map[string]bool // keys whose value was refused and is missing
	prefer []int           // line of each element of prefer
	parts  []place         // resources of a group
	checks []place         // its checks
}

// at is the line of a key, or of the block if the key is not written.
func (p place) at(key string) int {
	if l := p.keys[key]; l > 0 {
		return l
	}
	return p.line
}

// note remembers where a key is, and that its value is of no use.
func note[T any](p *place, key string, f field[T]) T {
	if f.line > 0 {
		p.keys[key] = f.line
	}
	if f.bad {
		p.bad[key] = true
	}
	return f.v
}

func (b *block) place() place {
	return place{line: b.line, keys: map[string]int{}, bad: map[string]bool{}}
}

// group reads one group block.
func (b *block) group() (spec.Group, place) {
	b.check(shape{
		keys: groupKeys, blocks: map[string]string{"resource": resourceForm, "check": checkForm},
	})
	p := b.place()
	g := spec.Group{Name: b.label}
	prefer, lines := b.list("prefer")
	g.Prefer, p.prefer = note(&p, "prefer", prefer), lines
	g.Exclusive = note(&p, "exclusive", b.flag("exclusive"))
	g.Failback = b.failback(&p)
	g.RetryAfter = note(&p, "retry_after", b.duration("retry_after"))
	g.With, g.Apart = note(&p, "with", b.str("with")), note(&p, "apart", b.str("apart"))
	g.After = note(&p, "after", b.str("after"))
	g.MaxPerNode = note(&p, "max_per_node", b.whole("max_per_node", 1, maxPerNode))
	g.Weight = note(&p, "weight", b.whole("weight", 1, maxWeight))
	g.OnAcquire, g.OnRelease, g.OnProblem = b.args(&p, "on_acquire"), b.args(&p, "on_release"), b.args(&p, "on_problem")
	for _, k := range b.body.Blocks {
		if k.Type == "resource" && len(k.Labels) != 2 {
			p.bad["resources"] = true
		}
	}
	for _, k := range b.children("resource", 2, resourceForm) {
		res, where := k.resource()
		g.Resources, p.parts = append(g.Resources, res), append(p.parts, where)
	}
	g.Checks, p.checks = b.checks()
	return g, p
}

// failback reads the key of that name; the default is off.
func (b *block) failback(p *place) spec.Failback {
	f := b.str("failback")
	text := note(p, "failback", f)
	if f.bad {
		if v, ok := plain(b.body.Attributes["failback"].Expr); ok && isA(v, cty.Bool) {
			b.amend(fmt.Sprintf("write failback = %q", map[bool]string{true: "on", false: "off"}[v.True()]))
		}
	}
	if !f.set() {
		return spec.Failback{}
	}
	bad := finding{
		what: fmt.Sprintf("failback%s is %s", b.in(), quote(text)), allowed: `it takes "on", "off" or "after 5m"`,
	}
	switch rest, after := strings.CutPrefix(text, "after "); {
	case text == "on":
		return spec.Failback{On: true}
	case text == "off":
		return spec.Failback{}
	case after:
		d, why := parseDuration("failback"+b.in(), strings.TrimSpace(rest))
		if why.what == "" && d <= maxFailback {
			return spec.Failback{On: true, After: d}
		}
		if why.what == "" {
			why = finding{what: bad.what, allowed: "the most is " + duration(maxFailback)}
		}
		bad = why
	default:
		bad.remedy = didYouMean(text, []string{"on", "off", "after 5m"})
	}
	b.add(f.line, bad)
	return spec.Failback{}
}

// resource reads one resource block. The body of a type that does not exist is
// not looked at: its type is what is wrong.
func (b *block) resource() (spec.Resource, place) {
	p := b.place()
	r := spec.Resource{Type: b.labels[0], Name: b.labels[1]}
	b.where = subject(r)
	switch r.Type {
	case "ip":
		b.check(shape{keys: ipKeys, blocks: map[string]string{"route": routeForm, "rule": ruleForm}})
		b.ip(&r, &p)
		r.OnAcquire = b.args(&p, "on_acquire")
		r.StartTimeout = note(&p, "start_timeout", b.duration("start_timeout"))
	case "exec":
		b.check(shape{keys: execKeys, hints: b.everyHints()})
		b.exec(&r, &p)
	case "systemd", "lsb":
		b.check(shape{keys: serviceKeys, hints: b.monitorHints(serviceKeys)})
		b.service(&r, &p)
	case "heartbeat":
		b.check(shape{keys: serviceKeys, hints: b.monitorHints(serviceKeys)})
		if addr, dev, ok := heartbeatAddress(r.Name); ok {
			// The guard can only silence an address that is ours.
			return spec.Resource{Type: "ip", Name: addr, Dev: dev}, p
		}
		b.service(&r, &p)
	case "ocf":
		b.check(shape{keys: ocfKeys, blocks: map[string]string{"params": paramsForm}, hints: b.monitorHints(ocfKeys)})
		agent := note(&p, "agent", b.str("agent"))
		r.Agent = strings.TrimPrefix(agent, "ocf:")
		r.Params = b.params(&p)
		if shadowed(r.Agent) && !p.bad["params"] {
			return b.shadow(r, p)
		}
		b.service(&r, &p)
	}
	return r, p
}

const paramsForm = `params { NAME = "VALUE" }`

// heartbeatAddress reads how Heartbeat wrote an address: see [haAddress]. The label and the
// broadcast address mean nothing here: an ip resource has keys for what they were for.
func heartbeatAddress(name string) (addr, dev string, ok bool) {
	a, ok := splitHaAddress(name)
	if !ok {
		return "", "", false
	}
	if addr = a.addr; a.bits != "" {
		addr += "/" + prefixLength(a.bits)
	}
	return addr, a.dev, true
}

// monitorHints answer other words for monitor.
func (b *block) monitorHints(keys []string) map[string]finding {
	hints := map[string]finding{}
	for _, key := range []string{"every", "interval", "monitor_every", "monitor_interval"} {
		hints[key] = finding{
			what: fmt.Sprintf("unknown key %s%s", quote(key), b.in()), allowed: takes("keys", keys),
			remedy: `the time between two looks is monitor = "10s"`,
		}
	}
	return hints
}

// service reads what all types share that run something with commands of its own.
func (b *block) service(r *spec.Resource, p *place) {
	f := b.duration("monitor")
	if f.line > 0 {
		p.keys["every"], p.keys["monitor"], p.bad["every"] = f.line, f.line, f.bad
	}
	r.Every = f.or(DefaultEvery)
	b.bounds(r, p)
}

// bounds reads the time-outs and restarts.
func (b *block) bounds(r *spec.Resource, p *place) {
	r.Timeout = note(p, "timeout", b.duration("timeout"))
	r.StartTimeout = note(p, "start_timeout", b.duration("start_timeout"))
	r.StopTimeout = note(p, "stop_timeout", b.duration("stop_timeout"))
	r.MonitorTimeout = note(p, "monitor_timeout", b.duration("monitor_timeout"))
	r.Restarts = note(p, "restarts", b.whole("restarts", 0, maxRestarts))
	r.Within = note(p, "within", b.duration("within"))
	r.Concurrent = note(p, "concurrent", b.flag("concurrent"))
}

// params reads the parameters of an agent: keys of any name, each a string; a
// number or a flag is taken as it is written.
func (b *block) params(p *place) map[string]string {
	var out map[string]string
	for _, k := range b.children("params", 0, paramsForm) {
		if out != nil {
			b.add(k.line, finding{what: "params" + b.in() + " is written twice", remedy: "make them one"})
			continue
		}
		out = map[string]string{}
		k.where = "params of " + b.where
		for name, a := range k.body.Attributes {
			line := a.NameRange.Start.Line
			v, ok := plain(a.Expr)
			switch {
			case ok && isA(v, cty.String):
				out[name] = v.AsString()
			case ok && (isA(v, cty.Number) || isA(v, cty.Bool)):
				out[name] = string(a.Expr.Range().SliceBytes(b.src))
			default:
				p.bad["params"] = true
				b.add(line, k.wrong(name, a.Expr, "a string"))
			}
			p.keys["params."+name] = line
		}
		for _, inner := range k.body.Blocks {
			b.add(inner.TypeRange.Start.Line, finding{what: "params" + b.in() + " holds a block", remedy: "write " + paramsForm})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// everyHints answer other words for every.
func (b *block) everyHints() map[string]finding {
	hints := map[string]finding{}
	for _, key := range []string{"interval", "monitor_every", "monitor_interval"} {
		hints[key] = finding{
			what: fmt.Sprintf("unknown key %s%s", quote(key), b.in()), allowed: takes("keys", execKeys),
			remedy: "the time between two runs of monitor is every",
		}
	}
	return hints
}

// args reads a program and its arguments.
func (b *block) args(p *place, key string) []string {
	f, _ := b.list(key)
	return note(p, key, f)
}

// exec reads the keys of an exec resource.
func (b *block) exec(r *spec.Resource, p *place) {
	r.Start, r.Stop, r.Monitor = b.args(p, "start"), b.args(p, "stop"), b.args(p, "monitor")
	if p.bad["monitor"] {
		if v, ok := plain(b.body.Attributes["monitor"].Expr); ok && isA(v, cty.String) {
			if _, err := time.ParseDuration(v.AsString()); err == nil {
				b.amend(fmt.Sprintf("the time between two runs is every = %q", v.AsString()))
			}
		}
	}
	r.Every = note(p, "every", b.duration("every"))
	if p.keys["every"] == 0 && len(r.Monitor) > 0 {
		r.Every = DefaultEvery
	}
	b.bounds(r, p)
}
