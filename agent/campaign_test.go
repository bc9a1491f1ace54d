package agent

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// campaign runs many fault schedules side by side. It tells once a minute how far
// it is, so that a long one is of use also to whoever stops it early.
type campaign struct {
	t     *testing.T
	first uint64
	n     int
	two   bool // of two nodes and no third vote
	total *tally
	begin time.Time

	mu      sync.Mutex
	next    int // how many were begun
	done    int
	heals   []time.Duration
	virtual time.Duration
	ops     int // in histories that porcupine checked
	objects int // whose check it did not end
	bad     []uint64
}

// historyLimit is how long porcupine may think about one object, in real time.
const historyLimit = 20 * time.Second

func (c *campaign) run() {
	stop := make(chan struct{})
	var tell sync.WaitGroup
	tell.Go(func() { c.report(stop) })
	workers := *simWorkers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var wg sync.WaitGroup
	for range min(workers, c.n) {
		wg.Go(func() {
			for seed, ok := c.take(); ok; seed, ok = c.take() {
				c.one(seed)
			}
		})
	}
	wg.Wait()
	close(stop)
	tell.Wait()
}

// take hands out the next seed, while there is one and time left.
func (c *campaign) take() (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next >= c.n || *simFor > 0 && time.Since(c.begin) > *simFor {
		return 0, false
	}
	c.next++
	return c.first + uint64(c.next-1), true
}

// one runs one schedule.
func (c *campaign) one(seed uint64) {
	s := &simRun{seed: seed, two: c.two, tally: newTally()}
	good := c.t.Run(fmt.Sprint(seed), func(t *testing.T) {
		synctest.Test(t, s.run)
		v := s.hist.check(historyLimit)
		if v.bad != "" {
			t.Errorf("%s%s", v.bad, v.draw(fmt.Sprintf("hanode-sim-%d.html", seed)))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ops, c.objects = c.ops+v.ops, c.objects+v.unknown
	})
	c.total.merge(s.tally)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.heals = append(c.heals, s.healed)
	c.virtual += s.length
	if !good {
		c.bad = append(c.bad, seed)
		fmt.Fprintf(os.Stderr, "VIOLATION in schedule %d; again: %s\n", seed, again(c.t.Name(), seed))
	}
}

func again(test string, seed uint64) string {
	return fmt.Sprintf("go test ./agent -run '%s$' -sim.seed=%d -sim.log -count=1", test, seed)
}

// report prints a line each minute.
func (c *campaign) report(stop <-chan struct{}) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			c.mu.Lock()
			fmt.Fprintf(os.Stderr, "%v: %d of %d schedules, %d violated, %d faults took hold\n",
				time.Since(c.begin).Round(time.Second), c.done, c.n, len(c.bad), c.total.faults())
			c.mu.Unlock()
		}
	}
}

func (c *campaign) summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == 0 {
		return "no schedule was run"
	}
	slices.Sort(c.heals)
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d schedules from seed %d on in %v, %v of virtual time; %d violated %v\n",
		c.done, c.n, c.first, time.Since(c.begin).Round(time.Second), c.virtual.Round(time.Second), len(c.bad), c.bad)
	fmt.Fprintf(&b, "whole again after all faults: median %v, longest %v\n", c.heals[len(c.heals)/2], c.heals[len(c.heals)-1])
	fmt.Fprintf(&b, "porcupine: %d operations checked, %d objects not decided in time\n", c.ops, c.objects)
	for _, k := range slices.Sorted(maps.Keys(c.total.rows)) {
		fmt.Fprintf(&b, "  %-34s %7d fired %7d took hold\n", k, c.total.rows[k].fired, c.total.rows[k].took)
	}
	return b.String()
}

// checkUseful: a campaign in which a kind of fault never takes hold proves nothing
// about it.
func (c *campaign) checkUseful() {
	if c.done < 60 {
		return
	}
	for _, k := range kinds {
		if c.two && notOfTwo[k.name] {
			continue
		}
		if r := c.total.rows[k.name]; r == nil || r.took == 0 {
			c.t.Errorf("the fault %q never took hold", k.name)
		}
	}
}
