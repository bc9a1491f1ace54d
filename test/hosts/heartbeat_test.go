package hosts

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hanode/internal/trust"
)

const heartbeatPage = "docs/heartbeat.md"

// heartbeatFiles are what an administrator of Heartbeat has in /etc/ha.d, the same on
// every host; witness is hanode's own directive. The times are those of profile lan.
var heartbeatFiles = map[string]string{
	"ha.cf": `keepalive 100ms
warntime 400ms
deadtime 1
initdead 15
bcast eth0
bcast eth1
auto_failback on
node primary
node secondary
witness arbiter 10.0.0.3
`,
	"haresources": "primary IPaddr::" + vip + "/24/eth1 apache2 smbd beacon\n",
	"authkeys":    "auth 1\n1 sha1 SECRET\n",
}

// TestHeartbeatStory plays the old story with the old files: three booted hosts with
// the package, /etc/ha.d and the package's drop-in for the unit, switched on by the
// commands of the page. They start in order; primary is shut down, and loses its power;
// each time it returns it gets its services back.
func TestHeartbeatStory(t *testing.T) {
	s := newStory(t)
	boot(t, s.Hosts...)
	secret := strings.Fields(trust.Generate())[1]
	for _, h := range s.all() {
		h.furnishStory()
		for name, text := range heartbeatFiles {
			h.write("/etc/ha.d/"+name, strings.ReplaceAll(text, "SECRET", secret), 0o600)
		}
	}
	text, err := os.ReadFile(filepath.Join("../..", heartbeatPage))
	s.do(err)
	blocks := blocksOf(heartbeatPage, string(text))
	if len(blocks) < 2 {
		t.Fatalf("%s has %d blocks of commands", heartbeatPage, len(blocks))
	}
	for _, b := range blocks {
		for _, name := range b.hosts {
			s.on(name).run("sh", "-ec", b.text)
		}
	}
	s.formed()
	s.settled()
	s.inOrder("apache2", "smbd")
	s.share()
	chapters := slices.DeleteFunc(s.chapters(), func(c chapter) bool {
		return !regexp.MustCompile("poweroff|power cut of primary").MatchString(c.name)
	})
	if len(chapters) != 2 {
		t.Fatalf("%d chapters", len(chapters))
	}
	for range *flagRuns {
		for _, c := range chapters {
			s.play(c)
			if t.Failed() {
				return
			}
		}
	}
	s.table()
	s.starts()
	if out := s.secondary.run("hanode", "export"); !strings.Contains(out, vip) {
		t.Errorf("the cluster runs\n%s", out)
	}
}
