package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/vip"
)

// inUseTime bounds asking the network about new addresses. A node that does not say
// anything by then has not seen them.
const inUseTime = 4 * time.Second

// unused refuses addresses that no group had yet and another host has already, as RFC
// 5227 wants it. Every node that may own groups asks on its own devices, because the
// leader may have none there.
func (d direct) unused(ctx context.Context, groups []spec.Group, adopts adoption) error {
	a := d.Agent
	fresh, nodes := newAddresses(a.machine.Copy(), groups, adopts)
	if len(fresh) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, inUseTime)
	defer cancel()
	now := a.host.Clock.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	found := map[string]string{} // sentence by address
	for _, node := range nodes {
		if a.isSilent(node, now) {
			continue
		}
		wg.Go(func() {
			var macs map[string]string
			var err error
			if node == a.cfg.Name {
				macs = a.inUse(ctx, fresh)
			} else if macs, err = a.peers.InUse(ctx, node, fresh); err != nil {
				a.log.Warn("a node cannot say whether new addresses are in use", "peer", node, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			for addr, mac := range macs {
				found[addr] = fmt.Sprintf("%s is used by %s already, as %s sees", addr, mac, node)
			}
		})
	}
	wg.Wait()
	if len(found) == 0 {
		return nil
	}
	var list []string
	for _, addr := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[addr])
	}
	return fail("address-in-use", "take the address off the host with that MAC address, or choose another; --no-probe applies the file all the same",
		"nothing was changed: %s", strings.Join(list, "; "))
}

// newAddresses lists the ip resources whose address no group has, or has had until
// somebody lets go of it, and the nodes that may own groups. One that is adopted is
// where it is to be.
func newAddresses(s *fsm.State, groups []spec.Group, adopts adoption) (fresh []spec.Resource, nodes []string) {
	known := map[string]bool{}
	for _, g := range s.Groups {
		for _, w := range g.Waits {
			for _, addr := range w.Addresses {
				known[addr] = true
			}
		}
		for _, r := range g.Spec.Resources {
			if r.Type == "ip" && !g.Deleted {
				known[r.Address()] = true
			}
		}
	}
	for _, g := range groups {
		for _, r := range g.Resources {
			if r.Type == "ip" && !known[r.Address()] && !adopts.takesAddress(g.Name, r) {
				fresh = append(fresh, r)
			}
		}
	}
	for _, name := range s.NodeNames() {
		if s.Nodes[name].Role == spec.RoleNode {
			nodes = append(nodes, name)
		}
	}
	return fresh, nodes
}

// inUse asks this node's networks.
func (a *Agent) inUse(ctx context.Context, rs []spec.Resource) map[string]string {
	var addrs []vip.Address
	for _, r := range rs {
		if ad, err := vip.Parse(r.Name, r.Dev); err == nil {
			addrs = append(addrs, ad)
		}
	}
	out := map[string]string{}
	for addr, mac := range a.kernel.InUse(ctx, addrs) {
		out[addr.String()] = mac.String()
	}
	return out
}

// InUse answers another node.
func (s service) InUse(ctx context.Context, rs []spec.Resource) (map[string]string, error) {
	return s.a.inUse(ctx, rs), nil
}
