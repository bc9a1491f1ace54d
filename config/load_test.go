package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hanode/internal/spec"
)

func good(name string) string { return filepath.Join("testdata", "good", name) }

// abs is where a relative path of a good file ends up.
func abs(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(good(path))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadNode(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	founders := []spec.Node{
		{Name: "primary", Address: "10.0.0.1", Role: spec.RoleNode},
		{Name: "secondary", Address: "10.0.0.2", Role: spec.RoleNode},
	}
	plain := Node{
		Cluster: DefaultCluster, Name: host, DataDir: "/var/lib/hanode", KeyFile: "/etc/hanode/key",
		Socket: "/run/hanode/hanode.sock", HTTP: "127.0.0.1:7696", Port: 7694,
		Profile: "lan", Timing: spec.Profiles["lan"], LogLevel: "info", LogFormat: "text",
	}
	contract := plain
	contract.Cluster, contract.Name, contract.Links = "web", "primary", []string{"eth0", "eth1"}
	contract.Nodes = append(founders[:2:2], spec.Node{Name: "arbiter", Address: "10.0.0.3", Role: spec.RoleWitness})
	minimal := plain
	minimal.Nodes = append(founders[:2:2], spec.Node{Name: "tertiary", Address: "10.0.0.3", Role: spec.RoleNode})
	single := plain
	single.Cluster, single.Links = "lab", []string{"lo"}
	single.Nodes = []spec.Node{{Name: "primary", Address: "127.0.0.1", Role: spec.RoleNode}}
	full := Node{
		Cluster: "mail.example", Name: "mx-2", DataDir: abs(t, "state"), KeyFile: abs(t, "secrets/key"),
		Socket: abs(t, "run/hanode.sock"), HTTP: "[::1]:8080", Port: 9000, GroupsFile: abs(t, "cluster.hcl"),
		Links: []string{"bond0", "eth2.100"}, LogLevel: "debug", LogFormat: "json",
		Timing: spec.Timing{
			Keepalive: 300 * time.Millisecond, Warntime: 2 * time.Second, Deadtime: 3 * time.Second, Initdead: 30 * time.Second,
		},
		Nodes: []spec.Node{
			{Name: "mx-3", Address: "192.0.2.13", Role: spec.RoleNode},
			{Name: "mx-1", Address: "192.0.2.11", Role: spec.RoleNode},
			{Name: "mx-2", Address: "192.0.2.12", Role: spec.RoleNode},
			{Name: "mx-4", Address: "192.0.2.14", Role: spec.RoleNode},
			{Name: "mx-w", Address: "192.0.2.15", Role: spec.RoleWitness},
		},
	}
	for _, tt := range []struct {
		file     string
		want     Node
		warnings int
	}{
		{"contract.hcl", contract, 0},
		{"minimal.hcl", minimal, 1},
		{"single.hcl", single, 2},
		{"full.hcl", full, 0},
	} {
		t.Run(tt.file, func(t *testing.T) {
			got, err := LoadNode(good(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.File = good(tt.file)
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreUnexported(Node{})); diff != "" {
				t.Errorf("LoadNode (-want +got):\n%s", diff)
			}
			if w := got.Warnings(); len(w) != tt.warnings {
				t.Errorf("warnings: %v", w)
			}
		})
	}
}

func TestLoadReadErrors(t *testing.T) {
	for name, load := range map[string]func(string) error{
		"node":    func(p string) error { _, err := LoadNode(p); return err },
		"cluster": func(p string) error { _, err := LoadCluster(p); return err },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.hcl")
			err := load(path)
			var ds Diagnostics
			if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &ds) || !strings.HasPrefix(err.Error(), path+": cannot read the file: ") {
				t.Errorf("missing file: %v", err)
			}
			if err := os.WriteFile(path, make([]byte, maxFileBytes+1), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
				t.Errorf("huge file: %v", err)
			}
			if err := load(t.TempDir()); !errors.As(err, &ds) {
				t.Errorf("folder: %v", err)
			}
		})
	}
	if _, err := ParseCluster("x", make([]byte, maxFileBytes+1)); err == nil {
		t.Error("ParseCluster took a huge source")
	}
}

func TestHostnameDefault(t *testing.T) {
	src := []byte(`node "a" { address = "10.0.0.1" }`)
	broken := errors.New("no such syscall")
	_, err := parseNode("x", src, "/", func() (string, error) { return "", broken })
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), `set name = "NAME"`) {
		t.Errorf("hostname fails: %v", err)
	}
	_, err = parseNode("x", src, "/", func() (string, error) { return "my host", nil })
	if want := `x: the hostname "my host" is not a valid name`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("bad hostname: %v", err)
	}
}

func TestSelf(t *testing.T) {
	n, err := LoadNode(good("full.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Node{Name: "mx-2", Address: "192.0.2.12", Role: spec.RoleNode}
	if got, ok := n.Self(); !ok || got != want {
		t.Errorf("Self = %v, %v", got, ok)
	}
	n.Name = "other"
	if got, ok := n.Self(); ok {
		t.Errorf("Self of a stranger = %v", got)
	}
}

// TestDigest: what founders must agree on changes it, nothing else does.
func TestDigest(t *testing.T) {
	load := func() *Node {
		n, err := LoadNode(good("full.hcl"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	base := load().Digest()
	if len(base) != 64 {
		t.Fatalf("Digest = %q", base)
	}
	for name, tt := range map[string]struct {
		change func(*Node)
		same   bool
	}{
		"name":      {func(n *Node) { n.Name = "mx-1" }, true},
		"order":     {func(n *Node) { n.Nodes[0], n.Nodes[3] = n.Nodes[3], n.Nodes[0] }, true},
		"paths":     {func(n *Node) { n.DataDir, n.KeyFile, n.Socket, n.GroupsFile, n.File = "", "", "", "", "" }, true},
		"links":     {func(n *Node) { n.Links = nil }, true},
		"local":     {func(n *Node) { n.HTTP, n.LogLevel, n.LogFormat, n.Profile = "", "warn", "text", "x" }, true},
		"cluster":   {func(n *Node) { n.Cluster = "x" }, false},
		"port":      {func(n *Node) { n.Port++ }, false},
		"keepalive": {func(n *Node) { n.Timing.Keepalive++ }, false},
		"warntime":  {func(n *Node) { n.Timing.Warntime++ }, false},
		"deadtime":  {func(n *Node) { n.Timing.Deadtime++ }, false},
		"initdead":  {func(n *Node) { n.Timing.Initdead++ }, false},
		"rename":    {func(n *Node) { n.Nodes[0].Name = "mx-9" }, false},
		"address":   {func(n *Node) { n.Nodes[0].Address = "fd00::9" }, false},
		"role":      {func(n *Node) { n.Nodes[0].Role = spec.RoleWitness }, false},
		"fewer":     {func(n *Node) { n.Nodes = n.Nodes[1:] }, false},
	} {
		n := load()
		tt.change(n)
		if (n.Digest() == base) != tt.same {
			t.Errorf("%s: the digest is the same: %v", name, !tt.same)
		}
	}
	n := load()
	first := n.Nodes[0].Name
	if n.Digest(); n.Nodes[0].Name != first {
		t.Error("Digest reordered the founders")
	}
}

func TestTimingDefaults(t *testing.T) {
	const ms = time.Millisecond
	for body, want := range map[string]struct {
		profile string
		timing  spec.Timing
	}{
		``:                   {"lan", spec.Profiles["lan"]},
		`profile = "wan"`:    {"wan", spec.Profiles["wan"]},
		`deadtime = "200ms"`: {"", spec.Timing{Keepalive: 20 * ms, Warntime: 100 * ms, Deadtime: 200 * ms, Initdead: 5000 * ms}},
		`deadtime = "2s"`:    {"", spec.Timing{Keepalive: 200 * ms, Warntime: 1000 * ms, Deadtime: 2000 * ms, Initdead: 20000 * ms}},
		`keepalive = "50ms"`: {"", spec.Timing{Keepalive: 50 * ms, Warntime: 500 * ms, Deadtime: 1000 * ms, Initdead: 10000 * ms}},
		"profile = \"fast\"\ninitdead = \"1s\"": {
			"", spec.Timing{Keepalive: 25 * ms, Warntime: 125 * ms, Deadtime: 250 * ms, Initdead: 1000 * ms},
		},
	} {
		src := "node \"a\" { address = \"10.0.0.1\" }\ntiming {\n" + body + "\n}\n"
		n, err := parseNode("x", []byte(src), "/", hostname)
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if n.Profile != want.profile || n.Timing != want.timing {
			t.Errorf("%s: profile %q, %+v, want %q, %+v", body, n.Profile, n.Timing, want.profile, want.timing)
		}
	}
}

func TestLoadCluster(t *testing.T) {
	got, err := LoadCluster(good("cluster.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.Group{
		{
			Name: "web", Prefer: []string{"primary"}, Failback: spec.Failback{On: true},
			Resources: []spec.Resource{
				{Type: "ip", Name: "10.0.0.100/24", Dev: "eth1"},
				{Type: "ip", Name: "FD00::100"},
				{
					Type: "exec", Name: "apache",
					Start: []string{"/usr/sbin/apachectl", "start"}, Stop: []string{"/usr/sbin/apachectl", "stop"},
					Monitor: []string{"/usr/bin/curl", "-fsS", `http://127.0.0.1/${status}?a=%{b}&c="d"`},
					Every:   5 * time.Second, Timeout: 90 * time.Second, Restarts: 3,
				},
			},
		},
		{
			Name: "db", Prefer: []string{"secondary", "primary"}, Exclusive: true,
			Failback: spec.Failback{On: true, After: 5 * time.Minute},
			Resources: []spec.Resource{{
				Type: "exec", Name: "postgres", Start: []string{"/usr/bin/pg_ctl", "start"},
				Stop: []string{"/usr/bin/pg_ctl", "stop"}, Monitor: []string{"/usr/bin/pg_isready"}, Every: DefaultEvery,
			}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadCluster (-want +got):\n%s", diff)
	}
	if got, err := LoadCluster(good("cluster-empty.hcl")); err != nil || len(got) != 0 {
		t.Errorf("empty file: %v, %v", got, err)
	}
}

func TestLoadGroups(t *testing.T) {
	n, err := LoadNode(good("full.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.LoadGroups(); err == nil || !strings.Contains(err.Error(), `cluster.hcl:3: prefer in group "web" names "primary", which is not a node`) {
		t.Errorf("groups for other nodes: %v", err)
	}
	n.Nodes = []spec.Node{{Name: "primary"}, {Name: "secondary"}}
	if groups, err := n.LoadGroups(); err != nil || len(groups) != 2 {
		t.Errorf("LoadGroups = %v, %v", groups, err)
	}
	n.GroupsFile = filepath.Join(t.TempDir(), "gone.hcl")
	if _, err := n.LoadGroups(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	n.GroupsFile = ""
	if groups, err := n.LoadGroups(); err != nil || groups != nil {
		t.Errorf("no file: %v, %v", groups, err)
	}
}

// TestCheckGroupsAlone: groups that came from no file are held to the same rules.
func TestCheckGroupsAlone(t *testing.T) {
	sh := []string{"/bin/true"}
	web := func(r ...spec.Resource) []spec.Group { return []spec.Group{{Name: "web", Resources: r}} }
	for name, tt := range map[string]struct {
		groups []spec.Group
		want   string // in the error; "" = none
	}{
		"nothing":        {nil, ""},
		"good":           {web(spec.Resource{Type: "exec", Name: "a", Start: sh, Stop: sh}), ""},
		"type":           {web(spec.Resource{Type: "lbs", Name: "a"}), `unknown resource type "lbs"; types are ip, systemd, lsb, ocf, heartbeat, exec; did you mean lsb?`},
		"shadowed":       {web(spec.Resource{Type: "ocf", Name: "a", Agent: "heartbeat:IPaddr2"}), `agent in ocf "a" is ocf:heartbeat:IPaddr2; it would put the address on behind no guard; use resource "ip"`},
		"ip with start":  {web(spec.Resource{Type: "ip", Name: "10.0.0.9", Start: sh, Every: 1}), "has start\n"},
		"exec with dev":  {web(spec.Resource{Type: "exec", Name: "a", Start: sh, Stop: sh, Dev: "eth0"}), "has dev"},
		"negative every": {web(spec.Resource{Type: "exec", Name: "a", Start: sh, Stop: sh, Monitor: sh, Every: -1}), "every in exec"},
		"restarts":       {web(spec.Resource{Type: "exec", Name: "a", Start: sh, Stop: sh, Restarts: -1}), "restarts in exec"},
		"failback":       {[]spec.Group{{Name: "web", Failback: spec.Failback{After: 1}, Resources: web(spec.Resource{Type: "ip", Name: "10.0.0.9"})[0].Resources}}, "failback in group"},
	} {
		err := CheckGroups(tt.groups, nil)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), ";", "\n")+"\n", strings.ReplaceAll(tt.want, ";", "\n"))):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestDiagnosticString(t *testing.T) {
	d := Diagnostic{File: "hanode.hcl", Line: 12, What: `interface "eth1" does not exist`, Allowed: "this host has lo, eth0", Severity: SeverityError}
	if got, want := d.String(), `hanode.hcl:12: interface "eth1" does not exist; this host has lo, eth0`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d.Severity, d.Line, d.Remedy = SeverityWarning, 0, "add it"
	if got, want := d.String(), `hanode.hcl: warning: interface "eth1" does not exist; this host has lo, eth0; add it`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRealHost(t *testing.T) {
	h := RealHost()
	devices, err := h.Devices()
	if err != nil || len(devices) == 0 {
		t.Fatalf("Devices = %v, %v", devices, err)
	}
	for _, dev := range devices {
		addrs, err := h.Addresses(dev)
		if err != nil {
			t.Errorf("Addresses(%s): %v", dev, err)
		}
		for _, a := range addrs {
			if !a.IsValid() || a.Zone() != "" {
				t.Errorf("%s has %v", dev, a)
			}
		}
	}
	if _, err := h.Addresses("no-such-dev"); err == nil {
		t.Error("a device that does not exist has addresses")
	}
	path := filepath.Join(t.TempDir(), "key")
	if _, _, err := h.ReadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadKey of nothing: %v", err)
	}
	if err := os.WriteFile(path, []byte("# key\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if text, mode, err := h.ReadKey(path); err != nil || string(text) != "# key\n" || mode != 0o640 {
		t.Errorf("ReadKey = %q, %v, %v", text, mode, err)
	}
	if text, mode, err := h.ReadKey(t.TempDir()); err != nil || text != nil || !mode.IsDir() {
		t.Errorf("ReadKey of a folder = %q, %v, %v", text, mode, err)
	}
}

// TestRealHostChecks runs CheckHost against this machine's loopback device.
func TestRealHostChecks(t *testing.T) {
	lo, err := RealHost().Addresses("lo")
	if err != nil || len(lo) == 0 {
		t.Skip("no lo with an address here")
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("hanode-key-1 "+strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &Node{Name: "a", Links: []string{"lo"}, KeyFile: key, Nodes: []spec.Node{{Name: "a", Address: lo[0].String()}}}
	if err := n.CheckHost(RealHost()); err != nil {
		t.Error(err)
	}
	n.Nodes[0].Address = netip.MustParseAddr("192.0.2.1").String()
	if err := n.CheckHost(RealHost()); err == nil || !strings.Contains(err.Error(), "is not on lo, the first link") {
		t.Errorf("a foreign address passed: %v", err)
	}
}
