package failover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hanode/fsm"
	"hanode/internal/grid"
	"hanode/internal/spec"
)

// fakeLeader commits to a machine of its own, with faults.
type fakeLeader struct {
	*world
	mu        sync.Mutex    // guards the world and what follows
	wait      time.Duration // that a commit takes
	most, now int           // proposals that were under way at once, and are
	lost      int           // this many proposals fail before they commit
	ambiguous bool          // the next one commits, and fails
	log       []string
	begin     time.Time
}

func (f *fakeLeader) note(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf("%v ", time.Since(f.begin))+fmt.Sprintf(format, args...))
}

func (f *fakeLeader) Inputs() Inputs {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.inputs()
	in.Health = maps.Clone(f.health)
	return in
}

// die makes a silent.
func (f *fakeLeader) die() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health["a"] = Health{Inc: 1, Dead: true, Why: "silent"}
}

func (f *fakeLeader) Propose(_ context.Context, c fsm.Command) (fsm.Result, error) {
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	if f.wait > 0 {
		time.Sleep(f.wait)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now--
	if f.lost > 0 {
		f.lost--
		f.note("lost")
		return fsm.Result{}, errors.New("no quorum")
	}
	r := f.apply(c)
	if f.ambiguous {
		f.ambiguous = false
		f.note("ambiguous")
		return fsm.Result{}, errors.New("leadership lost while committing")
	}
	return r, nil
}

func (f *fakeLeader) Committed(_ fsm.Command, r fsm.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("committed %v", r.Touched)
}

func newFakeLeader() *fakeLeader {
	f := &fakeLeader{world: newWorld(), begin: time.Now()}
	f.found("a", "b", "w")
	f.register("a", "ha")
	f.register("b", "hb")
	g := []spec.Group{{Name: "one", Prefer: []string{"a"}}, {Name: "two", Prefer: []string{"b"}}}
	f.apply(fsm.Command{SetGroups: &fsm.SetGroups{Groups: g}})
	return f
}

// lead runs Lead for d and stops it.
func lead(f *fakeLeader, d time.Duration, meanwhile func(wake chan<- struct{})) {
	ctx, cancel := context.WithCancel(context.Background())
	wake, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		Lead(ctx, f, wake, grid.New().Ticker(100*time.Millisecond))
	}()
	synctest.Wait()
	if meanwhile != nil {
		meanwhile(wake)
	}
	time.Sleep(d)
	cancel()
	<-done
}

func wantLog(t *testing.T, f *fakeLeader, want ...string) {
	t.Helper()
	if !slices.Equal(f.log, want) {
		t.Errorf("got  %q\nwant %q", f.log, want)
	}
	if again := Plan(f.inputs()); len(again) > 0 {
		t.Errorf("still to do:\n%s", showPlan(again))
	}
}

func TestLead(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, f *fakeLeader)
	}{
		{"acts at once, then rests", func(t *testing.T, f *fakeLeader) {
			lead(f, time.Minute, nil)
			wantLog(t, f, "0s committed [one two]")
		}},
		{"looks again when woken", func(t *testing.T, f *fakeLeader) {
			lead(f, time.Second, func(wake chan<- struct{}) {
				time.Sleep(30 * time.Millisecond)
				f.die()
				wake <- struct{}{}
			})
			wantLog(t, f, "0s committed [one two]", "30ms committed [one]")
		}},
		{"looks again by itself", func(t *testing.T, f *fakeLeader) {
			lead(f, time.Second, func(chan<- struct{}) {
				time.Sleep(30 * time.Millisecond)
				f.die()
			})
			wantLog(t, f, "0s committed [one two]", "100ms committed [one]")
		}},
		{"tries again what was lost", func(t *testing.T, f *fakeLeader) {
			f.lost = 2
			lead(f, time.Second, nil)
			wantLog(t, f, "0s lost", "100ms lost", "200ms committed [one two]")
		}},
		{"commits nothing twice", func(t *testing.T, f *fakeLeader) {
			f.ambiguous = true
			lead(f, time.Second, nil)
			wantLog(t, f, "0s ambiguous")
			if e := f.m.Copy().Groups["one"].Epoch; e != 1 {
				t.Errorf("epoch %d after one assignment", e)
			}
		}},
		{"does not go on with a plan whose first part failed", func(t *testing.T, f *fakeLeader) {
			lead(f, 0, nil)
			f.log = nil
			f.tokens[parseClaim("one@1", "a/1")] = true
			f.die()
			if n := len(Plan(f.inputs())); n < 2 {
				t.Fatalf("the plan has %d commands, the test wants more", n)
			}
			f.lost = 1
			f.begin = time.Now()
			lead(f, time.Second, nil)
			wantLog(t, f, "0s lost", "100ms committed [one]", "100ms committed [one]")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(t, newFakeLeader()) })
		})
	}
}

// TestLeadTakesARackOver: the nodes of a rack are fenced side by side, so that the last of
// them does not wait for a commit of each before it; and when some of that is lost, the
// next look does the rest.
func TestLeadTakesARackOver(t *testing.T) {
	for _, lost := range []int{0, 7} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeLeader{world: bigWorld(t, 300, 900, false), begin: time.Now(), wait: 5 * time.Millisecond, lost: lost}
			f.loseRack()
			lead(f, 50*time.Millisecond, nil)
			fenced := 0
			for _, n := range f.m.Copy().Nodes {
				if n.Fenced {
					fenced++
				}
			}
			if lost == 0 && (fenced != rackNodes || f.most != rackNodes) {
				t.Errorf("%d nodes are fenced after 50 ms, %d proposals were under way at once", fenced, f.most)
			}
			lead(f, 250*time.Millisecond, nil)
			if again := Plan(f.inputs()); len(again) > 0 {
				t.Errorf("still to do: %d commands", len(again))
			}
		})
	}
}
