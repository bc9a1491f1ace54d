// Package nsthread runs functions in the network namespace that it was made in: on the
// calling thread where that is there, or else on one operating-system thread that stays.
//
// Sockets, tcx links and /proc/sys/net mean the namespace of the thread that
// opens them. An agent lives in one namespace and would not care; a process that
// plays several hosts does.
package nsthread

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned by Do after Close.
var ErrClosed = errors.New("the namespace thread is closed")

// Thread is one such thread. Do and Close are safe for concurrent use; a
// function given to Do must not call Do or change the namespace.
type Thread struct {
	calls chan call
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once
	ino   uint64
}

type call struct {
	fn  func() error
	err chan error
}

// New starts a thread in the network namespace of the calling thread.
func New() (*Thread, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	t := &Thread{calls: make(chan call), quit: make(chan struct{}), done: make(chan struct{})}
	if t.ino, err = inode(int(ns)); err != nil {
		ns.Close()
		return nil, err
	}
	ready := make(chan error, 1)
	go t.run(ns, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// Inode is the number that names the namespace while it exists.
func (t *Thread) Inode() uint64 { return t.ino }

// Do runs fn in the namespace and returns what it returned: on the calling thread, if that
// is in it, as all of an agent are, because a change of threads costs time that clients
// wait for.
func (t *Thread) Do(fn func() error) error {
	select {
	case <-t.quit:
		return ErrClosed
	default:
	}
	if done, err := t.here(fn); done {
		return err
	}
	c := call{fn, make(chan error, 1)}
	select {
	case t.calls <- c:
		return <-c.err
	case <-t.quit:
		return ErrClosed
	}
}

// here runs fn if the calling thread is in the namespace.
func (t *Thread) here(fn func() error) (done bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) != nil || st.Ino != t.ino {
		return false, nil
	}
	return true, fn()
}

// Close ends the thread and waits for it. Twice is fine.
func (t *Thread) Close() {
	t.once.Do(func() { close(t.quit) })
	<-t.done
}

func (t *Thread) run(ns netns.NsHandle, ready chan<- error) {
	defer close(t.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := enter(ns, t.ino)
	ns.Close()
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case c := <-t.calls:
			c.err <- c.fn()
		case <-t.quit:
			return
		}
	}
}

// enter asks for setns only where it changes something: an agent that dropped
// its privileges may not call it.
func enter(ns netns.NsHandle, want uint64) error {
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer here.Close()
	if ino, err := inode(int(here)); err == nil && ino == want {
		return nil
	}
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return nil
}

func inode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat the network namespace: %w", err)
	}
	return st.Ino, nil
}
