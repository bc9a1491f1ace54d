package spec

import (
	"fmt"
	"net/netip"
	"strings"
)

const (
	// maxTable and maxPriority are what the kernel takes.
	maxTable    = 1<<31 - 1
	maxPriority = 32765 // the rules for the main and default tables come after it
	maxMetric   = 1<<31 - 1
)

// CheckIP says what is wrong with the options of an ip resource whose address is sound;
// "" = nothing. It says what is allowed as well.
func (r Resource) CheckIP() (what, allowed string) {
	p := r.prefix()
	switch {
	case r.Network && p.IsSingleIP():
		return `has prefix = "network" and no network`, "write its prefix length: 10.0.0.100/24"
	case r.Label != "" && p.Addr().Is6():
		return "has a label", "only an IPv4 address takes one"
	case len(r.Label) > 15 || strings.ContainsAny(r.Label, " \t\r\n\x00"):
		return fmt.Sprintf("has the label %q", r.Label), "a label has at most 15 characters and no blanks, such as eth0:web"
	}
	for _, x := range r.Routes {
		if what, allowed = checkNetwork(p.Addr(), "a route", x.To); what != "" {
			return what, allowed
		}
		via, err := netip.ParseAddr(x.Via)
		switch {
		case x.Via != "" && (err != nil || via.Is4() != p.Addr().Is4() || via.Zone() != ""):
			return fmt.Sprintf("has a route via %q", x.Via), "via takes the address of a gateway, of the same family"
		case x.Table < 0 || x.Table > maxTable:
			return fmt.Sprintf("has a route with the table %d", x.Table), "a table is a number from 1 to 2147483647"
		case x.Metric < 0 || x.Metric > maxMetric:
			return fmt.Sprintf("has a route with the metric %d", x.Metric), "a metric is a number from 0 to 2147483647"
		}
	}
	for _, x := range r.Rules {
		if x.To != "" {
			if what, allowed = checkNetwork(p.Addr(), "a rule", x.To); what != "" {
				return what, allowed
			}
		}
		switch {
		case x.Table < 1 || x.Table > maxTable:
			return fmt.Sprintf("has a rule with the table %d", x.Table), "a rule needs table, a number from 1 to 2147483647"
		case x.Priority < 1 || x.Priority > maxPriority:
			return fmt.Sprintf("has a rule with the priority %d", x.Priority), "a priority is a number from 1 to 32765"
		}
	}
	return "", ""
}

// prefix is the address of an ip resource with the network that is written.
func (r Resource) prefix() netip.Prefix {
	p, err := netip.ParsePrefix(r.Name)
	if err != nil {
		a, _ := netip.ParseAddr(r.Name)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p
}

// CheckBroadcast says what is wrong with the broadcast address of an ip resource whose
// address is sound, and what is allowed; "" = nothing. The host sends to that address
// as a broadcast, so it must not be one that some host may have by itself: it is one of
// the network, or the highest of a wider one that contains it.
func (r Resource) CheckBroadcast() (what, allowed string) {
	if r.Broadcast == "" {
		return "", ""
	}
	p := r.prefix()
	b, err := netip.ParseAddr(r.Broadcast)
	switch what = fmt.Sprintf("has the broadcast address %q", r.Broadcast); {
	case p.Addr().Is6():
		return what, "only an IPv4 address takes one"
	case !r.Network:
		return what, `it takes one only with prefix = "network"; a /32 has no network`
	case p.Bits() > maxBroadcast:
		return what, fmt.Sprintf("a network of %d addresses has none; remove it", 1<<(32-p.Bits()))
	case err != nil || !b.Is4() || !p.Contains(b) && !isHighest(b, p):
		return what, fmt.Sprintf("it takes one of %s, such as %s, or the highest of a wider network", p.Masked(), Highest(p))
	case b == p.Addr():
		return what, "that is the address itself"
	}
	return "", ""
}

// maxBroadcast is the longest prefix of a network with a broadcast address.
const maxBroadcast = 30

// Highest is the highest address of an IPv4 network: its own broadcast address.
func Highest(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// isHighest reports whether b is the highest address of a network that contains p.
func isHighest(b netip.Addr, p netip.Prefix) bool {
	for bits := range p.Bits() {
		if b == Highest(netip.PrefixFrom(p.Addr(), bits)) {
			return true
		}
	}
	return false
}

func checkNetwork(of netip.Addr, subject, text string) (what, allowed string) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return fmt.Sprintf("has %s to %q", subject, text), "it leads to a network such as 10.9.0.0/16; 0.0.0.0/0 and ::/0 are all"
	case p.Addr().Is4() != of.Is4():
		return fmt.Sprintf("has %s to %s", subject, p), "it leads to addresses of the same family"
	case p != p.Masked():
		return fmt.Sprintf("has %s to %s", subject, p), fmt.Sprintf("there are bits behind its length; write %s", p.Masked())
	}
	return "", ""
}
