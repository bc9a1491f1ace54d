package netlab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ticker is a process that grows a file all the time, and what it is at.
func ticker(t *testing.T, h *Host) (p *Process, size func() int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ticks")
	p, err := h.Start(exec.Command("sh", "-c", "while :; do echo >>"+file+"; done"))
	if err != nil {
		t.Fatal(err)
	}
	size = func() int64 {
		st, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	grows(t, size)
	return p, size
}

func grows(t *testing.T, size func() int64) {
	t.Helper()
	from := size()
	for end := time.Now().Add(10 * time.Second); size() == from; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the process does not run")
		}
	}
}

func still(t *testing.T, size func() int64) {
	t.Helper()
	from := size()
	time.Sleep(50 * time.Millisecond)
	if now := size(); now != from {
		t.Errorf("the process went on: %d, then %d ticks", from, now)
	}
}

func TestAStoppedProcessIsSeenToStandStill(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := l.AddHost("a", 1)
	if err != nil {
		t.Fatal(err)
	}
	p, size := ticker(t, h)
	if p.Stopped() {
		t.Error("a running process is said to be stopped")
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !p.Stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the process does not stop")
		}
	}
	still(t, size)
	if err := p.Cont(); err != nil {
		t.Fatal(err)
	}
	grows(t, size)
}

func TestAFrozenCgroupStandsStill(t *testing.T) {
	if !Privileged() {
		t.Skip("control groups take root")
	}
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := l.AddHost("a", 1)
	if err != nil {
		t.Fatal(err)
	}
	p, size := ticker(t, h)
	c, err := NewCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(p.Kill(), c.Close()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the group is still there: %v", err)
		}
	}()
	// Close takes groups along that were made inside, as an agent does.
	if err := errors.Join(os.Mkdir(filepath.Join(c.dir, "inner"), 0o700), c.Add(p.Pid), c.Freeze()); err != nil {
		t.Fatal(err)
	}
	still(t, size)
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	grows(t, size)
}

func TestAFrozenDiskHoldsWritersBack(t *testing.T) {
	if !Privileged() {
		t.Skip("a disk takes root")
	}
	dir := t.TempDir()
	if err := unix.Access("/dev/loop-control", unix.W_OK); err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	d, err := NewDisk(filepath.Join(dir, "image"), filepath.Join(dir, "disk"), 16)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if d.Hangs(10 * time.Second) {
		t.Error("a healthy disk hangs")
	}
	if err := d.Freeze(); err != nil {
		t.Fatal(err)
	}
	if !d.Hangs(50 * time.Millisecond) {
		t.Error("a frozen disk takes a write")
	}
	if err := d.Thaw(); err != nil {
		t.Fatal(err)
	}
	if d.Hangs(10 * time.Second) {
		t.Error("a thawed disk hangs")
	}
}
