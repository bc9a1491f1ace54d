package vip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hanode/internal/spec"
)

func of(t testing.TB, r spec.Resource) Address {
	t.Helper()
	r.Type = "ip"
	a, err := Of(r)
	must(t, err)
	return a
}

// find returns an address of eth0 as the kernel shows it; nil = it is not there.
func (m *machine) find(t testing.TB, a netip.Addr) (found *netlink.Addr) {
	t.Helper()
	m.link(t, "eth0", func(l netlink.Link) error {
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		for _, x := range list {
			if ip, _ := netip.AddrFromSlice(x.IP); ip.Unmap() == a {
				found = &x
			}
		}
		return err
	})
	return found
}

// On the host as asked for, also after it was taken off and put back, and gone
// without a trace.
func TestAddressWithOptions(t *testing.T) {
	l := newLab(t)
	before := l.host.snapshot(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	all := []Address{
		of(t, spec.Resource{Name: "10.9.0.100/24", Dev: "eth0", Network: true, Label: "eth0:web"}),
		of(t, spec.Resource{Name: "fd09::100/64", Dev: "eth0", Network: true, Source: true}),
		of(t, spec.Resource{Name: "10.9.0.101/24", Source: true}),
		of(t, spec.Resource{Name: "10.9.0.102/24", Network: true, Broadcast: "10.9.0.12"}),
	}
	must(t, k.Prepare(all))
	must(t, k.Renew(in(20*time.Second)))
	for _, a := range all {
		must(t, k.Add(a))
	}
	check := func(when string) {
		t.Helper()
		a := l.host.find(t, all[0].Addr)
		if a == nil || a.IPNet.String() != "10.9.0.100/24" || !a.Broadcast.Equal(net.IPv4(10, 9, 0, 255)) || a.Label != "eth0:web" || a.PreferedLft != 0 {
			t.Errorf("%s: %+v", when, a)
		}
		a = l.host.find(t, all[1].Addr)
		if a == nil || a.IPNet.String() != "fd09::100/64" || a.PreferedLft == 0 || a.Flags&unix.IFA_F_DEPRECATED != 0 {
			t.Errorf("%s: %+v", when, a)
		}
		a = l.host.find(t, all[2].Addr)
		if a == nil || a.IPNet.String() != "10.9.0.101/32" || a.PreferedLft == 0 {
			t.Errorf("%s: %+v", when, a)
		}
		a = l.host.find(t, all[3].Addr)
		if a == nil || a.IPNet.String() != "10.9.0.102/24" || !a.Broadcast.Equal(net.IPv4(10, 9, 0, 12)) {
			t.Errorf("%s: %+v", when, a)
		}
	}
	check("added")
	for _, a := range all {
		x := l.host.find(t, a.Addr)
		l.host.link(t, "eth0", func(dev netlink.Link) error { return netlink.AddrDel(dev, x) })
		until(t, "it is back", func() bool { return l.host.find(t, a.Addr) != nil })
	}
	check("put back")
	k.keep.mu.Lock()
	for _, x := range k.keep.kept {
		x.until = 0
	}
	k.keep.mu.Unlock()
	k.keep.write(t.Context())
	check("refreshed")
	must(t, k.Del(all[0]))
	k.release() // killed: the rest is found by its mark
	k = l.host.open(t, options(modes()[0], k.opts.Dir))
	_, err := k.RemoveOurs()
	must(t, err)
	if diff := cmp.Diff(before, l.host.snapshot(t)); diff != "" {
		t.Errorf("addresses that are not ours changed: %s", diff)
	}
}

// What an address has besides its lifetime changes where it is, as when a group takes
// it over from another on one host.
func TestAddressInAnotherForm(t *testing.T) {
	l := newLab(t)
	before := l.host.snapshot(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	forms := []struct {
		spec.Resource
		on string
	}{
		{spec.Resource{Name: "10.9.0.100/24", Network: true}, "10.9.0.100/24 10.9.0.255 eth0"},
		{spec.Resource{Name: "10.9.0.100/24", Network: true, Broadcast: "10.9.0.12"}, "10.9.0.100/24 10.9.0.12 eth0"},
		{spec.Resource{Name: "10.9.0.100/24", Network: true, Broadcast: "10.9.0.12"}, "10.9.0.100/24 10.9.0.12 eth0"},
		{spec.Resource{Name: "10.9.0.100/24", Network: true, Label: "eth0:web"}, "10.9.0.100/24 10.9.0.255 eth0:web"},
		{spec.Resource{Name: "10.9.0.100/24"}, "10.9.0.100/32 <nil> eth0"},
	}
	must(t, k.Renew(in(20*time.Second)))
	for _, f := range forms {
		a := of(t, f.Resource)
		must(t, k.Prepare([]Address{a}))
		must(t, k.Add(a))
		var on []string
		l.host.link(t, "eth0", func(dev netlink.Link) error {
			list, err := netlink.AddrList(dev, netlink.FAMILY_V4)
			for _, x := range list {
				if x.IP.Equal(net.IPv4(10, 9, 0, 100)) {
					on = append(on, fmt.Sprintf("%s %v %s", x.IPNet, x.Broadcast, x.Label))
				}
			}
			return err
		})
		if !slices.Equal(on, []string{f.on}) {
			t.Errorf("%q, not %q", on, f.on)
		}
	}
	must(t, k.Del(of(t, forms[0].Resource)))
	if diff := cmp.Diff(before, l.host.snapshot(t)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

// routing lists the routes and rules of a machine that somebody made, as text.
func (m *machine) routing(t testing.TB) (out []string) {
	t.Helper()
	must(t, m.Do(func() error {
		for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
			routes, err := netlink.RouteListFiltered(f, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Protocol != unix.RTPROT_KERNEL && r.Table != unix.RT_TABLE_LOCAL { // a bridge is over soon
					out = append(out, fmt.Sprintf("route to %v via %v src %v table %d metric %d", r.Dst, r.Gw, r.Src, r.Table, r.Priority))
				}
			}
			rules, err := netlink.RuleList(f)
			if err != nil {
				return err
			}
			for _, r := range rules {
				if r.Protocol != unix.RTPROT_KERNEL {
					out = append(out, fmt.Sprintf("rule %d from %v to %v table %d", r.Priority, r.Src, r.Dst, r.Table))
				}
			}
		}
		return nil
	}))
	slices.Sort(out)
	return out
}

func TestRoutesAndRules(t *testing.T) {
	l := newLab(t)
	l.host.link(t, "eth0", func(dev netlink.Link) error { // an operator's own
		to := &net.IPNet{IP: net.IPv4(10, 77, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK})
	})
	before := l.host.routing(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	all := []Address{
		of(t, spec.Resource{
			Name: "10.9.0.100/24", Source: true,
			Routes: []spec.Route{{To: "0.0.0.0/0", Via: "10.9.0.2", Table: 0, Metric: 50}, {To: "10.8.0.0/16"}},
			Rules:  []spec.Rule{{Table: 200, Priority: 1000}},
		}),
		of(t, spec.Resource{
			Name: "fd09::100/64", Routes: []spec.Route{{To: "fd08::/32", Via: "fd09::2"}}, Rules: []spec.Rule{{To: "fd07::/16", Table: 200, Priority: 1000}},
		}),
	}
	must(t, k.Prepare(all))
	must(t, k.Renew(in(20*time.Second)))
	for range 2 { // there already: success
		for _, a := range all {
			must(t, k.Add(a))
		}
	}
	want := append(slices.Clone(before),
		"route to 0.0.0.0/0 via 10.9.0.2 src 10.9.0.100 table 254 metric 50",
		"route to 10.8.0.0/16 via <nil> src 10.9.0.100 table 254 metric 0",
		"route to fd08::/32 via fd09::2 src <nil> table 254 metric 1024",
		"rule 1000 from 10.9.0.100/32 to <nil> table 200",
		"rule 1000 from fd09::100/128 to fd07::/16 table 200",
	)
	slices.Sort(want)
	if diff := cmp.Diff(want, l.host.routing(t)); diff != "" {
		t.Errorf("added: %s", diff)
	}
	// The kernel takes the routes whose source it was.
	x := l.host.find(t, vip4.Addr)
	l.host.link(t, "eth0", func(dev netlink.Link) error { return netlink.AddrDel(dev, x) })
	until(t, "the routes are back", func() bool { return cmp.Equal(want, l.host.routing(t)) })

	for range 2 { // gone already: success
		for _, a := range all {
			must(t, k.Del(a))
		}
	}
	if diff := cmp.Diff(before, l.host.routing(t)); diff != "" {
		t.Errorf("deleted: %s", diff)
	}
	for _, a := range all {
		must(t, k.Add(a))
	}
	k.release() // killed
	k = l.host.open(t, options(modes()[0], k.opts.Dir))
	_, err := k.RemoveOurs()
	must(t, err)
	if diff := cmp.Diff(before, l.host.routing(t)); diff != "" {
		t.Errorf("removed by the next incarnation: %s", diff)
	}
}

func (m *machine) setting(t testing.TB, name string) (v int) {
	t.Helper()
	must(t, m.Do(func() (err error) {
		v, err = readSetting("eth0", name)
		return err
	}))
	return v
}

// Devices get their settings back when the last address leaves, also from the next
// incarnation; what another has changed meanwhile is his.
func TestDeviceSettingsAreGivenBack(t *testing.T) {
	l := newLab(t)
	set := func(name string, v byte) {
		must(t, l.host.Do(func() error { return os.WriteFile(settingPath("eth0", name), []byte{'0' + v}, 0o644) }))
	}
	set("arp_ignore", 0)
	set("arp_announce", 1)
	set("promote_secondaries", 0)
	wanted := func(when string, ignore, announce, promote int) {
		t.Helper()
		got := [...]int{l.host.setting(t, "arp_ignore"), l.host.setting(t, "arp_announce"), l.host.setting(t, "promote_secondaries")}
		if got != [...]int{ignore, announce, promote} {
			t.Errorf("%s: arp_ignore, arp_announce, promote_secondaries are %v, want %d, %d, %d", when, got, ignore, announce, promote)
		}
	}
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	wanted("prepared", 0, 1, 0)
	must(t, k.Add(vip4))
	must(t, k.Add(vip6))
	wanted("added", 1, 2, 1)
	must(t, k.Del(vip4))
	wanted("one is left", 1, 2, 1)
	must(t, k.Del(vip6))
	wanted("none is left", 0, 1, 0)

	must(t, k.Add(vip4))
	set("arp_announce", 0)
	until(t, "it is on disk", func() bool {
		b, err := os.ReadFile(filepath.Join(k.opts.Dir, settingsName))
		return err == nil && strings.Contains(string(b), "arp_ignore")
	})
	k.release() // killed
	k = l.host.open(t, options(modes()[0], k.opts.Dir))
	wanted("the next incarnation", 1, 0, 1)
	_, err := k.RemoveOurs()
	must(t, err)
	wanted("removed by the next incarnation", 0, 0, 0)
}

// What the kernel tracks of a released address is forgotten; what it tracks of others
// is not.
func TestReleaseForgetsTrackedConnections(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Add(vip4))
	track := func(dst netip.Addr) *netlink.ConntrackFlow {
		there := netlink.IPTuple{SrcIP: peerIP4.Addr().AsSlice(), DstIP: dst.AsSlice(), SrcPort: 4000, DstPort: 80, Protocol: unix.IPPROTO_UDP}
		back := netlink.IPTuple{SrcIP: there.DstIP, DstIP: there.SrcIP, SrcPort: 80, DstPort: 4000, Protocol: unix.IPPROTO_UDP}
		return &netlink.ConntrackFlow{FamilyType: unix.AF_INET, Forward: there, Reverse: back, TimeOut: 300}
	}
	tracked := func() (out []string) {
		must(t, l.host.Do(func() error {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			for _, f := range flows {
				out = append(out, f.Forward.DstIP.String())
			}
			return err
		}))
		slices.Sort(out)
		return out
	}
	must(t, l.host.Do(func() error {
		for _, dst := range []netip.Addr{vip4.Addr, hostIP4} {
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, track(dst)); err != nil {
				return err
			}
		}
		return nil
	}))
	if diff := cmp.Diff([]string{"10.9.0.1", "10.9.0.100"}, tracked()); diff != "" {
		t.Fatalf("this test would see nothing: %s", diff)
	}
	must(t, k.Del(vip4))
	until(t, "the flow is forgotten", func() bool { return cmp.Equal([]string{"10.9.0.1"}, tracked()) })
}
