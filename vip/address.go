package vip

import (
	"fmt"
	"net/netip"
	"strings"

	"hanode/internal/spec"
)

// Address is one virtual address as it was asked for.
type Address struct {
	Addr   netip.Addr   // never IPv4 in IPv6, no zone
	Prefix netip.Prefix // as written: its bits name the network, not what goes on the device
	Dev    string       // "" = the device with a subnet that holds Addr, or else a route to it

	// Network puts it on with Prefix's length, and for IPv4 the broadcast address;
	// otherwise as /32 or /128.
	Network bool
	// Broadcast is that broadcast address where it is not the network's own; zero = it is.
	Broadcast netip.Addr
	// Source lets the kernel choose it as a source address.
	Source bool
	// Label is its IFA_LABEL, IPv4 only; "" = the device's name.
	Label string
	// Routing is put on and taken off with it; "" = none. See Of.
	Routing Routing
}

func (a Address) String() string {
	if a.Dev == "" {
		return a.Prefix.String()
	}
	return a.Prefix.String() + " dev " + a.Dev
}

// Parse reads "10.0.0.100/24", "fd00::100/64" or an address alone, which stands
// for /32 or /128. It refuses what can be no virtual address, with the reason.
func Parse(text, dev string) (Address, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err2 := netip.ParseAddr(text)
		if err2 != nil {
			return Address{}, fmt.Errorf("%q is not an address like 10.0.0.100/24", text)
		}
		if a.Zone() != "" {
			return Address{}, fmt.Errorf("%s: name the device in dev, not after %%", text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	a := p.Addr()
	switch {
	case a.Is4In6():
		return Address{}, fmt.Errorf("%s: write the IPv4 address as %s", text, a.Unmap())
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Address{}, fmt.Errorf("%s cannot be a virtual address", a)
	case a.IsLinkLocalUnicast() && dev == "":
		return Address{}, fmt.Errorf("%s is link-local: say on which device with dev", a)
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		return Address{}, fmt.Errorf("%s is the network itself; give a host's address in it", text)
	case a.Is4() && p.Bits() < 31 && a == spec.Highest(p):
		return Address{}, fmt.Errorf("%s is the broadcast address of its network", text)
	}
	if err := checkDevice(dev); err != nil {
		return Address{}, err
	}
	return Address{Addr: a, Prefix: p, Dev: dev}, nil
}

// broadcast is what the device sends to as a broadcast because of the address; zero =
// nothing.
func (a Address) broadcast() netip.Addr {
	switch {
	case !a.Network || !a.Addr.Is4() || a.Prefix.Bits() > 30:
		return netip.Addr{}
	case a.Broadcast.IsValid():
		return a.Broadcast
	}
	return spec.Highest(a.Prefix)
}

// checkDevice applies the kernel's rule for names.
func checkDevice(dev string) error {
	switch {
	case dev == "":
		return nil
	case len(dev) > 15, dev == ".", dev == "..", strings.ContainsAny(dev, "/: \t\n\v\f\r\x00"):
		return fmt.Errorf("%q is not a device name", dev)
	case dev == "lo":
		return fmt.Errorf("a virtual address on lo is not seen by the network; name an Ethernet device")
	}
	return nil
}
