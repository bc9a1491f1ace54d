package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// Every disk is lost but for a snapshot and the key: the cluster begins anew from it on
// one host, and the other one is let in again.
func TestSnapshotRestore(t *testing.T) {
	x := build(t, livelab.Options{Joins: []string{"primary", "secondary", "arbiter"}})
	x.observe()
	out, _ := x.here("primary", 0, "init", "--json")
	var first struct{ Tokens []string }
	x.do(json.Unmarshal([]byte(out), &first))
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.here("secondary", 0, "join", "10.0.0.1", "--token", first.Tokens[0])
	x.do(x.Get("secondary").StartAgent())
	x.await("two are alive", time.Now(), 20*time.Second, x.alive("primary", 1, "primary", "secondary"))
	file := filepath.Join(x.Get("primary").Dir, "web.snapshot")
	saved, _ := x.hanode("secondary", 0, "snapshot", "save", file, "--json")
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || !strings.Contains(saved, `"web (primary)"`) {
		t.Errorf("%v, %v: %s", st, err, saved)
	}
	if _, errs := x.here("primary", 1, "snapshot", "restore", file); !strings.Contains(errs, "in use by another agent") {
		t.Errorf("beside a running agent: %s", errs)
	}
	for _, n := range []string{"primary", "secondary"} {
		x.do(x.Get(n).PowerCut())
		x.do(os.RemoveAll(x.Get(n).DataDir()))
		x.do(x.Get(n).PowerOn())
	}
	b, err := os.ReadFile(file)
	x.do(err)
	half := file + ".half"
	x.do(os.WriteFile(half, b[:len(b)/2], 0o600))
	if _, errs := x.hanode("primary", 1, "snapshot", "inspect", half); !strings.Contains(errs, "checksum") {
		t.Errorf("half a snapshot: %s", errs)
	}
	restore := []string{"snapshot", "restore", file}
	_, errs := x.here("primary", 1, restore...)
	if !strings.Contains(errs, "nothing was changed yet") {
		t.Errorf("without the sentence: %s", errs)
	}
	var plan struct {
		Confirm string
		Done    bool
	}
	out, _ = x.here("primary", 0, append(restore, "--json")...)
	x.do(json.Unmarshal([]byte(out), &plan))
	if _, errs := x.here("primary", 1, append(restore, "--confirm", "yes")...); !strings.Contains(errs, "not the sentence") {
		t.Errorf("with another sentence: %s", errs)
	}
	out, _ = x.here("primary", 0, append(restore, "--confirm", plan.Confirm, "--json")...)
	x.do(json.Unmarshal([]byte(out), &plan))
	if !plan.Done {
		t.Fatalf("not restored: %s", out)
	}
	begin := time.Now()
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.await("the first node holds again", begin, time.Minute, func() bool { return true })
	x.here("secondary", 0, "join", "10.0.0.1", "--token", x.token("primary"))
	x.do(x.Get("secondary").StartAgent())
	x.await("the other one is a member again", begin, 20*time.Second, x.alive("primary", 1, "primary", "secondary"))
	if events, _ := x.hanode("primary", 0, "events"); !strings.Contains(events, "generation") || !strings.Contains(events, "joined the cluster") {
		t.Errorf("the history has not all: %s", events)
	}
}
