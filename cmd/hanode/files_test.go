package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"hanode/api"
)

const nodeFileText = `
name = "primary"
node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }
node "arbiter" {
  address = "10.0.0.3"
  role    = "witness"
}
`

func TestValidate(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name, file, text string
		args             []string
		code             int
		kind, want       string
	}{
		{"a cluster file", "web.hcl", webFile, nil, 0, "cluster", "a valid cluster file"},
		{"a broken cluster file", "web.hcl", "group \"web\" {\n  prefre = []\n}\n", nil, 2, "cluster", "prefre"},
		{"an empty cluster file", "web.hcl", "", []string{"--as", "cluster"}, 0, "cluster", "a valid cluster file"},
		{"a node file", "hanode.hcl", nodeFileText, []string{"--skip-host"}, 0, "node", "a valid node file"},
		{"two nodes", "hanode.hcl", "name = \"a\"\ntwo_node = \"manual\"\nnode \"a\" { address = \"10.0.0.1\" }\nnode \"b\" { address = \"10.0.0.2\" }\n", []string{"--skip-host"}, 0, "node", "hanode.hcl:2: two_node = \"manual\": two nodes and no third vote"},
		{"a node file of another host", "hanode.hcl", nodeFileText, nil, 2, "node", "not a valid node file"},
		{"a broken node file", "hanode.hcl", "port = 99999\n", nil, 2, "node", "99999"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := h.write(c.file, c.text)
			code, out, errs := h.run(append([]string{"validate", path}, c.args...)...)
			if code != c.code || errs != "" || !strings.Contains(out, c.want) || strings.Contains(out, ": warning: ") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
			}
			code, out, _ = h.run(append([]string{"validate", path, "--json"}, c.args...)...)
			var v struct {
				File, Kind string
				OK         *bool
				Findings   []map[string]any
			}
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatal(err)
			}
			if code != c.code || v.File != path || v.Kind != c.kind || *v.OK != (c.code == 0) || v.Findings == nil {
				t.Errorf("exit %d, %s", code, out)
			}
		})
	}
}

func TestKeyGenerate(t *testing.T) {
	h := newHost(t)
	line := regexp.MustCompile(`^hanode-key-1 [A-Za-z0-9+/]{43}=\n$`)
	first, second := h.must("key", "generate"), h.must("key", "generate")
	if !line.MatchString(first) {
		t.Errorf("got %q", first)
	}
	if first == second {
		t.Error("the same key twice")
	}
}

func TestVersion(t *testing.T) {
	h := newHost(t)
	out := h.must("version", "--json")
	var v struct {
		Version, Go string
		Agent       *api.Version
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.Version == "" || !strings.HasPrefix(v.Go, "go") || v.Agent == nil || v.Agent.Node != "primary" || v.Agent.Cluster != "web" {
		t.Errorf("got %s", out)
	}
	if text := h.must("version"); !strings.Contains(text, "restart it") || !strings.Contains(text, "node primary of cluster web") {
		t.Errorf("got %s", text)
	}
}

// The node file says how the agent logs.
func TestLog(t *testing.T) {
	for _, c := range []struct{ level, format, want string }{
		{"info", "text", "level=INFO msg=b group=web\n"},
		{"debug", "text", "level=DEBUG msg=a\nlevel=INFO msg=b group=web\n"},
		{"info", "json", `"level":"INFO","msg":"b","group":"web"}` + "\n"},
		{"error", "text", ""},
	} {
		var b bytes.Buffer
		log := newLog(&b, c.level, c.format)
		log.Debug("a")
		log.Info("b", "group", "web")
		got := regexp.MustCompile(`("time":"[^"]*",|time=\S* )`).ReplaceAllString(b.String(), "")
		if got = strings.TrimPrefix(got, "{"); got != c.want {
			t.Errorf("%s %s: got %q", c.level, c.format, got)
		}
	}
}
