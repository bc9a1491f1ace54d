package config

import (
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
		if g.Exclusive {
			body.SetAttributeValue("exclusive", cty.True)
		}
		for _, r := range g.Resources {
			body.AppendNewline()
			formatResource(body.AppendNewBlock("resource", []string{r.Type, r.Name}).Body(), r)
		}
	}
	return hclwrite.Format(file.Bytes())
}

func formatResource(body *hclwrite.Body, r spec.Resource) {
	if r.Dev != "" {
		body.SetAttributeValue("dev", cty.StringVal(r.Dev))
	}
	for _, c := range []struct {
		key  string
		args []string
	}{{"start", r.Start}, {"stop", r.Stop}, {"monitor", r.Monitor}} {
		if len(c.args) > 0 {
			body.SetAttributeValue(c.key, stringList(c.args))
		}
	}
	if r.Every > 0 {
		body.SetAttributeValue("every", cty.StringVal(duration(r.Every)))
	}
	if r.Timeout > 0 {
		body.SetAttributeValue("timeout", cty.StringVal(duration(r.Timeout)))
	}
	if r.Restarts > 0 {
		body.SetAttributeValue("restarts", cty.NumberIntVal(int64(r.Restarts)))
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
