package netlab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// CutLink pulls the cable of dev at the switch: the host sees its carrier go.
// The cut outlives a power cycle.
func (h *Host) CutLink(dev string) error { return h.setCable(dev, false) }

// HealLink plugs the cable in again. A link that is not cut stays as it is.
func (h *Host) HealLink(dev string) error { return h.setCable(dev, true) }

func (h *Host) setCable(dev string, up bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, err := h.port(dev)
	if err != nil {
		return err
	}
	p.cut = !up
	if !h.on {
		return nil
	}
	if err := h.cable(p, up); err != nil {
		return fmt.Errorf("set the cable of %s %s: %w", h.name, dev, err)
	}
	return nil
}

// CutOneWay loses every frame in the given direction on dev, with the link
// staying up on both sides. It replaces an earlier one-way cut of dev.
func (h *Host) CutOneWay(dev string, dir Direction) error {
	p, err := h.port(dev)
	if err != nil {
		return err
	}
	if dir == 0 || dir > DropBoth {
		return fmt.Errorf("cut %s %s one way: %d is no direction", h.name, dev, dir)
	}
	return p.sw.change(func(f *faults) { f.oneWay[p.name] = dir })
}

// Loss loses percent (0 to 100, 0 = none) of the frames on dev at random, each
// way by itself.
func (h *Host) Loss(dev string, percent int) error {
	p, err := h.port(dev)
	if err != nil {
		return err
	}
	if percent < 0 || percent > 100 {
		return fmt.Errorf("lose frames of %s %s: %d is not a percentage", h.name, dev, percent)
	}
	return p.sw.change(func(f *faults) { f.loss[p.name] = percent })
}

// LoseARP loses every ARP frame to the host on dev, or ends that: its neighbour table
// learns nothing, and all else arrives.
func (h *Host) LoseARP(dev string, lose bool) error {
	p, err := h.port(dev)
	if err != nil {
		return err
	}
	return p.sw.change(func(f *faults) {
		if delete(f.noARP, p.name); lose {
			f.noARP[p.name] = true
		}
	})
}

// Heal ends cut links, one-way cuts and loss (also of ARP) of this host, on all its devices.
// A partition stays.
func (h *Host) Heal() error {
	var errs []error
	for i := range h.ports {
		p := &h.ports[i]
		errs = append(errs, h.HealLink(p.dev), p.sw.change(func(f *faults) {
			delete(f.oneWay, p.name)
			delete(f.loss, p.name)
			delete(f.noARP, p.name)
		}))
	}
	return errors.Join(errs...)
}

// Partition lets hosts of different groups hear each other on neither switch.
// Hosts named in no group, such as a client, talk to all. It replaces an earlier
// partition; without groups it ends it.
func (l *Lab) Partition(groups ...[]*Host) error {
	return errors.Join(l.PartitionOn(Int, groups...), l.PartitionOn(Ext, groups...))
}

// PartitionOn is Partition on one switch, Int or Ext.
func (l *Lab) PartitionOn(name string, groups ...[]*Host) error {
	s := l.switches[name]
	if s == nil {
		return fmt.Errorf("partition switch %q: the lab has %s and %s", name, Int, Ext)
	}
	group := map[string]int{}
	for i, g := range groups {
		for _, h := range g {
			for _, p := range h.ports {
				if p.sw != s {
					continue
				}
				if before, twice := group[p.name]; twice && before != i {
					return fmt.Errorf("partition switch %s: host %s is in two groups", name, h.name)
				}
				group[p.name] = i
			}
		}
	}
	return s.change(func(f *faults) { f.group = group })
}

// HealAll ends the partition and every host's cuts and loss.
func (l *Lab) HealAll() error {
	errs := []error{l.Partition()}
	for _, h := range l.Hosts() {
		errs = append(errs, h.Heal())
	}
	return errors.Join(errs...)
}

// SetDev is `ip link set DEV up|down` on the host itself: unlike CutLink it takes
// the routes over dev away. An up device keeps its IPv4 addresses.
func (h *Host) SetDev(dev string, up bool) error {
	return h.withRoute(func(rt *netlink.Handle) error {
		link, err := rt.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		act := rt.LinkSetDown
		if up {
			act = rt.LinkSetUp
		}
		if err := act(link); err != nil {
			return fmt.Errorf("set %s up = %v: %w", dev, up, err)
		}
		return nil
	})
}

// Carrier reports whether dev is up and has a carrier, as the host sees it.
func (h *Host) Carrier(dev string) (bool, error) {
	up := false
	err := h.withRoute(func(rt *netlink.Handle) error {
		link, err := rt.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		up = carries(link)
		return nil
	})
	return up, err
}
