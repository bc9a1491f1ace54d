package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"hanode/internal/netlab"
	"hanode/test/livelab"
)

// owners is a group for each of three nodes, so that whoever leads owns one. The
// observer watches primary's.
const owners = `group "web" {
  prefer   = ["primary"]
  failback = "on"
  resource "ip" "` + livelab.VIP + `/24" { dev = "eth1" }
}
group "mail" {
  prefer   = ["secondary"]
  failback = "on"
  resource "ip" "10.77.0.101/24" { dev = "eth1" }
}
group "files" {
  prefer   = ["third"]
  failback = "on"
  resource "ip" "10.77.0.102/24" { dev = "eth1" }
}
`

// calm is the profile for what must not move: a busy machine is none of the faults
// here.
var calm = livelab.Options{Profile: "lan"}

// diskCase is whose disk it is, and who is asked meanwhile.
type diskCase struct {
	name   string
	owners bool // every node owns a group, so the leader does too
	leader bool // it is the leader's disk, not primary's
}

var diskCases = []diskCase{
	{name: "of the leader, which owns nothing", leader: true},
	{name: "of an owner, which does not lead"},
	{name: "of the leader, which owns a group", leader: true, owners: true},
}

// mayFreeze skips where no filesystem can be frozen.
func mayFreeze(t *testing.T) {
	t.Helper()
	if netlab.Isolated() || os.Getuid() != 0 {
		t.Skip("no user namespace may attach a loop device or freeze a filesystem: this needs root. " +
			"The same with disks that are made to hang: go test ./agent -run 'LeaderIsReplaced|OwnersDiskHangs'")
	}
}

// TestFrozenDisk: a real ext4 under the agent takes no writes for a while. No
// address moves, commands work, also for one whose group must leave the very node,
// and all is well after the thaw.
func TestFrozenDisk(t *testing.T) {
	mayFreeze(t)
	for _, c := range diskCases {
		t.Run(c.name, func(t *testing.T) {
			sickDisk(t, c, ext4, "disk-hung", (*filesystem).freeze, (*filesystem).thaw)
		})
	}
}

// TestFullDisk: the same with a disk that has no byte left.
func TestFullDisk(t *testing.T) {
	for _, c := range diskCases {
		t.Run(c.name, func(t *testing.T) {
			sickDisk(t, c, tmpfs, "disk-full", (*filesystem).fill, (*filesystem).empty)
		})
	}
}

func TestFullExt4(t *testing.T) {
	if netlab.Isolated() || os.Getuid() != 0 {
		t.Skip("no user namespace may attach a loop device: this needs root. TestFullDisk is the same on a tmpfs")
	}
	sickDisk(t, diskCase{leader: true}, ext4, "disk-full", (*filesystem).fill, (*filesystem).empty)
}

func sickDisk(t *testing.T, c diskCase, kind func(*testing.T) *filesystem, problem string, hurt, heal func(*filesystem)) {
	opts := calm
	if c.owners {
		opts.Names, opts.Groups = []string{"primary", "secondary", "third"}, owners
	}
	x, disks := onDisks(t, kind, opts)
	x.holds("primary")
	sick := "primary"
	lead := x.leads(func(who string) bool { return c.owners || who != "primary" })
	if c.leader {
		sick = lead
	}
	asked := "secondary"
	if sick == asked {
		asked = "primary"
	}
	t.Logf("%s leads; it is the disk of %s", lead, sick)

	x.w.Mark("sick")
	hurt(disks[sick])
	begin := time.Now()
	on := x.until("the sick disk is shown", func() bool {
		x.pin(asked)
		out, _, _, err := x.Get(sick).Run("status")
		return err == nil && strings.Contains(out, problem)
	})
	t.Logf("%s is shown after %v", problem, on.Sub(begin))
	x.leads(func(who string) bool { return who != sick })
	for range 4 { // it stays so for a while, and everybody can give commands
		for _, n := range x.Nodes {
			x.pin(n.Node)
		}
		time.Sleep(time.Second)
	}
	if r := x.w.Look(); len(r.Changes) > 0 || len(r.Overlaps) > 0 {
		t.Errorf("the VIP moved: %+v %+v", r.Changes, r.Overlaps)
	} else {
		t.Logf("longest silence of the VIP: %v", r.Phase("sick").LongestSilence)
	}
	if sick == "primary" { // an address is let go without a disk
		x.hanode(asked, 0, "move", "web", "secondary")
		x.holds("secondary")
		x.hanode(asked, 0, "move", "web", "--unpin")
	}
	heal(disks[sick])
	x.holds("primary")
	x.settle()
	x.until("nothing is wrong any more", func() bool {
		out, _, _, err := x.Get(sick).Run("status")
		return err == nil && !strings.Contains(out, problem)
	})
	x.pin(sick)
	x.settle()
}

// TestKilledOnAFrozenDisk: a process that is writing to it cannot die, nor can it be
// started again; the address must go all the same.
func TestKilledOnAFrozenDisk(t *testing.T) {
	mayFreeze(t)
	x, disks := onDisks(t, ext4, calm)
	x.holds("primary")
	disks["primary"].freeze()
	x.until("a write hangs", func() bool {
		x.pin("secondary")
		out, _, _, err := x.Get("primary").Run("status")
		return err == nil && strings.Contains(out, "disk-hung")
	})
	x.do(x.Get("primary").Agent().Kill())
	x.holds("secondary")
	time.Sleep(2 * time.Second)
	disks["primary"].thaw()
	<-x.Get("primary").Agent().Done
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.settle()
}

// pin gives a few commands that move nothing.
func (x *world) pin(node string) {
	x.t.Helper()
	x.hanode(node, 0, "move", "web", "primary")
	x.hanode(node, 0, "move", "web", "--unpin")
}

// leads waits until somebody leads who is as wanted.
func (x *world) leads(wanted func(who string) bool) (who string) {
	x.t.Helper()
	x.until("a leader as wanted", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		who = x.Leader(ctx)
		return who != "" && wanted(who)
	})
	return who
}

// until waits for something, up to a minute, and tells when it was so.
func (x *world) until(what string, so func() bool) time.Time {
	x.t.Helper()
	for end := time.Now().Add(time.Minute); !so(); {
		if time.Now().After(end) {
			x.t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Now()
}
