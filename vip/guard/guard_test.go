package guard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"hanode/internal/clock"
)

// The frames are written as they stand on the wire; V4 and V6 are the virtual
// addresses, X4 and X6 others.
const (
	ethernet       = "ffffffffffff 020000000001 "
	arpHead        = "0806 0001 0800 06 04 0001 020000000001 "
	noMAC          = " 000000000000 "
	ip4Head        = "0800 4500 0028 0000 0000 40 11 0000 "
	ip6UDP         = "86dd 6000 0000 0008 11 40 "
	ip6ICMP        = "86dd 6000 0000 0018 3a ff "
	groupDst       = "ff0200000000000000000001ff000100 "
	unspec         = "00000000000000000000000000000000 "
	nsHead, naHead = "87000000 00000000 ", "88000000 20000000 "
	pad            = "000000000000000000000000000000000000000000000000"
)

var (
	v4, v6 = netip.MustParseAddr("10.9.0.100"), netip.MustParseAddr("fd09::100")
	names  = strings.NewReplacer(
		"V4", "0a090064", "X4", "0a090003",
		"V6", "fd090000000000000000000000000100", "X6", "fd090000000000000000000000000003",
		" ", "",
	)
)

func frame(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(names.Replace(ethernet + s + pad))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func system(t *testing.T) clock.Clock {
	t.Helper()
	c, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bare is the eBPF guard without devices.
func bare(t *testing.T) *ebpfGuard {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("bpf() needs root; the nftables rules are tested in package vip as any user")
	}
	_ = rlimit.RemoveMemlock() // needed before Linux 5.11 only
	g := &ebpfGuard{clk: system(t), slots: map[netip.Addr]uint32{}, attached: map[int]bool{}}
	if err := loadProgObjects(&g.objs, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Release)
	var err error
	if g.lease, err = mapWords(g.objs.Lease); err != nil {
		t.Fatal(err)
	}
	if g.opened, err = mapWords(g.objs.Opened); err != nil {
		t.Fatal(err)
	}
	if err := g.Know([]netip.Addr{v4, v6}); err != nil {
		t.Fatal(err)
	}
	return g
}

func verdict(t *testing.T, p *ebpf.Program, f []byte) string {
	t.Helper()
	ret, err := p.Run(&ebpf.RunOptions{Data: f})
	if err != nil {
		t.Fatal(err)
	}
	switch int32(ret) {
	case -1:
		return "next"
	case 2:
		return "drop"
	}
	return fmt.Sprint("verdict ", int32(ret))
}

func TestVerdicts(t *testing.T) {
	g := bare(t)
	for _, c := range []struct{ what, frame, in, out string }{
		{"ARP asks for it", arpHead + "X4" + noMAC + "V4", "drop", "next"},
		{"ARP asks as it", arpHead + "V4" + noMAC + "X4", "next", "drop"},
		{"ARP announces it", arpHead + "V4" + noMAC + "V4", "next", "drop"},
		{"ARP about others", arpHead + "X4" + noMAC + "X4", "next", "next"},
		{"ARP in a VLAN", "8100 0007 " + arpHead + "X4" + noMAC + "V4", "drop", "next"},
		{"ARP in two VLANs", "88a8 0007 8100 0008 " + arpHead + "V4" + noMAC + "X4", "next", "drop"},
		{"IPv4 to it", ip4Head + "X4 V4", "drop", "next"},
		{"IPv4 from it", ip4Head + "V4 X4", "next", "drop"},
		{"IPv4 to it in a VLAN", "8100 0007 " + ip4Head + "X4 V4", "drop", "next"},
		{"IPv4 among others", ip4Head + "X4 X4", "next", "next"},
		{"IPv6 to it", ip6UDP + "X6 V6", "drop", "next"},
		{"IPv6 from it", ip6UDP + "V6 X6", "next", "drop"},
		{"IPv6 from it in a VLAN", "8100 0007 " + ip6UDP + "V6 X6", "next", "drop"},
		{"IPv6 among others", ip6UDP + "X6 X6", "next", "next"},
		{"NS asks for it", ip6ICMP + "X6" + groupDst + nsHead + "V6", "drop", "next"},
		{"NS for others", ip6ICMP + "X6" + groupDst + nsHead + "X6", "next", "next"},
		{"NS in a VLAN", "8100 0007 " + ip6ICMP + "X6" + groupDst + nsHead + "V6", "drop", "next"},
		{"DAD for it", ip6ICMP + unspec + groupDst + nsHead + "V6", "drop", "drop"},
		{"NA for it by another source", ip6ICMP + "X6" + groupDst + naHead + "V6", "next", "drop"},
		{"NA for others", ip6ICMP + "X6" + groupDst + naHead + "X6", "next", "next"},
		{"another protocol", "88cc 0a090064 0a090064", "next", "next"},
	} {
		f := frame(t, c.frame)
		if got := verdict(t, g.objs.GuardIn, f); got != c.in {
			t.Errorf("%s, in: %s, want %s", c.what, got, c.in)
		}
		if got := verdict(t, g.objs.GuardOut, f); got != c.out {
			t.Errorf("%s, out: %s, want %s", c.what, got, c.out)
		}
	}
	d, err := g.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Drops{ARPIn: 2, ARPOut: 3, NDIn: 3, NDOut: 2, IPIn: 3, IPOut: 3}); d != want {
		t.Errorf("counted %+v, want %+v", d, want)
	}
}

func TestOpenNeedsBitAndLease(t *testing.T) {
	g := bare(t)
	to4, to6 := frame(t, ip4Head+"X4 V4"), frame(t, ip6UDP+"X6 V6")
	check := func(when, want4, want6 string) {
		t.Helper()
		if got := verdict(t, g.objs.GuardIn, to4); got != want4 {
			t.Errorf("%s: IPv4 %s, want %s", when, got, want4)
		}
		if got := verdict(t, g.objs.GuardIn, to6); got != want6 {
			t.Errorf("%s: IPv6 %s, want %s", when, got, want6)
		}
	}
	ck := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	clk := system(t)
	in := func(d time.Duration) clock.Instant { return clk.Now().Add(d) }
	ck(g.Set(true, v4))
	check("open without a lease", "drop", "drop")
	g.lease.forward(uint64(in(2 * TooFar).Boot))
	check("a lease far ahead, past Renew's own check", "drop", "drop")
	g.lease.at(0).Store(0)
	ck(g.Renew(in(10 * time.Second)))
	check("one open, leased", "next", "drop")
	ck(g.Know([]netip.Addr{v4, v6}))
	check("known again: as before", "next", "drop")
	ck(g.Set(false, v4))
	check("closed", "drop", "drop")
	ck(g.Set(true, v6))
	check("the other one", "drop", "next")
	ck(g.Forget([]netip.Addr{v4, v6}))
	check("forgotten: not ours", "next", "next")
	if err := g.Set(true, v6); !errors.Is(err, ErrUnknown) {
		t.Errorf("open what is forgotten: %v", err)
	}
	ck(g.Know([]netip.Addr{v6, v4}))
	check("a slot used again starts closed", "drop", "drop")
	ck(g.Set(true, v4, v6))
	check("both at once", "next", "next")
	stranger := netip.MustParseAddr("10.11.0.1")
	if err := g.Set(false, v4, stranger, v6); !errors.Is(err, ErrUnknown) {
		t.Errorf("close with one that is not known: %v", err)
	}
	check("the known ones are closed", "drop", "drop")
	if err := g.Set(true, v4, v6, stranger); !errors.Is(err, ErrUnknown) {
		t.Errorf("open with one that is not known: %v", err)
	}
	check("none is opened", "drop", "drop")
}

func TestMoreAddressesThanFit(t *testing.T) {
	g := bare(t)
	var many []netip.Addr
	for i := range MaxAddrs - 2 {
		many = append(many, netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}))
	}
	if err := g.Know(many); err != nil {
		t.Fatal(err)
	}
	if err := g.Know([]netip.Addr{netip.MustParseAddr("10.11.0.1")}); err == nil {
		t.Error("one more than fits was accepted")
	}
	if err := g.Forget(many[:1]); err != nil {
		t.Fatal(err)
	}
	if err := g.Know([]netip.Addr{netip.MustParseAddr("10.11.0.1")}); err != nil {
		t.Errorf("no room after one was forgotten: %v", err)
	}
}

func TestForwardOnly(t *testing.T) {
	w := words{make([]byte, 8)}
	for _, c := range []struct{ write, want uint64 }{{5, 5}, {3, 5}, {5, 5}, {9, 9}, {0, 9}} {
		w.forward(c.write)
		if got := w.at(0).Load(); got != c.want {
			t.Errorf("after %d: %d, want %d", c.write, got, c.want)
		}
	}
}

// shifted is a clock as a process sees it in a time namespace that nobody
// corrected for.
type shifted struct {
	clock.Clock
	by time.Duration
}

func (s shifted) Now() clock.Instant { return s.Clock.Now().Add(s.by) }

func TestAnotherClockThanTheKernelsIsRefused(t *testing.T) {
	bare(t) // skips where bpf() is refused
	clk := system(t)
	for range 100 {
		if err := checkClock(clk); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []time.Duration{-time.Hour, -10 * time.Millisecond, time.Second, 24 * time.Hour} {
		if err := checkClock(shifted{clk, by}); err == nil || !strings.Contains(err.Error(), "outside of time namespaces") {
			t.Errorf("a clock that is off by %v: %v", by, err)
		}
		if _, err := OpenEBPF(Config{Clock: shifted{clk, by}}); err == nil {
			t.Errorf("the guard opened with a clock that is off by %v", by)
		}
	}
}
