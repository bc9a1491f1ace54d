package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// System returns this host's clocks.
func System() Clock { return system{} }

type system struct{}

func (system) Now() Instant {
	return Instant{Boot: read(unix.CLOCK_BOOTTIME), Raw: read(unix.CLOCK_MONOTONIC_RAW)}
}

func (system) Wall() time.Time { return time.Now() }

func read(clk int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(clk, &ts); err != nil {
		// Both clocks exist since Linux 2.6.39; without them no lease can be kept.
		panic("hanode: clock_gettime: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
