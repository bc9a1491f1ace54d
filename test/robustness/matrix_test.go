package robustness

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// role is which node a fault of one node is about.
type role string

const (
	roleOwner    role = "owner"
	roleLeader   role = "leader" // idle with a witness, else an owner
	roleFollower role = "follower"
	roleWitness  role = "witness"
)

// cell is a row of the matrix: a fault, and on whom.
type cell struct {
	name   string
	group  string // rows of one group are the same fault on different targets
	shapes []shape
	role   role
	needs  *breakage
	fault  func(*run) error
}

// job is one run of a row.
type job struct {
	cell
	k     int // which run of the row
	shape shape
	seed  uint64
}

// again is the command that repeats the job.
func (j job) again() string {
	return fmt.Sprintf("go test -count 1 -v ./test/robustness -run TestMatrix -robust.seed %d -robust.runs %d -robust.fault '^%s$'",
		*flagSeed, max(*flagRuns, 1), regexp.QuoteMeta(j.name))
}

// cells is the whole matrix.
func cells() []cell {
	var list []cell
	add := func(name, group string, shapes []shape, r role, needs *breakage, fault func(*run) error) {
		list = append(list, cell{name, group, shapes, r, needs, fault})
	}
	a, b := []shape{withWitness}, []shape{threeNodes}
	both := []shape{withWitness, threeNodes}
	for _, f := range append(singles(), lose(1), lose(5), lose(20)) {
		f := f
		add(f.name+": owner", f.name, a, roleOwner, &f, single(f))
		add(f.name+": leader that owns nothing", f.name, a, roleLeader, &f, single(f))
		add(f.name+": leader = owner", f.name, b, roleLeader, &f, single(f))
		add(f.name+": follower", f.name, a, roleFollower, &f, single(f))
	}
	add("witness lost", "witness lost", a, roleWitness, &powerOff, single(powerOff))
	add("partition of a pair", "partition of a pair", both, "", nil, pairCut)
	add("loss of 20 % on every link", "loss everywhere", both, "", nil, lossEverywhere(20))
	add("rolling restart, SIGTERM", "rolling restart, SIGTERM", both, "", nil, rolling(syscall.SIGTERM))
	add("rolling restart, kill -9", "rolling restart, kill -9", both, "", nil, rolling(syscall.SIGKILL))
	for _, f := range []breakage{killed, stopped, powerOff, isolated} {
		f := f
		for _, who := range []string{"the old owner", "the new owner", "the leader"} {
			add("during a switchover, "+f.name+": "+who, "during a switchover, "+f.name, both, "", &f, duringMove(f, who))
		}
	}
	add("two faults at once", "two faults at once", both, "", nil, twoInARow(true))
	add("two faults in a row", "two faults in a row", both, "", nil, twoInARow(false))
	add("acknowledged, then kill -9 of the leader", "acknowledged, kill", both, "", &killed, ackThenLose(killed))
	add("acknowledged, then power cut of the leader", "acknowledged, power", both, "", &powerOff, ackThenLose(powerOff))
	return list
}

// plan makes the jobs of the matrix, in a drawn order: runs of each row, or, if
// runs is 0, one of each group of rows.
func plan(seed uint64, runs int, match *regexp.Regexp) []job {
	rng := rand.New(rand.NewPCG(seed, 0))
	var list []job
	byGroup := map[string][]cell{}
	var groups []string
	for _, c := range cells() {
		if !match.MatchString(c.name) {
			continue
		}
		if byGroup[c.group] == nil {
			groups = append(groups, c.group)
		}
		byGroup[c.group] = append(byGroup[c.group], c)
	}
	add := func(c cell, k int) {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d/%s/%d", seed, c.name, k)
		list = append(list, job{cell: c, k: k, shape: c.shapes[(k+int(seed%2))%len(c.shapes)], seed: h.Sum64()})
	}
	for _, g := range groups {
		if runs == 0 {
			add(byGroup[g][rng.IntN(len(byGroup[g]))], 0)
			continue
		}
		for _, c := range byGroup[g] {
			for k := range runs {
				add(c, k)
			}
		}
	}
	rng.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	return list
}

// queue hands out jobs to labs: a lab takes those of the shape it has, and the
// other shape when those are done.
type queue struct {
	mu   sync.Mutex
	jobs []job // guarded by mu
}

func (q *queue) next(have shape) (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 {
		return job{}, false
	}
	at := 0
	for i, j := range q.jobs {
		if j.shape == have {
			at = i
			break
		}
	}
	j := q.jobs[at]
	q.jobs = append(q.jobs[:at:at], q.jobs[at+1:]...)
	return j, true
}

// TestMatrix breaks clusters in every way and holds them to their promises: at no
// instant two answerers, every group held again 5 s after healing, nothing
// acknowledged lost.
func TestMatrix(t *testing.T) {
	match, err := regexp.Compile(*flagFault)
	if err != nil {
		t.Fatalf("-robust.fault: %v", err)
	}
	jobs := plan(*flagSeed, *flagRuns, match)
	if len(jobs) == 0 {
		t.Fatalf("-robust.fault %q matches no row", *flagFault)
	}
	fmt.Printf("seed %d: %d faults, %d labs, profile %s\n", *flagSeed, len(jobs), *flagLabs, *flagProfile)
	var tab table
	for _, c := range cells() {
		for _, j := range jobs {
			if j.name == c.name {
				tab.row(c.name)
			}
		}
	}
	begin := time.Now()
	results := make(chan outcome)
	q := &queue{jobs: jobs}
	base := t.TempDir()
	var labs sync.WaitGroup
	for i := range max(1, *flagLabs) {
		labs.Go(func() { work(t, q, i, base, results) })
	}
	go func() { labs.Wait(); close(results) }()
	n := 0
	for o := range results {
		n++
		tab.row(o.row).add(o)
		report(t, n, len(jobs), o)
	}
	if n < len(jobs) {
		t.Errorf("%d of %d faults were not tried", len(jobs)-n, len(jobs))
	}
	fmt.Printf("\nseed %d, profile %s, %v\n", *flagSeed, *flagProfile, time.Since(begin).Round(time.Second))
	tab.print(os.Stdout)
	if s := tab.total(); s.took == 0 {
		t.Error("no fault took hold: this says nothing")
	}
}

// work is one lab after the other until the jobs are done.
func work(t *testing.T, q *queue, lab int, base string, results chan<- outcome) {
	first := []shape{withWitness, threeNodes}[lab%2]
	j, more := q.next(first)
	for built := 0; more; built++ {
		dir := filepath.Join(base, fmt.Sprintf("%d-%d", lab, built))
		w, err := newWorld(j.shape, dir)
		if err != nil {
			t.Errorf("build a cluster of %s: %v", j.shape, err)
			return
		}
		usable := true
		for more && usable && j.shape == w.shape {
			var o outcome
			if o, usable = j.do(w, *flagRuns > 0); len(o.violations) > 0 {
				usable = false // what comes next is judged on a cluster that is whole
			}
			results <- o
			j, more = q.next(w.shape)
		}
		if err := w.close(); err != nil {
			t.Errorf("close a cluster: %v", err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	}
}

func report(t *testing.T, n, of int, o outcome) {
	word := "ok"
	switch {
	case o.skipped != "":
		word = "skipped: " + o.skipped
	case len(o.violations) > 0:
		word = "VIOLATION: " + strings.Join(o.violations, "; ")
		t.Errorf("%s: %s", o.row, strings.Join(o.violations, "\n  "))
	case !o.took:
		word = "did not take hold"
	}
	if o.incomplete != "" {
		word += " (" + o.incomplete + ")"
	}
	fmt.Printf("%4d/%d %-60s outage %8.1f ms  %s\n", n, of, o.row, ms(o.outage), word)
}

func withTimeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
