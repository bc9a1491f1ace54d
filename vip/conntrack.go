package vip

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows has the connections that the kernel tracks for released addresses
// forgotten soon, so that none is taken for established when an address is back. The
// kernel lists all that it tracks for it, so this is done beside the release, for as
// many addresses at once as were released meanwhile.
func (h *host) forgetFlows(gone map[netip.Addr]bool) {
	if len(gone) == 0 {
		return
	}
	h.told.Lock()
	defer h.told.Unlock()
	idle := len(h.flows) == 0
	h.flows = slices.AppendSeq(h.flows, maps.Keys(gone))
	if idle {
		h.wg.Go(h.flushFlows)
	}
}

func (h *host) flushFlows() {
	for {
		h.told.Lock()
		list := h.flows
		h.told.Unlock()
		n, err := h.flush(list)
		if err != nil {
			h.log.Debug("connections of released addresses stay tracked", "err", err)
		} else if n > 0 {
			h.log.Debug("forgot tracked connections of released addresses", "count", n)
		}
		h.told.Lock()
		h.flows = h.flows[len(list):]
		done := len(h.flows) == 0
		h.told.Unlock()
		if done {
			return
		}
	}
}

// flush forgets what is to any of these addresses.
func (h *host) flush(list []netip.Addr) (n uint, err error) {
	gone := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		gone[a] = true
	}
	var c *netlink.Handle
	err = h.thread.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil || strings.TrimSpace(string(b)) == "0" {
			return nil // nothing is tracked here
		}
		c, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil || c == nil {
		return 0, err
	}
	defer c.Close()
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		m, err := c.ConntrackDeleteFilters(netlink.ConntrackTable, family, toAny(gone))
		n += m
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// toAny matches flows to or from any of the addresses.
type toAny map[netip.Addr]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (t toAny) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{f.Forward.DstIP, f.Forward.SrcIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && t[a.Unmap()] {
			return true
		}
	}
	return false
}
