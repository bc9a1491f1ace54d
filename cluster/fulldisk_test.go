package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// tinyEnv names the directory that the test mounts its file system on, in a mount
// namespace of its own.
const tinyEnv = "HANODE_TINY_DISK"

// onTinyDisk runs the calling test again where it may mount, and tells whether this
// is that run: a tmpfs of 4 MiB on dir, gone with the process.
func onTinyDisk(t *testing.T) (dir string, inside bool) {
	t.Helper()
	if dir = os.Getenv(tinyEnv); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Fatalf("mount a tmpfs of 4 MiB: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		return dir, true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), tinyEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this needs root or user namespaces, to mount a file system of its own")
	}
	if err != nil {
		t.Error(err)
	}
	return "", false
}

// TestFullFilesystem: raft's real store on a real file system that is full. Each
// write waits until there is space, whatever it was that bbolt could not do, and
// nothing is lost or damaged.
func TestFullFilesystem(t *testing.T) {
	dir, inside := onTinyDisk(t)
	if !inside {
		return
	}
	filler, seen := filepath.Join(dir, "filler"), map[string]int{}
	s, err := OpenStores(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := newDiskWatch(s)
	term, last := uint64(0), uint64(0)
	writes := map[string]func() error{
		"entry": func() error {
			last++
			return d.StoreLog(&raft.Log{Index: last, Term: 1, Data: make([]byte, 3000)})
		},
		"value": func() error {
			term++
			return errors.Join(d.Set(fmt.Appendf(nil, "key %d", term), make([]byte, 3000)), d.SetUint64([]byte("CurrentTerm"), term))
		},
	}
	for left := range 10 {
		for what, write := range writes {
			fill(t, filler, left*4096)
			for begin := time.Now(); ; { // until one must wait
				done := make(chan error, 1)
				go func() { done <- write() }()
				waits, err := waitsFor(d, done)
				if err != nil {
					t.Fatalf("%s: raft would see %v", what, err)
				}
				if waits == nil && time.Since(begin) < time.Minute {
					continue
				}
				seen[fmt.Sprint(what, ": ", waits)]++
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatalf("%s, with space again: %v", what, err)
				}
				break
			}
		}
	}
	if len(seen) != len(writes) {
		t.Errorf("what kept the writes waiting: %v", seen)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStores(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("what is on the disk: %v", err)
	}
	defer func() { _ = s.Close() }()
	if got, err := s.Stable.GetUint64([]byte("CurrentTerm")); err != nil || got != term {
		t.Errorf("term %d, %v; it was %d", got, err, term)
	}
	if got, err := s.Log.LastIndex(); err != nil || got != last {
		t.Errorf("last entry %d, %v; it was %d", got, err, last)
	}
}

// waitsFor waits until a write is done, or must wait for space.
func waitsFor(d *diskWatch, done chan error) (why, err error) {
	for {
		select {
		case err := <-done:
			return nil, err
		case <-time.After(time.Millisecond):
			if _, why := d.state(); why != nil {
				return why, nil
			}
		}
	}
}

// fill writes a file until only about left bytes are free.
func fill(t *testing.T, path string, left int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	size := int64(0)
	for err == nil {
		var n int
		n, err = f.Write(make([]byte, 4096))
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, size-int64(left))); err != nil {
		t.Fatal(err)
	}
}

// TestWaitOut: bbolt keeps the words of an error and drops the error itself when it
// could not make its file longer.
func TestWaitOut(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		want := errno != syscall.EIO
		path := &os.PathError{Op: "truncate", Path: "/var/lib/hanode/raft.db", Err: errno}
		for _, err := range []error{path, fmt.Errorf("file resize error: %s", path), fmt.Errorf("file sync error: %s", path)} {
			if got := waitOut(err); got != want {
				t.Errorf("%v: waited out: %v", err, got)
			}
		}
	}
	if waitOut(nil) {
		t.Error("success is waited out")
	}
}
