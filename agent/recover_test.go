package agent

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/fsm"
	"hanode/vip"
)

// recover runs the command on a host whose agent does not run.
func (h *host) recover(confirm string) (Recovery, error) {
	h.mu.Lock()
	disk := h.disk.mount(newLife())
	h.mu.Unlock()
	return recoverWith(h.config(), confirm, slog.New(slog.DiscardHandler), func() (cluster.Stores, error) {
		return cluster.Stores{Log: disk, Stable: disk, Snapshots: disk.snaps, Probe: disk.probe}, nil
	})
}

func (h *host) has(code string) bool {
	a, _ := h.running()
	return a != nil && slices.ContainsFunc(a.local(), func(p api.StatusProblem) bool { return p.Code == code })
}

// Two of three are lost. The third goes on alone when somebody says so, waits for what
// the lost may have held, and takes others in; who comes back of the lost holds nothing.
func TestRecoverFromTheLossOfAMajority(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third"}, func(t *testing.T, l *lab) {
		left := l.hosts["secondary"] // owned nothing
		if _, err := left.recover(""); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
			t.Errorf("while the agent runs: %v", err)
		}
		l.hosts["arbiter"].powerCut()
		l.hosts["primary"].powerCut()
		time.Sleep(5 * time.Second)
		left.halt()
		r, err := left.recover("")
		if err != nil || r.Backup != "" || r.Generation != 1 || r.Confirm != "secondary goes on without arbiter, primary" || r.Index == 0 || !slices.Equal(r.Groups, []string{"web (primary)"}) {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = left.recover("yes"); err != nil || r.Backup != "" {
			t.Fatalf("another sentence will do: %+v, %v", r, err)
		}
		if r, err = left.recover(r.Confirm); err != nil || r.Backup == "" {
			t.Fatalf("%+v, %v", r, err)
		}
		begin := time.Now()
		left.start()
		l.until("it holds alone", 20*time.Second, l.held("secondary"))
		if d := time.Since(begin); d < l.tm.Deadtime {
			t.Errorf("it held after %v, before the lost one's lease must have ended", d)
		}
		// The lost come back, both, a majority of the old voters.
		for _, n := range []string{"primary", "arbiter"} {
			l.hosts[n].start()
		}
		l.until("they are told", 20*time.Second, func() bool {
			for _, n := range []string{"primary", "arbiter"} {
				if !l.hosts[n].has("removed") && !l.hosts[n].has("old-generation") {
					return false
				}
			}
			return true
		})
		time.Sleep(20 * time.Second)
		if !l.held("secondary")() {
			t.Errorf("answers: %v\n%s", l.answers(vipA), l.dump())
		}
		l.hosts["primary"].kill()
		l.hosts["primary"].joins = true
		l.hosts["primary"].disk = newMemDisk()
		for _, n := range []string{"third", "primary"} {
			if _, err := l.hosts[n].join(l.token("secondary"), JoinOptions{Fresh: true}, "secondary", nil); err != nil {
				t.Fatal(err)
			}
			l.hosts[n].start()
		}
		l.until("three vote again", 30*time.Second, l.allVote("primary", "secondary", "third"))
		l.until("failback", 10*time.Second, l.held("primary"))
		var gen uint64
		l.on("primary").machine.View(func(s *fsm.State) { gen = s.Generation })
		if gen != 1 || l.on("primary").disk.generation() != 1 {
			t.Errorf("generation %d", gen)
		}
	})
}

// Not lost but cut off: the operator was wrong. When the network heals, the old
// generation drops what it holds.
func TestOldGenerationDropsEverything(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, nil, func(t *testing.T, l *lab) {
		left := l.hosts["secondary"]
		l.net.Cut("secondary", "", "", true)
		l.net.Cut("", "secondary", "", true)
		time.Sleep(2 * time.Second)
		left.halt()
		if r, err := left.recover("secondary goes on without arbiter, primary"); err != nil || r.Backup == "" {
			t.Fatalf("%+v, %v", r, err)
		}
		// It has no device for the address until the others know: else there would be two
		// holders, which is what the operator was warned of.
		var told atomic.Bool
		left.fits = func(vip.Address) error {
			if told.Load() {
				return nil
			}
			return errors.New("not yet")
		}
		left.start()
		l.net.Heal()
		l.until("they are told", 20*time.Second, func() bool {
			return l.hosts["primary"].has("old-generation") && l.hosts["arbiter"].has("old-generation")
		})
		l.until("they let go", 5*time.Second, func() bool { return len(l.answers(vipA)) == 0 })
		told.Store(true)
		l.until("secondary holds", time.Minute, l.held("secondary"))
	})
}
