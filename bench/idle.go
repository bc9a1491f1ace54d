package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"hanode/test/livelab"
)

// idleOf is idle on a cluster of its own.
func idleOf(o options) error {
	return onCluster(o, "idle", func(c *livelab.Cluster) error { return idle(c, o.longOr(20*time.Second)) })
}

// idle prints what each agent costs while nothing happens: CPU of one core, and
// proportional memory.
func idle(c *livelab.Cluster, d time.Duration) error {
	fmt.Printf("idle: each agent over %v\n", d)
	return expenses(c.Nodes, func(n *livelab.Node) string { return n.Node }, d)
}

// expenses prints what some agents cost over d, all of them at the same time.
func expenses(nodes []*livelab.Node, named func(*livelab.Node) string, d time.Duration) error {
	before := map[string]time.Duration{}
	for _, n := range nodes {
		t, err := cpu(n.Agent().Pid)
		if err != nil {
			return err
		}
		before[n.Node] = t
	}
	time.Sleep(d)
	for _, n := range nodes {
		t, err := cpu(n.Agent().Pid)
		if err != nil {
			return err
		}
		m, err := pss(n.Agent().Pid)
		if err != nil {
			return err
		}
		fmt.Printf("  %-10s %.2f %% of a core, %.1f MB PSS\n", named(n), 100*float64(t-before[n.Node])/float64(d), m)
	}
	return nil
}

// clockTick is USER_HZ, which Linux fixes at 100 for /proc.
const clockTick = 10 * time.Millisecond

// cpu is the process's user and system time: fields 14 and 15 of proc(5)'s stat.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * clockTick, err
}

// pss is the process's proportional set size in MB.
func pss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
			kb, err := strconv.Atoi(f[1])
			return float64(kb) / 1000, err
		}
	}
	return 0, fmt.Errorf("no Pss of %d", pid)
}
