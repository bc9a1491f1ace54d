package config

import (
	"fmt"
	"net/netip"
	"strings"

	"hanode/internal/spec"
)

// haAddress is an address as haresources has it:
// [IPaddr::]ADDRESS[/NETMASK[/DEVICE[:LABEL]][/BROADCAST]]. If the third field begins
// with a digit it is the broadcast address, else the device.
type haAddress struct {
	script    string // IPaddr, IPaddr2, IPv6addr; "" = the bare address
	addr      string
	bits      string // as it is written; "" = not
	dev       string
	label     string // ALIAS of eth0:0; "" = none
	broadcast string
	extra     string // what nobody asked for
}

// splitHaAddress takes a word apart; ok is false if it is not about an address.
func splitHaAddress(word string) (a haAddress, ok bool) {
	script, arg, hasArgs := strings.Cut(word, "::")
	switch {
	case hasArgs && (script == "IPaddr" || script == "IPaddr2" || script == "IPv6addr"):
		a.script = script
	case isHaIP(word):
		arg = word
	default:
		if _, err := netip.ParseAddr(strings.SplitN(word, "/", 2)[0]); err != nil {
			return a, false
		}
		arg = word
	}
	if hasArgs && a.script != "" && a.script != "IPv6addr" {
		arg, a.extra, _ = strings.Cut(arg, "::")
	}
	f := strings.Split(arg, "/")
	a.addr = f[0]
	if len(f) > 1 {
		a.bits = f[1]
	}
	if len(f) > 2 && f[2] != "" {
		if a.script != "IPv6addr" && f[2][0] >= '0' && f[2][0] <= '9' {
			a.broadcast = f[2]
			f = append(f[:2:2], append([]string{""}, f[3:]...)...)
		} else {
			a.dev, a.label, _ = strings.Cut(f[2], ":")
			if a.label != "" {
				a.label = f[2]
			}
		}
	}
	if len(f) > 3 && a.broadcast == "" {
		a.broadcast = f[3]
	} else if len(f) > 3 && f[3] != "" {
		a.extra = strings.Join(f[3:], "/")
	}
	if len(f) > 4 {
		a.extra = strings.Join(f[4:], "/")
	}
	return a, true
}

// isHaIP is Heartbeat's test for a bare address: four runs that begin with digits.
func isHaIP(word string) bool {
	f := strings.SplitN(word, ".", 4)
	if len(f) < 4 {
		return false
	}
	for _, x := range f {
		if x == "" || x[0] < '0' || x[0] > '9' {
			return false
		}
	}
	return true
}

// resource is the ip resource that it asks for. One without a netmask is completed from
// the networks of the host.
func (a haAddress) resource() (spec.Resource, finding) {
	bad := finding{allowed: "it takes ADDRESS/NETMASK/DEVICE/BROADCAST, such as 10.0.0.100/24/eth0/10.0.0.255"}
	refuse := func(format string, args ...any) (spec.Resource, finding) {
		bad.what = fmt.Sprintf(format, args...)
		return spec.Resource{}, bad
	}
	addr, err := netip.ParseAddr(a.addr)
	switch {
	case err != nil:
		return refuse("%s is not an address", quote(a.addr))
	case a.script == "IPv6addr" && !addr.Is6():
		return refuse("IPv6addr has the address %s", addr)
	case a.script == "IPaddr" && addr.Is6():
		bad.remedy = "write IPv6addr::" + a.addr
		return refuse("IPaddr has the address %s", addr)
	case a.extra != "":
		return refuse("there is %s behind the address", quote(a.extra))
	}
	r := spec.Resource{Type: "ip", Name: a.addr, Dev: a.dev, Label: a.label}
	if a.bits != "" {
		bits, ok := wholeNumber(prefixLength(a.bits))
		if !ok || bits < 1 || bits > addr.BitLen() {
			return refuse("%s is no netmask", quote(a.bits))
		}
		r.Name = netip.PrefixFrom(addr, bits).String()
		r.Network = bits < addr.BitLen()
	}
	if a.dev != "" {
		if f := checkDevice("", a.dev); f.what != "" {
			return refuse("%s is not a device", quote(a.dev))
		}
	}
	if !clean(a.label) {
		return refuse("%s is not a label", quote(a.label))
	}
	if a.broadcast != "" {
		if b, err := netip.ParseAddr(a.broadcast); err != nil || !b.Is4() || !addr.Is4() {
			return refuse("%s is no broadcast address", quote(a.broadcast))
		}
	}
	if _, f := checkVIP("address "+quote(a.addr), r.Name, r.Dev); f.what != "" {
		return spec.Resource{}, f
	}
	if what, allowed := r.CheckIP(); what != "" {
		return spec.Resource{}, finding{what: fmt.Sprintf("address %s %s", r.Name, what), allowed: allowed}
	}
	return r, finding{}
}

// putBroadcast gives the resource the broadcast address that is written, once it has its
// network. why is for the table; bad says why it is not used.
func (a haAddress) putBroadcast(res *spec.Resource) (why string, bad finding) {
	p, err := netip.ParsePrefix(res.Name)
	if a.broadcast == "" || err != nil { // this host has no network for the address, which was said
		return "", finding{}
	}
	res.Broadcast = a.broadcast
	what, allowed := res.CheckBroadcast()
	switch {
	case what != "":
		res.Broadcast = ""
		return "", finding{what: what, allowed: allowed, remedy: "name another, or none: it is not used"}
	case res.Broadcast == spec.Highest(p).String():
		res.Broadcast = ""
		return "the broadcast address is the network's own", finding{}
	}
	return "", finding{}
}

// ipText shows an ip resource as the cluster file has it, on one line.
func ipText(r spec.Resource) string {
	var keys []string
	if r.Dev != "" {
		keys = append(keys, fmt.Sprintf("dev = %q", r.Dev))
	}
	if r.Network {
		keys = append(keys, `prefix = "network"`)
	}
	if r.Broadcast != "" {
		keys = append(keys, fmt.Sprintf("broadcast = %q", r.Broadcast))
	}
	if r.Label != "" {
		keys = append(keys, fmt.Sprintf("label = %q", r.Label))
	}
	return strings.TrimSpace(fmt.Sprintf("resource \"ip\" %q %s", r.Name, strings.Join(keys, ", ")))
}

// haNetworks are the networks of this host's devices.
type haNetworks map[string][]netip.Prefix

// complete gives an address without a netmask that of the network in which it is, as
// Heartbeat took it from the route; and says if this host has none for it.
func (n haNetworks) complete(r *haReport, file string, line int, res *spec.Resource) {
	addr, err := netip.ParseAddr(res.Address())
	if err != nil || addr.IsLinkLocalUnicast() && addr.Is6() {
		return
	}
	best, on := netip.Prefix{}, ""
	for _, dev := range sortedKeys(n) {
		for _, p := range n[dev] {
			if p.Contains(addr) && !p.IsSingleIP() && p.Bits() > best.Bits() && !p.Addr().IsLoopback() && (res.Dev == "" || dev == res.Dev) {
				best, on = p, dev
			}
		}
	}
	if _, known := n[res.Dev]; res.Dev != "" && !known {
		r.here(file, line, finding{what: fmt.Sprintf("this host has no device %s, for address %s", res.Dev, addr), allowed: "it has " + orNone(sortedKeys(n))})
		return
	}
	if strings.Contains(res.Name, "/") {
		if on == "" && res.Dev == "" {
			r.here(file, line, finding{what: fmt.Sprintf("no device of this host has a network with %s", addr), remedy: fmt.Sprintf("name its device: %s/DEVICE", res.Name)})
		}
		return
	}
	if on == "" {
		r.here(file, line, finding{what: fmt.Sprintf("no device of this host has a network with %s", addr), allowed: "without a netmask it gets the network's", remedy: fmt.Sprintf("write it with netmask and device: %s/24/eth0", addr)})
		return
	}
	res.Name, res.Network = netip.PrefixFrom(addr, best.Bits()).String(), true
}
