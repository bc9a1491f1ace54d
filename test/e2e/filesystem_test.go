package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hanode/test/livelab"
)

// The ioctls that freeze and thaw a filesystem (linux/fs.h).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozenFor is the longest that a filesystem stays frozen, whatever becomes of the
// test: whoever writes to one that is left so hangs.
const frozenFor = 2 * time.Minute

// filesystem is a real one for a node's data_dir.
type filesystem struct {
	t   *testing.T
	dir string

	guard io.Closer // thaws when it is closed; nil = not frozen
}

// ext4 is 24 MiB of ext4 on a loop device. It needs root: no user namespace may
// attach one.
func ext4(t *testing.T) *filesystem {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(24<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (package e2fsprogs): %v\n%s", err, out)
	}
	return mounted(t, filepath.Join(dir, "mnt"), "-o", "loop", image)
}

// tmpfs is 4 MiB of memory.
func tmpfs(t *testing.T) *filesystem {
	t.Helper()
	return mounted(t, filepath.Join(t.TempDir(), "mnt"), "-t", "tmpfs", "-o", "size=4m", "tmpfs")
}

func mounted(t *testing.T, dir string, args ...string) *filesystem {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount %v: %v\n%s", args, err, out)
	}
	t.Cleanup(func() {
		for range 100 { // who was killed may still be on its way out
			if err := unix.Unmount(dir, 0); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("unmount %s: %v", dir, unix.Unmount(dir, unix.MNT_DETACH))
	})
	return &filesystem{t: t, dir: dir}
}

// freeze stops every write until thaw. A process of its own thaws it if this one
// does not come to it.
func (f *filesystem) freeze() {
	f.t.Helper()
	guard := exec.Command("sh", "-c", fmt.Sprintf("timeout %d cat; exec fsfreeze --unfreeze %q 2>/dev/null", int(frozenFor.Seconds()), f.dir))
	guard.SysProcAttr = &unix.SysProcAttr{Setsid: true} // no signal meant for the test reaches it
	hold, err := guard.StdinPipe()
	if err == nil {
		err = guard.Start()
	}
	if err != nil {
		f.t.Fatalf("start what thaws %s: %v", f.dir, err)
	}
	f.guard = closer(func() error {
		err := hold.Close()
		_ = guard.Wait() // fails if we thawed first
		return err
	})
	if err := f.ioctl(fiFreeze); err != nil {
		f.t.Fatalf("freeze %s: %v", f.dir, err)
	}
}

// thaw ends a freeze; not frozen is fine.
func (f *filesystem) thaw() {
	f.t.Helper()
	if f.guard == nil {
		return
	}
	if err := f.ioctl(fiThaw); err != nil {
		f.t.Errorf("thaw %s: %v", f.dir, err)
	}
	if err := f.guard.Close(); err != nil {
		f.t.Error(err)
	}
	f.guard = nil
}

func (f *filesystem) ioctl(what uint) error {
	d, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return unix.IoctlSetInt(int(d.Fd()), what, 0)
}

type closer func() error

func (c closer) Close() error { return c() }

// fill leaves no byte free; empty ends it.
func (f *filesystem) fill() {
	f.t.Helper()
	file, err := os.Create(f.filler())
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, piece := range []int{1 << 16, 1 << 10, 1} {
		for b := make([]byte, piece); err == nil; {
			_, err = file.Write(b)
		}
		if !errors.Is(err, unix.ENOSPC) {
			f.t.Fatalf("fill %s: %v", f.dir, err)
		}
		err = nil
	}
	if err := file.Sync(); err != nil {
		f.t.Fatalf("fill %s: %v", f.dir, err)
	}
}

func (f *filesystem) empty() {
	f.t.Helper()
	if err := os.Remove(f.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Error(err)
	}
}

func (f *filesystem) filler() string { return filepath.Join(f.dir, "filler") }

// onDisks is a settled cluster whose data_dirs are on filesystems of their own.
func onDisks(t *testing.T, kind func(*testing.T) *filesystem, opts livelab.Options) (*world, map[string]*filesystem) {
	t.Helper()
	names := opts.Names
	if names == nil {
		names = []string{"primary", "secondary", "arbiter"}
	}
	disks := map[string]*filesystem{}
	for _, n := range names { // before the hosts, to be unmounted after them
		disks[n] = kind(t)
	}
	x := build(t, opts)
	t.Cleanup(func() { // first of all: nobody can die who writes to a frozen disk
		for _, d := range disks {
			d.thaw()
		}
	})
	for n, d := range disks {
		x.do(os.Symlink(filepath.Join(d.dir, "data"), filepath.Join(x.Get(n).Dir, "data")))
		x.do(os.Mkdir(filepath.Join(d.dir, "data"), 0o700))
	}
	x.do(x.StartAll())
	x.settle()
	x.observe()
	return x, disks
}
