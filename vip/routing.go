package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routes and rules of addresses carry the mark as their protocol (`ip route show proto
// 104`), on every kernel that has policy rules with one (4.17).

// furnish puts an address's routes and rules on; what is there already is success.
func (r *rtnl) furnish(a Address, index int) error {
	with := a.Routing.read()
	for _, x := range with.Routes {
		if err := r.handle.RouteReplace(a.route(x, index)); err != nil {
			return fmt.Errorf("route to %s: %w", x.To, err)
		}
	}
	for _, x := range with.Rules {
		if err := r.handle.RuleAdd(a.rule(x)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule for table %d: %w", x.Table, err)
		}
	}
	return nil
}

// strip takes them off; what is gone already is success.
func (r *rtnl) strip(a Address, index int) error {
	var errs []error
	with := a.Routing.read()
	for _, x := range with.Rules {
		if err := r.handle.RuleDel(a.rule(x)); err != nil && !isNoRoute(err) {
			errs = append(errs, fmt.Errorf("rule for table %d: %w", x.Table, err))
		}
	}
	for _, x := range with.Routes {
		if err := r.handle.RouteDel(a.route(x, index)); err != nil && !isNoRoute(err) {
			errs = append(errs, fmt.Errorf("route to %s: %w", x.To, err))
		}
	}
	return errors.Join(errs...)
}

func isNoRoute(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

func (a Address) route(x Route, index int) *netlink.Route {
	out := &netlink.Route{LinkIndex: index, Dst: ipNet(x.To), Table: x.Table, Priority: x.Metric, Protocol: ourProto}
	if x.Via.IsValid() {
		out.Gw = x.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	if a.Source {
		out.Src = a.Addr.AsSlice()
	}
	return out
}

func (a Address) rule(x Rule) *netlink.Rule {
	out := netlink.NewRule()
	out.Family = familyOf(a.Addr)
	out.Src = ipNet(netip.PrefixFrom(a.Addr, a.Addr.BitLen()))
	out.Table, out.Priority, out.Protocol = x.Table, x.Priority, ourProto
	if x.To.IsValid() {
		out.Dst = ipNet(x.To)
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// removeRouting takes off every route and rule that carries our mark.
func (r *rtnl) removeRouting() error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := r.handle.RuleList(family)
		errs = append(errs, err)
		for _, x := range rules {
			if x.Protocol != ourProto {
				continue
			}
			if err := r.handle.RuleDel(&x); err != nil && !isNoRoute(err) {
				errs = append(errs, fmt.Errorf("rule %s: %w", x, err))
			}
		}
		marked := &netlink.Route{Protocol: ourProto, Table: unix.RT_TABLE_UNSPEC}
		routes, err := r.handle.RouteListFiltered(family, marked, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		errs = append(errs, err)
		for _, x := range routes {
			if err := r.handle.RouteDel(&x); err != nil && !isNoRoute(err) {
				errs = append(errs, fmt.Errorf("route %s: %w", x, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove our routes and rules: %w", err)
	}
	return nil
}

// refurnish puts the routes and rules of addresses that are back on again: IPv4 routes
// with the address as their source go with it.
func (h *host) refurnish(which func(Address) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.universe {
		if a.Routing == "" || !which(a) {
			continue
		}
		h.look.RLock()
		p, ok := h.placed[a.Addr]
		h.look.RUnlock()
		if !ok {
			continue
		}
		if err := h.rtnl.furnish(a, p.index); err != nil {
			h.log.Warn("routes of an address could not be put back", "addr", a.Addr, "err", err)
		}
	}
}
