package agent

import (
	"context"
	"fmt"
	"time"

	"hanode/cluster"
	"hanode/failover"
)

// What is asked of the disk, and when. A leader must know within a second that its
// disk hangs; for the others it is enough to show it.
const (
	probeLeader = time.Second
	probeOthers = 10 * time.Second
	// diskLow is when to warn: far from full, so that somebody can act.
	diskLow = 64 << 20
	// diskLimit is how long a group that must go may be kept here by a disk that
	// hangs. Then the process ends: its death lets the group go.
	diskLimit = 10 * time.Second
)

// diskLoop watches data_dir's disk. A node whose disk hangs, or is full, goes on
// holding what it holds: a lease lives from beats, which need no disk. It does not
// lead (see watchReign) and is given nothing new.
func (a *Agent) diskLoop(ctx context.Context) {
	n := a.node.Load()
	tick := a.grid.Ticker(probeLeader / 4)
	defer tick.Stop()
	var probed time.Time
	var stuck time.Duration
	for {
		every := probeOthers
		if n.IsLeader() {
			every = probeLeader
		}
		if time.Since(probed) >= every {
			probed = time.Now()
			a.probeDisk(ctx, n)
		}
		if a.lookAtDisk(n) && a.mustLetGo() {
			stuck += probeLeader / 4
		} else {
			stuck = 0
		}
		if stuck >= diskLimit {
			// Crash-only: a process that tries to stop nicely may hang on that very disk.
			a.host.Exit(fmt.Errorf("a group must go and cannot for %v, because the disk of data_dir %s hangs", diskLimit, a.cfg.DataDir))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
	}
}

// probeDisk asks the disk and tells how much space is left. It gives up waiting,
// not asking: a write that hangs is seen by its age.
func (a *Agent) probeDisk(ctx context.Context, n *cluster.Node) {
	ctx, cancel := context.WithTimeout(ctx, cluster.HungAfter)
	defer cancel()
	switch free, known, err := n.ProbeDisk(ctx); {
	case err != nil && ctx.Err() == nil:
		a.problems.set("disk-failed", err.Error())
	case !known:
	default:
		a.problems.clear("disk-failed")
		text := ""
		if free < diskLow {
			text = fmt.Sprintf("%d MiB are left for data_dir %s", free>>20, a.cfg.DataDir)
		}
		a.problems.set("disk-low", text)
	}
}

// lookAtDisk shows whether the disk hangs, and why.
func (a *Agent) lookAtDisk(n *cluster.Node) (hangs bool) {
	age, failed := n.DiskHangs()
	full, hung := "", ""
	switch {
	case failed != nil:
		full = fmt.Sprintf("data_dir %s takes no writes: %v", a.cfg.DataDir, failed)
	case age > 0:
		hung = fmt.Sprintf("a write to data_dir %s has not returned for %v", a.cfg.DataDir, age.Round(time.Second))
	}
	a.problems.set("disk-full", full)
	a.problems.set("disk-hung", hung)
	return age > 0
}

// mustLetGo reports whether something runs here that must not any more.
func (a *Agent) mustLetGo() bool {
	for _, name := range a.groups.names() {
		if w := a.groups.get(name); w.here() && w.look() == failover.Stop {
			return true
		}
	}
	return false
}
