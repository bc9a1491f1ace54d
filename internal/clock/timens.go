package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// timens is what /proc says about the time namespace of this process.
type timens struct {
	own      string // of this process; "" = the kernel has none
	children string // of the processes it starts
	offsets  string // of *children*: the kernel shows no others
}

// bootOffset is how far CLOCK_BOOTTIME of this process is ahead of the one that the
// kernel checks leases with, which is that of the initial time namespace.
func bootOffset() (time.Duration, error) {
	var t timens
	var err error
	t.own, err = os.Readlink("/proc/self/ns/time")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat("/proc/self/ns/net"); err != nil {
			return 0, fmt.Errorf("cannot tell in which time namespace this process runs: mount /proc: %w", err)
		}
		return 0, nil // a kernel before 5.6 has one time only
	}
	if err == nil {
		t.children, err = os.Readlink("/proc/self/ns/time_for_children")
	}
	if err == nil {
		var b []byte
		b, err = os.ReadFile("/proc/self/timens_offsets")
		t.offsets = string(b)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot tell in which time namespace this process runs: %w", err)
	}
	return t.boot()
}

// boot is the offset of the boot clock.
func (t timens) boot() (time.Duration, error) {
	if t.own != t.children {
		return 0, fmt.Errorf("this process runs in %s, and its children in %s, whose offsets are the only ones that the kernel shows; start the agent as such a child, or outside of time namespaces", t.own, t.children)
	}
	for line := range strings.Lines(t.offsets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "boottime" {
			continue
		}
		sec, err1 := strconv.ParseInt(f[1], 10, 64)
		nsec, err2 := strconv.ParseInt(f[2], 10, 64)
		const most = int64(1<<63-1) / int64(time.Second) // 292 years
		if err := errors.Join(err1, err2); err != nil || sec <= -most || sec >= most || nsec < 0 || nsec >= int64(time.Second) {
			return 0, fmt.Errorf("/proc/self/timens_offsets: cannot read %q", strings.TrimSpace(line))
		}
		return time.Duration(sec)*time.Second + time.Duration(nsec), nil
	}
	return 0, fmt.Errorf("/proc/self/timens_offsets has no offset of the boot clock: %q", t.offsets)
}
