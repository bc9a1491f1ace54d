package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// nsID tells namespaces apart: the device and inode of /proc/PID/ns/net.
type nsID struct{ dev, ino uint64 }

// namespace is an anonymous network namespace, alive while its descriptor is
// open or anything runs in it.
type namespace struct {
	fd int
	id nsID
}

// errLeft says that a function ended its goroutine (runtime.Goexit, which
// testing.T.FailNow calls) instead of returning.
var errLeft = errors.New("the function ended its goroutine instead of returning")

// onThread runs fn on a thread of its own that ends with it, so that fn may
// change the thread's namespaces. It is never the process's first thread: that
// one does not end, and /proc/self shows its namespaces as the process's.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errLeft
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held locked here, the first thread cannot be given out again.
			err = onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		err = fn() // no unlock: the thread ends with this goroutine
	}()
	return <-done
}

func newNamespace() (*namespace, error) {
	var ns *namespace
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the new network namespace: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return errors.Join(fmt.Errorf("stat the new network namespace: %w", err), unix.Close(fd))
		}
		ns = &namespace{fd: fd, id: nsID{st.Dev, st.Ino}}
		return nil
	})
	return ns, err
}

// do runs fn on a thread of its own inside the namespace.
func (n *namespace) do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return fn()
	})
}

// dup returns a second hold on the namespace that outlives the first's close.
func (n *namespace) dup() (*namespace, error) {
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold the network namespace: %w", err)
	}
	return &namespace{fd: fd, id: n.id}, nil
}

func (n *namespace) close() error { return unix.Close(n.fd) }

// sysctl writes a setting of the calling thread's namespace. A setting this
// kernel does not have is skipped.
func sysctl(path, value string) error {
	err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
