package clock

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System returns this host's clocks. Boot is what the kernel itself reads, also in
// a time namespace, which shows its processes another one. It fails where that
// cannot be made good: a lease written in one clock and checked in another would
// never hold, or never end.
func System() (Clock, error) {
	off, err := bootOffset()
	if err != nil {
		return nil, err
	}
	return system{off}, nil
}

// system reads the clocks; ahead is how far this process's boot clock is ahead of
// the kernel's.
type system struct{ ahead time.Duration }

func (s system) Now() Instant {
	return Instant{Boot: read(unix.CLOCK_BOOTTIME) - s.ahead, Raw: read(unix.CLOCK_MONOTONIC_RAW)}
}

func (system) Wall() time.Time { return time.Now() }

// read is a raw system call, which cannot block: an ordinary one that comes after a sleep
// of the process has the Go runtime wake its monitor thread, at a cost far beyond its own.
func read(clk int32) time.Duration {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(clk), uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		// Both clocks exist since Linux 2.6.39; without them no lease can be kept.
		panic("hanode: clock_gettime: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
