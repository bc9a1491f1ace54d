package e2e

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// A key is added to authkeys, auth moved to it, and the old one taken away, host by host,
// while clients ask: nothing moves, nothing falls silent, commands go through in between,
// and no agent is restarted.
func TestHeartbeatKeysChange(t *testing.T) {
	names := []string{"primary", "secondary", "arbiter"}
	x := form(t, livelab.Options{HADir: haFiles(t), Groups: haGroups, Names: names})
	x.holds("primary")
	keys := func() (of map[string]api.NodeKeys) {
		out, _ := x.hanode("secondary", 0, "key", "status", "--json")
		var s api.KeyStatus
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		of = map[string]api.NodeKeys{}
		for _, n := range s.Nodes {
			of[n.Node] = n
		}
		return of
	}
	write := func(node, text string) {
		x.do(os.WriteFile(filepath.Join(x.Get(node).HAFiles(), "authkeys"), []byte(text), 0o600))
	}
	await := func(what string, ok func(api.NodeKeys) bool, nodes ...string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			of := keys()
			if !slices.ContainsFunc(nodes, func(n string) bool { return of[n].Active == nil || !ok(of[n]) }) {
				return
			}
		}
		t.Fatalf("%s: %+v", what, keys())
	}
	first := *keys()["primary"].Active
	pings, err := watch.StartPings(x.Client, netip.MustParseAddr(livelab.VIP), 10*time.Millisecond)
	x.do(err)
	before := len(x.w.Look().Changes)

	const both = "1 sha1 an old secret\n2 sha1 a new secret\n"
	for _, n := range names {
		write(n, "auth 1\n"+both)
	}
	await("two keys", func(k api.NodeKeys) bool { return len(k.Keys) == 2 && *k.Active == first }, names...)
	for _, n := range names { // one has moved, the others have not
		write(n, "auth 2\n"+both)
		await("auth moved", func(k api.NodeKeys) bool { return *k.Active != first }, n)
		x.hanode(n, 0, "maintenance", "on")
		x.hanode(n, 0, "maintenance", "off")
	}
	for _, n := range names {
		write(n, "auth 2\n2 sha1 a new secret\n")
	}
	await("one key", func(k api.NodeKeys) bool { return len(k.Keys) == 1 && *k.Active != first }, names...)
	x.hanode("arbiter", 0, "maintenance", "on")
	x.hanode("arbiter", 0, "maintenance", "off")
	x.settle()
	if c := x.w.Look().Changes[before:]; len(c) > 0 {
		t.Errorf("the address moved: %+v", c)
	}
	p := pings.Stop()
	t.Logf("%d of %d pings lost, %d in a row", p.Lost, p.Sent, p.LongestRow)
	if p.LongestRow > 50 { // half a deadtime: a machine that stalls is none
		t.Errorf("clients waited: %+v", p)
	}

	// What is wrong is not taken, and is shown.
	write("primary", "auth 3\n2 sha1 a new secret\n")
	x.says("primary", "auth key 3 not found", 0)
	x.holds("primary")
	write("primary", "auth 2\n2 sha1 a new secret\n")
	x.settle()
}
