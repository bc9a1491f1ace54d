package vip

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/internal/clock"
)

// An address that is taken off more often than robberies times in robberyTime is a
// problem: somebody manages the device and does not know of us.
const (
	robberies   = 3
	robberyTime = time.Minute
)

// taken notes that another program took a off a device.
func (h *host) taken(a Address, index int) {
	h.look.RLock()
	dev := h.devs[index].name
	h.look.RUnlock()
	h.log.Warn("another program took an address off; it was put back", "addr", a.Addr, "dev", dev)
	h.tally.count(a.Addr, func(t *Tally) { t.Taken++ })
	now := h.opts.Clock.Now()
	h.told.Lock()
	list := append(recent(h.robbed[a.Addr], now), now)
	h.robbed[a.Addr] = list
	h.told.Unlock()
	if len(list) < robberies {
		return
	}
	who, remedy := h.culprit()
	h.problem(ProblemTaken, fmt.Sprintf("%s was taken off %s %d times within a minute, and put back; %s: %s", a.Addr, dev, len(list), who, remedy))
}

func recent(list []clock.Instant, now clock.Instant) []clock.Instant {
	return slices.DeleteFunc(list, func(t clock.Instant) bool { return now.Elapsed(t) > robberyTime })
}

// forgive ends the problem when nothing was taken for a while.
func (h *host) forgive() {
	now := h.opts.Clock.Now()
	h.told.Lock()
	for a, list := range h.robbed {
		if list = recent(list, now); len(list) == 0 {
			delete(h.robbed, a)
		} else {
			h.robbed[a] = list
		}
	}
	quiet := len(h.robbed) == 0
	h.told.Unlock()
	if quiet {
		h.problem(ProblemTaken, "")
	}
}

// managers are programs that are known to remove addresses that they did not put
// on, by the name the kernel shows (15 characters).
var managers = []struct{ comm, name, remedy string }{
	{"systemd-network", "systemd-networkd", "add KeepConfiguration=static to the [Network] section of the device's .network file, then `networkctl reload`; with netplan, `critical: true` on the device"},
	{"NetworkManager", "NetworkManager", "let it leave the device alone: `nmcli device set DEVICE managed no`, and unmanaged-devices in its configuration"},
	{"connmand", "ConnMan", "add the device to NetworkInterfaceBlacklist in its main.conf"},
	{"dhcpcd", "dhcpcd", "add `denyinterfaces DEVICE`, or `persistent`, to dhcpcd.conf"},
	{"dhclient", "dhclient", "its script flushes the device when a lease changes; use a static address on the device"},
	{"wickedd", "wicked", "let it leave the device alone"},
	{"keepalived", "keepalived", "do not list the address there too"},
}

// configurations belong to programs that act and end, such as `netplan apply`, or that
// were stopped since: what they leave on the host names them.
var configurations = []struct{ glob, name, remedy string }{
	{"/etc/netplan/*.yaml", "netplan", "`netplan apply` flushes what it does not know: set `critical: true` on the device, or do not apply while the node holds addresses"},
	{"/etc/systemd/network/*.network", "systemd-networkd", managers[0].remedy},
	{"/run/systemd/network/*.network", "systemd-networkd", managers[0].remedy},
	{"/etc/NetworkManager/system-connections/*", "NetworkManager", managers[1].remedy},
	{"/etc/network/interfaces.d/*", "ifupdown", "`ifdown` flushes the device; do not use it while the node holds addresses"},
}

// culprit names who probably did it and what to do about it.
func (h *host) culprit() (who, remedy string) {
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		mine = ""
	}
	_ = h.thread.Do(func() error { // the namespace that the addresses are in
		if l, err := os.Readlink("/proc/thread-self/ns/net"); err == nil {
			mine = l
		}
		return nil
	})
	running := map[string]bool{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is sound
	for _, d := range dirs {
		if ns, err := os.Readlink(filepath.Join(d, "ns/net")); err != nil || ns != mine {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(d, "comm")); err == nil {
			running[strings.TrimSpace(string(b))] = true
		}
	}
	return suspect(running, func(glob string) bool {
		found, _ := filepath.Glob(glob)
		return len(found) > 0
	})
}

// suspect is culprit, told what runs and which files there are.
func suspect(running map[string]bool, has func(glob string) bool) (who, remedy string) {
	for _, m := range managers {
		if running[m.comm] {
			return m.name + " runs here and is the likely cause", m.remedy
		}
	}
	for _, c := range configurations {
		if has(c.glob) {
			return fmt.Sprintf("no program that is known for this runs here now, but %s is configured (%s) and may be the cause", c.name, c.glob), c.remedy
		}
	}
	return "no program that is known for this runs here, or is configured", "find it with `ip -ts monitor address` and the logs of that moment"
}
