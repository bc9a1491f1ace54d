package config

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"hanode/internal/spec"
)

// FormatCluster writes groups as a cluster file in canonical form: in the order
// given, failback always written, other keys only where they say something.
// ParseCluster reads it back unchanged if groups came from ParseCluster, or
// pass CheckGroups with text in Unicode NFC and every set beside monitor.
func FormatCluster(groups []spec.Group) []byte {
	file := hclwrite.NewEmptyFile()
	for i, g := range groups {
		if i > 0 {
			file.Body().AppendNewline()
		}
		body := file.Body().AppendNewBlock("group", []string{g.Name}).Body()
		if len(g.Prefer) > 0 {
			body.SetAttributeValue("prefer", stringList(g.Prefer))
		}
		body.SetAttributeValue("failback", cty.StringVal(failbackText(g.Failback)))
		if g.RetryAfter > 0 {
			body.SetAttributeValue("retry_after", cty.StringVal(duration(g.RetryAfter)))
		}
		formatRules(body, g)
		formatArgs(body, "on_acquire", g.OnAcquire)
		formatArgs(body, "on_release", g.OnRelease)
		formatArgs(body, "on_problem", g.OnProblem)
		if g.Exclusive {
			body.SetAttributeValue("exclusive", cty.True)
		}
		formatChecks(body, g, 0)
		for j, r := range g.Resources {
			body.AppendNewline()
			formatResource(body.AppendNewBlock("resource", []string{r.Type, r.Name}).Body(), r)
			formatChecks(body, g, j+1)
		}
	}
	return hclwrite.Format(file.Bytes())
}

func formatResource(body *hclwrite.Body, r spec.Resource) {
	if r.Dev != "" {
		body.SetAttributeValue("dev", cty.StringVal(r.Dev))
	}
	formatIP(body, r)
	formatArgs(body, "on_acquire", r.OnAcquire)
	formatArgs(body, "start", r.Start)
	formatArgs(body, "stop", r.Stop)
	formatArgs(body, "monitor", r.Monitor)
	if r.Agent != "" {
		body.SetAttributeValue("agent", cty.StringVal("ocf:"+r.Agent))
	}
	every := "monitor" // of a type whose command is known
	if r.Type == "exec" {
		every = "every"
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{every, r.Every},
		{"timeout", r.Timeout},
		{"start_timeout", r.StartTimeout},
		{"stop_timeout", r.StopTimeout},
		{"monitor_timeout", r.MonitorTimeout},
	} {
		if d.d > 0 {
			body.SetAttributeValue(d.key, cty.StringVal(duration(d.d)))
		}
	}
	if r.Restarts > 0 {
		body.SetAttributeValue("restarts", cty.NumberIntVal(int64(r.Restarts)))
	}
	if r.Concurrent {
		body.SetAttributeValue("concurrent", cty.True)
	}
	if r.Within > 0 {
		body.SetAttributeValue("within", cty.StringVal(duration(r.Within)))
	}
	if len(r.Params) > 0 {
		params := body.AppendNewBlock("params", nil).Body()
		for _, name := range slices.Sorted(maps.Keys(r.Params)) {
			params.SetAttributeValue(name, cty.StringVal(r.Params[name]))
		}
	}
}

func formatRules(body *hclwrite.Body, g spec.Group) {
	for _, r := range []struct{ key, group string }{{"with", g.With}, {"apart", g.Apart}, {"after", g.After}} {
		if r.group != "" {
			body.SetAttributeValue(r.key, cty.StringVal(r.group))
		}
	}
	for _, r := range []struct {
		key string
		n   int
	}{{"max_per_node", g.MaxPerNode}, {"weight", g.Weight}} {
		if r.n > 0 {
			body.SetAttributeValue(r.key, cty.NumberIntVal(int64(r.n)))
		}
	}
}

// formatChecks writes the checks that stand after that many resources.
func formatChecks(body *hclwrite.Body, g spec.Group, after int) {
	for _, c := range g.Checks {
		if c.After != after {
			continue
		}
		body.AppendNewline()
		k := body.AppendNewBlock("check", []string{c.Type, c.Target}).Body()
		if len(c.Command) > 0 {
			k.SetAttributeValue("command", stringList(c.Command))
		}
		for _, d := range []struct {
			key string
			d   time.Duration
		}{{"interval", c.Interval}, {"timeout", c.Timeout}, {"grace", c.Grace}} {
			if d.d > 0 {
				k.SetAttributeValue(d.key, cty.StringVal(duration(d.d)))
			}
		}
		for _, n := range []struct {
			key string
			n   int
		}{{"rise", c.Rise}, {"fall", c.Fall}} {
			if n.n > 0 {
				k.SetAttributeValue(n.key, cty.NumberIntVal(int64(n.n)))
			}
		}
	}
}

// formatArgs writes an argument list where there is one.
func formatArgs(body *hclwrite.Body, key string, args []string) {
	if len(args) > 0 {
		body.SetAttributeValue(key, stringList(args))
	}
}

// formatIP writes what only an ip resource has, but for dev.
func formatIP(body *hclwrite.Body, r spec.Resource) {
	if r.Network {
		body.SetAttributeValue("prefix", cty.StringVal("network"))
	}
	if r.Broadcast != "" {
		body.SetAttributeValue("broadcast", cty.StringVal(r.Broadcast))
	}
	if r.Source {
		body.SetAttributeValue("source", cty.True)
	}
	if r.Label != "" {
		body.SetAttributeValue("label", cty.StringVal(r.Label))
	}
	number := func(body *hclwrite.Body, key string, n int) {
		if n != 0 {
			body.SetAttributeValue(key, cty.NumberIntVal(int64(n)))
		}
	}
	for _, x := range r.Routes {
		route := body.AppendNewBlock("route", []string{x.To}).Body()
		if x.Via != "" {
			route.SetAttributeValue("via", cty.StringVal(x.Via))
		}
		number(route, "table", x.Table)
		number(route, "metric", x.Metric)
	}
	for _, x := range r.Rules {
		rule := body.AppendNewBlock("rule", nil).Body()
		if x.To != "" {
			rule.SetAttributeValue("to", cty.StringVal(x.To))
		}
		number(rule, "table", x.Table)
		number(rule, "priority", x.Priority)
	}
}

func stringList(words []string) cty.Value {
	vals := make([]cty.Value, len(words))
	for i, w := range words {
		vals[i] = cty.StringVal(w)
	}
	return cty.TupleVal(vals)
}

// failbackText renders what the key failback takes.
func failbackText(f spec.Failback) string {
	if f.On && f.After > 0 {
		return "after " + duration(f.After)
	}
	return f.String()
}
