package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Running Heartbeat's files and running what import makes of them is the same.
func TestHeartbeatImportIsTheSame(t *testing.T) {
	for what, cf := range map[string]string{
		"plain":   "logfacility local0\nkeepalive 2\ndeadtime 30\nwarntime 10\ninitdead 120\nudpport 694\nbcast eth0 eth1\nauto_failback on\nnode ken3 kathy third\n",
		"much":    "logfile /var/log/ha-log\ndebugfile /var/log/ha-debug\ndebug 1\nrealtime off\ncluster web\nudpport 700\nucast eth1 192.168.1.2\nauto_failback off\nnode KEN3\nnode Kathy\nwitness w 10.0.0.3\nping 10.0.0.254\nping_group g 10.0.0.252 kathy\ndeadping 12\nrespawn hacluster /usr/libexec/heartbeat/ipfail\nenv A=b\nrespawn root /bin/true \"x y\"\nfailfast hacluster /bin/true\nwatchdog /dev/watchdog\ndeadtime 3\n",
		"two":     "bcast eth0\nnode ken3 kathy\n",
		"one":     "bcast eth0\nnode ken3\n",
		"default": "bcast eth0\nnode ken3 kathy bill third\n",
	} {
		t.Run(what, func(t *testing.T) {
			dir := haDir(t, map[string]string{"ha.cf": cf, "haresources": "ken3 IPaddr::10.0.0.100/24/eth0:0 httpd Filesystem::/dev/sdb1::/data::ext4\nken3 10.0.0.101/24/eth0/10.0.0.12 oldies ids MailTo::root@x::a\n"})
			h := newHAFake("ken3")
			hb, err := LoadHeartbeat(dir, h, HAOptions{})
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			files := hb.Import("ken3")
			for name, text := range map[string][]byte{ImportedNode: files.Node, ImportedCluster: files.Cluster} {
				if err := os.WriteFile(filepath.Join(out, name), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n, err := parseNode(filepath.Join(out, ImportedNode), files.Node, out, h.Hostname)
			if err != nil {
				t.Fatalf("%v\n%s", err, files.Node)
			}
			if diff := cmp.Diff(hb.Node, n, cmpopts.IgnoreUnexported(Node{}, Respawn{}, PingNode{}), cmpopts.IgnoreFields(Node{}, "File", "KeyFile", "GroupsFile", "HADir", "Keys", "Resources")); diff != "" {
				t.Errorf("the node differs:\n%s\n%s", diff, files.Node)
			}
			if hb.Node.Digest() != n.Digest() {
				t.Error("the digests of the founders differ")
			}
			groups, err := n.LoadGroups()
			if err != nil {
				t.Fatalf("%v\n%s", err, files.Cluster)
			}
			if diff := cmp.Diff(hb.Groups, groups, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the groups differ:\n%s\n%s", diff, files.Cluster)
			}
			if n.KeyFile != filepath.Join(out, ImportedKey) {
				t.Errorf("key file %s", n.KeyFile)
			}
		})
	}
}

func TestDiffering(t *testing.T) {
	a := "# one\nKEN3   10.0.0.1 \\\n  httpd\nkathy 10.0.0.2\n"
	for b, want := range map[string][]string{
		"ken3 10.0.0.1 httpd # x\n\nkathy 10.0.0.2\n":           nil,
		"ken3 10.0.0.1 smbd\nkathy 10.0.0.2\n":                  {"-ken3 10.0.0.1 httpd", "+ken3 10.0.0.1 smbd"},
		"kathy 10.0.0.2\nken3 10.0.0.1 httpd\n":                 {"the same lines in another order"},
		"ken3 10.0.0.1 httpd\nkathy 10.0.0.2\nkathy 10.0.0.2\n": {"+kathy 10.0.0.2"},
		"": {"-ken3 10.0.0.1 httpd", "-kathy 10.0.0.2"},
	} {
		if diff := cmp.Diff(want, Differing([]byte(a), []byte(b), 9)); diff != "" {
			t.Errorf("%q:\n%s", b, diff)
		}
	}
	if got := Differing([]byte(a), nil, 1); len(got) != 2 || got[1] != "and 1 more" {
		t.Error(got)
	}
}
