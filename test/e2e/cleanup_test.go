package e2e

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"hanode/test/livelab"
)

// After kill -9 the unit cleans up: the address is off the host at once, what an
// operator put on is not, and a second time changes nothing. While an agent runs it is
// refused. The next agent holds again.
func TestCleanupAfterKill(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	n := x.Get("primary")
	vip, other := netip.MustParsePrefix(livelab.VIP+"/32"), netip.MustParsePrefix("10.77.0.77/32")
	x.do(n.AddAddr("eth1", other))
	clean := func() (string, bool) {
		t.Helper()
		var out strings.Builder
		cmd := exec.Command(binary, "agent", "--cleanup", "--config", n.Config())
		cmd.Stdout, cmd.Stderr = &out, &out
		p, err := n.Start(cmd)
		x.do(err)
		ok := p.Wait() == nil
		return out.String(), ok
	}
	has := func(a netip.Prefix) bool {
		t.Helper()
		list, err := n.Addrs("eth1")
		x.do(err)
		return slices.Contains(list, a)
	}
	if out, ok := clean(); ok || !strings.Contains(out, "already runs") || !has(vip) {
		t.Errorf("beside an agent it says %q, ok = %v", out, ok)
	}
	x.do(n.Agent().Kill())
	_ = n.Agent().Wait() // it was killed
	if out, ok := clean(); !ok {
		t.Errorf("it says %q", out)
	}
	if has(vip) || !has(other) {
		t.Errorf("the address is on the host = %v, the operator's = %v", has(vip), has(other))
	}
	if out, ok := clean(); !ok || out != "" {
		t.Errorf("the second time it says %q, ok = %v", out, ok)
	}
	x.holds("secondary")
	x.do(n.StartAgent())
	x.holds("primary")
}
