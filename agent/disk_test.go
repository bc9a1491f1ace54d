package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hanode/api"
)

// problem is the text of a problem that a node shows of itself; "" = it has none.
func (l *lab) problem(node, code string) string {
	for _, p := range l.on(node).local() {
		if p.Code == code {
			return p.Text
		}
	}
	return ""
}

// A disk that hangs or is full costs an owner nothing: its lease lives from beats.
func TestOwnersDiskHangs(t *testing.T) {
	seconds := 60
	if testing.Short() {
		seconds = 12
	}
	for _, leads := range []string{"arbiter", "primary"} {
		for _, how := range []string{"hangs", "full"} {
			t.Run(how+", "+leads+" leads", func(t *testing.T) {
				story(t, func(t *testing.T, l *lab) {
					l.leadBy(leads)
					done := l.silence(vipA)
					disk, code := l.hosts["primary"].disk, "disk-hung"
					if how == "full" {
						disk.fails.Store(enospc)
						code = "disk-full"
					} else {
						disk.hangs.Store(true)
					}
					for i := range seconds {
						if err := l.on("secondary").Maintenance(t.Context(), i%2 == 0); err != nil {
							t.Errorf("command %d was refused: %v", i, err)
						}
						time.Sleep(time.Second)
					}
					if l.problem("primary", code) == "" {
						t.Errorf("primary does not show %s:\n%s", code, l.dump())
					}
					if l.reigns() == "primary" || l.reigns() == "" {
						t.Errorf("%q leads", l.reigns())
					}
					if longest, moves := done(); longest > time.Millisecond || moves > 0 {
						t.Errorf("the address was silent for %v and moved %d times", longest, moves)
					}
					// Commands are taken where the disk hangs: the leader is elsewhere. And an
					// address is let go without a disk.
					if _, err := l.on("primary").Move(t.Context(), api.MoveRequest{Group: "web", To: "secondary", Wait: 5 * time.Second}); err != nil {
						t.Error(err)
					}
					if !l.held("secondary")() {
						t.Errorf("answers: %v", l.answers(vipA))
					}
					disk.hangs.Store(false)
					disk.fails.Store(0)
					l.well(10 * time.Second)
					l.until("it is not shown any more", time.Second, func() bool { return l.problem("primary", code) == "" })
				})
			})
		}
	}
}

// A group that must go and cannot, because what stops it hangs too, is let go by the
// death of the process.
func TestHungDiskKeepsNoGroup(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		_, sys := l.hosts["primary"].running()
		sys.hang("silence", time.Hour)
		l.hosts["primary"].disk.hangs.Store(true)
		time.Sleep(20 * time.Second)
		if !l.held("primary")() {
			t.Fatalf("answers: %v", l.answers(vipA))
		}
		begin := time.Now()
		_, err := l.on("secondary").Move(t.Context(), api.MoveRequest{Group: "web", To: "secondary", Wait: time.Second})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != "not-moved" {
			t.Errorf("moved: %v", err)
		}
		l.until("the other holds", time.Minute, l.held("secondary"))
		if took := time.Since(begin); took < diskLimit || took > diskLimit+2*time.Second {
			t.Errorf("it took %v", took)
		}
		l.hosts["primary"].disk.hangs.Store(false)
		l.hosts["primary"].start()
		l.well(20 * time.Second)
	})
}

func TestDiskProblems(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		disk := l.hosts["secondary"].disk
		disk.free.Store(diskLow - 1)
		l.until("little space is shown", 15*time.Second, func() bool {
			return strings.Contains(l.problem("secondary", "disk-low"), "63 MiB")
		})
		disk.free.Store(diskLow)
		l.until("it is not shown any more", 15*time.Second, func() bool { return l.problem("secondary", "disk-low") == "" })
	})
}

// Every disk takes 200 ms a write: a takeover commits, late by a few writes, and
// nothing else moves.
func TestSlowDisksFailOver(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		for _, h := range l.order {
			h.disk.stall.Store(int64(200 * time.Millisecond))
		}
		time.Sleep(10 * time.Second)
		begin := time.Now()
		go l.hosts["primary"].powerCut()
		l.until("death", time.Second, func() bool { return len(l.answers(vipA)) == 0 })
		l.until("takeover", 10*time.Second, l.held("secondary"))
		took := time.Since(begin)
		t.Logf("taken over after %v", took)
		if took > l.tm.Deadtime+time.Second {
			t.Errorf("it took %v", took)
		}
		for _, h := range l.order {
			h.disk.stall.Store(0)
		}
	})
}
