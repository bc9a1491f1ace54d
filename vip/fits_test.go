package vip

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// With no address of the network on any device, the route to what is on a device's link
// names it, to a release and to those who look at its carrier; a gateway's route does not,
// and two devices are one too many.
func TestDeviceFromARoute(t *testing.T) {
	l := newLab(t)
	wire(t, l.host, l.peer, "eth1", 8)
	routed := func(dst, dev, via string) {
		t.Helper()
		_, n, err := net.ParseCIDR(dst)
		must(t, err)
		r := &netlink.Route{Dst: n, LinkIndex: l.host.index(t, dev), Scope: netlink.SCOPE_LINK}
		if via != "" {
			r.Gw, r.Scope = net.ParseIP(via), netlink.SCOPE_UNIVERSE
		}
		must(t, l.host.Do(func() error { return netlink.RouteAdd(r) }))
	}
	a := Address{Addr: netip4("10.60.0.100"), Prefix: prefix("10.60.0.100/24")}
	b := Address{Addr: netip4("fd60::100"), Prefix: prefix("fd60::100/64")}
	c := Address{Addr: netip4("10.61.0.100"), Prefix: prefix("10.61.0.100/24")}
	d := Address{Addr: netip4("10.62.0.100"), Prefix: prefix("10.62.0.100/24")}
	routed("10.60.0.0/24", "eth1", "")
	routed("fd60::/64", "eth1", "")
	routed("10.61.0.0/24", "eth0", "10.9.0.2")
	routed("10.62.0.0/24", "eth0", "")

	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare([]Address{a, b, c, d}))
	must(t, k.Renew(in(30*time.Second)))
	fits := func(a Address) (err error) {
		_ = l.host.Do(func() error { err = Fits(a); return nil })
		return err
	}
	for _, x := range []Address{a, b} {
		must(t, fits(x))
		must(t, k.Add(x))
		have, err := k.rtnl.addresses()
		must(t, err)
		i := slices.IndexFunc(have, func(h assigned) bool { return h.prefix.Addr() == x.Addr })
		if i < 0 || have[i].index != l.host.index(t, "eth1") {
			t.Errorf("%s is not on eth1: %v", x.Addr, have)
		}
	}
	if err := k.Add(c); !errors.Is(err, ErrNoDevice) || !errors.Is(fits(c), ErrNoDevice) {
		t.Errorf("behind a gateway: %v, %v", err, fits(c))
	}
	must(t, fits(d))
	must(t, l.host.Do(func() error { // another metric: both are there
		_, n, _ := net.ParseCIDR("10.62.0.0/24")
		i, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: n, LinkIndex: i.Attrs().Index, Scope: netlink.SCOPE_LINK, Priority: 5})
	}))
	want := "eth0 and eth1 all have a route to its network"
	if err := k.Add(d); !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), want) || !strings.Contains(fits(d).Error(), want) {
		t.Errorf("two devices: %v, %v", err, fits(d))
	}
	setUp(t, l.host, "eth1", false)
	awaitLink(t, k, "eth1", "down", "is switched off")
}
