package vip

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Fits says why this host, in the network namespace of this process, has no device
// for a, or nil. It looks before anything is prepared and is no promise: Add looks
// again, and also whether the device can be guarded.
func Fits(a Address) error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	ds := devices{}
	for _, d := range all {
		if a.Dev != "" && d.Name == a.Dev {
			return nil
		}
		ds[d.Index] = device{index: d.Index, name: d.Name, loopback: d.Flags&net.FlagLoopback != 0}
	}
	var have []assigned
	if a.Dev == "" {
		for _, d := range all {
			addrs, err := d.Addrs()
			if err != nil {
				continue // gone meanwhile
			}
			for _, x := range addrs {
				if p, err := netip.ParsePrefix(x.String()); err == nil {
					have = append(have, assigned{index: d.Index, prefix: p})
				}
			}
		}
		if have, err = withRoutes(have, []Address{a}, netlink.RouteListFiltered); err != nil {
			return err
		}
	}
	_, err = ds.find(a, have)
	return err
}
