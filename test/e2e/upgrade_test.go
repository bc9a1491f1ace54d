package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/test/livelab"
)

// older builds hanode as the version before would be.
func older(t *testing.T) string {
	t.Helper()
	if os.Getenv("HANODE_UPGRADE") == "" {
		t.Skip("it builds another binary: set HANODE_UPGRADE=1 (TestUpgradeNodeByNode in package agent is the same in virtual time)")
	}
	path := filepath.Join(t.TempDir(), "hanode-older")
	if out, err := exec.Command("go", "build", "-ldflags", "-X hanode/fsm.lowered=1 -X main.version=older", "-o", path, "hanode/cmd/hanode").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// A cluster of the older version is upgraded host by host while a client asks: the group
// moves once, from the host that is upgraded, and the cluster speaks the new version when
// the last one does. The older one that is started again then says what to install.
func TestUpgradeUnderTraffic(t *testing.T) {
	old := older(t)
	x := build(t, livelab.Options{Groups: strings.Replace(livelab.Groups, `failback = "on"`, `failback = "off"`, 1), Level: "info"})
	for _, n := range x.Nodes {
		n.Binary = old
	}
	x.do(x.StartAll())
	x.settle()
	x.observe()
	x.holds("primary")
	spoken := func() string {
		b, err := os.ReadFile(x.Get("arbiter").LogFile())
		x.do(err)
		for _, n := range x.Nodes {
			more, err := os.ReadFile(n.LogFile())
			x.do(err)
			b = append(b, more...)
		}
		return string(b)
	}
	before := x.epochOf("web")
	for i, name := range []string{"arbiter", "secondary", "primary"} {
		if s := spoken(); strings.Contains(s, "the cluster speaks it from now on") {
			t.Errorf("with %d of 3 upgraded the version rose", i)
		}
		n := x.Get(name)
		n.Binary = ""
		x.do(n.Restart(syscall.SIGTERM, 20*time.Second))
		x.do(x.Back(n, 20*time.Second))
	}
	x.holds("secondary")
	if moves := x.epochOf("web") - before; moves != 1 {
		t.Errorf("the group changed its owner %d times", moves)
	}
	x.await("the version rises", time.Now(), 10*time.Second, func() bool {
		out, _ := x.hanode("secondary", 0, "events")
		return strings.Contains(out, "every node can speak version 2")
	})
	n := x.Get("arbiter")
	n.Binary = old
	x.do(n.Restart(syscall.SIGTERM, 20*time.Second))
	select {
	case <-n.Agent().Done:
	case <-time.After(20 * time.Second):
		t.Fatal("the older agent goes on")
	}
	if s := spoken(); !strings.Contains(s, "upgrade this node") && !strings.Contains(s, "install the hanode of the other nodes") {
		t.Error("it does not say what to do")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if st, err := x.Get("secondary").Status(ctx); err != nil || !st.Quorum {
		t.Errorf("%+v, %v", st, err)
	}
	x.holds("secondary")
}
