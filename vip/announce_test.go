package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
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

func TestAnnounceSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		start := time.Now()
		n := newAnnouncer(func(Address) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
		})
		sent := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(at)
		}
		n.start(vip4)
		if sent() != 1 {
			t.Fatalf("%d sent when Announce returns, want 1", sent())
		}
		time.Sleep(130 * time.Second)
		n.stop(vip4.Addr)
		time.Sleep(5 * time.Minute)
		want := []time.Duration{0, 20e6, 100e6, 300e6, 1100e6, 2200e6, 5e9, 65e9, 125e9}
		if len(at) != len(want) {
			t.Fatalf("sent at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("number %d at %v, want %v", i, at[i], want[i])
			}
		}
		n.start(vip4)
		n.again(func(a Address) bool { return a == vip4 })
		n.again(func(a Address) bool { return a == vip6 })
		synctest.Wait()
		if sent() != len(want)+2 {
			t.Errorf("started and restarted: %d more, want 2", sent()-len(want))
		}
		n.stopAll()
		n.again(func(Address) bool { return true })
		if sent() != len(want)+2 {
			t.Error("a stopped schedule was restarted")
		}
	})
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
