package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// A host that is not of the cluster has the VIP: status names its MAC address, the group
// stays, and an address that it has already is not given to a group.
func TestForeignHostWithTheVIP(t *testing.T) {
	x := build(t, livelab.Options{})
	stranger, err := x.Lab.AddClient("stranger", 201)
	x.do(err)
	x.do(x.StartAll())
	x.settle()
	mac := stranger.MAC("eth0").String()
	x.do(stranger.AddAddr("eth0", netip.MustParsePrefix(livelab.VIP+"/32")))
	says := func(want bool) {
		t.Helper()
		out := ""
		for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			out, _ = x.hanode("secondary", 0, "status")
			if strings.Contains(out, mac) == want {
				return
			}
		}
		t.Fatalf("status names %s = %v:\n%s", mac, !want, out)
	}
	says(true)
	if out, _ := x.hanode("secondary", 0, "status"); !strings.Contains(out, "primary") {
		t.Errorf("the group did not stay:\n%s", out)
	}
	x.do(stranger.DelAddr("eth0", netip.MustParsePrefix(livelab.VIP+"/32")))
	says(false)

	taken := netip.MustParsePrefix("10.77.0.150/32")
	x.do(stranger.AddAddr("eth0", taken))
	file := filepath.Join(x.Get("primary").Dir, "more.hcl")
	x.do(os.WriteFile(file, []byte(livelab.Groups+`group "more" {
  resource "ip" "10.77.0.150/24" { dev = "eth1" }
}
`), 0o600))
	_, errs := x.hanode("arbiter", 1, "apply", "--yes", file)
	if !strings.Contains(errs, "10.77.0.150 is used by "+mac) {
		t.Errorf("apply says %q", errs)
	}
	x.do(stranger.DelAddr("eth0", taken))
	x.hanode("arbiter", 0, "apply", "--yes", file)
}
