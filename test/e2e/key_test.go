package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/internal/trust"
	"hanode/test/livelab"
)

// The cluster's key is changed while a client asks a hundred times a second: no answer is
// lost. And no secret, old or new, is in anything that the run wrote or showed, but for the
// key files.
func TestKeyRotation(t *testing.T) {
	x := form(t, livelab.Options{Profile: "lan", Level: "debug"})
	x.holds("primary")
	var secrets []string
	note := func() {
		b, err := os.ReadFile(x.Get("primary").KeyFile())
		x.do(err)
		for line := range strings.Lines(string(b)) {
			_, code, _ := strings.Cut(strings.TrimSpace(line), " ")
			raw, err := base64.StdEncoding.DecodeString(code)
			x.do(err)
			secrets = append(secrets, code, string(raw))
		}
	}
	note()
	shown := map[string]string{}
	run := func(node string, args ...string) string {
		out, errs := x.hanode(node, 0, args...)
		shown["hanode "+strings.Join(args, " ")] += out + errs
		return out
	}
	var tok api.Token
	out, _ := x.hanode("primary", 0, "token", "create", "--json")
	x.do(json.Unmarshal([]byte(out), &tok))
	open, err := trust.ParseToken(*tok.Token)
	x.do(err)
	secrets = append(secrets, open.Secret)

	s, err := watch.StartAnswers(x.Get("primary").Host)
	x.do(err)
	defer s.Close()
	c, err := watch.StartClient(x.Client, netip.MustParseAddr(livelab.VIP), 10*time.Millisecond)
	x.do(err)
	begin := time.Now()
	var st api.KeyStatus
	x.do(json.Unmarshal([]byte(run("secondary", "key", "rotate", "--json")), &st))
	t.Logf("changed in %v", time.Since(begin).Round(time.Millisecond))
	time.Sleep(300 * time.Millisecond)
	served := c.Stop()
	t.Logf("asked %d times, %d lost", served.Sent, served.Lost)
	if served.Lost > 0 || served.Sent < 30 {
		t.Errorf("clients noticed: %+v", served)
	}
	note()
	if len(secrets) != 5 || secrets[0] == secrets[3] || st.Rotation != nil || len(st.Retired) != 1 {
		t.Fatalf("not changed: %+v", st)
	}
	for _, n := range x.Nodes {
		own, err := os.ReadFile(n.KeyFile())
		x.do(err)
		if got, err := trust.Load(n.KeyFile()); err != nil || !strings.Contains(string(own), secrets[3]) || !slices.Equal(got.Fingerprints(), []string{*st.Nodes[0].Active}) {
			t.Errorf("%s: %v, %v", n.Node, got.Fingerprints(), err)
		}
		for _, args := range [][]string{{"status"}, {"status", "--json"}, {"members", "--json"}, {"events", "--json"}, {"key", "status"}, {"token", "list", "--json"}, {"export"}} {
			run(n.Node, args...)
		}
	}
	var logs bytes.Buffer
	x.Logs(&logs, 1<<20)
	shown["logs"] = logs.String()
	shown["command lines"] = cmdlines(t)
	hide(t, x, shown, secrets)
}

// cmdlines are the command lines and environments of all hanodes that run.
func cmdlines(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(b, []byte("hanode")) {
			continue // it ended, or is another program
		}
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "environ")) // another user's is not ours to read
		out.Write(b)
		out.Write(env)
	}
	if out.Len() == 0 {
		t.Error("no agent is in the list of processes")
	}
	return out.String()
}

// hide fails where a secret is in what was shown or in a file that is no key file.
func hide(t *testing.T, x *world, shown map[string]string, secrets []string) {
	t.Helper()
	files := 0
	for _, n := range x.Nodes {
		x.do(filepath.WalkDir(n.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || path == n.KeyFile() {
				return err
			}
			b, err := os.ReadFile(path)
			files++
			shown[path] = string(b)
			return err
		}))
	}
	if files == 0 || len(shown["logs"]) < 1000 {
		t.Errorf("looked into %d files and %d bytes of logs only", files, len(shown["logs"]))
	}
	for where, text := range shown {
		for i, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("secret %d is in %s", i, where)
			}
		}
	}
}
