package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/internal/id"
)

// RebootMark is what a host ID ends in where a reboot must be told from a clone
// (two_node = "manual"): the boot and the machine. boot and machine hold no '#' and no
// '@'; an empty machine is one that cannot be told, so it gives no mark.
func RebootMark(boot, machine string) string {
	if machine == "" {
		return ""
	}
	return "#" + boot + "@" + machine
}

// rebooted reports that the machine behind now is the one behind before, at a later
// boot: whatever ran there then ended with that boot. A registration is a
// compare-and-swap, so the one that comes second is the later one.
func rebooted(before, now string) bool {
	mark := func(host string) (boot, machine string) {
		_, rest, _ := strings.Cut(host, "#")
		boot, machine, _ = strings.Cut(rest, "@")
		return boot, machine
	}
	boot1, machine1 := mark(before)
	boot2, machine2 := mark(now)
	return machine1 != "" && machine1 == machine2 && boot1 != boot2
}

// recoverAlone gives both nodes their new disks and, if the gone one's host is off,
// ends all its registrations.
func (s *State) recoverAlone(c *Recover, at time.Time) Result {
	n, gone := s.Nodes[c.Node], s.Nodes[c.Gone]
	switch {
	case !s.Manual:
		return rejected("only a cluster with two_node = \"manual\" is recovered by one node")
	case n == nil || gone == nil || n == gone || n.Removed:
		return rejected("%s and %s are not the two nodes of this cluster", c.Node, c.Gone)
	case n.Disk >= c.Disk:
		return Result{} // the same recovery, proposed twice
	}
	n.Disk, n.DiskRequest = c.Disk, ""
	if gone.Disk < c.GoneDisk {
		gone.Disk, gone.DiskRequest = c.GoneDisk, ""
	}
	why := "its disk is gone"
	if c.Off {
		why = "it is off"
	}
	s.event(Event{
		Time: at, Node: c.Node, Kind: "recovered", Cause: c.By,
		Text: fmt.Sprintf("%s goes on alone, for %s must join anew: %s (%s)", c.Node, c.Gone, why, c.By),
	})
	if !c.Off {
		return Result{}
	}
	refs := map[id.NodeRef]bool{}
	for _, g := range s.Groups {
		for _, w := range g.Waits {
			refs[w.Node] = true
		}
		refs[g.Owner] = true
	}
	if gone.Inc > 0 {
		refs[gone.Ref()] = true
	}
	maps.DeleteFunc(refs, func(r id.NodeRef, _ bool) bool { return r.Name != c.Gone })
	var res Result
	for _, r := range slices.SortedFunc(maps.Keys(refs), func(a, b id.NodeRef) int { return int(a.Inc) - int(b.Inc) }) {
		res.Touched = append(res.Touched, s.powerOff(&PowerOff{Node: r, By: c.By}, at).Touched...)
	}
	return res
}
