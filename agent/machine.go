package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/internal/netio"
)

// machineID tells this boot from every other, and this machine from its clones: by the
// number that the firmware gives it and the hardware addresses of its links, which a
// copy of a disk does not take along. machine is empty where no link has an address.
func machineID(links []netio.Link) (boot, machine string, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", "", fmt.Errorf("read the boot id: %w", err)
	}
	var macs []string
	for _, l := range links {
		if dev, err := net.InterfaceByName(l.Name); err == nil && len(dev.HardwareAddr) > 0 {
			macs = append(macs, dev.HardwareAddr.String())
		}
	}
	if len(macs) == 0 {
		return strings.TrimSpace(string(b)), "", nil
	}
	slices.Sort(macs)
	uuid, err := os.ReadFile("/sys/class/dmi/id/product_uuid") // not there, or not for us: the links must do
	if err != nil {
		uuid = nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", strings.TrimSpace(string(uuid)), macs))
	return strings.TrimSpace(string(b)), hex.EncodeToString(sum[:8]), nil
}

// setRaftAside renames raft's files in dir.
func setRaftAside(dir string) error {
	mark := ".old-" + time.Now().UTC().Format("20060102T150405.000")
	for _, name := range []string{"raft.db", "snapshots"} {
		from := filepath.Join(dir, name)
		if err := os.Rename(from, from+mark); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
