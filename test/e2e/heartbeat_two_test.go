package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// The file that most people have: two hosts and no third vote, bcast, and no address of
// the other one anywhere. It starts, an orderly stop hands over, and a crash waits for a
// word.
func TestHeartbeatTwoHosts(t *testing.T) {
	dir := haFiles(t)
	cf, err := os.ReadFile(filepath.Join(dir, "ha.cf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ha.cf"), []byte(strings.Replace(string(cf), "witness arbiter 10.0.0.3\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	x := form(t, livelab.Options{HADir: dir, Groups: haGroups, Names: []string{"primary", "secondary"}, Unnamed: true})
	x.holds("primary")
	p := x.Get("primary")
	x.do(p.Agent().Signal(os.Interrupt))
	<-p.Agent().Done
	x.holds("secondary")
	x.do(p.StartAgent())
	x.settle()
	x.holds("primary")

	x.do(p.PowerCut())
	time.Sleep(5 * time.Second) // five deadtimes
	if s, err := x.Get("secondary").Status(t.Context()); err == nil {
		for _, g := range s.Groups {
			if g.Owner != nil && *g.Owner == "secondary" {
				t.Error("the group was taken over from a host that is only silent")
			}
		}
	}
	x.hanode("secondary", 0, "confirm-off", "primary", "--confirm", "primary is off")
	x.holds("secondary")
}
