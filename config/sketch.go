package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sketch is what a node file must say that `hanode init` or `hanode join` writes: the
// rest has defaults, or is the cluster's.
type Sketch struct {
	Cluster string
	Name    string // "" = the hostname
	Address string
	Zone    string // "" = none
	Links   []string
}

// Text renders the file.
func (s Sketch) Text() []byte {
	var b strings.Builder
	b.WriteString("# written by hanode; the members are known to the cluster, not listed here\n")
	line := func(key, v string) {
		if v != "" {
			fmt.Fprintf(&b, "%-7s = %q\n", key, v)
		}
	}
	line("cluster", s.Cluster)
	line("name", s.Name)
	line("address", s.Address)
	line("zone", s.Zone)
	for _, l := range s.Links {
		fmt.Fprintf(&b, "link %q {}\n", l)
	}
	return []byte(b.String())
}

// Node is what LoadNode would read if the sketch stood in the file at path.
func (s Sketch) Node(path string) (*Node, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, unread(path, err, "")
	}
	return parseNode(path, s.Text(), dir, os.Hostname)
}

// DeviceOf names the device that has addr.
func DeviceOf(h Host, addr netip.Addr) (string, error) {
	all, err := addresses(h)
	if err != nil {
		return "", err
	}
	for _, d := range all {
		if slices.Contains(d.addrs, addr) {
			return d.dev, nil
		}
	}
	return "", fmt.Errorf("no device of this host has %s; it has %s", addr, listed(all))
}

// OnlyAddress is the one address at which others can reach this host, if there is one
// alone.
func OnlyAddress(h Host, on []string) (netip.Addr, error) {
	all, err := addresses(h)
	if err != nil {
		return netip.Addr{}, err
	}
	var can []netip.Addr
	for _, d := range all {
		if len(on) == 0 || d.dev == on[0] {
			can = append(can, d.addrs...)
		}
	}
	switch len(can) {
	case 0:
		return netip.Addr{}, errors.New("this host has no address at which others could reach it")
	case 1:
		return can[0], nil
	}
	return netip.Addr{}, fmt.Errorf("this host has several addresses: %s", listed(all))
}

type deviceAddrs struct {
	dev   string
	addrs []netip.Addr
}

// addresses lists what could be a node's address, by device.
func addresses(h Host) (out []deviceAddrs, err error) {
	devs, err := h.Devices()
	if err != nil {
		return nil, err
	}
	for _, dev := range devs {
		addrs, err := h.Addresses(dev)
		if err != nil {
			continue // it went away
		}
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
			_, bad := checkNodeAddress(a.String())
			return bad.what != "" || a.IsLoopback() || a.IsLinkLocalUnicast()
		})
		if len(addrs) > 0 {
			out = append(out, deviceAddrs{dev, addrs})
		}
	}
	return out, nil
}

func listed(all []deviceAddrs) string {
	var parts []string
	for _, d := range all {
		for _, a := range d.addrs {
			parts = append(parts, fmt.Sprintf("%s on %s", a, d.dev))
		}
	}
	return orNone(parts)
}
