package resource

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ocfMeta is what matters of an agent's metadata.
type ocfMeta struct {
	params map[string]ocfParam
	// start, stop, monitor, validate: how long the agent's author gives each; 0 =
	// the metadata does not say. known lists the operations that it does name.
	start, stop, monitor, validate time.Duration
	known                          map[string]bool
}

// ocfParam is one parameter.
type ocfParam struct {
	required bool
	kind     string // string, boolean, integer; anything else is not looked at
	def      string
}

// promotable: the agent has two roles, and an operation to change between them.
func (m *ocfMeta) promotable() bool { return m.known["promote"] && m.known["demote"] }

// maxMeta is the longest metadata that is read, in bytes; the longest of Debian's
// agents has 40 KiB.
const maxMeta = 1 << 20

// parseMeta reads the XML that an agent prints for meta-data. Authors of agents
// write it by hand: what is around it is skipped, and unknown entities and other
// slips are forgiven.
func parseMeta(b []byte) (*ocfMeta, error) {
	const open, end = "<resource-agent", "</resource-agent>"
	from, to := bytes.Index(b, []byte(open)), bytes.LastIndex(b, []byte(end))
	if from < 0 || to < from {
		return nil, errors.New("it prints no metadata")
	}
	b = b[from : to+len(end)]
	var doc struct {
		Parameters []struct {
			Name     string `xml:"name,attr"`
			Required string `xml:"required,attr"`
			Content  struct {
				Type    string `xml:"type,attr"`
				Default string `xml:"default,attr"`
			} `xml:"content"`
		} `xml:"parameters>parameter"`
		Actions []ocfAction `xml:"actions>action"`
	}
	dec := xml.NewDecoder(bytes.NewReader(bytes.ToValidUTF8(b, []byte("?"))))
	dec.Strict, dec.Entity = false, xml.HTMLEntity
	dec.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("its metadata cannot be read: %w", err)
	}
	m := &ocfMeta{params: map[string]ocfParam{}, known: map[string]bool{}}
	for _, p := range doc.Parameters {
		if p.Name != "" {
			m.params[p.Name] = ocfParam{ocfTrue(p.Required), p.Content.Type, p.Content.Default}
		}
	}
	// Of several monitors the shallowest counts, and the one without a role.
	slices.SortStableFunc(doc.Actions, func(a, b ocfAction) int {
		return cmp.Or(cmp.Compare(len(a.Role), len(b.Role)), cmp.Compare(a.depth(), b.depth()))
	})
	for _, a := range doc.Actions {
		if m.known[a.Name] {
			continue
		}
		m.known[a.Name] = true
		t := ocfTime(a.Timeout)
		switch a.Name {
		case "start":
			m.start = t
		case "stop":
			m.stop = t
		case "monitor":
			m.monitor = t
		case "validate-all":
			m.validate = t
		}
	}
	return m, nil
}

type ocfAction struct {
	Name    string `xml:"name,attr"`
	Timeout string `xml:"timeout,attr"`
	Depth   string `xml:"depth,attr"`
	Role    string `xml:"role,attr"`
}

func (a ocfAction) depth() int {
	d, _ := strconv.Atoi(a.Depth) // not a number: as good as none
	return d
}

// maxOcfTime bounds a time of an agent's metadata, as the cluster file does.
const maxOcfTime = 24 * time.Hour

// ocfTime reads a time as agents write it: "20", "20s", "20000ms", "1m". What cannot
// be read or is out of range is 0, which is none.
func ocfTime(text string) time.Duration {
	text = strings.TrimSpace(text)
	i := strings.IndexFunc(text, func(c rune) bool { return c < '0' || c > '9' })
	if i < 0 {
		i = len(text)
	}
	n, err := strconv.ParseUint(text[:i], 10, 32)
	units := map[string]time.Duration{
		"": time.Second, "s": time.Second, "sec": time.Second, "ms": time.Millisecond, "msec": time.Millisecond,
		"us": time.Microsecond, "usec": time.Microsecond, "m": time.Minute, "min": time.Minute, "h": time.Hour, "hr": time.Hour,
	}
	unit, ok := units[strings.ToLower(strings.TrimSpace(text[i:]))]
	if err != nil || !ok || n > uint64(maxOcfTime/unit) {
		return 0
	}
	return time.Duration(n) * unit
}

// ocfTrue reads a boolean as ocf_is_true of the agents' library does.
func ocfTrue(text string) bool {
	return slices.Contains([]string{"yes", "true", "1", "y", "on", "ja", "t"}, strings.ToLower(text))
}

func ocfFalse(text string) bool {
	return slices.Contains([]string{"no", "false", "0", "n", "off", "nein", "f", ""}, strings.ToLower(text))
}

// checkLevel is a parameter that every agent takes: how deep a monitor looks.
const checkLevel = "OCF_CHECK_LEVEL"

// wrong lists what the metadata does not allow of parameters.
func (m *ocfMeta) wrong(given map[string]string) (bad []string) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		p, ok := m.params[name]
		if name == checkLevel {
			p, ok = ocfParam{kind: "integer"}, true
		}
		v := given[name]
		switch {
		case !ok && len(m.params) == 0:
			bad = append(bad, fmt.Sprintf("it takes no parameters, and %q is one", name))
		case !ok:
			bad = append(bad, fmt.Sprintf("it has no parameter %q; it takes %s", name, strings.Join(slices.Sorted(maps.Keys(m.params)), ", ")))
		case p.kind == "integer" && !isInteger(v):
			bad = append(bad, fmt.Sprintf("parameter %s is %q, and takes a whole number", name, v))
		case p.kind == "boolean" && !ocfTrue(v) && !ocfFalse(v):
			bad = append(bad, fmt.Sprintf("parameter %s is %q, and takes true or false", name, v))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.params)) {
		if p := m.params[name]; p.required && p.def == "" && given[name] == "" {
			bad = append(bad, fmt.Sprintf("parameter %s is missing", name))
		}
	}
	return bad
}

// isInteger: infinity is one to the agents.
func isInteger(v string) bool {
	digits := strings.TrimLeft(v, "+-")
	if len(v)-len(digits) > 1 {
		return false
	}
	return strings.EqualFold(digits, "infinity") || digits != "" && strings.Trim(digits, "0123456789") == ""
}
