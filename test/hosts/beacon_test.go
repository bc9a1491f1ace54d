package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The beacon is a service of the group that does nothing but note when it runs, on its
// own host's disk, by the one clock that all hosts share: so it is seen where the
// service ran, and whether it ever ran twice, however the network was.
const (
	beaconEvery = 20 * time.Millisecond
	beaconLog   = "/srv/beacon"

	beaconUnit = `[Service]
ExecStart=/usr/local/bin/beacon
`
	beaconProgram = `#!/usr/bin/python3 -u
import sys, time
with open("` + beaconLog + `", "ab", buffering=0) as log:
    log.write(b"start\n")
    while True:
        log.write(b"%d\n" % (time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))
        time.sleep(0.02)
`
)

// stretch is a time in which the beacon of a host was seen, from its first note to its
// last one, as durations of the monotonic clock.
type stretch struct{ from, to time.Duration }

// overlap is what a chapter's beacons had in common.
type overlap struct {
	name string
	d    time.Duration
}

// beacon reads when the service ran on the host.
func (o on) beacon() (runs []stretch, starts int) {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.root, beaconLog))
	if err != nil && !os.IsNotExist(err) {
		o.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if line == "start\n" {
			starts++
			continue
		}
		us, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			continue // a power cut in the middle of a line
		}
		at := time.Duration(us) * time.Microsecond
		if n := len(runs); n > 0 && at-runs[n-1].to < 5*beaconEvery {
			runs[n-1].to = at
			continue
		}
		runs = append(runs, stretch{at, at})
	}
	return runs, starts
}

// common is the longest time in which a of one list and b of the other ran both.
func common(as, bs []stretch, since time.Duration) (longest time.Duration) {
	for _, a := range as {
		for _, b := range bs {
			if d := min(a.to, b.to) - max(a.from, b.from, since); d > longest {
				longest = d
			}
		}
	}
	return longest
}

// alone: since a chapter began, the group's services ran on one host at a time, where
// the old owner could be asked to stop them.
func (s *story) alone(c chapter, begin time.Time) {
	s.t.Helper()
	p, _ := s.primary.beacon()
	b, _ := s.secondary.beacon()
	d := common(p, b, monotonic()-time.Since(begin))
	s.overlaps = append(s.overlaps, overlap{c.name, d})
	if d > 0 && !c.both {
		s.t.Errorf("%s: the services ran on both hosts for %v", c.name, d)
	}
}

// monotonic is the clock of the beacons.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // it has been there since Linux 2.6
	}
	return time.Duration(ts.Nano())
}

// starts compares how often the service was started with how often the group was given
// away: once for each ownership, no more. It may be less: an owner that dies before it
// comes to the last of the group's services.
func (s *story) starts() {
	s.t.Helper()
	_, p := s.primary.beacon()
	_, b := s.secondary.beacon()
	_, a := s.arbiter.beacon()
	epochs := int(s.epoch())
	var text strings.Builder
	for _, o := range s.overlaps {
		if o.d > 0 {
			fmt.Fprintf(&text, "\n  on both hosts, the old one out of clients' reach: %v, %s", o.d.Round(time.Millisecond), o.name)
		}
	}
	most := slices.MaxFunc(append(s.overlaps, overlap{}), func(a, b overlap) int { return int(a.d - b.d) })
	s.t.Logf("services started twice: %d (started %d times on primary, %d on secondary, %d on arbiter; the group was given away %d times); longest on both %v%s",
		max(0, p+b-epochs)+a, p, b, a, epochs, most.d.Round(time.Millisecond), text.String())
	if p+b > epochs || a > 0 {
		s.t.Errorf("services were started %d times more than the group was given away, and %d times on the witness", p+b-epochs, a)
	}
}
