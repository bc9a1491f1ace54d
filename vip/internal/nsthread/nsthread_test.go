package nsthread

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A thread that is in the namespace runs the function itself; the tests of vip, whose
// hosts have namespaces of their own, are about all others.
func TestDoRunsHere(t *testing.T) {
	x, err := New()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, want := unix.Gettid(), errors.New("what it says")
	if err := x.Do(func() error {
		if unix.Gettid() != here {
			t.Error("it ran on another thread")
		}
		return want
	}); !errors.Is(err, want) {
		t.Errorf("Do says %v", err)
	}
	x.ino++ // some other namespace
	if err := x.Do(func() error {
		if unix.Gettid() == here {
			t.Error("it ran on a thread of another namespace")
		}
		return want
	}); !errors.Is(err, want) {
		t.Errorf("Do says %v", err)
	}
	x.Close()
	x.Close()
	if err := x.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close, Do says %v", err)
	}
}
