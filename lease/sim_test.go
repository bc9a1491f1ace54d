package lease_test

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("sim.seeds", 300, "TestSim: how many schedules")
	simSeed  = flag.Uint64("sim.seed", 1, "TestSim: the first seed")
	simTrace = flag.Bool("sim.trace", false, "TestSim: print the schedule of each seed; best with -sim.seeds=1")
)

// TestSim plays random schedules of faults against the real packages and asserts
// the invariants after every event.
func TestSim(t *testing.T) {
	count := playSeeds(t, false)
	if count == nil {
		return
	}
	for _, k := range []string{
		"opened after a wait", "opened by expiry", "takeovers in one entry", "switchovers while another is under way",
		"old owner fenced later", "owner unmuted", "muted owner let go", "voters' list changes", "voters' list of one",
		"registered from another host", "registered from the same host", "registration proposed twice",
		"clone of a machine boots", "all voters restart at once", "voter loses its disk", "agent hangs", "voter hangs",
		"one clock jumps ahead", "RAW stands still", "apply: addresses move between groups",
		"exclusive group opened", "operator pulls the plug", "operator confirms a host off",
		"hang before a kernel write", "hang before a beat leaves", "beat cut", "answer cut", "datagram lost", "datagram twice",
	} {
		if count[k] == 0 {
			t.Errorf("%q never happened", k)
		}
	}
}

// TestSimManual is TestSim where registrations hold alone (two_node = "manual"): no
// expiry, no evidence from silence. The log commits more than that of two voters
// would, fences owners that live, and there are more hosts than two: what holds here
// holds there.
func TestSimManual(t *testing.T) {
	count := playSeeds(t, true)
	if count == nil {
		return
	}
	for _, k := range []string{
		"opened after a wait", "opened by an operator's word", "takeovers in one entry", "switchovers", "old owner fenced later",
		"registered from another host", "registered from the same host", "clone of a machine boots", "agent hangs",
		"apply: addresses move between groups", "exclusive group opened", "operator pulls the plug", "operator confirms a host off", "host reboots",
		"hang before a kernel write",
	} {
		if count[k] == 0 {
			t.Errorf("%q never happened", k)
		}
	}
	if n := count["opened by expiry"]; n > 0 {
		t.Errorf("%d times opened because of silence", n)
	}
}

// playSeeds returns how often everything happened, or nil if that is too little to
// judge by.
func playSeeds(t *testing.T, manual bool) map[string]int {
	seeds := *simSeeds
	if testing.Short() && seeds == 300 {
		seeds = 60
	}
	count := map[string]int{}
	var held time.Duration
	began := time.Now()
	for _, s := range simulate(t, *simSeed, seeds, bugNone, *simTrace, manual) {
		for k, n := range s.count {
			count[k] += n
		}
		held += s.held
		if s.viol != "" {
			t.Errorf("seed %d: %s\nreplay: go test ./lease -run '%s$' -sim.seeds=1 -sim.seed=%d -sim.trace", s.seed, s.viol, t.Name(), s.seed)
		}
	}
	ratio := float64(held) / float64(time.Duration(seeds)*simLength)
	t.Logf("%d schedules of %v in %v; an address is answered for %.0f %% of the time", seeds, simLength, time.Since(began).Round(time.Millisecond), 100*ratio)
	for _, k := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%9d  %s", count[k], k)
	}
	if seeds < 50 {
		return nil
	}
	// A simulation in which nothing happens proves nothing.
	if ratio < .3 {
		t.Errorf("addresses were answered for only %.0f %% of the time", 100*ratio)
	}
	return count
}

type outcome struct {
	seed  uint64
	viol  string
	count map[string]int
	held  time.Duration
}

// simulate plays n schedules from first on, in parallel; outcomes come by seed.
func simulate(t *testing.T, first uint64, n int, b bug, trace, manual bool) []outcome {
	t.Helper()
	out := make([]outcome, n)
	next := make(chan int)
	var wg sync.WaitGroup
	var print sync.Mutex
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := range next {
				seed := first + uint64(i)
				s := newSimAs(seed, b, trace, manual)
				s.run()
				out[i] = outcome{seed, s.viol, s.count, s.held}
				if trace {
					print.Lock()
					fmt.Printf("seed %d\n%s\n%s\n", seed, strings.Join(s.lines, "\n"), s.viol)
					print.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}
