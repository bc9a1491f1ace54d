package netlab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// AddAddr puts an address on dev, for tests that stand in for a cluster. One
// that is there already is success.
func (h *Host) AddAddr(dev string, addr netip.Prefix) error {
	return h.withRoute(func(rt *netlink.Handle) error { return setAddr(rt, dev, addr, rt.AddrReplace) })
}

// DelAddr takes an address off dev; it is an error if it is not there.
func (h *Host) DelAddr(dev string, addr netip.Prefix) error {
	return h.withRoute(func(rt *netlink.Handle) error { return setAddr(rt, dev, addr, rt.AddrDel) })
}

// Addrs lists the IPv4 addresses on dev.
func (h *Host) Addrs(dev string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	err := h.withRoute(func(rt *netlink.Handle) error {
		link, err := rt.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		addrs, err := rt.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", dev, err)
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			if ok {
				list = append(list, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
		return nil
	})
	return list, err
}

func (h *Host) withRoute(fn func(*netlink.Handle) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return fmt.Errorf("work on host %s: %w", h.name, errOff)
	}
	if err := fn(h.rt); err != nil {
		return fmt.Errorf("work on host %s: %w", h.name, err)
	}
	return nil
}

// AddMacvlan gives the host one more device, on top of another, until its power goes.
func (h *Host) AddMacvlan(dev, parent string) error {
	return h.withRoute(func(rt *netlink.Handle) error {
		link, err := rt.LinkByName(parent)
		if err != nil {
			return fmt.Errorf("find %s: %w", parent, err)
		}
		at := netlink.NewLinkAttrs()
		at.Name, at.ParentIndex = dev, link.Attrs().Index
		if err := rt.LinkAdd(&netlink.Macvlan{LinkAttrs: at, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
			return fmt.Errorf("add %s on %s: %w", dev, parent, err)
		}
		return setUp(rt, dev)
	})
}
