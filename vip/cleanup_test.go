package vip

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// After kill -9 a clean-up takes off what is ours, and no more: the addresses, the list
// and the guard of whatever kind, so that the host is as any other. Twice is once.
func TestCleanup(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		dir := t.TempDir()
		other := Address{Addr: vip4.Addr.Next(), Prefix: vip4.Prefix}
		l.host.byHand(t, true, other)
		h := l.host.startHolder(t, mode, dir)
		h.waitHolding(t)
		h.kill()
		ours, others := l.host.routed(t, ourProto, 201), l.host.routed(t, 99, 202)
		if on := l.host.has(t, vip4, vip6, other); len(on) != 3 {
			t.Fatalf("on the host after kill -9: %v", on)
		}
		clean := func() (removed []Address) {
			t.Helper()
			must(t, l.host.Do(func() (err error) {
				removed, err = Cleanup(Options{Dir: dir})
				return err
			}))
			return removed
		}
		before := l.host.picture(t)
		if got := clean(); len(got) != 2 || !slices.Contains(got, vip4) || !slices.Contains(got, vip6) {
			t.Errorf("removed %v", got)
		}
		if on := l.host.has(t, vip4, vip6, other); !slices.Equal(on, []netip.Addr{other.Addr}) {
			t.Errorf("on the host after the clean-up: %v", on)
		}
		if _, err := os.Stat(filepath.Join(dir, listName)); !os.IsNotExist(err) {
			t.Errorf("the list is there: %v", err)
		}
		after := l.host.picture(t)
		for _, x := range ours {
			if slices.Contains(after, x) || !slices.Contains(before, x) {
				t.Errorf("ours is there after the clean-up, or was not before: %s", x)
			}
		}
		for _, x := range others {
			if !slices.Contains(after, x) {
				t.Errorf("another's is gone: %s", x)
			}
		}
		if slices.Equal(before, after) {
			t.Error("the picture does not show addresses; this test would see nothing")
		}
		if got := clean(); len(got) != 0 {
			t.Errorf("the second time it removed %v", got)
		}
		if twice := l.host.picture(t); !slices.Equal(after, twice) {
			t.Errorf("the second time it changed\n%v\nto\n%v", after, twice)
		}
		// The guard is gone: an address of the same name, put on by hand, answers.
		l.host.byHand(t, true, vip4)
		asked := make(chan map[netip.Addr]bool, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			found := map[netip.Addr]bool{}
			if mac, err := l.peer.probe(ctx, vip4.Addr); err == nil && mac != nil {
				found[vip4.Addr] = true
			}
			asked <- found
		}()
		if found := <-asked; !found[vip4.Addr] {
			t.Error("something still silences the address")
		}
	})
}

// probe is Probe from the machine.
func (m *machine) probe(ctx context.Context, a netip.Addr) (mac []byte, err error) {
	err = m.Do(func() (err error) {
		mac, err = Probe(ctx, "eth0", a)
		return err
	})
	return mac, err
}

// routed makes a route and a rule with that protocol and table, and returns their text.
func (m *machine) routed(t *testing.T, proto, table int) []string {
	t.Helper()
	before := m.picture(t)
	must(t, m.Do(func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, to, err := net.ParseCIDR("192.0.2.0/24")
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: dev.Attrs().Index, Dst: to, Table: table, Scope: netlink.SCOPE_LINK, Protocol: netlink.RouteProtocol(proto),
		}); err != nil {
			return err
		}
		r := netlink.NewRule()
		r.Table, r.Priority, r.Protocol, r.Src = table, table, uint8(proto), to
		return netlink.RuleAdd(r)
	}))
	var news []string
	for _, x := range m.picture(t) {
		if !slices.Contains(before, x) {
			news = append(news, x)
		}
	}
	if len(news) != 2 {
		t.Fatalf("new are %v", news)
	}
	return news
}

// picture is the machine's addresses, routes and rules, as text.
func (m *machine) picture(t *testing.T) (out []string) {
	t.Helper()
	must(t, m.Do(func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			out = append(out, a.IPNet.String())
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			out = append(out, r.String())
		}
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		for _, r := range rules {
			out = append(out, r.String())
		}
		return err
	}))
	slices.Sort(out)
	return out
}
