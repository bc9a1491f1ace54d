package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/atomicfile"
)

// settings a device with virtual addresses needs: it answers ARP only for its
// own addresses, asks with a source of the right subnet, and the removal of one
// address does not take others with it.
var settings = [...]setting{{"arp_ignore", 1}, {"arp_announce", 2}, {"promote_secondaries", 1}}

type setting struct {
	name  string
	least int
}

// settingsName is the file in the data directory with the settings that were changed,
// as they were before.
const settingsName = "device-settings.json"

// changed holds, by device and setting, the value before.
type changed map[string]map[string]int

func settingPath(dev, name string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", dev, name)
}

func readSetting(dev, name string) (int, error) {
	b, err := readSysctl(settingPath(dev, name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(b)
}

func writeSetting(dev, name string, v int) error {
	return sysctl(settingPath(dev, name), unix.O_WRONLY, func(fd int) (int, error) {
		return unix.Write(fd, []byte(strconv.Itoa(v)))
	})
}

// readSysctl is the text of a small file of /proc/sys.
func readSysctl(path string) (string, error) {
	var b [64]byte
	n := 0
	err := sysctl(path, unix.O_RDONLY, func(fd int) (_ int, err error) {
		n, err = unix.Read(fd, b[:])
		return n, err
	})
	return strings.TrimSpace(string(b[:max(n, 0)])), err
}

// sysctl opens a file of /proc/sys for one call. os does the same with three times as many
// system calls, and clients wait for a takeover.
func sysctl(path string, flags int, fn func(fd int) (int, error)) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = fn(fd)
		_ = unix.Close(fd)
	}
	if err != nil {
		return &fs.PathError{Op: "sysctl", Path: path, Err: err}
	}
	return nil
}

// note notes what is lower than it should be, and returns what raise is to change. It must
// run in the device's namespace.
func (c changed) note(dev string) (low []setting, err error) {
	var errs []error
	for _, s := range settings {
		v, err := readSetting(dev, s.name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if v >= s.least {
			continue
		}
		if c[dev] == nil {
			c[dev] = map[string]int{}
		}
		c[dev][s.name] = v
		low = append(low, s)
	}
	return low, errors.Join(errs...)
}

// raise raises what was noted. It must run in the device's namespace.
func raise(dev string, low []setting) error {
	var errs []error
	for _, s := range low {
		if err := writeSetting(dev, s.name, s.least); err != nil {
			errs = append(errs, fmt.Errorf("set net.ipv4.conf.%s.%s=%d: %w", dev, s.name, s.least, err))
		}
	}
	return errors.Join(errs...)
}

// restore gives a device back the settings it had, but for those that somebody else
// has changed since. It must run in the device's namespace.
func (c changed) restore(dev string) error {
	var errs []error
	for _, s := range settings {
		before, ok := c[dev][s.name]
		if !ok {
			continue
		}
		v, err := readSetting(dev, s.name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && v != s.least {
			continue // the device is gone, or the setting is another's by now
		}
		if err == nil {
			err = writeSetting(dev, s.name, before)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set net.ipv4.conf.%s.%s=%d again: %w", dev, s.name, before, err))
		}
	}
	delete(c, dev)
	return errors.Join(errs...)
}

func loadSettings(dir string) (changed, error) {
	c := changed{}
	b, err := os.ReadFile(filepath.Join(dir, settingsName))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings that devices had: %w", err)
	}
	if json.Unmarshal(b, &c) != nil { // the host went down while it was written: see save
		return changed{}, nil
	}
	return c, nil
}

// save waits for no disk, for clients wait for a takeover: a host that goes down forgets its
// settings anyway.
func (c changed) save(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = atomicfile.WriteUnsynced(filepath.Join(dir, settingsName), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write the settings that devices had: %w", err)
	}
	return nil
}

// settle gives a device its settings back once no address of ours is on it, or expected to
// come. mu is held.
func (h *host) settle(index int) {
	h.look.RLock()
	name := h.devs[index].name
	busy := false
	for _, p := range h.placed {
		busy = busy || p.index == index
	}
	h.look.RUnlock()
	for _, x := range h.expected {
		busy = busy || x.index == index
	}
	if !busy && h.settings[name] != nil {
		h.restore(name)
	}
}

// settleAll gives every device its settings back: nothing of ours is on any. mu is
// held.
func (h *host) settleAll() {
	for name := range h.settings {
		h.restore(name)
	}
}

func (h *host) restore(dev string) {
	clear(h.tuned) // look again
	if err := h.thread.Do(func() error { return h.settings.restore(dev) }); err != nil {
		h.log.Warn("a device keeps settings that were made for virtual addresses", "dev", dev, "err", err)
	}
	h.saveSettings()
}

// saveWait is how long an address waits for what its device had before to be written. A disk
// that hangs keeps no address off; if the agent is killed meanwhile, the settings stay.
const saveWait = 20 * time.Millisecond

// saveSettings has what devices had before written, so that who comes after this process
// can give it back. It returns once it is, or after saveWait. mu is held.
func (h *host) saveSettings() {
	now := make(changed, len(h.settings))
	for dev, was := range h.settings {
		now[dev] = maps.Clone(was)
	}
	h.unsaved.Store(&now)
	done := make(chan struct{})
	h.wg.Go(func() {
		defer close(done)
		h.saving.Lock()
		defer h.saving.Unlock()
		if err := h.unsaved.Load().save(h.opts.Dir); err != nil { // the newest, whoever comes first
			h.log.Warn("what devices had before is not on disk", "err", err)
		}
	})
	late := time.NewTimer(saveWait)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}

// forwards6 reports whether the device routes IPv6: then its advertisements must
// say so, or neighbours drop it as their router.
func forwards6(dev string) bool {
	b, err := readSysctl(filepath.Join("/proc/sys/net/ipv6/conf", dev, "forwarding"))
	return err == nil && b == "1"
}
