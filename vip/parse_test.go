package vip

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseAddress: whatever a message holds, an address that is reported is one
// that fits its prefix.
func FuzzParseAddress(f *testing.F) {
	msg := []byte{unix.AF_INET, 32, 0, 0, 2, 0, 0, 0, 8, 0, unix.IFA_LOCAL, 0, 10, 9, 0, 100, 5, 0, attrProto, 0, ourProto, 0, 0, 0}
	f.Add(msg)
	f.Add(msg[:9])
	f.Fuzz(func(t *testing.T, m []byte) {
		a, ok := parseAddress(m)
		if ok && (!a.prefix.IsValid() || !a.prefix.Addr().IsValid()) {
			t.Errorf("%x gives %+v", m, a)
		}
	})
}

func TestParseAddressMark(t *testing.T) {
	msg := []byte{unix.AF_INET, 32, 0, 0, 2, 0, 0, 0, 8, 0, unix.IFA_LOCAL, 0, 10, 9, 0, 100, 5, 0, attrProto, 0, ourProto, 0, 0, 0}
	a, ok := parseAddress(msg)
	if want := (assigned{index: 2, prefix: netip.MustParsePrefix("10.9.0.100/32"), marked: true}); !ok || a != want {
		t.Errorf("got %+v %t, want %+v", a, ok, want)
	}
	msg[20] = 3
	if a, _ := parseAddress(msg); a.marked {
		t.Error("an address of another protocol passes for ours")
	}
}

// FuzzParseDiag: it never reads outside a message, and names an address of the family.
func FuzzParseDiag(f *testing.F) {
	m := make([]byte, diagMsgLen)
	m[0] = unix.AF_INET
	binary.BigEndian.PutUint32(m[8:], 0x0a090064)
	f.Add(m)
	f.Add(m[:20])
	f.Fuzz(func(t *testing.T, m []byte) {
		local, _, ok := parseDiag(m)
		if ok && (len(m) < diagMsgLen || m[0] == unix.AF_INET && !local.Is4()) {
			t.Errorf("%d bytes give %s", len(m), local)
		}
	})
}

// FuzzParseFlags: whatever an answer holds, flags come from one that is whole.
func FuzzParseFlags(f *testing.F) {
	whole := make([]byte, 40)
	whole[4] = unix.RTM_NEWLINK
	f.Add(whole)
	f.Add(whole[:21])
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, _, flags, err := parseFlags(b)
		if err == nil && len(b) < flagsAt+4 || kind == unix.NLMSG_ERROR && (err == nil || flags != 0) {
			t.Errorf("%x gives type %d, flags %x, %v", b, kind, flags, err)
		}
	})
}
