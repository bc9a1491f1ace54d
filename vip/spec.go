package vip

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"hanode/internal/spec"
)

// Route is a route through the address's device, there while the address is.
type Route struct {
	To            netip.Prefix
	Via           netip.Addr // zero = none
	Table, Metric int        // 0 = main, and the kernel's default
}

// Rule has what comes from the address look for its route in a table.
type Rule struct {
	To              netip.Prefix // zero = whatever it goes to
	Table, Priority int
}

// Routing is routes and rules as text, so that addresses can be compared.
type Routing string

type routing struct {
	Routes []Route
	Rules  []Rule
}

func newRouting(r routing) Routing {
	if len(r.Routes)+len(r.Rules) == 0 {
		return ""
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // prefixes and numbers: it cannot fail
	}
	return Routing(b)
}

// read returns what newRouting was given.
func (r Routing) read() (out routing) {
	if r != "" {
		_ = json.Unmarshal([]byte(r), &out) // of newRouting
	}
	return out
}

// Of is the address that an ip resource asks for. It refuses what Parse refuses, and
// what cannot go with the address.
func Of(r spec.Resource) (Address, error) {
	a, err := Parse(r.Name, r.Dev)
	if err != nil {
		return a, err
	}
	if what, allowed := r.CheckIP(); what != "" {
		return a, fmt.Errorf("%s %s; %s", r.Name, what, allowed)
	}
	if what, allowed := r.CheckBroadcast(); what != "" {
		return a, fmt.Errorf("%s %s; %s", r.Name, what, allowed)
	}
	a.Network, a.Source, a.Label = r.Network, r.Source, r.Label
	if r.Broadcast != "" {
		a.Broadcast = netip.MustParseAddr(r.Broadcast)
	}
	var with routing
	for _, x := range r.Routes {
		out := Route{To: netip.MustParsePrefix(x.To), Table: x.Table, Metric: x.Metric}
		if x.Via != "" {
			out.Via = netip.MustParseAddr(x.Via)
		}
		with.Routes = append(with.Routes, out)
	}
	for _, x := range r.Rules {
		out := Rule{Table: x.Table, Priority: x.Priority}
		if x.To != "" {
			out.To = netip.MustParsePrefix(x.To)
		}
		with.Rules = append(with.Rules, out)
	}
	a.Routing = newRouting(with)
	return a, nil
}

// onDevice is the address as it stands on its device.
func (a Address) onDevice() netip.Prefix {
	if a.Network {
		return a.Prefix
	}
	return netip.PrefixFrom(a.Addr, a.Addr.BitLen())
}

// standsAs reports whether the kernel shows a as it shows b, but for its lifetime.
func (a Address) standsAs(b Address) bool {
	return a.onDevice() == b.onDevice() && a.broadcast() == b.broadcast() && a.Label == b.Label
}
