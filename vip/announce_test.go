package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hanode/internal/linkstate"
)

func TestAnnouncementFrames(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	want := map[string][]string{
		"10.0.0.100": {
			"ffffffffffff 020000000007 0806 0001 0800 06 04 0001 020000000007 0a000064 000000000000 0a000064",
			"ffffffffffff 020000000007 0806 0001 0800 06 04 0002 020000000007 0a000064 020000000007 0a000064",
		},
		"fd00::64": {
			"333300000001 020000000007 86dd 60000000 0020 3a ff fd000000000000000000000000000064 ff020000000000000000000000000001" +
				"88 00 XXXX a0000000 fd000000000000000000000000000064 02 01 020000000007",
		},
	}
	for a, lines := range want {
		frames := announcement(netip.MustParseAddr(a), mac, true)
		if len(frames) != len(lines) {
			t.Fatalf("%s: %d frames, want %d", a, len(frames), len(lines))
		}
		for i, f := range frames {
			if a == "fd00::64" { // the sum over a message and its checksum is 0
				var src, dst [16]byte
				copy(src[:], f[22:])
				copy(dst[:], f[38:])
				if s := checksum6(src, dst, f[54:]); s != 0 {
					t.Errorf("bad ICMPv6 checksum, sum %#x", s)
				}
			}
			got := hex.EncodeToString(f)
			line := strings.ReplaceAll(lines[i], " ", "")
			if at := strings.Index(line, "XXXX"); at >= 0 {
				line = line[:at] + got[at:at+4] + line[at+4:]
			}
			if got != line {
				t.Errorf("%s frame %d:\n got %s\nwant %s", a, i, got, line)
			}
		}
	}
	if f := announcement(netip.MustParseAddr("10.0.0.1"), nil, false); f != nil {
		t.Errorf("a device without MAC: %x", f)
	}
}

func TestAnnounceIsSeenByThePeer(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		k := l.host.open(t, options(mode, t.TempDir()))
		must(t, k.Prepare(bothVIPs))
		must(t, k.Renew(in(30*time.Second)))
		f := packetSocket(t, l.peer, "eth0", unix.ETH_P_ALL)
		defer f.Close()
		for _, a := range bothVIPs {
			must(t, k.Add(a))
			k.Announce(a) // closed: muted
			if got := heard(t, f, announcement(a.Addr, l.host.mac, false)[0], 50*time.Millisecond); got > 0 {
				t.Errorf("%s: a closed address was announced", a)
			}
			k.Silence(a)
			must(t, k.Open(a))
			k.Announce(a)
			for i, frame := range announcement(a.Addr, l.host.mac, false) {
				k.Announce(a)
				if got := heard(t, f, frame, 600*time.Millisecond); got < 3 {
					t.Errorf("%s: frame %d seen %d times in 600 ms, want at least 3", a, i, got)
				}
			}
			k.Silence(a)
			heard(t, f, nil, 50*time.Millisecond) // what was under way
			if got := heard(t, f, announcement(a.Addr, l.host.mac, false)[0], 1500*time.Millisecond); got > 0 {
				t.Errorf("%s: announced after Silence", a)
			}
		}
	})
}

// What may have taught neighbours something else begins a new round: another MAC
// address, a cable that is in again, and the agent's word. The router flag follows the
// device.
func TestAnnouncedAgain(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Renew(in(59*time.Second)))
	f := packetSocket(t, l.peer, "eth0", unix.ETH_P_ALL)
	defer f.Close()
	for _, a := range bothVIPs {
		must(t, k.Add(a))
		must(t, k.Open(a))
		k.Announce(a)
	}
	quiet := func() { // until the dense part is over
		t.Helper()
		k.Silence(vip4)
		k.Silence(vip6)
		heard(t, f, nil, 50*time.Millisecond)
		k.Announce(vip4)
		k.Announce(vip6)
		heard(t, f, nil, 2500*time.Millisecond)
	}
	expect := func(what string, mac net.HardwareAddr, router bool) {
		t.Helper()
		for _, a := range bothVIPs {
			if heard(t, f, announcement(a.Addr, mac, router)[0], 1500*time.Millisecond) == 0 {
				t.Errorf("%s: %s was not announced", what, a)
			}
			if k.AnnounceAgain() != 2 { // for the second of the two
				t.Error("two are announced")
			}
		}
	}
	quiet()
	mac := net.HardwareAddr{2, 9, 0, 0, 0, 0x55}
	must(t, l.host.Do(func() error {
		d, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(d, mac)
	}))
	expect("another MAC address", mac, false)
	quiet()
	setUp(t, l.peer, "eth0", false)
	awaitLink(t, k, "eth0", linkstate.Down, "has no carrier")
	setUp(t, l.peer, "eth0", true)
	heard(t, f, nil, time.Millisecond) // the socket says that the device was down
	expect("the cable is in again", mac, false)
	must(t, l.host.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/forwarding", []byte("1"), 0o600)
	}))
	heard(t, f, nil, 1100*time.Millisecond)
	k.AnnounceAgain()
	if heard(t, f, announcement(vip6.Addr, mac, true)[0], 500*time.Millisecond) == 0 {
		t.Error("the device forwards, and its advertisements do not say so")
	}
	if n := k.Tallies()[vip4.Addr]; n.Announced < 10 || n.Unsent > 3 {
		t.Errorf("counted: %+v", n)
	}
}

// heard counts how often a frame arrives within a time.
func heard(t *testing.T, f *os.File, frame []byte, within time.Duration) (n int) {
	t.Helper()
	must(t, f.SetReadDeadline(time.Now().Add(within)))
	b := make([]byte, 2048)
	for {
		got, err := f.Read(b)
		if err != nil {
			return n
		}
		if bytes.Equal(b[:got], frame) {
			n++
		}
	}
}
