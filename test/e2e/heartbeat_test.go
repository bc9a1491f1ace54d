package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"hanode/api"
	"hanode/test/livelab"
)

// haFiles writes the files of an old two-node cluster, with a third vote added. Times
// are short, so that nobody waits 30 seconds.
func haFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ha.cf": `# the old files
keepalive 100ms
deadtime 1
warntime 500ms
initdead 10
bcast eth0
bcast eth1
auto_failback on
node Primary
node secondary
witness arbiter 10.0.0.3
`,
		"haresources": "primary IPaddr::10.77.0.100/24/eth1\n",
		"authkeys":    "auth 1\n1 sha1 an old secret\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const haGroups = `group "10.77.0.100" {
  prefer   = ["primary"]
  failback = "on"
  resource "ip" "10.77.0.100/24" {
    dev    = "eth1"
    prefix = "network"
  }
}
`

// Heartbeat's files as they are: the story that people know from it.
func TestHeartbeatFiles(t *testing.T) {
	dir := haFiles(t)
	if err := os.WriteFile(filepath.Join(dir, "haresources"), []byte("primary IPaddr::10.77.0.100/24/eth1/10.77.0.12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := form(t, livelab.Options{HADir: dir, Groups: haGroups, Names: []string{"primary", "secondary", "arbiter"}})
	x.holds("primary")

	out, _ := x.hanode("secondary", 0, "export")
	if !strings.Contains(out, `"network"`) || !strings.Contains(out, `broadcast = "10.77.0.12"`) {
		t.Errorf("the cluster runs\n%s", out)
	}
	x.do(x.Get("primary").Do(func() error {
		dev, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(dev, netlink.FAMILY_V4)
		if !slices.ContainsFunc(list, func(a netlink.Addr) bool {
			return a.IPNet.String() == "10.77.0.100/24" && a.Broadcast.String() == "10.77.0.12"
		}) {
			t.Errorf("eth1 has %v", list)
		}
		return err
	}))

	// An orderly stop hands over, and the return fails back.
	p := x.Get("primary")
	x.do(p.Agent().Signal(os.Interrupt))
	<-p.Agent().Done
	x.holds("secondary")
	x.do(p.StartAgent())
	x.settle()
	x.holds("primary")

	// A crash.
	x.do(p.Agent().Kill())
	x.holds("secondary")
	x.do(p.StartAgent())
	x.settle()
	x.holds("primary")

	// The file is edited on one host: the cluster goes on, and says so.
	s := x.Get("secondary")
	x.do(os.WriteFile(filepath.Join(s.HAFiles(), "haresources"), []byte("primary IPaddr::10.77.0.100/24/eth1/10.77.0.12\nsecondary 10.77.0.101/24/eth1\n"), 0o600))
	x.says("secondary", "secondary: haresources (", 0)
	x.says("primary", "haresources is not the same on all hosts: arbiter ", 0)
	x.do(os.WriteFile(filepath.Join(s.HAFiles(), "haresources"), []byte("somebody 10.77.0.101/24/eth1\n"), 0o600))
	x.says("secondary", `haresources:1: "somebody" is not a node of ha.cf`, 0)
	x.do(os.WriteFile(filepath.Join(s.HAFiles(), "haresources"), []byte("primary IPaddr::10.77.0.100/24/eth1/10.77.0.12 # as it was\n"), 0o600))
	x.until("nothing is said of it any more", func() bool {
		out, _ := x.hanode("secondary", 0, "status")
		return !strings.Contains(out, "haresources")
	})
	x.holds("primary")
}

// Two hosts whose haresources differ start nothing, and say which lines.
func TestHeartbeatResourcesDiffer(t *testing.T) {
	x := build(t, livelab.Options{HADir: haFiles(t), Groups: haGroups})
	x.do(os.WriteFile(filepath.Join(x.Get("secondary").HAFiles(), "haresources"), []byte("# moved\nprimary IPaddr::10.77.0.99/24/eth1\n"), 0o600))
	x.do(os.WriteFile(filepath.Join(x.Get("arbiter").HAFiles(), "haresources"), []byte("secondary IPaddr::10.77.0.100/24/eth1\n"), 0o600))
	x.do(x.StartAll())
	x.says("primary", "haresources-differ", api.ExitNoQuorum)
	x.says("secondary", "-primary IPaddr::10.77.0.100/24/eth1 | +primary IPaddr::10.77.0.99/24/eth1", api.ExitNoQuorum)
	x.observe()
	// The operator copies the right one over; comments and case do not count.
	s := x.Get("secondary")
	x.do(os.WriteFile(filepath.Join(s.HAFiles(), "haresources"), []byte("# ours\nPRIMARY \\\n\tIPaddr::10.77.0.100/24/eth1\n"), 0o600))
	x.settle()
	x.holds("primary")
}
