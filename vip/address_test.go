package vip

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func netip4(s string) netip.Addr   { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func itoa(n uint64) string         { return strconv.FormatUint(n, 10) }

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, dev, want, err string }{
		{"10.0.0.100/24", "eth1", "10.0.0.100/24 dev eth1", ""},
		{"10.0.0.100", "", "10.0.0.100/32", ""},
		{"fd00::1/64", "", "fd00::1/64", ""},
		{"fe80::1/64", "eth0", "fe80::1/64 dev eth0", ""},
		{"10.0.0.0/31", "", "10.0.0.0/31", ""},
		{"10.0.0.0/24", "", "", "is the network itself"},
		{"10.0.0.255/24", "", "", "broadcast"},
		{"fe80::1/64", "", "", "say on which device"},
		{"127.0.0.1/8", "", "", "cannot be"},
		{"0.0.0.0", "", "", "cannot be"},
		{"224.0.0.1/4", "", "", "cannot be"},
		{"ff02::1", "", "", "cannot be"},
		{"::ffff:10.0.0.1", "", "", "write the IPv4 address as 10.0.0.1"},
		{"fe80::1%eth0", "", "", "name the device in dev"},
		{"fe80::1%eth0/64", "", "", "name the device in dev"},
		{"10.0.0.300", "", "", "is not an address"},
		{"10.0.0.1/33", "", "", "is not an address"},
		{"web", "", "", "is not an address"},
		{"10.0.0.1/24", "eth/0", "", "not a device name"},
		{"10.0.0.1/24", "a-name-too-long-for-linux", "", "not a device name"},
		{"10.0.0.1/24", "lo", "", "not seen by the network"},
	} {
		a, err := Parse(c.text, c.dev)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("Parse(%q, %q): %v, want an error with %q", c.text, c.dev, err, c.err)
			}
			continue
		}
		if err != nil || a.String() != c.want {
			t.Errorf("Parse(%q, %q) = %v, %v, want %s", c.text, c.dev, a, err, c.want)
		}
	}
}

func TestTiers(t *testing.T) {
	for tier, want := range map[Tier]time.Duration{TierEBPF: 0, TierNftables: 5 * time.Millisecond, TierNone: math.MaxInt64} {
		if tier.Extra() != want {
			t.Errorf("%v adds %v, want %v", tier, tier.Extra(), want)
		}
	}
}

func TestChooseDevice(t *testing.T) {
	ds := devices{
		1: {index: 1, name: "lo", loopback: true, ethernet: true},
		2: {index: 2, name: "eth0", ethernet: true},
		3: {index: 3, name: "eth1", ethernet: true},
		4: {index: 4, name: "br0", kind: "bridge", ethernet: true},
		5: {index: 5, name: "tap0", master: 4, ethernet: true},
		6: {index: 6, name: "vrf0", kind: "vrf", ethernet: true},
		7: {index: 7, name: "eth2", master: 6, ethernet: true},
		8: {index: 8, name: "wg0"},
	}
	have := []assigned{
		{index: 1, prefix: prefix("127.0.0.1/8")},
		{index: 2, prefix: prefix("10.0.0.1/24")},
		{index: 2, prefix: prefix("10.0.0.2/24")},
		{index: 3, prefix: prefix("10.1.0.1/16")},
		{index: 4, prefix: prefix("10.1.0.2/16")},
		{index: 7, prefix: prefix("10.3.0.100/32"), marked: true},
		{index: 8, prefix: prefix("10.4.0.1/24")},
		{index: 7, prefix: prefix("fd00::1/64")},
		{index: 3, prefix: prefix("10.0.0.0/25"), route: true}, // an address tells more
		{index: 3, prefix: prefix("10.5.0.0/16"), route: true},
		{index: 2, prefix: prefix("10.5.7.0/24"), route: true},
		{index: 2, prefix: prefix("10.6.0.0/24"), route: true},
		{index: 3, prefix: prefix("10.6.0.0/24"), route: true},
		{index: 3, prefix: prefix("10.7.0.100/32"), route: true},
		{index: 3, prefix: prefix("fd05::/64"), route: true},
	}
	for _, c := range []struct{ addr, dev, want string }{
		{"10.0.0.100", "", "eth0"},
		{"10.0.0.100", "eth1", "eth1"},
		{"fd00::100", "", "eth2"},
		{"10.1.0.100", "", "br0 and eth1 all have"},
		{"10.3.0.100", "", "no device has a subnet"}, // a VIP's own /32 is no subnet
		{"10.5.0.100", "", "eth1"},
		{"10.5.7.100", "", "eth0"}, // the most specific one
		{"10.6.0.100", "", "eth0 and eth1 all have a route to its network"},
		{"10.7.0.100", "", "or a route to its network"},
		{"fd05::100", "", "eth1"},
		{"10.0.0.100", "eth9", "eth9 does not exist; this host has br0, eth0"},
		{"10.0.0.100", "tap0", "not an Ethernet device that can be guarded"},
		{"10.4.0.100", "", "not an Ethernet device that can be guarded"},
	} {
		d, err := ds.choose(Address{Addr: netip4(c.addr), Dev: c.dev}, have)
		if err != nil {
			if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %s", c.addr, c.dev, err, c.want)
			}
		} else if d.name != c.want {
			t.Errorf("%s %s: on %s, want %s", c.addr, c.dev, d.name, c.want)
		}
	}
	var names []string
	for _, d := range ds.toGuard() {
		names = append(names, d.Name)
	}
	if diff := cmp.Diff([]string{"eth0", "eth1", "br0", "vrf0", "eth2"}, names); diff != "" {
		t.Errorf("guarded devices: %s", diff)
	}
}

// snapshot lists every address of a machine but link-local ones, as text.
func (m *machine) snapshot(t *testing.T) []string {
	t.Helper()
	var out []string
	must(t, m.Do(func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range list {
			if !a.IP.IsLinkLocalUnicast() {
				out = append(out, strconv.Itoa(a.LinkIndex)+" "+a.IPNet.String())
			}
		}
		return err
	}))
	slices.Sort(out)
	return out
}

func (m *machine) addByHand(t *testing.T, dev string, addrs ...string) {
	t.Helper()
	must(t, m.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		for _, s := range addrs {
			ad, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			ad.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrReplace(l, ad); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestAddAndRemoveTouchNothingElse(t *testing.T) {
	mode := modes()[0]
	l := newLab(t)
	l.host.addByHand(t, "eth0", "10.9.0.50/32", "10.9.0.60/24", "fd09::50/128")
	before := l.host.snapshot(t)
	dir := t.TempDir()
	k := l.host.open(t, options(mode, dir))
	if err := k.Add(vip4); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("Add before Prepare: %v", err)
	}
	if err := k.Open(vip4); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("Open before Prepare: %v", err)
	}
	must(t, k.Prepare(bothVIPs))
	for range 2 { // there already: success
		for _, a := range bothVIPs {
			must(t, k.Add(a))
		}
	}
	must(t, l.host.Do(func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		n := 0
		for _, a := range list {
			if ip, _ := netip.AddrFromSlice(a.IP); ip.Unmap() == vip4.Addr || ip == vip6.Addr {
				n++
				ones, bits := a.Mask.Size()
				if ones != bits || a.Flags&unix.IFA_F_DEPRECATED == 0 || a.Flags&unix.IFA_F_TENTATIVE != 0 {
					t.Errorf("%v: /%d, flags %#x", a.IPNet, ones, a.Flags)
				}
			}
		}
		if n != 2 {
			t.Errorf("%d of 2 addresses are on", n)
		}
		for name, want := range map[string]string{"arp_ignore": "1", "arp_announce": "2", "promote_secondaries": "1"} {
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/eth0/" + name)
			if err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s is %q (%v), want %s", name, b, err, want)
			}
		}
		return err
	}))
	ours, err := k.Ours()
	must(t, err)
	if len(ours) != 2 || !slices.Contains(ours, vip4) || !slices.Contains(ours, vip6) {
		t.Errorf("Ours() = %v, want %v", ours, bothVIPs)
	}
	for range 2 { // gone already: success
		must(t, k.Del(vip4))
	}
	k.release() // the process is killed

	k = l.host.open(t, options(mode, dir))
	removed, err := k.RemoveOurs()
	must(t, err)
	if !slices.Equal(removed, []Address{vip6}) {
		t.Errorf("removed %v, want %v", removed, vip6)
	}
	if diff := cmp.Diff(before, l.host.snapshot(t)); diff != "" {
		t.Errorf("addresses that are not ours changed: %s", diff)
	}
}

// On kernels that keep no mark the list alone says what is ours; the mark alone
// does where the data directory was lost.
func TestAddressesOfACrashedIncarnation(t *testing.T) {
	mode := modes()[0]
	l := newLab(t)
	dir := t.TempDir()
	k := l.host.open(t, options(mode, dir))
	must(t, k.Prepare(bothVIPs))
	k.release()
	l.host.addByHand(t, "eth0", "10.9.0.100/32") // unmarked
	k = l.host.open(t, options(mode, dir))
	removed, err := k.RemoveOurs()
	must(t, err)
	if !slices.Equal(removed, []Address{vip4}) {
		t.Errorf("by the list: removed %v, want %v", removed, vip4)
	}
	must(t, k.Prepare(bothVIPs))
	must(t, k.Add(vip6))
	k.release()

	must(t, os.Remove(filepath.Join(dir, listName)))
	k = l.host.open(t, options(mode, dir))
	must(t, k.Renew(in(20*time.Second)))
	removed, err = k.RemoveOurs()
	must(t, err)
	if len(removed) != 1 || removed[0].Addr != vip6.Addr {
		t.Errorf("by the mark: removed %v, want %v", removed, vip6)
	}
}

func TestPrepareForgetsWhatIsNeitherWantedNorThere(t *testing.T) {
	mode := modes()[0]
	l := newLab(t)
	dir := t.TempDir()
	k := l.host.open(t, options(mode, dir))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Add(vip4))
	must(t, k.Prepare(nil))
	list, err := loadList(dir)
	must(t, err)
	if !slices.Equal(list, []Address{vip4}) {
		t.Errorf("listed %v, want only what is on the host", list)
	}
	if err := k.Close(vip4); err != nil {
		t.Errorf("an address still on the host must stay guarded: %v", err)
	}
	if err := k.Close(vip6); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("close of a forgotten address: %v", err)
	}
	clash := Address{Addr: vip4.Addr, Prefix: vip4.Prefix, Dev: "eth0"}
	if err := k.Prepare([]Address{vip4, clash}); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("one address asked for twice: %v", err)
	}
}

func TestBrokenListIsNotTakenForAnEmptyOne(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, listName), []byte("{"), 0o600))
	err := l.host.Do(func() error {
		k, err := Open(options(modes()[0], dir))
		if err == nil {
			k.(*host).release()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), listName) {
		t.Errorf("Open with a broken list: %v", err)
	}
}

func TestDelEndsConnections(t *testing.T) {
	mode := modes()[0]
	l := newLab(t)
	k := l.host.open(t, options(mode, t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Renew(in(30*time.Second)))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
		must(t, k.Open(a))
		var ln net.Listener
		must(t, l.host.Do(func() (err error) {
			ln, err = net.Listen("tcp", netip.AddrPortFrom(a.Addr, 7001).String())
			return err
		}))
		defer ln.Close()
		var client net.Conn
		must(t, l.peer.Do(func() (err error) {
			client, err = net.DialTimeout("tcp", ln.Addr().String(), 10*time.Second)
			return err
		}))
		defer client.Close()
		server, err := ln.Accept()
		must(t, err)
		defer server.Close()
		connected, service := l.host.udpFrom(t, a.Addr, netip.AddrPortFrom(hostIP4, 7002)), l.host.udpFrom(t, a.Addr, netip.AddrPort{})
		must(t, k.Close(a))
		must(t, k.Del(a))
		must(t, connected.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := connected.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s: a connected UDP socket of it: %v, want ECONNABORTED", a.Addr, err)
		}
		must(t, service.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		if _, err := service.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a UDP service on it: %v, want that it waits", a.Addr, err)
		}
		must(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s: the holder's end of the connection: %v, want ECONNABORTED", a.Addr, err)
		}
		// What the kernel sends for it must not get out: the address is closed.
		must(t, client.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the client heard from a closed address: %v", a.Addr, err)
		}
	}
}

// udpFrom is a UDP socket bound to a, and connected unless to is zero.
func (m *machine) udpFrom(t *testing.T, a netip.Addr, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	must(t, m.Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		switch {
		case !to.IsValid():
			c, err = net.ListenUDP("udp", local)
		case a.Is6():
			c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peerIP6.Addr(), to.Port())))
		default:
			c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
		}
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}
