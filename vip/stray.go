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

// Strays lists the devices of this host, in the network namespace of this process, that
// have an address, sorted. It does not know who put it there. The loopback does not
// count: a real server behind a load balancer has the address there on purpose.
func Strays(addr netip.Addr) ([]string, error) {
	found, err := strays(addr)
	var out []string
	for _, s := range found {
		if !slices.Contains(out, s.dev.Name) {
			out = append(out, s.dev.Name)
		}
	}
	slices.Sort(out)
	return out, err
}

// stray is an address on a device, with the prefix length that it has there.
type stray struct {
	dev    net.Interface
	prefix netip.Prefix
}

func strays(addr netip.Addr) (out []stray, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	for _, d := range all {
		addrs, err := d.Addrs()
		if err != nil || d.Flags&net.FlagLoopback != 0 {
			continue // the device went meanwhile
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().WithZone("") == addr {
				out = append(out, stray{d, p})
			}
		}
	}
	return out, nil
}

// RemoveStrays takes an address off every device that Strays names, whoever put it
// there. Not there is success. The other addresses of the device stay.
func RemoveStrays(addr netip.Addr) error {
	found, err := strays(addr)
	errs := []error{err}
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
