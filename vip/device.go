package vip

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"hanode/vip/guard"
)

// device is what matters of a network device.
type device struct {
	index, master int
	name, kind    string
	ethernet      bool
	loopback      bool
	admin         bool // administratively up
	up            bool // and with carrier
	mac           net.HardwareAddr
}

// devices are the devices of the host by index.
type devices map[int]device

// switches are the kinds of master whose ports only carry frames: the address
// lives on the master, which is guarded, and dropping at a port would keep
// others, such as virtual machines, from a holder behind it.
var switches = [...]string{"bridge", "bond", "team", "openvswitch"}

func (ds devices) guarded(d device) bool {
	if !d.ethernet || d.loopback {
		return false
	}
	m, ok := ds[d.master]
	return !ok || !slices.Contains(switches[:], m.kind)
}

// toGuard lists the devices that must be guarded, by index.
func (ds devices) toGuard() []guard.Device {
	var out []guard.Device
	for _, d := range ds {
		if ds.guarded(d) {
			out = append(out, guard.Device{Index: d.index, Name: d.name})
		}
	}
	slices.SortFunc(out, func(a, b guard.Device) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

func (ds devices) named(name string) (device, bool) {
	for _, d := range ds {
		if d.name == name {
			return d, true
		}
	}
	return device{}, false
}

func (ds devices) names() string {
	var names []string
	for _, d := range ds {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// assigned is one address on a device.
type assigned struct {
	index  int
	prefix netip.Prefix
	marked bool // carries our mark
	// route: no address, but a network that a route says is on this device's link.
	route bool
}

// address is what stands there as an address of ours.
func (x assigned) address() Address {
	return Address{Addr: x.prefix.Addr(), Prefix: x.prefix, Network: !x.prefix.IsSingleIP()}
}

// subnets lists the devices on whose network a is: by their addresses or, only if there
// is none, by the most specific route to what is on their link.
func (ds devices) subnets(a netip.Addr, have []assigned) (fits []assigned, byRoute bool) {
	var routes []assigned
	for _, h := range have {
		d, ok := ds[h.index]
		if !ok || d.loopback || h.prefix.IsSingleIP() || !h.prefix.Masked().Contains(a) {
			continue
		}
		if !h.route {
			fits = append(fits, h)
			continue
		}
		if len(routes) > 0 && h.prefix.Bits() > routes[0].prefix.Bits() {
			routes = routes[:0]
		}
		if len(routes) == 0 || h.prefix.Bits() == routes[0].prefix.Bits() {
			routes = append(routes, h)
		}
	}
	if len(fits) > 0 {
		return fits, false
	}
	return routes, len(routes) > 0
}

// choose picks the device for a: the named one, or the only one on whose network it is.
func (ds devices) choose(a Address, have []assigned) (device, error) {
	d, err := ds.find(a, have)
	if err != nil {
		return device{}, err
	}
	if !ds.guarded(d) {
		return device{}, fmt.Errorf("%w %s: %s is not an Ethernet device that can be guarded; name its bridge, bond or parent", ErrNoDevice, a.Addr, d.name)
	}
	return d, nil
}

func (ds devices) find(a Address, have []assigned) (device, error) {
	if a.Dev != "" {
		d, ok := ds.named(a.Dev)
		if !ok {
			return device{}, fmt.Errorf("%w %s: %s does not exist; this host has %s", ErrNoDevice, a.Addr, a.Dev, ds.names())
		}
		return d, nil
	}
	fits := map[string]device{}
	on, byRoute := ds.subnets(a.Addr, have)
	for _, h := range on {
		fits[ds[h.index].name] = ds[h.index]
	}
	if len(fits) == 1 {
		for _, d := range fits {
			return d, nil
		}
	}
	what := "a subnet that holds it"
	if byRoute {
		what = "a route to its network"
	}
	return device{}, noDevice(a, slices.Sorted(maps.Keys(fits)), what, ds.names())
}

// noDevice is the error where not exactly one device fits.
func noDevice(a Address, fit []string, what, all string) error {
	if len(fit) == 0 {
		return fmt.Errorf("%w %s: no device has a subnet that holds it, or a route to its network; name one with dev (this host has %s)", ErrNoDevice, a.Addr, all)
	}
	return fmt.Errorf("%w %s: %s all have %s; name one with dev", ErrNoDevice, a.Addr, strings.Join(fit, " and "), what)
}
