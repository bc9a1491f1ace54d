package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Present lists the addresses of this host, in the network namespace of this process, with
// the devices that have each, sorted. It does not know who put them there. The loopback
// does not count: a real server behind a load balancer has the address there on purpose.
func Present() (map[netip.Addr][]string, error) {
	out := map[netip.Addr][]string{}
	err := eachAddress(func(d net.Interface, p netip.Prefix) {
		a := p.Addr().WithZone("")
		if !slices.Contains(out[a], d.Name) {
			out[a] = append(out[a], d.Name)
		}
	})
	for _, devs := range out {
		slices.Sort(devs)
	}
	return out, err
}

func eachAddress(fn func(net.Interface, netip.Prefix)) error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	for _, d := range all {
		addrs, err := d.Addrs()
		if err != nil || d.Flags&net.FlagLoopback != 0 {
			continue // the device went meanwhile
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil {
				fn(d, p)
			}
		}
	}
	return nil
}

// stray is an address on a device, with the prefix length that it has there.
type stray struct {
	dev    net.Interface
	prefix netip.Prefix
}

// RemoveStray takes an address off every device that Present names, whoever put it
// there. Not there is success. The other addresses of the device stay.
func RemoveStray(addr netip.Addr) error {
	var found []stray
	errs := []error{eachAddress(func(d net.Interface, p netip.Prefix) {
		if p.Addr().WithZone("") == addr {
			found = append(found, stray{d, p})
		}
	})}
	for _, s := range found {
		errs = append(errs, s.remove())
	}
	return errors.Join(errs...)
}

func (s stray) remove() error {
	if s.prefix.Addr().Is4() {
		// Else the kernel takes the other addresses of the subnet off with it, if this is
		// the first of them.
		promote := "/proc/sys/net/ipv4/conf/" + s.dev.Name + "/promote_secondaries"
		if was, err := os.ReadFile(promote); err == nil && strings.TrimSpace(string(was)) == "0" {
			if os.WriteFile(promote, []byte("1"), 0) == nil {
				defer func() { _ = os.WriteFile(promote, was, 0) }()
			}
		}
	}
	link, err := netlink.LinkByIndex(s.dev.Index)
	if err == nil {
		ip := net.IPNet{IP: s.prefix.Addr().WithZone("").AsSlice(), Mask: net.CIDRMask(s.prefix.Bits(), s.prefix.Addr().BitLen())}
		err = netlink.AddrDel(link, &netlink.Addr{IPNet: &ip})
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("take %s off %s: %w", s.prefix, s.dev.Name, err)
	}
	return nil
}
