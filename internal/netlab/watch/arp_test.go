package watch

import (
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestARequestReadsBackAsWritten(t *testing.T) {
	from, vip := netip.MustParseAddr("10.77.0.250"), netip.MustParseAddr("10.77.0.100")
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32().Draw(t, "request")
		var b [arpLen]byte
		encodeRequest(&b, net.HardwareAddr{2, 0, 0, 0, 0, 1}, identity(n), from, vip)
		p, ok := decode(b[:])
		got, mine := requestOf(p.senderMAC)
		if !ok || !mine || got != n || p.op != opRequest || p.sender != from || p.target != vip {
			t.Fatalf("%d reads back as %d, %+v, %v", n, got, p, ok)
		}
	})
}

func FuzzDecode(f *testing.F) {
	var b [arpLen]byte
	encodeRequest(&b, net.HardwareAddr{2, 0, 0, 0, 0, 1}, identity(7), netip.AddrFrom4([4]byte{1}), netip.AddrFrom4([4]byte{2}))
	f.Add(b[:])
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := decode(b); ok && (!p.sender.Is4() || !p.target.Is4()) {
			t.Errorf("%x reads as %+v", b, p)
		}
	})
}

func TestAForeignMACIsNoIdentity(t *testing.T) {
	if _, ok := requestOf([6]byte{0x02, 0xfe, 0, 0, 1, 1}); ok {
		t.Error("a host's MAC was taken for a request's identity")
	}
}
