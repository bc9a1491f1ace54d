package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a small file system of its own: ext4 in a file, on a loop device, mounted
// on Dir. Freeze hangs it as a dead controller does: whoever writes, waits, in the
// kernel, out of reach of every signal. A process that waits so cannot be killed
// before Thaw.
type Disk struct {
	Dir string // where it is mounted

	root *os.File // held open to thaw a disk that nobody can open any more
}

// Requests of ioctl_fsfreeze(2).
const (
	ioctlFreeze = 0xc0045877
	ioctlThaw   = 0xc0045878
)

// NewDisk makes the file image, mb megabytes, and mounts it on dir, which it makes.
// It takes root, mkfs.ext4 and loop devices; the error says what is missing. Use it
// in a mount namespace of one's own (Reexec). The caller closes it.
func NewDisk(image, dir string, mb int64) (*Disk, error) {
	d, err := newDisk(image, dir, mb)
	if err != nil {
		return nil, fmt.Errorf("make a disk for %s: %w", dir, err)
	}
	return d, nil
}

func newDisk(image, dir string, mb int64) (*Disk, error) {
	mkfs, err := findMkfs()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(image, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(mb << 20); err != nil {
		return nil, err
	}
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", mkfs, err, strings.TrimSpace(string(out)))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	loop, err := attach(f)
	if err != nil {
		return nil, err
	}
	defer loop.Close() // from the mount on, that holds the device
	if err := unix.Mount(loop.Name(), dir, "ext4", 0, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w", loop.Name(), err)
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return &Disk{Dir: dir, root: root}, nil
}

func findMkfs() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path := filepath.Join(dir, "mkfs.ext4"); unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no mkfs.ext4 here")
}

// attach puts f behind a free loop device, which goes when its last user closes it.
func attach(f *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd())}
		cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &cfg)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("attach %s to %s: %w", f.Name(), loop.Name(), err)
		}
		time.Sleep(time.Millisecond)
	}
	return nil, errors.New("every free loop device is taken by somebody else first")
}

// Freeze returns once nothing more can be written. What was written before is on
// the disk.
func (d *Disk) Freeze() error {
	if err := unix.IoctlSetInt(int(d.root.Fd()), ioctlFreeze, 0); err != nil {
		return fmt.Errorf("freeze the disk %s: %w", d.Dir, err)
	}
	return nil
}

// Thaw lets waiting writers go on. A disk that is not frozen stays as it is.
func (d *Disk) Thaw() error {
	err := unix.IoctlSetInt(int(d.root.Fd()), ioctlThaw, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thaw the disk %s: %w", d.Dir, err)
	}
	return nil
}

// Hangs reports whether a write to the disk is still waiting after that time. The
// writer itself ends with Thaw.
func (d *Disk) Hangs(after time.Duration) bool {
	done := make(chan struct{})
	go func() {
		_ = os.WriteFile(filepath.Join(d.Dir, "probe"), []byte("x"), 0o600) // that it ends is what is asked
		close(done)
	}()
	select {
	case <-done:
		return false
	case <-time.After(after):
		return true
	}
}

// Close thaws and unmounts the disk; it goes once nobody uses it any more.
func (d *Disk) Close() error {
	err := errors.Join(d.Thaw(), d.root.Close(), unix.Unmount(d.Dir, unix.MNT_DETACH))
	if err != nil {
		return fmt.Errorf("close the disk %s: %w", d.Dir, err)
	}
	return nil
}
