package realtime

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// policies counts this process's threads by policy.
func policies(t *testing.T) map[uint32]int {
	t.Helper()
	out := map[uint32]int{}
	_, err := each(func(tid int) (bool, error) {
		a, err := unix.SchedGetAttr(tid, 0)
		if err == nil {
			out[a.Policy]++
			if a.Policy == unix.SCHED_RR && (a.Priority != priority || a.Flags&unix.SCHED_FLAG_RESET_ON_FORK == 0) {
				t.Errorf("thread %d: %+v", tid, a)
			}
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKeep makes the test's own process realtime for a moment: all threads, later
// ones too, and nothing that it starts. Where that is not permitted, Keep must say
// so and change nothing.
func TestKeep(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	states := make(chan State, 4)
	ended := make(chan struct{})
	go func() { defer close(ended); Keep(ctx, func(s State) { states <- s }) }()
	defer func() {
		cancel()
		<-ended
		if p := policies(t); p[unix.SCHED_RR] > 0 {
			t.Errorf("threads by policy after the end: %v", p)
		}
	}()
	s := <-states
	if !s.On {
		t.Logf("not permitted here, so only the refusal was tested: %s", s.Why)
		<-ended
		if s.Why == "" || os.Geteuid() == 0 && strings.Contains(s.Why, "needs CAP_SYS_NICE") {
			t.Errorf("told: %+v", s)
		}
		return
	}
	if p := policies(t); p[unix.SCHED_RR] < spare || p[unix.SCHED_RR] < 2*p[unix.SCHED_NORMAL] {
		t.Errorf("threads by policy: %v", p)
	}

	// 41 is the policy, of which 0 is the ordinary one.
	out, err := exec.Command("sh", "-c", "cut -d' ' -f41 /proc/$$/stat; chrt -p $$ 2>&1 || true").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "0\n") {
		t.Errorf("a child runs with %q, %v", out, err)
	}

	var blocked, there sync.WaitGroup
	release := make(chan struct{})
	defer blocked.Wait()
	defer close(release)
	there.Add(2 * spare)
	for range 2 * spare {
		blocked.Go(func() {
			runtime.LockOSThread() // a thread each
			defer runtime.UnlockOSThread()
			there.Done()
			<-release
		})
	}
	there.Wait()
	for range 1000 {
		if p := policies(t); p[unix.SCHED_NORMAL] == 0 && p[unix.SCHED_RR] > 2*spare {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("later threads stay ordinary: %v", policies(t))
}

func TestGreed(t *testing.T) {
	now := time.Now()
	g := greed{at: now}
	used := time.Duration(0)
	look := func(share float64) bool {
		now = now.Add(time.Second)
		used += time.Duration(share * float64(time.Second))
		return g.look(now, used)
	}
	for range 3 {
		for range greedyLooks - 1 {
			if look(1.5) {
				t.Fatal("stepped back too soon")
			}
		}
		if look(0.1) {
			t.Fatal("stepped back while calm")
		}
	}
	for range greedyLooks - 1 {
		look(0.9)
	}
	if !look(0.9) {
		t.Error("ran away")
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		capable, host, limit bool
		want                 string
	}{
		{false, true, false, "CAP_SYS_NICE"},
		{true, false, false, "container"},
		{true, true, false, "control group"},
		{false, false, true, "control group"},
	} {
		if got := refusal(c.capable, c.host, c.limit); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if !capable("Name:\tx\nCapEff:\t000001ffffffffff\n") || capable("CapEff:\t00000000a80425fb\n") || capable("") {
		t.Error("CapEff")
	}
	if !wholeHost("         0          0 4294967295\n") || wholeHost("         0     100000      65536\n") {
		t.Error("uid_map")
	}
}
