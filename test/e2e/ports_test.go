package e2e

import (
	"testing"

	"golang.org/x/sys/unix"

	"hanode/api"
	"hanode/test/livelab"
)

// A firewall lets beats through, and not what a cluster is founded by: the port is named,
// and once it is open nothing else has to be done.
func TestBlockedPorts(t *testing.T) {
	x := build(t, livelab.Options{HADir: haFiles(t), Groups: haGroups})
	s := x.Get("secondary")
	x.do(s.BlockPort(unix.IPPROTO_TCP, 695))
	x.do(x.Get("arbiter").BlockPort(unix.IPPROTO_TCP, 695))
	x.do(x.StartAll())
	x.says("primary", "secondary is unreachable by TCP port 695 though its beats arrive: open TCP 695 on it", api.ExitNoQuorum)
	x.do(s.OpenPorts())
	x.do(x.Get("arbiter").OpenPorts())
	x.settle()
	x.observe()
	x.holds("primary")

	// With a majority by other ways the node that hears nobody is told by the others.
	x.do(s.BlockPort(unix.IPPROTO_UDP, 694))
	x.says("secondary", "is not heard by UDP port 694 though it answers calls: open UDP 694 on both", api.ExitNoQuorum)
	x.do(s.OpenPorts())
	x.settle()
	x.holds("primary")
}
