package vip

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// settings a device with virtual addresses needs: it answers ARP only for its
// own addresses, asks with a source of the right subnet, and the removal of one
// address does not take others with it.
var settings = [...]struct {
	name  string
	least int
}{{"arp_ignore", 1}, {"arp_announce", 2}, {"promote_secondaries", 1}}

// applySettings raises what is lower. It must run in the device's namespace.
func applySettings(dev string) error {
	var errs []error
	for _, s := range settings {
		path := filepath.Join("/proc/sys/net/ipv4/conf", dev, s.name)
		b, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && v >= s.least {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(s.least)), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("set net.ipv4.conf.%s.%s=%d: %w", dev, s.name, s.least, err))
		}
	}
	return errors.Join(errs...)
}

// forwards6 reports whether the device routes IPv6: then its advertisements must
// say so, or neighbours drop it as their router.
func forwards6(dev string) bool {
	b, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", dev, "forwarding"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
