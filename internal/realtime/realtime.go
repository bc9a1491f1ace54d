// Package realtime lets this process run before all ordinary ones, so that a busy
// host does not delay its beats: SCHED_RR at the lowest realtime priority, for every
// thread. Nothing that the process starts inherits it.
//
// Every thread, because a goroutine runs on any of them, and one that waits for a
// lock or for the collector waits for whichever thread has it. Linux passes the
// policy of a thread to its children, processes and threads alike, unless it is
// asked to reset it for both. A service that runs realtime by inheritance would be
// the worst neighbour of all, so it is reset, and threads that the Go runtime adds
// later are found and raised by Keep.
//
// It does not lock memory. A Go program reserves far more than it uses, so locking
// it whole costs tens of megabytes; a limit on locked memory would end the process
// when it grows; and an agent that is paged out is late, not wrong: the kernel's
// guard does not need it.
package realtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// priority is the lowest one: kernel threads and other realtime programs come first.
const priority = 1

// State is what Keep has achieved.
type State struct {
	On bool
	// Why says why it is not on, with the remedy; "" while it is.
	Why string
}

const (
	lookEvery = time.Second
	// A process that runs before all others must not run away: if it takes most of a
	// processor for so many looks in a row it steps back for a while.
	greedy      = 0.8
	greedyLooks = 5
	pause       = time.Minute
)

// Keep makes all threads realtime and keeps them so until ctx ends; then it makes
// them ordinary again. told hears each change and the first result, on Keep's
// goroutine. Where it is not permitted Keep says so and returns at once.
func Keep(ctx context.Context, told func(State)) {
	spareThreads()
	if err := raise(); err != nil {
		lower()
		told(State{Why: explain(err)})
		return
	}
	defer lower()
	told(State{On: true})
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	watch := greed{at: time.Now(), used: cpuTime()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !watch.look(time.Now(), cpuTime()) {
			_ = raise() // a thread that is not realtime yet stays ordinary; the next look tries again
			continue
		}
		lower()
		told(State{Why: fmt.Sprintf("the agent itself used most of a processor for %v; it is tried again after %v", greedyLooks*lookEvery, pause)})
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err := raise(); err != nil {
			told(State{Why: explain(err)})
			return
		}
		watch = greed{at: time.Now(), used: cpuTime()}
		told(State{On: true})
	}
}

// greed notices a process that takes most of a processor.
type greed struct {
	at    time.Time
	used  time.Duration
	looks int
}

// look reports whether it is time to step back. used is the processor time so far.
func (g *greed) look(now time.Time, used time.Duration) bool {
	share := float64(used-g.used) / float64(max(now.Sub(g.at), 1))
	g.at, g.used = now, used
	if share < greedy {
		g.looks = 0
	} else {
		g.looks++
	}
	return g.looks >= greedyLooks
}

// spare is how many threads exist before any is raised. The runtime keeps idle ones
// and seldom needs more, so that a new, ordinary thread is rare.
const spare = 12

func spareThreads() {
	var all, met sync.WaitGroup
	met.Add(spare)
	for range spare {
		all.Go(func() {
			// Each of these blocks its thread in the kernel, so each needs one of its own.
			var fds [2]int
			defer met.Wait()
			defer met.Done()
			if unix.Pipe2(fds[:], unix.O_CLOEXEC) != nil {
				return
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}, 20)
		})
	}
	all.Wait()
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raise makes every thread realtime that is not. Threads may come while it looks, so
// it looks until it finds nothing to do.
func raise() error {
	for range 10 {
		did, err := each(func(tid int) (bool, error) {
			a, err := unix.SchedGetAttr(tid, 0)
			if err == nil && a.Policy == unix.SCHED_RR {
				return false, nil
			}
			if err == nil {
				err = unix.SchedSetAttr(tid, &unix.SchedAttr{
					Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
				}, 0)
			}
			return err == nil, err
		})
		if err != nil || !did {
			return err
		}
	}
	return nil
}

// lower makes every thread ordinary again.
func lower() {
	_, _ = each(func(tid int) (bool, error) {
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil || a.Policy != unix.SCHED_RR {
			return false, err
		}
		// Who may not take a policy back with the flag cleared keeps the flag: it only
		// matters to children, and does what we want.
		return true, unix.SchedSetAttr(tid, &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
		}, 0)
	})
}

// each calls fn for every thread of this process; one that ended meanwhile is done.
func each(fn func(tid int) (bool, error)) (did bool, err error) {
	ents, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, fmt.Errorf("list threads: %w", err)
	}
	var errs []error
	for _, e := range ents {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		ok, err := fn(tid)
		did = did || ok
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return did, errors.Join(errs...)
}

// explain says why the kernel refused, as far as it can be known, and the remedy.
func explain(err error) string {
	if !errors.Is(err, unix.EPERM) {
		return fmt.Sprintf("the kernel refused SCHED_RR: %v", err)
	}
	status, _ := os.ReadFile("/proc/self/status")
	uids, _ := os.ReadFile("/proc/self/uid_map")
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_RTPRIO, &limit)
	return refusal(capable(string(status)), wholeHost(string(uids)), limit.Cur >= priority)
}

// refusal names what is missing. capable: CAP_SYS_NICE is effective; host: in the
// host's own user namespace, elsewhere the capability does not count; limit:
// RLIMIT_RTPRIO suffices.
func refusal(capable, host, limit bool) string {
	switch {
	case limit, capable && host:
		return "the process may use SCHED_RR, but its control group has no realtime budget (or a seccomp filter forbids it); " +
			"run the agent in the root cpu control group, or give its group cpu.rt_runtime_us"
	case capable:
		return "in a container (a user namespace) CAP_SYS_NICE does not count; give the container the limit rtprio=1"
	}
	return "it needs CAP_SYS_NICE, or the limit rtprio of at least 1 (LimitRTPRIO=1 in the unit)"
}

// capable reads CAP_SYS_NICE off /proc/self/status.
func capable(status string) bool {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && bits&(1<<unix.CAP_SYS_NICE) != 0
		}
	}
	return false
}

// wholeHost reports whether /proc/self/uid_map is that of the first user namespace.
func wholeHost(uidMap string) bool {
	f := strings.Fields(uidMap)
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}
