package config

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"hanode/internal/spec"
)

// argument is text of a program's argument: anything but NUL, in NFC, with a
// liking for what HCL takes for its own.
func argument() *rapid.Generator[string] {
	word := rapid.OneOf(
		rapid.SampledFrom([]string{"${", "%{", "$", "%", "$$", "$${", "%%{", "}", `"`, `\`, "\n", "\r\n", "\t", "<<EOT", "é", "\u2028", "\U0001F600", "\x01", " "}),
		rapid.String(),
	)
	return rapid.Custom(func(t *rapid.T) string {
		s := strings.Join(rapid.SliceOfN(word, 0, 6).Draw(t, "words"), "")
		return cty.NormalizeString(strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", ""))
	})
}

func name() *rapid.Generator[string] { return rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,62}`) }

func argv() *rapid.Generator[[]string] {
	return rapid.Custom(func(t *rapid.T) []string {
		args := rapid.SliceOfN(argument(), 1, 4).Draw(t, "args")
		if args[0] == "" {
			args[0] = "x"
		}
		return args
	})
}

func span() *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(int64(minExecTime), int64(maxExecTime)), func(n int64) time.Duration {
		return time.Duration(n)
	})
}

// resourceGen makes the i-th resource of group g, so that addresses differ.
func resourceGen(g, i int) *rapid.Generator[spec.Resource] {
	return rapid.Custom(func(t *rapid.T) spec.Resource {
		if rapid.Bool().Draw(t, "ip") {
			r := spec.Resource{Type: "ip", Name: fmt.Sprintf("10.%d.%d.7", g, i)}
			if rapid.Bool().Draw(t, "prefix") {
				r.Name += "/24"
			}
			if rapid.Bool().Draw(t, "hook") {
				r.OnAcquire, r.StartTimeout = argv().Draw(t, "on_acquire"), span().Draw(t, "bound")
			}
			r.Dev = rapid.SampledFrom([]string{"", "eth0", "br-lan", "eth1.100", "${x}"}).Draw(t, "dev")
			r.Network = strings.Contains(r.Name, "/") && rapid.Bool().Draw(t, "network")
			if r.Network {
				r.Broadcast = rapid.SampledFrom([]string{"", fmt.Sprintf("10.%d.%d.12", g, i), "255.255.255.255"}).Draw(t, "broadcast")
			}
			r.Source = rapid.Bool().Draw(t, "source")
			r.Label = rapid.SampledFrom([]string{"", "eth0:web", "${x}"}).Draw(t, "label")
			for range rapid.IntRange(0, 2).Draw(t, "routes") {
				r.Routes = append(r.Routes, spec.Route{
					To: "10.9.0.0/16", Via: rapid.SampledFrom([]string{"", "10.0.0.254"}).Draw(t, "via"),
					Table: rapid.IntRange(0, math.MaxInt32).Draw(t, "table"), Metric: rapid.IntRange(0, math.MaxInt32).Draw(t, "metric"),
				})
			}
			for range rapid.IntRange(0, 2).Draw(t, "rules") {
				r.Rules = append(r.Rules, spec.Rule{
					To: rapid.SampledFrom([]string{"", "10.9.0.0/16"}).Draw(t, "to"), Table: rapid.IntRange(1, math.MaxInt32).Draw(t, "table"),
					Priority: rapid.IntRange(1, 32765).Draw(t, "priority"),
				})
			}
			return r
		}
		if rapid.Bool().Draw(t, "unit") {
			r := spec.Resource{Every: span().Draw(t, "every")}
			switch r.Type = rapid.SampledFrom([]string{"systemd", "lsb", "heartbeat", "ocf"}).Draw(t, "type"); r.Type {
			case "systemd":
				r.Name = fmt.Sprintf("r%d@x", i)
			case "lsb":
				r.Name = fmt.Sprintf("r%d", i)
			case "heartbeat":
				r.Name = fmt.Sprintf("Filesystem::/dev/sd%d::${x}", i)
			case "ocf":
				r.Name, r.Agent = fmt.Sprintf("r%d", i), "heartbeat:Dummy"
				if rapid.Bool().Draw(t, "params") {
					r.Params = rapid.MapOfN(rapid.StringMatching(`[a-z][A-Za-z_]{0,8}`), rapid.StringMatching(`[ -~]{0,12}`), 1, 3).Draw(t, "params")
				}
			}
			if rapid.Bool().Draw(t, "bounded") {
				r.StartTimeout, r.StopTimeout, r.MonitorTimeout = span().Draw(t, "start"), span().Draw(t, "stop"), span().Draw(t, "monitor")
			}
			if r.Restarts = rapid.IntRange(0, maxRestarts).Draw(t, "restarts"); r.Restarts > 0 && rapid.Bool().Draw(t, "limited") {
				r.Within = span().Draw(t, "within")
			}
			return r
		}
		r := spec.Resource{Type: "exec", Name: fmt.Sprintf("r%d", i), Start: argv().Draw(t, "start"), Stop: argv().Draw(t, "stop")}
		if rapid.Bool().Draw(t, "monitored") {
			r.Monitor, r.Every = argv().Draw(t, "monitor"), span().Draw(t, "every")
		}
		if rapid.Bool().Draw(t, "bounded") {
			r.Timeout = span().Draw(t, "timeout")
		}
		r.Restarts = rapid.IntRange(0, maxRestarts).Draw(t, "restarts")
		r.Concurrent = rapid.Bool().Draw(t, "concurrent")
		return r
	})
}

func groupsGen() *rapid.Generator[[]spec.Group] {
	return rapid.Custom(func(t *rapid.T) []spec.Group {
		var groups []spec.Group
		for gi, n := range rapid.SliceOfNDistinct(name(), 0, 4, rapid.ID[string]).Draw(t, "names") {
			g := spec.Group{Name: n, Exclusive: rapid.Bool().Draw(t, "exclusive")}
			if p := rapid.SliceOfNDistinct(name(), 0, 3, rapid.ID[string]).Draw(t, "prefer"); len(p) > 0 {
				g.Prefer = p
			}
			if g.Failback.On = rapid.Bool().Draw(t, "failback"); g.Failback.On {
				g.Failback.After = time.Duration(rapid.Int64Range(0, int64(maxFailback)).Draw(t, "after"))
			}
			if gi > 0 && rapid.Bool().Draw(t, "ruled") {
				g.After, g.Apart = groups[0].Name, groups[gi-1].Name
				g.MaxPerNode, g.Weight = rapid.IntRange(1, maxPerNode).Draw(t, "most"), rapid.IntRange(1, maxWeight).Draw(t, "weight")
			} else if gi > 1 && rapid.Bool().Draw(t, "with") {
				g.With = groups[0].Name
				g.After = groups[gi-1].Name
			}
			for _, to := range []*[]string{&g.OnAcquire, &g.OnRelease, &g.OnProblem} {
				if rapid.Bool().Draw(t, "hook") {
					*to = argv().Draw(t, "command")
				}
			}
			if rapid.Bool().Draw(t, "retry") {
				g.RetryAfter = time.Duration(rapid.Int64Range(int64(minRetry), int64(spec.MaxRetry)).Draw(t, "retry_after"))
			}
			for i := range rapid.IntRange(1, 4).Draw(t, "resources") {
				g.Resources = append(g.Resources, resourceGen(gi, i).Draw(t, "resource"))
				if rapid.Bool().Draw(t, "checked") {
					c := spec.Check{Type: "tcp", Target: fmt.Sprintf("127.0.0.1:%d", 1+i), After: i + 1}
					switch rapid.IntRange(0, 2).Draw(t, "check") {
					case 0:
						c.Type, c.Target = "http", fmt.Sprintf("http://[::1]:%d/${x}?y=%%41", 1+i)
					case 1:
						c.Type, c.Target, c.Command = "exec", fmt.Sprintf("c%d", i), argv().Draw(t, "command")
					}
					if rapid.Bool().Draw(t, "own") {
						c.Interval, c.Timeout, c.Grace = span().Draw(t, "interval"), span().Draw(t, "timeout"), span().Draw(t, "grace")
						c.Rise, c.Fall = rapid.IntRange(0, maxInRow).Draw(t, "rise"), rapid.IntRange(0, maxInRow).Draw(t, "fall")
					}
					g.Checks = append(g.Checks, c)
				}
			}
			for i := range g.Resources {
				g.Resources[i].Concurrent = g.Resources[i].Concurrent && !g.IsExclusive()
			}
			groups = append(groups, g)
		}
		return groups
	})
}

// TestFormatRoundTrip: what FormatCluster writes, ParseCluster reads back
// unchanged, and the text is a fixed point.
func TestFormatRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := groupsGen().Draw(t, "groups")
		text := FormatCluster(want)
		got, err := ParseCluster("x", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, text)
		}
		if again := FormatCluster(got); string(again) != string(text) {
			t.Fatalf("not canonical:\n%s\n%s", text, again)
		}
	})
}

func TestFormatCluster(t *testing.T) {
	groups, err := LoadCluster(good("cluster.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "good", "cluster-canonical.hcl")
	got := FormatCluster(groups)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDistance: the table is as good as the plain recursion.
func TestDistance(t *testing.T) {
	var dumb func(a, b string) int
	dumb = func(a, b string) int {
		if a == "" || b == "" {
			return len(a) + len(b)
		}
		cost := 1
		if a[0] == b[0] {
			cost = 0
		}
		d := min(dumb(a[1:], b)+1, dumb(a, b[1:])+1, dumb(a[1:], b[1:])+cost)
		if len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] {
			d = min(d, dumb(a[2:], b[2:])+1)
		}
		return d
	}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ab c]{0,5}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		if got, want := distance(a, b), dumb(a, b); got != want {
			t.Fatalf("distance(%q, %q) = %d, want %d", a, b, got, want)
		}
	})
}

// TestDeepSources: sources made to exhaust the parser are refused, in any form.
func TestDeepSources(t *testing.T) {
	const size = maxFileBytes / 8
	for _, piece := range []string{
		"[", "(", "{", "-", "- ", "!", "-(", "a?", "a{", "a {\n", `"${`, `"%{`, "%{if a}", "a.*", "a[*]", "f(", "[for a in ", "1+", "a.b.", "<<A\n${", "a=", "\"", "::", "{a=",
	} {
		src := "a = " + strings.Repeat(piece, size/len(piece))
		if _, err := ParseCluster("x", []byte(src)); err == nil {
			t.Errorf("many %q: accepted", piece)
		}
	}
}

// seeds adds every script's source to the corpus.
func seeds(f *testing.F, patterns ...string) {
	f.Helper()
	for _, p := range patterns {
		paths, err := filepath.Glob(p)
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds in %s: %v", p, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			src, _, _ := strings.Cut(string(text), "---- ")
			f.Add([]byte(src))
		}
	}
}

func FuzzParseNode(f *testing.F) {
	seeds(f, "testdata/node/*.txt", "testdata/host/*.txt", "testdata/good/*.hcl")
	f.Fuzz(func(t *testing.T, src []byte) {
		n, err := parseNode("x", src, "/", hostname)
		if (n == nil) == (err == nil) {
			t.Fatalf("node %v and error %v", n, err)
		}
		if err != nil {
			checkDiagnostics(t, err)
			return
		}
		if bad := n.Timing.Validate(); len(bad) > 0 {
			t.Errorf("timing let through: %v", bad)
		}
		names := n.names()
		slices.Sort(names)
		if len(slices.Compact(names)) != len(n.Nodes) || len(n.Nodes) == 2 != n.Manual() || len(n.Nodes) > MaxFounders {
			t.Errorf("founders let through: %v", n.Nodes)
		}
		if len(n.Digest()) != 64 {
			t.Error("bad digest")
		}
	})
}

func FuzzParseCluster(f *testing.F) {
	seeds(f, "testdata/cluster/*.txt", "testdata/good/*.hcl")
	f.Fuzz(func(t *testing.T, src []byte) {
		groups, err := ParseCluster("x", src)
		if err != nil {
			checkDiagnostics(t, err)
			return
		}
		var nodes []spec.Node
		for _, g := range groups {
			for _, name := range g.Prefer {
				nodes = append(nodes, spec.Node{Name: name, Role: spec.RoleNode})
			}
		}
		if err := CheckGroups(groups, nodes); err != nil {
			t.Errorf("ParseCluster took what CheckGroups refuses: %v", err)
		}
		text := FormatCluster(groups)
		again, err := ParseCluster("y", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(groups, again); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, text)
		}
	})
}

// checkDiagnostics checks the form of every diagnostic of an error.
func checkDiagnostics(t *testing.T, err error) {
	t.Helper()
	ds, ok := err.(Diagnostics)
	if !ok || len(ds) == 0 {
		t.Fatalf("the error is %T: %v", err, err)
	}
	for _, d := range ds {
		if d.What == "" || d.File != "x" || d.Line < 0 || d.Severity != SeverityError || strings.Contains(d.String(), "\n") {
			t.Errorf("bad diagnostic %#v", d)
		}
	}
}
