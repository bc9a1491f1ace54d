package vip

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Fits says why this host, in the network namespace of this process, has no device
// for a, or nil. It looks before anything is prepared and is no promise: Add looks
// again, and also whether the device can be guarded.
func Fits(a Address) error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	var names, fits []string
	for _, d := range all {
		names = append(names, d.Name)
		if a.Dev != "" {
			if d.Name == a.Dev {
				return nil
			}
			continue
		}
		addrs, err := d.Addrs()
		if err != nil || d.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, x := range addrs {
			p, err := netip.ParsePrefix(x.String())
			if err == nil && !p.IsSingleIP() && p.Masked().Contains(a.Addr) && !slices.Contains(fits, d.Name) {
				fits = append(fits, d.Name)
			}
		}
	}
	slices.Sort(names)
	switch {
	case a.Dev != "":
		return fmt.Errorf("%w %s: %s does not exist; this host has %s", ErrNoDevice, a.Addr, a.Dev, strings.Join(names, ", "))
	case len(fits) == 0:
		return fmt.Errorf("%w %s: no device has a subnet that holds it; name one with dev (this host has %s)", ErrNoDevice, a.Addr, strings.Join(names, ", "))
	case len(fits) > 1:
		return fmt.Errorf("%w %s: %s all have a subnet that holds it; name one with dev", ErrNoDevice, a.Addr, strings.Join(fits, " and "))
	}
	return nil
}
