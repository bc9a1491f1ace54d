package vip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

func TestProbeFrameClaimsNothing(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	a := netip.MustParseAddr("10.0.0.9")
	if _, ip, ok := parseARP(probeFrame(a, mac)); ok {
		t.Errorf("a probe claims %s", ip)
	}
	got, ip, ok := parseARP(arpFrame(arpReply, a, mac))
	if !ok || ip != a || !bytes.Equal(got, mac) {
		t.Errorf("an answer was read as %v %v %v", got, ip, ok)
	}
}

func FuzzParseARP(f *testing.F) {
	f.Add(arpFrame(arpReply, netip.MustParseAddr("10.0.0.9"), net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, ip, ok := parseARP(b); ok && (len(mac) != 6 || !ip.Is4()) {
			t.Errorf("%v %v", mac, ip)
		}
	})
}
