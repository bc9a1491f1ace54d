package resource

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The agent runs before others and is the last that the kernel kills for memory, so
// that its beats leave in time. What it starts for a group is as any other service: it
// must inherit neither.

// plainThread makes the calling thread ordinary, if a child would inherit a nice value
// below zero or a realtime policy from it. The caller has locked the thread, forks from
// it, and must not give it back if this reports true.
func plainThread() (changed bool) {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil || a.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 {
		return false
	}
	realtime := a.Policy == unix.SCHED_FIFO || a.Policy == unix.SCHED_RR || a.Policy == unix.SCHED_DEADLINE
	if !realtime && a.Nice >= 0 {
		return false
	}
	policy := a.Policy
	if realtime {
		policy = unix.SCHED_NORMAL
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: max(a.Nice, 0)}, 0) == nil
}

// oomAdjust is how much this process is spared when memory is short; negative = more
// than others.
func oomAdjust(pid string) int {
	b, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// plainMemory takes that from a program that was just started, and from what it forked
// before it was taken from it itself; left lists all that is in its control group.
func plainMemory(pid int, left func() []int) {
	if own := oomAdjust("self"); own < 0 {
		readjust(own, 0, pid, left)
	}
}

// readjust gives pid and all of left that are adjusted as from says what to says, until
// none is left: one may fork while it looks.
func readjust(from, to, pid int, left func() []int) {
	set := func(pid int) (changed bool) {
		p := strconv.Itoa(pid)
		return oomAdjust(p) == from && os.WriteFile("/proc/"+p+"/oom_score_adj", []byte(strconv.Itoa(to)), 0) == nil
	}
	set(pid)
	for changed, tries := true, 0; changed && tries < 10; tries++ {
		changed = false
		for _, p := range left() {
			changed = set(p) || changed
		}
	}
}
