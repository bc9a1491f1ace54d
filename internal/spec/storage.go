package spec

import (
	"slices"
	"strings"
)

// storageAgents are scripts and agents that open a storage device which another
// host may reach too: their groups are exclusive by themselves. In lower case;
// Filesystem is not here, because it depends on what it mounts.
var storageAgents = []string{
	"drbddisk", "drbd", "lvm", "lvm-activate", "raid1", "mdraid", "zfs",
}

// storage reports whether two hosts that run r at once could write to one device.
func (r Resource) storage() bool {
	var agent string
	var args []string
	switch r.Type {
	case "heartbeat": // script::argument::argument
		words := strings.Split(r.Name, "::")
		agent, args = words[0], words[1:]
	case "ocf": // provider:agent
		agent = r.Agent[strings.LastIndexByte(r.Agent, ':')+1:]
		args = []string{r.Params["device"]}
	default:
		return false
	}
	agent = strings.ToLower(agent)
	if agent == "filesystem" {
		return len(args) == 0 || blockDevice(args[0])
	}
	return slices.Contains(storageAgents, agent)
}

// blockDevice reports whether what mount would be given is a device, and not a
// network export, a directory or a file system in memory. A label or UUID names a
// device.
func blockDevice(what string) bool {
	for _, p := range []string{"/dev/", "-L", "-U", "LABEL=", "UUID=", "PARTUUID=", "PARTLABEL="} {
		if strings.HasPrefix(what, p) {
			return true
		}
	}
	return false
}
