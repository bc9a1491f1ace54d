package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/spec"
	"hanode/vip"
)

// What a node hears of an address is in everybody's status, with the MAC address and
// the group; a node that holds nothing by right accuses nobody.
func TestClaimsAreProblems(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		mac, other := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, net.HardwareAddr{2, 0, 0, 0, 0, 0x98}
		addr := netip.MustParseAddr(vipA)
		says := func(code, want string) {
			t.Helper()
			got := ""
			if _, ok := l.within(3*time.Second, func() bool {
				got = l.leaderSays(code)
				return (got == "") == (want == "") && strings.Contains(got, want)
			}); !ok {
				t.Errorf("%s is %q, want %q", code, got, want)
			}
		}
		l.hosts["primary"].kernel.SetSightings(vip.Sighting{Addr: addr, Dev: "eth1", Held: true, MACs: []net.HardwareAddr{mac}})
		says("vip-conflict", "10.77.0.100 of group web is used by 02:00:00:00:00:99 too, says primary")
		l.hosts["primary"].kernel.SetSightings()
		says("vip-conflict", "")
		l.hosts["secondary"].kernel.SetSightings(vip.Sighting{Addr: addr, Dev: "eth1", MACs: []net.HardwareAddr{other, mac}})
		says("vip-conflict", "is answered for by 02:00:00:00:00:98 and 02:00:00:00:00:99, as secondary sees on eth1")
		l.hosts["secondary"].kernel.SetSightings(vip.Sighting{Addr: addr, Dev: "eth1", MACs: []net.HardwareAddr{mac}})
		says("vip-conflict", "")
		time.Sleep(unansweredAfter)
		l.hosts["secondary"].kernel.SetSightings(vip.Sighting{Addr: addr, Dev: "eth1", Silent: 3})
		says("vip-unanswered", "nobody answers for 10.77.0.100 of group web, as secondary sees on eth1, although primary runs it")
		// The owner's cable is out, and secondary's too: that is said already.
		l.hosts["secondary"].kernel.SetLink("eth1", "has no carrier")
		says("vip-unanswered", "")
		l.hosts["secondary"].kernel.SetLink("eth1", "")
	})
}

// An address that another host uses is refused, whoever leads, unless one insists; what
// a group has already is not asked for.
func TestApplyRefusesWhatIsInUse(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].kernel.SetSightings(
			vip.Sighting{Addr: netip.MustParseAddr("10.77.0.101"), Dev: "eth1", MACs: []net.HardwareAddr{{2, 0, 0, 0, 0, 0x99}}},
			vip.Sighting{Addr: netip.MustParseAddr(vipA), Dev: "eth1", MACs: []net.HardwareAddr{{2, 0, 0, 0, 0, 0x98}}},
		)
		groups := []spec.Group{groupOf("web", vipA, "primary"), groupOf("db", "10.77.0.101", "primary")}
		before := l.on("arbiter").machine.Copy().Revision
		_, err := l.on("primary").Apply(t.Context(), api.ApplyRequest{Groups: groups, Wait: 5 * time.Second})
		if err == nil || !strings.Contains(err.Error(), "10.77.0.101 is used by 02:00:00:00:00:99 already, as secondary sees") || strings.Contains(err.Error(), "0.100") {
			t.Errorf("apply says %v", err)
		}
		if now := l.on("arbiter").machine.Copy().Revision; now != before {
			t.Error("it was applied all the same")
		}
		if _, err := l.on("primary").Apply(t.Context(), api.ApplyRequest{Groups: groups, Wait: 5 * time.Second, NoProbe: true}); err != nil {
			t.Errorf("with --no-probe: %v", err)
		}
	})
}
