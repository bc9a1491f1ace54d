// Command bench measures hanode on hosts made of network namespaces: the
// client-visible outage of each fault, seen from outside, run by run.
//
// It prints every run, then the median and the largest. Debian's heartbeat is measured
// beside it by `-what heartbeat`.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/internal/netlab"
	"hanode/test/livelab"
)

// options of one call.
type options struct {
	runs    int
	labs    int
	profile string
	binary  string
	dir     string
	lasts   time.Duration // 0 = the measurement's own
	loops   int
	vips    int
	nodes   int
}

// measurements that need more than one fault and its outage, by name.
var measurements = map[string]func(options) error{
	"idle":       idleOf,
	"sigstop20":  sigstop20,
	"rolling":    rolling,
	"rolling9":   rolling9,
	"busy":       busy,
	"guard":      guardCost,
	"stale":      stale,
	"many":       many,
	"many-nodes": manyNodes,
	"clients":    clients,
	"stranger":   stranger,
	"heartbeat":  story,
	"flood":      flood,
}

// names lists what can be measured.
func names() string {
	return strings.Join(slices.Concat(slices.Sorted(maps.Keys(faults)), slices.Sorted(maps.Keys(measurements))), ", ")
}

// longOr is how long the measurement lasts.
func (o options) longOr(usual time.Duration) time.Duration { return cmp.Or(o.lasts, usual) }

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 20, "runs of each measurement")
	flag.IntVar(&o.labs, "labs", 1, "clusters side by side, for sigstop20 and rolling")
	flag.StringVar(&o.profile, "profile", "fast", "timing profile")
	what := flag.String("what", "power,leader,move",
		"comma-separated: "+names()+" (heartbeat takes root and Debian's heartbeat)")
	flag.StringVar(&o.binary, "binary", "", "the hanode binary; empty = build it")
	flag.StringVar(&o.dir, "dir", "", "keep the logs in this folder")
	flag.DurationVar(&o.lasts, "for", 0, "how long busy and idle last (0 = 30m, 20s)")
	flag.IntVar(&o.loops, "loops", 4, "busy loops of busy")
	flag.IntVar(&o.vips, "vips", 1000, "addresses of many")
	serve := flag.Int("serve", 0, "be a service of the hosts of heartbeat, on this port")
	flag.IntVar(&o.nodes, "nodes", 50, "agents of many-nodes")
	flag.Parse()
	if *serve > 0 {
		fmt.Fprintln(os.Stderr, serveName(*serve))
		os.Exit(1)
	}
	if !netlab.Isolated() {
		code, err := netlab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	if err := run(o, *what); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, what string) error {
	if o.dir == "" {
		d, err := os.MkdirTemp("", "hanode-bench-")
		if err != nil {
			return err
		}
		o.dir = d
		defer func() { _ = os.RemoveAll(d) }()
	}
	dir, err := filepath.Abs(o.dir) // the hosts' files name it
	if err != nil {
		return err
	}
	o.dir = dir
	if o.binary == "" {
		o.binary = filepath.Join(o.dir, "hanode")
		if out, err := exec.Command("go", "build", "-o", o.binary, "./cmd/hanode").CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	var single []string
	for _, w := range strings.Split(what, ",") {
		if f, ok := measurements[w]; ok {
			if err := f(o); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			continue
		}
		if _, ok := faults[w]; !ok {
			return fmt.Errorf("unknown measurement %q; there are %s", w, names())
		}
		single = append(single, w)
	}
	if len(single) == 0 {
		return nil
	}
	return onCluster(o, "faults", func(c *livelab.Cluster) error {
		for _, w := range single {
			if err := measure(c, w, o.runs); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
		}
		return nil
	})
}

// onCluster runs fn on a settled cluster whose files are in a folder of that name.
func onCluster(o options, name string, fn func(*livelab.Cluster) error) error {
	return onClusterWith(o, livelab.Options{}, name, fn)
}

// onClusterWith is onCluster with more options for the cluster.
func onClusterWith(o options, lab livelab.Options, name string, fn func(*livelab.Cluster) error) error {
	lab.Dir, lab.Binary, lab.Profile = filepath.Join(o.dir, name), o.binary, o.profile
	if err := os.MkdirAll(lab.Dir, 0o755); err != nil {
		return err
	}
	c, err := livelab.New(lab)
	if err != nil {
		return err
	}
	err = c.StartAll()
	if err == nil {
		err = c.Settled(60 * time.Second)
	}
	if err == nil {
		err = fn(c)
	}
	if err != nil {
		c.Logs(os.Stderr, 60)
	}
	return errors.Join(err, c.Close())
}

// sideBySide shares runs among labs: each lab has a cluster of its own and runs fn
// until runs are used up. fn is called by one lab at a time for each cluster.
func sideBySide(o options, fn func(c *livelab.Cluster, k int) error) error {
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next, next <= o.runs
	}
	var labs sync.WaitGroup
	errs := make([]error, max(1, o.labs))
	for i := range errs {
		labs.Go(func() {
			errs[i] = onCluster(o, fmt.Sprintf("lab%d", i), func(c *livelab.Cluster) error {
				for k, more := take(); more; k, more = take() {
					if err := fn(c, k); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	labs.Wait()
	return errors.Join(errs...)
}

// figures are what runs gave, in ms.
type figures struct {
	mu  sync.Mutex
	all map[string][]float64 // guarded by mu
}

func (f *figures) add(name string, ms float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[string][]float64{}
	}
	f.all[name] = append(f.all[name], ms)
}

// line is every run of one, in their order, the median and the largest.
func (f *figures) line(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all[name]
	if len(all) == 0 {
		return name + ": none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", name)
	for _, x := range all {
		fmt.Fprintf(&b, " %.1f", x)
	}
	got := slices.Sorted(slices.Values(all))
	fmt.Fprintf(&b, "; runs %d, median %.1f, max %.1f", len(got), got[len(got)/2], got[len(got)-1])
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
